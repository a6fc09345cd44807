"""How the command line speaks: tables on standard output for people, JSON for programs, mistakes on standard error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..core.progress import console

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def as_json(value: Any) -> None:
    """Write a result as JSON on standard output; numbers that JSON does not have become null."""
    out.out(json.dumps(_plain(value), indent=2, ensure_ascii=False), highlight=False)


def table(rows: Iterable[tuple[str, Any]], title: str | None = None) -> None:
    """Write names and values as a two-column table; None is left out."""
    grid = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            grid.add_row(escape(name), escape(_text(value)))
    if not out.is_terminal:
        out.width = 10_000  # a pipe or a file has no width to keep to; a folded path could be neither found nor copied
    out.print(grid)


def written(files: Mapping[str, Any], title: str, json: bool, hint: str | None = None) -> None:
    """Say what a verb wrote, its names and places: as JSON, or as a table with a line that says what one may do next."""
    if json:
        as_json(files)
        return
    table(files.items(), title=title)
    if hint:
        line(hint)


def line(text: str) -> None:
    """Write a line on standard output."""
    out.print(escape(text), highlight=False)


def remark(text: str) -> None:
    """Write a line for people on standard error; left out with `--quiet`."""
    console.print(escape(text), highlight=False)


def mistake(message: str) -> None:
    """Write a user's mistake on standard error, without a trace."""
    err.print(f"[bold red]error[/] {escape(message)}", highlight=False)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items()) or "none"
    return ", ".join(map(_text, value)) or "none" if isinstance(value, (list, tuple)) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
