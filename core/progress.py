"""Progress bars for people, on standard error, for anything that takes over two seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True)
log = logging.getLogger("facefoundry")


def be_quiet(quiet: bool) -> None:
    """Show or hide bars and remarks; warnings and mistakes are always told."""
    console.quiet = quiet


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while a bar shows how many are done; the total is taken from `len(items)` where it has one."""
    total = total if total is not None else (len(items) if hasattr(items, "__len__") else None)  # type: ignore[arg-type]
    with bar(label, total) as step:
        for item in items:
            yield item
            step(1)


class Bar:
    """A shown bar: called with a number of rows it advances; beneath it there may be one for each part of the work."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task, self._parts = progress, task, {}

    def __call__(self, count: int = 1, note: str | None = None) -> None:
        """Advance by `count`, and show a note beside it."""
        self._progress.update(self._task, advance=count, **({"note": note} if note is not None else {}))

    @property
    def shown(self) -> bool:
        """Whether anybody sees it."""
        return not self._progress.disable

    def parts(self, state: Mapping[str, tuple[int, int]]) -> None:
        """Show a bar for each part, {name: (done, total)}; those that are not named any more go."""
        for name in self._parts.keys() - state.keys():
            self._progress.remove_task(self._parts.pop(name))
        for name, (done, total) in state.items():
            if name not in self._parts:
                self._parts[name] = self._progress.add_task(f"  {name}", total=total, note="")
            self._progress.update(self._parts[name], completed=done, total=total)


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Bar]:
    """Show a bar for the block; what is yielded advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(label, total=total, note=""))
