"""Recipes: which prompts stand in which split. A recipe is data (YAML); what it draws is pure.

The recipes that come with the package lie in `builds/`; a user's own file works the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from polyrefuse_data.core.errors import RecipeError, unknown_name
from polyrefuse_data.core.parsing import parse_yaml
from polyrefuse_data.core.reading import FileFormatError, read_text
from polyrefuse_data.core.schema import SPLITS
from polyrefuse_data.prompts.sources import SOURCES

SplitName = Literal["train", "validation", "test"]
LabelName = Literal["harmless", "harmful"]
EMBEDDED = "sample"
"""The name under which recipes draw on the embedded sample."""

EMBEDDED_PAIRS = "sample_pairs"
"""The name under which recipes draw on the embedded contrast pairs."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OwnSource(_Strict):
    """A source that a user's recipe brings along: a file in the folder of `--sources`."""

    file: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")]
    reader: Literal["auto", "csv", "lines", "json_strings", "instructions"] = "auto"
    """`auto` reads JSON, JSON Lines and CSV by content, and any other `.txt` file as one prompt a line."""
    label: LabelName
    licence: str
    citation: str = ""
    text_column: str | None = None
    """Column of the prompts; without one, the first of `reading.PROMPT_COLUMNS` that is there."""
    category_column: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Part(_Strict):
    """One part of a pool: shuffled with `random.Random(seed)`, cut at `fractions`, part number `index`.

    Every part but the last has int(fraction * size) prompts; the last has what is left.
    """

    seed: int
    fractions: tuple[float, ...]
    index: int


class Pool(_Strict):
    """Prompts of one label in a fixed order: sources one after another, a part of them, or a pinned list.

    `pin` names a list of text hashes in `pins/`: it selects prompts and gives their order.
    """

    label: LabelName
    sources: tuple[str, ...]
    part: Part | None = None
    pin: Annotated[str, Field(pattern=r"^[\w-]+$")] | None = None


class Draw(_Strict):
    """`size` prompts of a pool for a split.

    `sample` draws with the recipe's one generator, in the order of the draws; `first` takes the pool's
    order; `topics` takes whole topics in the recipe's shuffled order, so that no topic straddles splits.
    """

    pool: str
    split: SplitName
    size: Annotated[int, Field(ge=0)]
    method: Literal["sample", "first", "topics"] = "sample"


class TopUp(_Strict):
    """Where a split that lost rows to duplicates is filled from: pools by label, shuffled by `seed`."""

    seed: int
    pools: dict[LabelName, tuple[str, ...]]


class Recipe(_Strict):
    """One way to make the splits; `duplicates` marks exact repeats or drops them with near ones."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    description: str
    seed: int
    pools: dict[str, Pool]
    draws: tuple[Draw, ...]
    duplicates: Literal["mark", "drop"] = "mark"
    near_duplicate_jaccard: Annotated[float, Field(gt=0, le=1)] = 0.8
    keep_first: tuple[SplitName, ...] = ("test", "train", "validation")
    topic_block: Annotated[int, Field(ge=1)] = 1
    top_up: TopUp | None = None
    sources: dict[str, OwnSource] = {}

    @model_validator(mode="after")
    def _names_resolve(self) -> Recipe:
        known = [*SOURCES, *self.sources, EMBEDDED, EMBEDDED_PAIRS]
        for pool in self.pools.values():
            for name in pool.sources:
                if name not in known:
                    raise unknown_name("source", name, known)
        wanted = [draw.pool for draw in self.draws]
        if self.top_up:
            wanted += [name for names in self.top_up.pools.values() for name in names]
        for name in wanted:
            if name not in self.pools:
                raise unknown_name("pool", name, self.pools)
        places = [(self.pools[draw.pool].label, draw.split) for draw in self.draws]
        if len(set(places)) != len(places):
            raise RecipeError(
                f"recipe {self.name}: two draws fill the same label and split; expected one each"
            )
        return self

    def used_sources(self) -> list[str]:
        """Return the names of all sources that the pools read, in order of first use."""
        return list(dict.fromkeys(name for pool in self.pools.values() for name in pool.sources))

    def sizes(self) -> dict[str, dict[str, int]]:
        """Return label -> split -> number of rows asked for."""
        sizes: dict[str, dict[str, int]] = {}
        for draw in self.draws:
            sizes.setdefault(self.pools[draw.pool].label, {})[draw.split] = draw.size
        return {
            label: {split: splits[split] for split in SPLITS if split in splits}
            for label, splits in sorted(sizes.items())
        }

    def changed(self, seed: int | None, size: Mapping[str, int] | None) -> Recipe:
        """Return the recipe with another seed for every draw, or other sizes by split for both labels."""
        recipe = self
        if seed is not None:
            top_up = self.top_up and self.top_up.model_copy(update={"seed": seed})
            recipe = recipe.model_copy(update={"seed": seed, "top_up": top_up})
        if size:
            draws = tuple(
                draw.model_copy(update={"size": size.get(draw.split, draw.size)}) for draw in recipe.draws
            )
            recipe = recipe.model_copy(update={"draws": draws})
        return recipe


def parse_size(text: str) -> dict[str, int]:
    """Return split -> size of `128/32/572` (train/validation/test) or `test=100,train=64`."""
    by_position = re.fullmatch(r"(\d+)/(\d+)/(\d+)", text.strip())
    if by_position:
        return dict(zip(SPLITS, map(int, by_position.groups()), strict=True))
    sizes = {}
    for item in text.split(","):
        name, _, number = item.strip().partition("=")
        if name not in SPLITS and number:
            raise unknown_name("split", name, SPLITS)
        if not number.isdigit():
            raise RecipeError(f"size '{text}' is not understood; expected 128/32/572 or test=100,train=64")
        sizes[name] = int(number)
    return sizes


def builtin_recipes() -> dict[str, Recipe]:
    """Return the recipes that come with the package, by name."""
    files = [
        entry for entry in resources.files("polyrefuse_builds").iterdir() if entry.name.endswith(".yaml")
    ]
    recipes = [_parse(entry.read_text(encoding="utf-8"), entry.name) for entry in files]
    return {recipe.name: recipe for recipe in sorted(recipes, key=lambda recipe: recipe.name)}


def load_recipe(name: str) -> tuple[Recipe, Path | None]:
    """Return the recipe called `name`, or in the YAML file `name`, and the folder of that file.

    Raises `RecipeError` for a file that is not a recipe, `UnknownNameError` for another name.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            return _parse(read_text(path), name), path.parent
        except FileFormatError as error:
            raise RecipeError(f"cannot read the recipe: {error}") from None
    recipes = builtin_recipes()
    if name not in recipes:
        raise unknown_name("recipe", name, recipes)
    return recipes[name], None


def read_pin(name: str, folder: Path | None) -> list[str]:
    """Return the text hashes of the pinned list `name`, from `folder`/pins or from the package."""
    root = folder if folder is not None else resources.files("polyrefuse_builds")
    try:
        lines = (root / "pins" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise RecipeError(
            f"no list of pinned prompts '{name}': expected pins/{name}.txt beside the recipe"
        ) from None
    hashes = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for line in hashes:
        if not re.fullmatch(r"[0-9a-f]{64}", line):
            raise RecipeError(
                f"pins/{name}.txt: '{line[:80]}' is not a sha256; expected 64 hex digits a line"
            )
    return hashes


def _parse(text: str, where: str) -> Recipe:
    try:
        value: Any = parse_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {where} is not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise RecipeError(f"recipe {where}: expected keys and values, found {type(value).__name__}")
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        # Unknown keys come first: what they were meant for is then missing.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        texts = []
        for problem in problems:
            place = ".".join(str(part) for part in problem["loc"])
            message = problem["msg"]
            if problem["type"] == "extra_forbidden":
                message = str(unknown_name("key", str(problem["loc"][-1]), _keys_at(problem["loc"][:-1])))
            elif problem["type"] == "missing":
                message = "missing"
            texts.append(f"at {place}: {message}")
        more = f"; and {len(texts) - 8} more problems" if len(texts) > 8 else ""
        raise RecipeError(f"recipe {where}, {'; '.join(texts[:8])}{more}") from None


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known where a recipe has an unknown one."""
    models: dict[str, type[_Strict]] = {
        "pools": Pool,
        "draws": Draw,
        "top_up": TopUp,
        "sources": OwnSource,
        "part": Part,
    }
    model: type[_Strict] = Recipe
    for part in location:
        model = models.get(str(part), model)
    return list(model.model_fields)
