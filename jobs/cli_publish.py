"""The verb that shows a dataset to the world: publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show


def publish(
    folder: Annotated[Path, typer.Argument(help="Finished dataset folder.")],
    repo: Annotated[str, typer.Option(help="Dataset repository on the Hugging Face Hub: owner/name.")],
    card: Annotated[Path | None, typer.Option(help="YAML with what only you know: contact, citation, license, demographics ... (docs/publishing.md).")] = None,
    public: Annotated[bool, typer.Option("--public", help="Show the repository, behind a gate; new ones are private otherwise.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and check them; write and send nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Check a finished dataset and upload it with card, Croissant file and release facts. --dry-run: exit code 1 if something forbids it."""
    from .publish_hub import prepare
    from .publish_hub import publish as upload

    planned = prepare(folder, repo, card=card)
    facts = planned.facts() | ({} if dry_run else {"url": upload(planned, public=public)})
    if json:
        show.as_json(facts)
    else:
        show.table([(name, f"{size:,} bytes") for name, size in facts["list"].items()], title=f"{facts['files']} files, {facts['bytes'] / 1e6:.1f} MB")
        show.table([*(("problem", line) for line in facts["problems"]), *(("note", line) for line in facts["warnings"])])
        show.table([("would go to" if dry_run else "published at", facts.get("url", repo))])
    if facts["problems"]:
        raise typer.Exit(1)
