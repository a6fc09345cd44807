"""`extends: base.yaml` in a job file: the file says only what differs from another one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..core.config import read_yaml
from ..core.errors import UserError

KEY = "extends"

_FILES = (("identities", "file"), ("identities", "centres"), ("centres",))
"""Keys whose relative files lie beside the file that names them."""

_KINDS = ("name", "source")
"""A group whose kind changes (another generator, another source of identities) has other settings: nothing of the old one is kept."""


def read_job(path: Path, below: tuple[Path, ...] = ()) -> tuple[dict[str, Any], dict[tuple, Any]]:
    """Return the mapping of a job file laid over the one it extends (and so on), and the place of each key: a line, or "line of file".

    Groups are merged key by key; lists and single values are replaced; a group that names another `name` or `source` is replaced as a whole.

    Args:
        below: the files that led here.

    Raises:
        UserError: a file that is not there or no YAML mapping, or files that extend each other in a circle.
    """
    values, lines = read_yaml(path)
    if KEY not in values:
        return values, lines
    chain = (*below, path.resolve())
    parent = _parent(path, values.pop(KEY), lines.get((KEY,)))
    if parent.resolve() in chain:
        circle = " -> ".join(file.name for file in (*chain, parent))
        raise UserError(f"{path}, line {lines[(KEY,)]}: job files extend each other in a circle ({circle}); take one 'extends' out")
    base, base_lines = read_job(parent, chain)
    _place_files(base, parent.resolve().parent)
    named = {key: line if isinstance(line, str) else f"{line} of {parent.name}" for key, line in base_lines.items()}
    return lay_over(base, values), named | lines


def lay_over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` laid over `base`; neither is changed."""
    merged = dict(base)
    for key, value in values.items():
        held = merged.get(key)
        inside = isinstance(value, Mapping) and isinstance(held, Mapping) and all(value.get(kind, held.get(kind)) == held.get(kind) for kind in _KINDS)
        merged[key] = lay_over(held, value) if inside else value
    return merged


def _parent(path: Path, name: Any, line: int | None) -> Path:
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}, line {line}: '{KEY}' is {name!r}; expected the name of one job file")
    bundled = Path(str(resources.files("facefoundry") / "recipes" / name))
    for found in (path.parent / name, bundled):
        if found.is_file():
            return found
    raise UserError(f"{path}, line {line}: '{KEY}: {name}' names a file that is neither beside it nor among the recipes in {bundled.parent}")


def _place_files(values: dict[str, Any], folder: Path) -> None:
    for *groups, key in _FILES:
        inner: Any = values
        for group in groups:
            inner = inner.get(group)
            if not isinstance(inner, dict):
                break
        else:
            if isinstance(inner.get(key), str):
                inner[key] = str(folder / inner[key])
