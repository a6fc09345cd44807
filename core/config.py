"""Base of every file a user writes: YAML checked by pydantic, errors that name the line and the near names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from .errors import UserError, near_names


class Config(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=())

    @classmethod
    def parse(cls, values: Any, *, source: str = "settings", lines: dict[tuple, int] | None = None) -> Self:
        """Check `values` (a mapping) and return the settings.

        Raises:
            UserError: one line for each problem, with the line number in the file where `lines` knows it.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [_describe(cls, problem, source, lines or {}) for problem in error.errors()]
            raise UserError("\n".join(problems)) from error

    @classmethod
    def read(cls, path: Path) -> tuple[dict[str, Any], dict[tuple, Any]]:
        """Return the mapping in a file and the place of each key: its line, or what else a message shall say after "line"."""
        return read_yaml(path)

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file; `overrides` are `a.b=c` strings (c is YAML) laid over it."""
        values, lines = cls.read(path)
        for override in overrides:
            _lay_over(values, override)
        return cls.parse(values, source=str(path), lines=lines)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON of the settings."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple, int]]:
    """Return the mapping in a YAML file and the line number (from 1) of each key path."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {type(values).__name__}, expected a mapping of settings (key: value)")
    lines: dict[tuple, int] = {}
    _collect_lines(node, (), lines)
    return values, lines


def _collect_lines(node: yaml.Node, path: tuple, lines: dict[tuple, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, key.value)] = key.start_mark.line + 1
            _collect_lines(value, (*path, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _collect_lines(value, (*path, index), lines)


def _describe(cls: type[BaseModel], problem: Any, source: str, lines: dict[tuple, int]) -> str:
    where = tuple(problem["loc"])
    known_lines = [lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines]
    place = f"{source}, line {known_lines[0]}" if known_lines else source
    key = ".".join(str(part) for part in where)
    if problem["type"] == "extra_forbidden":
        names = _fields_at(cls, where[:-1])
        return f"{place}: unknown key '{key}'; {near_names(str(where[-1]), names)}"
    if problem["type"] == "missing":
        return f"{place}: '{key}' is missing"
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # a rule over several keys: they need not all be shown
        return f"{place}: {key + ': ' if key else ''}{problem['ctx']['error']}"
    return f"{place}: '{key}' is {problem['input']!r}: {problem['msg'].lower()}"


def _fields_at(cls: type[BaseModel], path: tuple) -> list[str]:
    """Names of the fields of the model at `path`; unions contribute the fields of every member named in the path."""
    models: list[type[BaseModel]] = [cls]
    for part in path:
        inner: list[type[BaseModel]] = []
        for model in models:
            if str(part) in model.model_fields:
                inner += _models_in(model.model_fields[str(part)].annotation)
        models = inner or models
    return sorted({name for model in models for name in model.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _lay_over(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set '{override}': expected key.subkey=value")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"--set '{override}': '{parent}' is not a group of settings")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set '{override}': '{text}' is not valid YAML ({getattr(error, 'problem', None) or error})") from error
