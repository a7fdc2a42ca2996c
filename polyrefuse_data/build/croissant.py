"""Describe the files of a build in Croissant 1.0, JSON-LD for machines (mlcommons.org/croissant)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from polyrefuse_data.build.model import Package
from polyrefuse_data.core.schema import SPLITS, arrow_schema

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the Croissant 1.0 specification prescribes."""

PARQUET = "application/x-parquet"
LICENCE_ADDRESSES = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "MIT": "https://opensource.org/license/mit",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC-BY-NC-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "CC-BY-NC-SA-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
}

_TYPES = {"string": "sc:Text", "int64": "sc:Integer", "float": "sc:Float", "bool": "sc:Boolean"}

_MEANINGS = {
    "id": "label, split and position; the same in every language",
    "group": "hash of English text and label; the same in every language",
    "lang": "ISO 639-1 code of the language of `text`",
    "text": "the prompt in that language",
    "text_en": "the prompt in English",
    "label": "0 harmless, 1 harmful",
    "category": "one taxonomy over all sources",
    "source_category": "the source's own word for the category",
    "source": "name of the source",
    "source_licence": "licence of the source",
    "translator": "signature of who translated",
    "pair": "shared by a harmless prompt that looks harmful and its harmful twin",
    "duplicate_of": "id of the first row with the same English text in the split",
}


def render_croissant(package: Package) -> str:
    """Return the Croissant metadata of a build as JSON: every file with its sha256, a record set a split.

    Paths are relative to the file itself, so that it is as true in a folder as on the Hub.
    """
    files = {name: facts for name, facts in package.files.items() if facts["rows"]}
    licences = sorted({source["licence"] for source in package.sources})
    splits = [split for split in SPLITS if any(name.endswith(f"/{split}.parquet") for name in files)]
    value = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"polyrefuse-{package.recipe.name}",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": " ".join(package.recipe.description.split()),
        # The digest names the rows; the number before it, the version of the builder.
        "version": f"{package.header['versions']['polyrefuse']}+{package.digest[:12]}",
        "license": [LICENCE_ADDRESSES.get(licence, licence) for licence in licences],
        "citeAs": "; ".join(sorted({source["citation"] for source in package.sources if source["citation"]}))
        or f"PolyRefuse, {package.recipe.title}",
        "inLanguage": list(package.parts),
        "isLiveDataset": False,
        "rai:personalSensitiveInformation": "None. The harmful half asks for harmful content.",
        "rai:dataUseCases": "Measuring how robustly chat models refuse harmful requests.",
        "distribution": [_file_object(name, facts) for name, facts in sorted(files.items())]
        + [_file_set(split) for split in splits],
        "recordSet": [_record_set(split, package.has_pairs, package.measured) for split in splits],
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _file_object(name: str, facts: Any) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{facts['bytes']} B",
        "encodingFormat": PARQUET,
        "sha256": facts["sha256"],
    }


def _file_set(split: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-files",
        "name": f"{split}-files",
        "description": f"The {split} split in all languages, a file a language.",
        "encodingFormat": PARQUET,
        "includes": f"*/{split}.parquet",
    }


def _record_set(split: str, pairs: bool, measured: Sequence[str]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"The rows of the {split} split, in all languages.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{split}/{field.name}",
                "name": field.name,
                "description": _meaning(field.name),
                "dataType": _TYPES[str(field.type)],
                "source": {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": field.name}},
            }
            for field in arrow_schema(pairs=pairs, measured=measured)
        ],
    }


def _meaning(name: str) -> str:
    kind, _, check = name.partition("_")
    if kind == "score" and check:
        return f"score of the check {check}; null where it does not apply"
    if kind == "flt":
        return f"whether the check {check} flags the row"
    return _MEANINGS[name]
