"""Render the data set card: metadata that `datasets` and the Hub read, and text that people read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from polyrefuse_data.build.croissant import LICENCE_ADDRESSES
from polyrefuse_data.build.model import Package
from polyrefuse_data.build.quality import quality_table
from polyrefuse_data.build.surface_cues import surface_cue_table
from polyrefuse_data.checks.surface_cues import CHECK
from polyrefuse_data.core.languages import LANGUAGES
from polyrefuse_data.core.schema import LABELS, ROW_CHECKS, SPLITS, arrow_schema

DEFAULT_CONFIG = "all"
"""The configuration with all languages, which `load_dataset(folder)` serves."""

RESTRICTIVENESS = ("Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0")
"""Licences from the least to the most restrictive; one that is not here counts as the most restrictive."""

GATE_PROMPT = (
    "This data set holds requests for harmful content in many languages. It exists to measure and improve "
    "how robustly chat models refuse them. By asking for access you agree to use it for safety research and "
    "evaluation only, not to train models to comply with harmful requests, and not to publish the prompts "
    "outside a gate."
)


def most_restrictive(licences: Sequence[str]) -> str:
    """Return the licence that the whole must be used under; an unknown one wins over all known."""

    def rank(licence: str) -> tuple[int, str]:
        known = licence in RESTRICTIVENESS
        return (RESTRICTIVENESS.index(licence) if known else len(RESTRICTIVENESS), licence)

    return max(licences, key=rank)


def _data_files(langs: Sequence[str], files: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    entries = []
    for split in SPLITS:
        paths = [f"{lang}/{split}.parquet" for lang in langs if files[f"{lang}/{split}.parquet"]["rows"]]
        if paths:
            entries.append({"split": split, "path": paths})
    return entries


def _split_sizes(langs: Sequence[str], files: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    sizes = []
    for split in SPLITS:
        chosen = [files[f"{lang}/{split}.parquet"] for lang in langs]
        rows = sum(facts["rows"] for facts in chosen)
        if rows:
            sizes.append(
                {"name": split, "num_bytes": sum(facts["bytes"] for facts in chosen), "num_examples": rows}
            )
    return sizes


def _features(pairs: bool, measured: Sequence[str]) -> list[dict[str, Any]]:
    features = []
    for field in arrow_schema(pairs=pairs, measured=measured):
        if field.name == "label":
            names = {str(index): name for index, name in enumerate(LABELS)}
            features.append({"name": field.name, "dtype": {"class_label": {"names": names}}})
        else:
            dtype = {"float": "float32", "double": "float64"}.get(str(field.type), str(field.type))
            features.append({"name": field.name, "dtype": dtype})
    return features


def card_metadata(package: Package) -> dict[str, Any]:
    """Return the YAML head of the card.

    Every configuration carries the build's digest in its description: `datasets` keys its cache on what
    stands here and on the folder's name, not on the Parquet, and would serve the rows of an older build.
    """
    langs = list(package.parts)
    files = package.files
    description = f"polyrefuse {package.recipe.name} build, digest {package.digest}"
    names = {DEFAULT_CONFIG: langs, **{lang: [lang] for lang in langs}}
    configs = []
    for name, chosen in names.items():
        config: dict[str, Any] = {"config_name": name, "description": description}
        if name == DEFAULT_CONFIG:
            config["default"] = True
        configs.append({**config, "data_files": _data_files(chosen, files)})
    infos = [
        {
            "config_name": name,
            "features": _features(package.has_pairs, package.measured),
            "splits": _split_sizes(chosen, files),
        }
        for name, chosen in names.items()
    ]
    rows = sum(facts["rows"] for facts in files.values())
    return {
        "pretty_name": f"PolyRefuse ({package.recipe.name})",
        "language": langs,
        **_hub_licence(most_restrictive([source["licence"] for source in package.sources])),
        "task_categories": ["text-generation", "text-classification"],
        "tags": ["safety", "refusal", "red-teaming", "multilingual", "not-for-all-audiences"],
        "size_categories": [_size_category(rows)],
        "annotations_creators": ["found"],
        "language_creators": ["found", "machine-generated"],
        "multilinguality": ["translation"],
        "extra_gated_heading": "Access to PolyRefuse",
        "extra_gated_prompt": GATE_PROMPT,
        "extra_gated_fields": {
            "Affiliation": "text",
            "Intended use": "text",
            "I will use these prompts for safety research and evaluation only": "checkbox",
        },
        "configs": configs,
        "dataset_info": infos,
    }


def _size_category(rows: int) -> str:
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if rows < limit:
            return name
    return "100K<n<1M"


def _hub_licence(licence: str) -> dict[str, str]:
    """Return the licence as the Hub's metadata check accepts it: a known identifier, or a name of its own."""
    if licence in RESTRICTIVENESS:
        return {"license": licence.lower()}
    name = re.sub(r"[^a-z0-9.-]+", "-", licence.lower()).strip("-") or "unnamed"
    return {"license": "other", "license_name": name, "license_link": "LICENCES.md"}


def render_card(package: Package) -> str:
    """Return the card: YAML head and Markdown body."""
    head = yaml.safe_dump(card_metadata(package), sort_keys=False, allow_unicode=True, width=100)
    errors = [
        finding for finding in package.findings if finding.severity == "error" and finding.check != "gap"
    ]
    body = render_template(
        "dataset.md.j2",
        package=package,
        errors=errors,
        header=package.header,
        recipe=package.recipe,
        languages={lang: LANGUAGES[lang] for lang in package.parts},
        places=[f"{label}-{split}" for label in reversed(LABELS) for split in SPLITS],
        checks=(*ROW_CHECKS, *package.measured),
        quality=quality_table(package),
        surface_cues=surface_cue_table(package),
        licence=most_restrictive([source["licence"] for source in package.sources]),
        licences=sorted({source["licence"] for source in package.sources}),
        missing=sum(len(gap["ids"]) for gap in package.gaps),
        listed=[finding for finding in package.findings if finding.lang is None and finding.check != CHECK],
        translators=_translators(package),
    )
    return f"---\n{head}---\n{body}"


def render_licences(package: Package) -> str:
    """Return the notes on licences: per source, of the whole, and of the translations."""
    licences = sorted({source["licence"] for source in package.sources})
    return render_template(
        "licences.md.j2",
        package=package,
        recipe=package.recipe,
        addresses=LICENCE_ADDRESSES,
        licences=licences,
        licence=most_restrictive(licences),
        translators=_translators(package),
    )


def render_template(name: str, **values: Any) -> str:
    """Return the Markdown of a template of `cards/`; a name that it lacks is an error, not a blank."""
    import jinja2

    template = (resources.files("polyrefuse_cards") / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(  # noqa: S701 (Markdown, not HTML)
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(template).render(**values)


def _translators(package: Package) -> dict[str, list[str]]:
    """Return translator signature -> languages in which it translated rows."""
    languages_of: dict[str, list[str]] = {}
    for lang, part in package.parts.items():
        for signature in part.summary["translators"]:
            languages_of.setdefault(signature, []).append(lang)
    return dict(sorted(languages_of.items()))
