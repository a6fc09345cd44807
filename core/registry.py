"""Name → class tables that fill themselves: with the modules of a folder when first asked, and with what installed packages offer by entry points.

An entry point is imported when its name is asked for and not before; a module that is not installed is imported only where a file names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from .errors import UserError, near_names
from .progress import log

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """A table of classes of one kind, e.g. generators or margin heads.

    Args:
        kind: what the entries are, for messages ("generator").
        package: dotted name of the package whose modules register entries. It is imported on the first look-up,
            so that a newcomer adds one file and nothing else.

    Attributes:
        group: entry points of this group, in any installed package, are entries too: "facefoundry.generators", "facefoundry.margin_heads".
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.group = f"facefoundry.{kind.replace(' ', '_')}s"
        self._package = package
        self._entries: dict[str, T] = {}
        self._offered: dict[str, EntryPoint] = {}
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
        if name not in self._entries and name in self._offered:
            self._entries[name] = load_offer(self._offered[name], self.kind)
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} '{name}'; {near_names(name, self)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries.keys() | self._offered.keys()))

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._offered = offers(self.group, self.kind, self._entries)
        self._loaded = True


def offers(group: str, kind: str, taken: Mapping[str, Any]) -> dict[str, EntryPoint]:
    """Return what installed packages offer in a group of entry points, by name; nothing is imported.

    Names that are taken stay as they are, with a warning unless it is the offer itself that was registered already (its module was named by a file).
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, package_of(point))):
        if getattr(taken.get(point.name), "__module__", None) == point.module:
            continue
        holder = "FaceFoundry" if point.name in taken else package_of(found[point.name]) if point.name in found else None
        if holder is None:
            found[point.name] = point
        elif holder != package_of(point):
            log.warning("the package %s offers the %s '%s', which %s has already: it is left out", package_of(point), kind, point.name, holder)
    return found


def load_offer(point: EntryPoint, kind: str) -> Any:
    """Import what an entry point names.

    Raises:
        UserError: it cannot be imported, with the package to mend.
    """
    try:
        return point.load()
    except Exception as error:  # somebody else's code: whatever it raises, the user must hear whose it was
        raise UserError(f"the {kind} '{point.name}' of the package {package_of(point)} cannot be loaded ({point.value}: {type(error).__name__}: {error}); mend or uninstall that package") from error


def import_named(names: Any, place: str) -> None:
    """Import the modules that a file of the user's names, so that what they register is known.

    Args:
        names: what the file holds under `imports`; anything but a list is the file's checker's to refuse.
        place: file and line, for the message.

    Raises:
        UserError: a module cannot be found.
    """
    for name in names if isinstance(names, (list, tuple)) else ():
        try:
            importlib.import_module(str(name))
        except ImportError as error:
            raise UserError(f"{place}: cannot import '{name}' ({error}); install it here and on every worker, or add its folder to PYTHONPATH") from error


def package_of(point: EntryPoint) -> str:
    """Return the name of the package an entry point came with."""
    return point.dist.name if point.dist is not None else "unknown"
