"""Name → class tables that fill themselves by importing a folder when first asked."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .errors import UserError, near_names

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """A table of classes of one kind, e.g. generators or margin heads.

    Args:
        kind: what the entries are, for messages ("generator").
        package: dotted name of the package whose modules register entries. It is imported on the first look-up,
            so that a newcomer adds one file and nothing else.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters a class under `name`; a second claim to a name is an error."""

        def enter(cls: T) -> T:
            if name in self._entries and self._entries[name].__qualname__ != cls.__qualname__:
                raise ValueError(f"{self.kind} '{name}' is registered twice: {self._entries[name]!r} and {cls!r}")
            self._entries[name] = cls
            return cls

        return enter

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} '{name}'; {near_names(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._loaded = True
