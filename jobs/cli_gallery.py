"""`facefoundry gallery ...`: pictures of what a generator does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show

gallery_app = typer.Typer(help="Pictures of what a generator does.", no_args_is_help=True)


@gallery_app.callback()
def _gallery() -> None:
    """Pictures of what a generator does."""


@gallery_app.command("styles")
def styles(
    job: Annotated[Path | None, typer.Argument(help="Job file (YAML); left out, the bundled demo of MorphFace.")] = None,
    identities: Annotated[int, typer.Option(min=1, help="How many people: rows.")] = 6,
    number: Annotated[int, typer.Option("--styles", min=1, help="How many styles: columns.")] = 8,
    own: Annotated[bool, typer.Option("--own", help="Each person in styles of their own habits; left out, everybody in the same.")] = False,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("styles.png"),
    settings: Annotated[list[str], typer.Option("--set", help="Lay a value over the file: --set generator.styles.fixed.yaw_deg=30. May be repeated.")] = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Show people in several styles with the renders the faces were made from."""
    from .gallery import gallery_of_styles
    from .spec import bundled_job, load_job

    found = gallery_of_styles(load_job(job or bundled_job("demo-morphface-job.yaml"), settings), out, identities=identities, styles=number, own=own)
    if json:
        show.as_json(found)
        return
    show.table([("people", found["identities"]), ("styles", found["styles"]), ("faces a second", found["images_per_s"]), ("picture", out)], title="Styles")
