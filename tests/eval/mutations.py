"""Change files at random: drop, retype, truncate, duplicate, nest, and put in huge and hostile values."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from typing import Any

HOSTILE_TEXTS = (
    "", "x", "abc", "../../x", "a\x1b]52;c;eA==\x07", "a\u202eb", "a\nb", "NaN", "-1", "2001-99-99",
    "=1+1", "x" * 100_000, "\ud800", "\0", "{}", "ablation:en@1e999", "baseline", "harmful", "zz",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2**31, 2**63, 10**30, 10**400, -(10**400), 0.5, -0.5, 1e308, 1e-308, float("nan"), float("inf"),
    float("-inf"), True, False,
)  # fmt: skip
YAML_SCALARS = (
    "2001-99-99", ".inf", ".nan", "!!binary x", "!!bool maybe", "!!python/object:os.system x", "0o9", "1e999",
    "*a", "9" * 5000, "{? [a] : b}", "<<: 5", "!!timestamp x", "[" * 3000, "- - - -", "\t", "!!int x",
)  # fmt: skip


def _containers(value: Any) -> Iterator[MutableMapping[str, Any] | MutableSequence[Any]]:
    """Yield every object and list in a JSON value, outermost first."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def _other_value(value: Any, draw: random.Random) -> Any:
    choices: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: draw.choice(NUMBERS),
        lambda: draw.choice(HOSTILE_TEXTS),
        lambda: [],
        lambda: {},
        lambda: [value],
        lambda: {"a": value},
        lambda: [copy.deepcopy(value)] * 3,
        lambda: str(value),
        lambda: -value if isinstance(value, int | float) else value,
        lambda: value[: draw.randrange(len(value) + 1)] if isinstance(value, str | list) else None,
    )
    return draw.choice(choices)()


def mutated_json(value: Any, draw: random.Random) -> Any:
    """Return a copy of `value` with one thing in it changed."""
    value = copy.deepcopy(value)
    places = [container for container in _containers(value) if container]
    if not places or draw.random() < 0.03:
        return _other_value(value, draw)
    place = draw.choice(places)
    if isinstance(place, dict):
        key = draw.choice(list(place))
        action = draw.randrange(5)
        if action == 0:
            del place[key]
        elif action == 1:
            place[draw.choice(HOSTILE_TEXTS)] = place[key]
        elif action == 2:
            place[draw.choice(HOSTILE_TEXTS)] = place.pop(key)
        else:
            place[key] = _other_value(place[key], draw)
    else:
        index = draw.randrange(len(place))
        action = draw.randrange(4)
        if action == 0:
            del place[index]
        elif action == 1:
            place.append(copy.deepcopy(place[index]))
        else:
            place[index] = _other_value(place[index], draw)
    return value


def mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    """Return `content` truncated, doubled, or with some bytes changed, put in or taken out."""
    at = draw.randrange(len(content) + 1)
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: b"",
        lambda: content[:at],
        lambda: content[at:],
        lambda: content * 2,
        lambda: content[:at] + draw.randbytes(4) + content[at + 4 :],
        lambda: content[:at] + draw.choice((b"\0", b"\xff\xfe", b"[" * 50_000, b"\n", b'"')) + content[at:],
        lambda: b"[" * 100_000,
        lambda: b"null",
    )
    return draw.choice(choices)()


def mutated_file(name: str, content: bytes, draw: random.Random) -> bytes:
    """Return the content of a file of ours with one change that its format allows, or its bytes changed."""
    if draw.random() < 0.15:
        return mutated_bytes(content, draw)
    if name.endswith(".safetensors"):
        return _mutated_tensors(content, draw)
    if name.endswith(".zip"):
        return _mutated_archive(content, draw)
    if name.endswith(".jsonl"):
        lines = content.splitlines()
        if not lines:
            return mutated_bytes(content, draw)
        index = draw.randrange(len(lines))
        lines[index] = _dumped(mutated_json(json.loads(lines[index]), draw))
        if draw.random() < 0.1:
            lines.append(lines[index])
        return b"\n".join(lines) + b"\n"
    if name.endswith(".json"):
        return _dumped(mutated_json(json.loads(content), draw))
    if name.endswith((".yaml", ".yml")):
        return _mutated_yaml(content, draw)
    return mutated_bytes(content, draw)


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _mutated_tensors(content: bytes, draw: random.Random) -> bytes:
    """Return a safetensors file with our header, or its own, changed."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if draw.random() < 0.7 and "__metadata__" in header:
        ours = json.loads(header["__metadata__"]["polyrefuse"])
        header["__metadata__"]["polyrefuse"] = json.dumps(mutated_json(ours, draw))
    else:
        header = mutated_json(header, draw)
    text = _dumped(header)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _mutated_archive(content: bytes, draw: random.Random) -> bytes:
    """Return an archive of ours with one of its files changed, or called otherwise."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(sorted(files))
    if draw.random() < 0.1:
        files[draw.choice(HOSTILE_TEXTS).replace("\0", "") or "x"] = files.pop(name)
    else:
        files[name] = mutated_file(name, files[name], draw)
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()[:60_000]), data)
    return changed.getvalue()


def _mutated_yaml(content: bytes, draw: random.Random) -> bytes:
    lines = content.decode().splitlines()
    index = draw.randrange(len(lines))
    key, colon, _ = lines[index].partition(":")
    action = draw.randrange(5)
    if action == 0:
        del lines[index]
    elif action == 1:
        lines.insert(index, lines[index])
    elif action == 2:
        lines[index] = "  " * draw.randrange(4) + lines[index].lstrip()
    elif action == 3 and colon:
        lines[index] = f"{draw.choice(YAML_SCALARS)}: 1"
    else:
        lines[index] = f"{key}: {draw.choice(YAML_SCALARS)}" if colon else draw.choice(YAML_SCALARS)
    return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
