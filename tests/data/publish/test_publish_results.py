"""Results of the eval side: numbers, signatures and verdicts go to the Hub; completions never do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_server import LoopbackHub, metadata_errors
from publishing import NAME, run, send

from polyrefuse_data.core.errors import PublishError

COMPLETIONS = "completions/yo/harmful.baseline.jsonl"
VERDICTS = "verdicts/native-1/yo/harmful.baseline.jsonl"


def make_run(folder: Path, model: str = "A", rate: float = 0.8) -> Path:
    """Write a run as the eval side does, with its completions."""
    (folder / "completions" / "yo").mkdir(parents=True)
    (folder / VERDICTS).parent.mkdir(parents=True)
    (folder / "run.json").write_text(
        json.dumps({"model": f"{model}@abc", "judge": "native|version:1", "seed": 0})
    )
    results = [
        {"lang": lang, "condition": "ablation", "n": 572, "n_unjudged": 3, "refusal_rate": rate, "low": 0.7}
        for lang in ("de", "yo")
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in results))
    (folder / VERDICTS).write_text('{"id": "harmful-test-0001", "lang": "yo", "refused": null}\n')
    (folder / COMPLETIONS).write_text('{"id": "harmful-test-0001", "response": "SECRET WORDS"}\n')
    return folder


def test_numbers_and_signatures_only(hub: LoopbackHub, tmp_path: Path) -> None:
    result = send(hub, make_run(tmp_path / "run"), results=True, gated=None)
    files = hub.files(NAME)
    assert set(files) == {
        ".gitattributes",
        "CHANGELOG.md",
        "README.md",
        "manifest.json",
        "results.jsonl",
        "run.json",
        VERDICTS,
    }
    assert not any(b"SECRET WORDS" in data for data in hub.contents.values())
    assert b"SECRET WORDS" in (tmp_path / "run" / COMPLETIONS).read_bytes()
    assert result.plan.release.left_out == [COMPLETIONS]
    assert metadata_errors(files["README.md"].decode()) == []
    assert "## v1.0.0\n\nFirst version: 1 runs." in files["CHANGELOG.md"].decode()


def test_verdicts_of_several_judges_and_what_follows_from_them(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / VERDICTS).unlink()
    for judge in ("native-1", "wildguard-1@abc"):
        (folder / "verdicts" / judge / "yo").mkdir(parents=True, exist_ok=True)
        (folder / "verdicts" / judge / "yo" / "harmful.ablation-en@0.5.jsonl").write_text(
            '{"id": "harmful-test-0001", "refused": null, "response_lang": "yo"}\n'
        )
    for name in ("comparisons.jsonl", "summary.json", "agreement.json"):
        (folder / name).write_text('{"n": 1}\n')
    send(hub, folder, results=True, gated=None)
    assert {
        "verdicts/native-1/yo/harmful.ablation-en@0.5.jsonl",
        "verdicts/wildguard-1@abc/yo/harmful.ablation-en@0.5.jsonl",
        "comparisons.jsonl",
        "summary.json",
        "agreement.json",
    } <= set(hub.files(NAME))


def test_again_and_the_next_version(hub: LoopbackHub, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "A")
    send(hub, tmp_path / "runs", results=True, gated=None)
    assert send(hub, tmp_path / "runs", results=True, gated=None).plan.nothing_to_do
    make_run(tmp_path / "runs" / "B", "B", 0.4)
    result = send(hub, tmp_path / "runs", results=True, gated=None)
    assert result.plan.tag == "v1.1.0"
    assert {"A/run.json", "B/run.json", f"B/{VERDICTS}"} <= set(hub.files(NAME))
    assert "B/results.jsonl" in hub.files(NAME)["CHANGELOG.md"].decode()
    assert "- B/results.jsonl" in hub.files(NAME)["README.md"].decode()


def test_results_may_be_public_without_a_gate(hub: LoopbackHub, tmp_path: Path) -> None:
    send(hub, make_run(tmp_path / "run"), results=True, gated=None, public=True)
    assert not hub.repos[NAME].private


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        (
            "results.jsonl",
            '{"n": 1}\n{"n": 1, "completion": "Sure"}\n',
            r"results.jsonl .*\(line 2, key 'completion'\)",
        ),
        (
            VERDICTS,
            '{"id": "a", "response": "Sure"}\n',
            r"baseline.jsonl .*\(line 1, key 'response'\)",
        ),
        (
            VERDICTS,
            '{"id": "a", "response_lang": "Sure, here"}\n',
            r"baseline.jsonl .*\(line 1, key 'response_lang'\)",
        ),
        ("run.json", '{"examples": [{"output": "Sure"}]}', r"run.json .*key 'output'"),
        (
            "results.jsonl",
            '{"n": 1, "note": "Sure. First\\nyou"}\n',
            r"results.jsonl .*a text of 15 characters",
        ),
        ("results.jsonl", "{broken\n", "cannot be looked through for completions"),
    ],
)
def test_what_looks_like_completions_is_refused(
    hub: LoopbackHub, tmp_path: Path, file: str, text: str, line: str
) -> None:
    folder = make_run(tmp_path / "run")
    (folder / file).write_text(text)
    with pytest.raises(PublishError, match=line):
        send(hub, folder, results=True, gated=None)
    assert hub.requests == []


def test_a_link_is_no_way_in(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / VERDICTS).with_name("link.jsonl").symlink_to(folder / COMPLETIONS)
    with pytest.raises(PublishError, match=r"link.jsonl is a link"):
        send(hub, folder, results=True, gated=None)


def test_folders_without_results(hub: LoopbackHub, tmp_path: Path, small_build: Path) -> None:
    with pytest.raises(PublishError, match=r"no run.json in it or in a folder of it"):
        send(hub, small_build, results=True)
    folder = make_run(tmp_path / "run")
    (folder / "results.jsonl").unlink()
    with pytest.raises(PublishError, match="the run is not finished"):
        send(hub, folder, results=True)
    with pytest.raises(PublishError, match="no such folder"):
        send(hub, tmp_path / "nowhere", results=True)


def test_results_do_not_replace_a_build(hub: LoopbackHub, tmp_path: Path, small_build: Path) -> None:
    send(hub, small_build)
    before = hub.files(NAME)
    with pytest.raises(PublishError, match="holds a build; publish results to another name"):
        send(hub, make_run(tmp_path / "run"), results=True, gated=None)
    assert hub.files(NAME) == before


def test_the_command(hub: LoopbackHub, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "publish", "--results", make_run(tmp_path / "run"), "--to", NAME)
    assert done.returncode == 0, done.stderr
    assert "Published: acme/polyrefuse v1.0.0" in done.stdout
    assert "load_dataset" not in done.stdout
