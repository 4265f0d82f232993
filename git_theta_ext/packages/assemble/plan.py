"""Which tensor of which part the assembled checkpoint has under each name: from manifests alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from git_theta_ext.core import limits, patterns
from git_theta_ext.core.errors import UsageError
from git_theta_ext.core.names import natural_key, quote
from git_theta_ext.core.text import plural
from git_theta_ext.formats import safetensors
from git_theta_ext.manifest.model import Entry
from git_theta_ext.packages.assemble.experts import convert
from git_theta_ext.packages.assemble.given import Given
from git_theta_ext.packages.assemble.recipe_file import Part, RecipeFile
from git_theta_ext.packages.assemble.renames import Layers, Renames, too_many


def make_plan(recipe: RecipeFile, parts: Sequence[Mapping[str, Entry]]) -> dict[str, Given]:
    """What the recipe makes of its parts, by name.

    Args:
        recipe: what is wanted.
        parts: the tensors of each part's checkpoint, by name.

    Raises:
        UsageError: a pattern, a rename or a layer matches nothing, names collide, or two parts give
            a tensor differently and the later one does not overrule.
    """
    made: dict[str, Given] = {}
    ends: dict[str, int] = {}
    count = 0
    for number, (part, tensors) in enumerate(zip(recipe.parts, parts, strict=True)):
        start = ends.get(part.layer, 0) if part.to is None else part.to
        if part.layers is not None:
            ends[part.layer] = start + len(part.layers)
        found = of_part(part, tensors, start, recipe.dtype)
        count += len(found)
        if count > 2 * limits.RECIPE_TENSORS:
            raise too_many(count)
        _join(made, [replace(one, part=number) for one in found], recipe)
    if len(made) > limits.RECIPE_TENSORS:
        raise too_many(len(made))
    return made


def _join(made: dict[str, Given], found: Iterable[Given], recipe: RecipeFile) -> None:
    """Add what a part gives to what earlier ones gave."""
    differing = []
    for one in found:
        before = made.get(one.name)
        if before is None or recipe.parts[one.part].overrule:
            made[one.name] = one
        elif before.identity != one.identity:
            differing.append((before, one))
    if differing:
        first, second = (recipe.parts[one.part] for one in differing[0])
        others = f", and {plural(len(differing) - 1, 'other')}" if len(differing) > 1 else ""
        raise UsageError(
            f"the parts {first.name} and {second.name} give {differing[0][0].name!r} "
            f"differently{others}",
            hint=f"take fewer tensors of one (tensors, without), or let {second.name} replace what "
            "is there: overrule = true",
        )


def of_part(
    part: Part, tensors: Mapping[str, Entry], first_layer: int = 0, dtype: str | None = None
) -> list[Given]:
    """What a part gives, in natural order of the names in its checkpoint.

    Args:
        part: what is taken, and how it is changed.
        tensors: what its checkpoint has, by name.
        first_layer: the number that the first of its layers gets.
        dtype: what floats are cast to where the part does not say it.

    Raises:
        UsageError: something matches nothing, or two tensors get one name.
    """
    where = f"part {part.name}"
    given = [Given.plain(tensors[name]) for name in _chosen(part, tensors, where)]
    if part.layers is not None:
        given = _with_layers(part, given, first_layer, where)
    if part.experts is not None:
        given = convert(part.experts, given, where)
    renames = Renames(part.rename)
    made: dict[str, Given] = {}
    for one in given:
        new = one.named(renames.new_name(one.name)).cast(part.dtype or dtype)
        if new.name in made:
            both = f"{made[new.name].sources[0]!r} and {new.sources[0]!r}"
            raise UsageError(f"{where}: {both} would both be called {new.name!r}")
        _check_name(new.name, where)
        made[new.name] = new
    unused = renames.unused()
    if unused is not None:
        raise UsageError(
            f"{where}: rename: {unused!r} matches none of its {plural(len(given), 'tensor')}",
            hint="names are matched as they are after layers and experts, and only by the first "
            "pattern that fits them",
        )
    return list(made.values())


def _check_name(name: str, where: str) -> None:
    """Refuse a name that no tensor of a safetensors file, or of a manifest, can have."""
    try:
        quote(name)
    except ValueError:
        wrong = True
    else:
        wrong = not name or len(name) > limits.NAME_CHARS or name == safetensors.METADATA
    if wrong:
        raise UsageError(f"{where}: no tensor can be called {name[:100]!r}")


def _chosen(part: Part, tensors: Mapping[str, Entry], where: str) -> list[str]:
    """The names that are taken of a part."""
    here = (name for name, one in tensors.items() if not one.opaque)
    names = dict.fromkeys(sorted(here, key=natural_key))
    chosen: dict[str, None] = {}
    for pattern in part.tensors:
        chosen.update(dict.fromkeys(_matching(names, pattern, where, "tensors")))
    for pattern in part.without:
        for name in _matching(names, pattern, where, "without"):
            chosen.pop(name, None)
    if not chosen:
        raise UsageError(f"{where} gives no tensor: without takes all of them away")
    return sorted(chosen, key=natural_key)


def _matching(names: Mapping[str, None], pattern: str, where: str, key: str) -> list[str]:
    found = [pattern] if pattern in names else patterns.select(names, [pattern])
    if not found:
        some = ", ".join(map(repr, list(names)[:3]))
        raise UsageError(
            f"{where}: {key}: {pattern!r} matches none of its {plural(len(names), 'tensor')}",
            hint=f"they are called {some}, ..." if names else None,
        )
    return found


def _with_layers(part: Part, given: Sequence[Given], first: int, where: str) -> list[Given]:
    """The layers that are wanted under their new numbers, and all that is of no layer."""
    layers = Layers(part.layer, part.layers or (), first)
    found: list[Given] = []
    for one in given:
        found += [one.named(name) for name in layers.new_names(one.name)]
        if len(found) > limits.RECIPE_TENSORS:
            raise too_many(len(found))
    missing = layers.missing()
    if missing is not None:
        raise UsageError(
            f"{where}: it has no layer {missing}: no tensor is named "
            f"{part.layer.replace('{n}', str(missing))}...",
            hint='layer = "..." says how the names of a layer begin',
        )
    return found


def in_file_order(made: Iterable[Given]) -> list[Given]:
    """The order in which tensors lie in the file: wide elements first, so that all are aligned."""
    return sorted(made, key=lambda one: (-one.info.dtype.itemsize, natural_key(one.name)))
