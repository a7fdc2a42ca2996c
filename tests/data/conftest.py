"""Fixtures of the builder's tests: builds of the embedded sample, and the real material where it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import LoopbackHub

from polyrefuse_data.build.pipeline import BuildRequest, BuildResult, build
from polyrefuse_data.core.schema import Prompt
from polyrefuse_data.prompts.sample import sample_prompts

SHARED = Path(__file__).parents[3] / "shared" / "data"
SMALL_LANGS = ("en", "ja", "yo")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The upstream sources and the published release; tests that need them skip where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("the upstream material is not beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def sample_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete build of the embedded sample in all languages; read only."""
    folder = tmp_path_factory.mktemp("builds") / "sample"
    assert build(BuildRequest("sample", out=folder)).complete
    return folder


SMALL = {"train": 16, "validation": 16, "test": 24}


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., BuildResult]:
    """Build the sample small: `small(out=..., seed=...)`."""

    def run(**changes: object) -> BuildResult:
        request = {"recipe": "sample", "langs": SMALL_LANGS, "size": SMALL, "out": tmp_path / "small"}
        return build(BuildRequest(**{**request, **changes}))  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def small_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small complete build of the sample in three languages; read only."""
    folder = tmp_path_factory.mktemp("builds") / "small"
    build(BuildRequest("sample", langs=SMALL_LANGS, size=SMALL, out=folder))
    return folder


ReleaseWriter = Callable[..., Path]


@pytest.fixture
def release(tmp_path: Path) -> ReleaseWriter:
    """Write a release in the published layout from the embedded sample.

    `change(name, rows)` may alter the rows of a file, by its name, or return None to leave it out.
    """

    def write(
        change: Callable[[str, list[dict[str, str]]], list[dict[str, str]] | None] = lambda name, rows: rows,
        langs: tuple[str, ...] = ("de", "yo", "zh"),
        rows: int = 60,
    ) -> Path:
        root = tmp_path / "release"
        for folder in ("translations", "english", "back"):
            (root / folder).mkdir(parents=True, exist_ok=True)

        def put(folder: str, name: str, items: list[dict[str, str]]) -> None:
            kept = change(name, items)
            if kept is not None:
                text = json.dumps(kept, ensure_ascii=False)
                (root / folder / name).write_text(text, encoding="utf-8")

        for label in ("harmful", "harmless"):
            prompts = [prompt for prompt in sample_prompts() if prompt.label == label]
            # a stride that is prime to the 8 framings mixes framings and topics
            mixed = [prompts[(index * 7) % len(prompts)] for index in range(3 * rows)]
            for number, split in enumerate(("train", "val", "test")):
                chosen = mixed[number * rows : (number + 1) * rows]
                put("english", f"{label}_{split}.json", [{"instruction": one.text} for one in chosen])
                for lang in langs:
                    put("translations", f"{label}_{split}_translated_{lang}.json", _rows(chosen, split, lang))
                    if split == "test" and label == "harmful":
                        put("back", f"{label}_{split}_back_translated_{lang}.json", _backs(chosen, lang))
        return root

    return write


def _rows(prompts: list[Prompt], split: str, lang: str) -> list[dict[str, str]]:
    if split == "test":
        return [
            {"instruction": one.text, "instruction_translated": one.translations[lang]} for one in prompts
        ]
    return [{"instruction": one.translations[lang]} for one in prompts]


def _backs(prompts: list[Prompt], lang: str) -> list[dict[str, str]]:
    return [
        {
            "instruction": one.text,
            "instruction_translated": one.translations[lang],
            "instruction_back_translated": one.text,
        }
        for one in prompts
    ]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub on loopback, empty; the client in this process does not wait before it tries again."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", SimpleNamespace(sleep=lambda seconds: None))
    with LoopbackHub() as server:
        yield server


@pytest.fixture(scope="session")
def other_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small build with more prompts than `small_build` and another language; read only."""
    folder = tmp_path_factory.mktemp("builds") / "other"
    build(BuildRequest("sample", langs=("de", "en", "yo"), size={**SMALL, "test": 32}, out=folder))
    return folder
