"""Progress bars for people, on standard error, for anything that takes over two seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
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


@contextmanager
def bar(label: str, total: int | None):
    """A bar; the yielded function `step(n, note="")` advances it by n and shows a note beside it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal) as progress:
        task: TaskID = progress.add_task(label, total=total, note="")

        def step(count: int = 1, note: str | None = None) -> None:
            progress.update(task, advance=count, **({"note": note} if note is not None else {}))

        yield step
