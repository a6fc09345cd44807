"""Verbs and parts that other packages bring, by entry points: `facefoundry.verbs` names a Typer app or a function with type hints.

A verb's package is imported when the verb is called; `facefoundry --help` only names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, distributions
from typing import Any

import typer

from ..core.registry import load_offer, offers, package_of

GROUP = "facefoundry.verbs"


def enter_verbs(command: Any, words: Sequence[str]) -> Any:
    """Return the command line `command` with the verbs of other packages entered; those among `words` are imported, the others named.

    Raises:
        UserError: a verb that is called for cannot be imported.
    """
    for name, point in offers(GROUP, "verb", command.commands).items():
        verb = _verb(point) if name in words else typer.main.get_command(_named(point))
        verb.name = name
        command.add_command(verb)
    return command


def offered() -> dict[str, str]:
    """Return what installed packages offer, "group: name" → package; nothing is imported."""
    points = [(dist, point) for dist in distributions() for point in dist.entry_points if point.group.startswith("facefoundry.")]
    return {f"{point.group.removeprefix('facefoundry.')}: {point.name}": dist.metadata["Name"] for dist, point in points}


def _verb(point: EntryPoint) -> Any:
    loaded = load_offer(point, "verb")
    if isinstance(loaded, typer.Typer):
        return typer.main.get_command(loaded)
    app = typer.Typer(add_completion=False)
    app.command()(loaded)
    return typer.main.get_command(app)


def _named(point: EntryPoint) -> typer.Typer:
    """A stand-in for `--help`: the verb's name and whose it is."""
    app = typer.Typer(add_completion=False)
    app.command(help=f"From the package {package_of(point)}.")(lambda: None)
    return app
