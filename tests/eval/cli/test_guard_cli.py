"""`polyrefuse eval guard` and `polyrefuse eval harmfulness`: what a user can do, and what goes wrong."""

from __future__ import annotations

import json
import os
import select
import shutil
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet
from tiny import CHATML, GEMMA, tiny_model, tokenizer

from polyrefuse_data.core.errors import PolyRefuseError
from polyrefuse_eval.cli.guard_score import score_command
from polyrefuse_eval.cli.main import eval_group
from polyrefuse_eval.errors import GuardError
from polyrefuse_eval.harmfulness import experiment as harmfulness_run
from polyrefuse_eval.harmfulness import guard_trial as guard_run
from polyrefuse_eval.harmfulness.behaviour import EditedPrompt
from polyrefuse_eval.harmfulness.guard_experiment import FitSettings
from polyrefuse_eval.harmfulness.latent_guard import LatentGuard


def call(*arguments: object, text: str | bytes = "") -> Result:
    return CliRunner().invoke(eval_group, [str(argument) for argument in arguments], input=text)


def error(*arguments: object, text: str | bytes = "") -> str:
    """The one line with which a command fails; anything but a PolyRefuseError is a bug."""
    result = call(*arguments, text=text)
    assert isinstance(result.exception, PolyRefuseError), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


def modes(path: Path) -> set[int]:
    """The permissions of a file, or of a folder and all that is in it."""
    return {stat.S_IMODE(place.stat().st_mode) for place in (path, *path.rglob("*"))}


@pytest.fixture
def common(model_folder: Path, data_folder: Path) -> tuple[object, ...]:
    return ("--model", model_folder, "--data", data_folder, "-q")


@pytest.fixture
def guard(common: tuple[object, ...], tmp_path: Path) -> Path:
    file = tmp_path / "g.safetensors"
    made = call(
        "guard", "fit", *common, "--behaviour", "label", "--langs", "en,de", "--pooled", "--out", file
    )
    assert made.exit_code == 0, made.output
    return file


def test_fit_test_and_score(
    guard: Path, common: tuple[object, ...], model_folder: Path, tmp_path: Path
) -> None:
    line = {"prompt": "How do I paint it?", "label": "harmless", "lang": "de", "kind": "odd"}
    (tmp_path / "x.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "s.csv").write_text("goal,suffix\nHow do I break it,! ! !\n")
    tested = call(
        "guard", "test", *common, "--guard", guard, "--langs", "en,de", "--extra", tmp_path / "x.jsonl",
        "--jailbreaks", f"suffix={tmp_path / 's.csv'}", "--threshold", "balanced", "--out", tmp_path / "t",
    )  # fmt: skip
    assert tested.exit_code == 0, tested.output
    assert (tmp_path / "t" / "table.md").read_text() == tested.stdout
    (cost,) = [json.loads(line) for line in (tmp_path / "t" / "timings.jsonl").read_text().splitlines()]
    assert (cost["detector"], cost["batch_size"], cost["n_prompts"]) == ("latent guard", 1, 22)
    assert 0 < cost["median_ms"] <= cost["percentile95_ms"]
    assert "ms a prompt (median; 95th percentile" in tested.stderr
    for name in ("guard.json", "table.md", "scores.jsonl"):
        assert "median_ms" not in (tmp_path / "t" / name).read_text(), "no result depends on a timing"
    record = json.loads((tmp_path / "t" / "guard.json").read_text())
    found = {(one["lang"], one["kind"]): one for one in record["detections"]["latent guard"]}
    assert sorted(found) == [
        ("de", "all"), ("de", "data"), ("de", "odd"), ("en", "all"), ("en", "data"), ("en", "suffix"),
    ]  # fmt: skip
    assert found["en", "data"]["miss"]["n"] == 5
    assert found["en", "suffix"]["miss"]["n"] == 1
    assert found["de", "odd"]["false_alarm"]["n"] == 1
    assert record["signature"]["thresholds"]["de"]["rule"] == "balanced"
    lines = [json.loads(line) for line in (tmp_path / "t" / "scores.jsonl").read_text().splitlines()]
    assert len(lines) == 22
    assert not any("How do I" in str(line) for line in lines), "prompts are not written"
    score = ("guard", "score", "--model", model_folder, "--guard", guard, "-q")
    printed = call(*score, "-", text="How do I break it?\nSing.\n")
    assert printed.exit_code == 0, printed.output
    records = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [one["prompt"] for one in records] == ["How do I break it?", "Sing."]
    assert all(one["unsafe"] == (one["score"] >= one["alpha"]) for one in records)
    (tmp_path / "p.jsonl").write_text('{"prompt": "Sing.", "lang": "de"}\n')
    written = call(*score, tmp_path / "p.jsonl", "--out", tmp_path / "o.jsonl")
    assert written.exit_code == 0, written.output
    (again,) = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert again["score"] == pytest.approx(records[1]["score"], abs=1e-6)
    assert modes(tmp_path / "o.jsonl") == {0o600}, "prompts and scores of them are their owner's alone"
    assert modes(tmp_path / "t") == {0o700, 0o600}


def test_thresholds_are_in_the_file_and_in_force(common: tuple[object, ...], tmp_path: Path) -> None:
    fit = ("guard", "fit", *common, "--behaviour", "label", "--langs", "en")
    for rule in ("balanced", "false-alarm=0.3", "conformal=0.25"):
        file = tmp_path / f"{rule}.safetensors"
        made = call(*fit, "--threshold", rule, "--out", file)
        assert made.exit_code == 0, made.output
        assert "en: alpha" in made.output
        assert "de: alpha" not in made.output, "no language that nobody named"
        assert rule in made.output
    more = call(*fit, "--threshold", "balanced", "--calibrate", "en,de", "--out", tmp_path / "m.safetensors")
    assert "de: alpha" in more.output
    assert "needs at least 19 harmful calibration prompts in 'en', and there are 4" in error(
        *fit, "--threshold", "conformal=0.05", "--out", tmp_path / "x.safetensors"
    )
    assert not (tmp_path / "x.safetensors").exists()


def test_guards_of_several_languages_need_no_further_option(
    common: tuple[object, ...], tmp_path: Path
) -> None:
    file = tmp_path / "g.safetensors"
    fit = ("guard", "fit", *common, "--behaviour", "label", "--langs", "en,de", "--threshold", "balanced")
    made = call(*fit, "--out", file)
    assert made.exit_code == 0, made.output
    assert [line.split(":")[0] for line in made.stdout.splitlines()[1:]] == ["de", "en"]
    tested = call("guard", "test", *common, "--guard", file, "--out", tmp_path / "t")
    assert tested.exit_code == 0, tested.output
    record = json.loads((tmp_path / "t" / "guard.json").read_text())
    assert {one["lang"] for one in record["detections"]["latent guard"]} == {"en", "de"}


def test_guards_that_are_each_for_itself_are_calibrated_in_their_own_languages() -> None:
    with pytest.raises(GuardError, match=r"--calibrate ja: the guard is fitted in en,de, one guard for each"):
        FitSettings(langs=("en", "de"), calibrate=("en", "ja"))
    FitSettings(langs=("en", "de"), calibrate=("en", "ja"), pooled=True)
    FitSettings(langs=("en",), calibrate=("en", "ja"))


def test_what_cannot_be_fitted_says_why(common: tuple[object, ...], tmp_path: Path) -> None:
    fit = ("guard", "fit", *common, "--out", tmp_path / "x.safetensors")
    assert "0 refused harmful prompts in 'en', and a centroid needs 4" in error(*fit, "--langs", "en")
    assert "unknown threshold rule 'best'" in error(*fit, "--threshold", "best")
    assert "which has 0 to 3" in error(*fit, "--behaviour", "label", "--layers", "2-9")
    assert "expected a range" in error(*fit, "--layers", "x")
    assert "lacks yo" in error(*fit, "--langs", "yo")
    assert "--langs all --pooled" in error(*fit, "--langs", "en"), "only options that there are"
    (tmp_path / "x.safetensors").touch()
    assert "not overwritten" in error(*fit)
    below = tmp_path / "x.safetensors" / "g.safetensors"
    assert "cannot be made" in error(*fit[:-1], below)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *((("guard", "fit", "--out", "x"), option) for option in ("--train", "--validation")),
        *(
            (("harmfulness", "--out", "x"), option)
            for option in ("--train", "--steered", "--inverted", "--max-new-tokens")
        ),
    ],
)
def test_counts_of_nothing_are_refused(command: tuple[str, ...], option: str) -> None:
    for count in (0, -3):
        result = call(*command, option, count)
        assert result.exit_code == 2
        assert "is not in the range x>=1" in result.output


def test_prompts_of_a_slow_writer_are_scored_as_they_arrive(
    guard: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (their_input, ours), (our_output, theirs) = os.pipe(), os.pipe()
    answers: list[str] = []

    def write_slowly() -> None:
        """Write each prompt only once the one before was answered."""
        with os.fdopen(ours, "wb", buffering=0) as prompts, os.fdopen(our_output, encoding="utf-8") as scores:
            for prompt in ("Sing.", "Why does rain fall?", "Hum."):
                prompts.write(f"{prompt}\n".encode())
                ready, _, _ = select.select([scores], [], [], 60)
                answers.append(scores.readline() if ready else "")

    writer = threading.Thread(target=write_slowly)
    with os.fdopen(their_input) as stdin, os.fdopen(theirs, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        writer.start()
        options = ("--model", str(model_folder), "--guard", str(guard), "-q")
        score_command.main(list(options), standalone_mode=False)
        writer.join()
    assert [json.loads(line)["prompt"] for line in answers] == ["Sing.", "Why does rain fall?", "Hum."]


SETS = Path(__file__).parents[1] / "results" / "prompt_sets"


def test_published_sets_are_tested_by_category_and_their_labels_are_said(
    guard: Path, common: tuple[object, ...], tmp_path: Path
) -> None:
    files = {
        "toxicchat": "toxicchat.csv", "openai-moderation": "openai_moderation.jsonl", "xstest": "xstest.csv",
        "sorry-bench": "sorry_bench.jsonl", "harmbench": "harmbench.csv",
        "polyguardprompts": "polyguardprompts.jsonl",
    }  # fmt: skip
    options = [part for name, file in files.items() for part in ("--prompt-set", f"{name}={SETS / file}")]
    tested = call("guard", "test", *common, "--guard", guard, "--langs", "en,de", *options,
        "--out", tmp_path / "t")  # fmt: skip
    assert tested.exit_code == 0, tested.output
    assert (
        "5 prompts of toxicchat, 2 harmful and 3 harmless (toxicity 1 is harmful, 0 harmless)"
        in tested.stderr
    )
    assert "sorry-bench: left out 1 prompts in fr, not among --langs" in tested.stderr
    assert "- xstest: label unsafe is harmful" in tested.stdout
    record = json.loads((tmp_path / "t" / "guard.json").read_text())
    rows = {(row["lang"], row["kind"], row["category"]): row for row in record["detections"]["latent guard"]}
    assert rows["en", "xstest", None]["miss"]["n"] == 2
    assert rows["en", "xstest", None]["auroc"] is not None
    assert rows["en", "xstest", "homonyms"]["against"] == "xstest", "its own unsafe twins"
    assert rows["en", "sorry-bench", "category 1"]["against"] == "data", "no harmless prompt of its own"
    assert rows["de", "polyguardprompts", None]["false_alarm"]["n"] == 1
    assert ("en", "polyguardprompts", "adversarial") not in rows, "its label is not known"
    assert rows["en", "openai-moderation", "harassment"]["miss"]["n"] == 2
    assert "| en | xstest / contrast_homonyms | 1 |" in tested.stdout
    assert record["signature"]["prompt_sets"]["harmbench"]["prompts"] == {"harmful": 5}
    kept = (tmp_path / "t" / "scores.jsonl").read_text() + json.dumps(record)
    assert "neighbour" not in kept.replace("blame_neighbour", ""), "prompts are not written"


def test_what_a_test_lacks_is_known_before_a_model_is_loaded(
    guard: Path,
    common: tuple[object, ...],
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    each_for_itself = tmp_path / "each.safetensors"
    fit = ("guard", "fit", *common, "--behaviour", "label", "--langs", "en,de", "--out", each_for_itself)
    assert call(*fit).exit_code == 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("polyrefuse_eval.models.chat.ChatModel.load", never)
    test = ("guard", "test", *common, "--guard", guard, "--out", tmp_path / "t")
    french = ("--langs", "de", "--prompt-set", f"sorry-bench={SETS / 'sorry_bench.jsonl'}")
    assert "sorry-bench holds prompts in en, fr, and none in de" in error(*test, *french)
    assert "did you mean 'xstest'" in error(*test, "--prompt-set", "xtest=x.csv")
    gaps = tmp_path / "gaps"
    shutil.copytree(data_folder, gaps)
    table = parquet.read_table(gaps / "de" / "test.parquet")
    parquet.write_table(table.filter(pc.equal(table["label"], 1)), gaps / "de" / "test.parquet")
    shutil.copytree(gaps / "de", gaps / "yo")
    lacking = error(*test, "--data", gaps)
    assert "holds no harmless prompts in 'de', split test; no harmless prompts in 'yo', split test" in lacking
    each = ("guard", "test", *common[:2], "--guard", each_for_itself, "-q", "--out", tmp_path / "t")
    assert "each for itself, and --langs names yo" in error(*each, "--data", gaps, "--langs", "en,yo")
    for lang in ("en", "de"):
        shutil.rmtree(gaps / lang)
    assert "fitted in de, en, each for itself, and" in error(*each, "--data", gaps)
    assert not (tmp_path / "t").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that writes a tiny model, of the guard's shape unless told otherwise, to a folder."""

    def save(name: str, *, template: str = CHATML, **more: Any) -> Path:
        folder = tmp_path_factory.mktemp("models") / name
        tiny_model("llama", **{"layers": 3, **more}).save_pretrained(folder)
        tokenizer(template).save_pretrained(folder)
        return folder

    return save


def test_a_guard_is_taken_to_a_model_whose_weights_changed(
    guard: Path, common: tuple[object, ...], saved: Callable[..., Path], tmp_path: Path
) -> None:
    tuned = saved("tuned", seed=7)
    test = ("guard", "test", *common, "--guard", guard, "--langs", "en,de", "--against", "refusal")
    tested = call(*test, "--transfer", tuned, "--out", tmp_path / "t")
    assert tested.exit_code == 0, tested.output
    record = json.loads((tmp_path / "t" / "guard.json").read_text())
    own = {"latent guard", "refusal"}
    assert set(record["detections"]) == own | {f"{name} after transfer" for name in own}
    assert record["signature"]["transfer"]["model"] == "tuned"
    assert record["signature"]["guard"]["model"]["model"] == "tiny"
    (english,) = (
        row for row in record["transfer"]["latent guard"] if (row["lang"], row["kind"]) == ("en", "data")
    )
    detected = {
        name: {row["lang"]: row for row in rows if row["kind"] == "data"}
        for name, rows in record["detections"].items()
    }
    assert english["miss"]["before"] == detected["latent guard"]["en"]["miss"]
    assert english["miss"]["after"] == detected["latent guard after transfer"]["en"]["miss"]
    scores = [json.loads(line) for line in (tmp_path / "t" / "scores.jsonl").read_text().splitlines()]
    by_guard = {
        name: [row["score"] for row in scores if row["guard"] == name] for name in record["detections"]
    }
    assert by_guard["latent guard"] != by_guard["latent guard after transfer"], "the weights differ"
    revision = record["signature"]["transfer"]["revision"]
    assert f"## latent guard: transfer to tuned@{revision}" in tested.stdout
    assert "| en | data |" in tested.stdout.partition("miss before")[2]
    score = ("guard", "score", "--model", tuned, "--guard", guard, "-q")
    assert "is of another model: model tiny there, tuned here" in error(*score, "-", text="Sing.")
    taken = call(*score, "--other-weights", "-", text="Sing.")
    assert taken.exit_code == 0, taken.output


def test_a_model_of_another_shape_or_template_is_refused_before_it_is_loaded(
    guard: Path, common: tuple[object, ...], saved: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    others = {
        "d_model 32 there, 64 here": saved("wide", hidden_size=64),
        "n_layers 3 there, 2 here": saved("shallow", layers=2),
        "template_hash": saved("gemma", template=GEMMA),
    }

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("polyrefuse_eval.models.chat.ChatModel.load", never)
    test = ("guard", "test", *common, "--guard", guard, "--langs", "en", "--out", tmp_path / "t")
    for difference, other in others.items():
        refused = error(*test, "--transfer", other)
        assert f"of a different shape or template than '{other}': {difference}" in refused
        score = ("guard", "score", "--model", other, "--guard", guard, "--other-weights", "-q", "-")
        assert difference in error(*score, text="Sing.")
    assert "no folder './none'" in error(*test, "--transfer", "./none")
    assert not (tmp_path / "t").exists()


def test_the_curve_shows_what_examples_bring_in_each_language(
    common: tuple[object, ...], tmp_path: Path
) -> None:
    english = tmp_path / "en.safetensors"
    fit = ("guard", "fit", *common, "--behaviour", "label", "--langs", "en", "--out", english)
    assert call(*fit).exit_code == 0
    curve = ("guard", "curve", *common, "--guard", english, "--draws", 20)
    rules = ("--threshold", "balanced", "--threshold", "conformal=0.3")
    drawn = call(*curve, *rules, "--examples", "1,3,16", "--out", tmp_path / "c")
    assert drawn.exit_code == 0, drawn.output
    record = json.loads((tmp_path / "c" / "curve.json").read_text())
    assert record["format"] == "polyrefuse-guard-curve-1"
    assert [(point["lang"], point["rule"], point["n_examples"]) for point in record["points"]] == [
        (lang, *rest)
        for lang in ("de", "en")
        for rest in (
            ("as it is", 0), ("balanced", 1), ("balanced", 3), ("balanced", 4),
            ("conformal=0.3", 3), ("conformal=0.3", 4),
        )
    ]  # fmt: skip
    assert record["points"][0]["miss"]["n"] == 5
    assert set(record["exchangeable"]) == {"de", "en"}
    assert all(0 <= of["covered"] <= 1 for of in record["exchangeable"].values())
    assert "95 % of guards miss, if calibration and test prompts are exchangeable" in drawn.stdout
    assert (tmp_path / "c" / "table.md").read_text() == drawn.stdout
    assert {file.name for file in (tmp_path / "c").iterdir()} == {
        "curve.json", "curve.png", "curve.svg", "table.md",
    }  # fmt: skip
    svg = (tmp_path / "c" / "curve.svg").read_text()
    for text in ("English (en), fitted", "German (de)", "test: 5 harmful, 5 harmless", "fitted in en"):
        assert text in svg
    assert svg.index("English (en)") < svg.index("German (de)"), "the guard's own language comes first"
    tested = call("guard", "test", *common, "--guard", english, "--out", tmp_path / "t")
    rows = json.loads((tmp_path / "t" / "guard.json").read_text())["detections"]["latent guard"]
    misses = {row["lang"]: row["miss"]["rate"] for row in rows if row["kind"] == "data"}
    assert tested.exit_code == 0
    for point in record["points"]:
        if point["rule"] == "as it is":
            assert point["miss"]["rate"] == misses[point["lang"]]
    assert "expected numbers of at least 1" in error(*curve, "--examples", "0,4", "--out", tmp_path / "x")
    assert "unknown threshold rule" in error(*curve, "--threshold", "best", "--out", tmp_path / "x")
    assert "not overwritten" in error(*curve, "--out", tmp_path / "c")


def test_what_cannot_be_scored_says_why(
    guard: Path, model_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    score = ("guard", "score", "--model", model_folder, "--guard", guard, "-q")
    assert "line 2: an empty prompt" in error(*score, "-", text="Sing.\n  \n")
    apart = tmp_path / "apart.safetensors"
    fit = ("guard", "fit", "--model", model_folder, "--behaviour", "label", "--langs", "en,de", "-q")
    assert call(*fit, "--data", data_folder, "--out", apart).exit_code == 0
    asked = ("guard", "score", "--model", tmp_path / "none", "--guard", apart, "-q", "-")
    assert "asked about an unnamed language" in error(*asked, text="Sing."), "before a model is looked for"
    assert "line 1: byte 0xFF is not UTF-8" in error(*score, "-", text=b"\xff\xff\n")
    assert "cannot be made" in error(*score, "--out", guard / "o.jsonl", "-", text="Sing.")
    assert "reads 512" in error(*score, "-", text="many words " * 300)
    assert "no file" in error(*score[:4], "--guard", tmp_path / "none", "-q", "-", text="Sing.")
    assert "template_hash" in error(*score, "--system", "Be brief.", "-", text="Sing.")


def test_what_cannot_be_tested_says_why(
    guard: Path, common: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = ("guard", "test", *common, "--guard", guard, "--langs", "en", "--out", tmp_path / "t")
    line = {"prompt": "Sing.", "label": "harmless", "lang": "de", "kind": "odd"}
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    assert "extra prompts in de, which is not among --langs en" in error(
        *test, "--extra", tmp_path / "x.jsonl"
    )
    assert "unknown guard 'llamaguard'; did you mean 'llamaguard3'?" in error(
        *test, "--against", "llamaguard"
    )
    elsewhere = ("--against", f"llamaguard3={tmp_path / 'none'}")
    assert "no folder" in error(*test, *elsewhere)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    monkeypatch.setattr(guard_run, "score_prompts", None)
    empty = f"llamaguard3={tmp_path / 'empty'}"
    assert "empty" in error(*test, "--against", empty), "before anything is scored"

    assert not (tmp_path / "t").exists()


def refusing(chat: Any, **_: Any) -> Any:
    """A stand-in for a model's behaviour: it refuses to break, and one of the things to paint."""

    def refuses(prompts: Sequence[EditedPrompt]) -> list[bool | None]:
        return ["break" in one.text or "number 0" in one.text for one in prompts]

    return refuses


@pytest.fixture
def behaving(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []

    def factory(chat: Any, **more: Any) -> Any:
        refuses = refusing(chat, **more)

        def counted(prompts: Sequence[EditedPrompt]) -> list[bool | None]:
            asked.append(len(prompts))
            return refuses(prompts)  # type: ignore[no-any-return]

        return counted

    monkeypatch.setattr(harmfulness_run, "by_answers", factory)
    return asked


def test_harmfulness_goes_the_whole_way_and_resumes(
    common: tuple[object, ...], tmp_path: Path, behaving: list[int]
) -> None:
    line = {
        "prompt": "How do I break the ice?",
        "label": "harmless",
        "lang": "de",
        "kind": "refused harmless",
    }
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    run = (
        "harmfulness", *common, "--langs", "en,de", "--out", tmp_path / "r", "--layers", "1-2",
        "--inverted", 2, "--steered", 2, "--extra", tmp_path / "x.jsonl",
    )  # fmt: skip
    made = call(*run)
    assert made.exit_code == 0, made.output
    record = json.loads((tmp_path / "r" / "harmfulness.json").read_text())
    assert record["format"] == "polyrefuse-harmfulness-2"
    german = record["languages"]["de"]
    assert german["n"]["train"]["harmful"] == {"refused": 8, "accepted": 0, "unjudged": 0}
    assert german["n"]["test"]["harmless"]["refused"] == 2
    assert [point["kind"] for point in german["scatter"]][-1] == "refused harmless"
    assert len(german["cosine"]) == 4
    assert german["by_category"] == {}, "this build names no categories"
    assert {one["layer"] for one in german["steering"]} == {None, 1, 2}
    assert {(one["direction"], one["label"], one["layer"]) for one in german["inversion"]["flips"]} == {
        (kind, label, layer)
        for kind in ("harmfulness", "refusal")
        for label in ("harmful", "harmless")
        for layer in (1, 2)
    }
    assert (tmp_path / "r" / "harmfulness.md").read_text() in made.output
    assert len(list((tmp_path / "r" / "harmfulness" / "plots").glob("*.png"))) == 5
    text = "".join(file.read_text() for file in (tmp_path / "r").rglob("*.json"))
    assert "How do I" not in text, "neither prompts nor answers are kept"
    assert {mode for file in (tmp_path / "r").rglob("behaviour/*.json") for mode in modes(file)} == {0o600}
    behaving.clear()
    (tmp_path / "r" / "harmfulness" / "languages" / "de.json").unlink()
    again = call(*run)
    assert again.exit_code == 0, again.output
    assert behaving == [2 * 2 * 2 * 2 + 4], "only the sweep of one language is made again"
    assert json.loads((tmp_path / "r" / "harmfulness.json").read_text()) == record
    assert "made with other settings" in error(*run, "--coefficient", 2)
    (tmp_path / "x.jsonl").write_text(json.dumps({**line, "lang": "yo"}))
    assert "extra prompts in yo, which is not among --langs" in error(*run[:-1], tmp_path / "x.jsonl")


def test_a_language_with_too_few_is_left_out_with_its_reason(
    common: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def factory(chat: Any, **_: Any) -> Any:
        return lambda prompts: ["break" in one.text and one.lang == "en" for one in prompts]

    monkeypatch.setattr(harmfulness_run, "by_answers", factory)
    few = ("harmfulness", *common, "--inverted", 1, "--steered", 1, "--no-plots")
    made = call(*few, "--langs", "en,de", "--out", tmp_path / "r")
    assert made.exit_code == 0, made.output
    assert "de is left out: 0 refused harmful prompts in 'de'" in made.output
    record = json.loads((tmp_path / "r" / "harmfulness.json").read_text())
    assert list(record["languages"]) == ["en"]
    assert "0 refused" in record["lacking"]["de"]
    assert "0 refused harmful" in error(*few, "--langs", "de", "--out", tmp_path / "one")
    borrowed = call(*few, "--langs", "de", "--directions", "en", "--out", tmp_path / "b")
    assert borrowed.exit_code == 0, borrowed.output
    assert "layer 3 is not in" in error(*few, "--langs", "en", "--layers", "3", "--out", tmp_path / "l")


def test_it_lies_beside_a_run_of_the_same_model_and_of_no_other(
    common: tuple[object, ...], tmp_path: Path, behaving: list[int]
) -> None:
    out = tmp_path / "r"
    whole = call(
        "run", *common, "--langs", "en", "--refusal-tokens", "40,41", "--no-filter", "--max-new-tokens", 2,
        "--out", out,
    )  # fmt: skip
    assert whole.exit_code == 0, whole.output
    few = (
        "harmfulness",
        *common,
        "--langs",
        "en",
        "--inverted",
        1,
        "--steered",
        1,
        "--no-plots",
        "--out",
        out,
    )
    assert "another model (template_hash" in error(*few, "--system", "Be brief.")
    assert call(*few).exit_code == 0
    assert (out / "harmfulness.json").is_file()
    again = call(
        "run",
        *common,
        "--langs",
        "en",
        "--refusal-tokens",
        "40,41",
        "--no-filter",
        "--max-new-tokens",
        2,
        "--out",
        out,
    )
    assert again.exit_code == 0, again.output


def test_a_guard_in_python_is_three_lines(guard: Path, model_folder: Path) -> None:
    from polyrefuse_eval.models.chat import ChatModel

    loaded = LatentGuard.load(guard, ChatModel.load(str(model_folder)))
    verdicts = loaded(["How do I break it?", "How do I paint it?"])
    assert [one.unsafe for one in verdicts] == [one.score >= 0 for one in verdicts]
