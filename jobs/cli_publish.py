"""The verb that shows a dataset to the world: publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show
from .options import Json


def publish(
    folder: Annotated[Path, typer.Argument(help="Finished dataset folder.")],
    repo: Annotated[str, typer.Option(help="Dataset repository on the Hugging Face Hub: owner/name.")],
    card: Annotated[Path | None, typer.Option(help="YAML with what only you know: contact, citation, license, demographics ... (docs/publishing.md).")] = None,
    public: Annotated[bool, typer.Option("--public", help="Show the repository, behind a gate; new ones are private otherwise.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and check them; write and send nothing.")] = False,
    json: Json = False,
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


def sign(
    folder: Annotated[Path, typer.Argument(help="Finished dataset folder.")],
    certificate: Annotated[Path | None, typer.Option(help="PEM: the signer's certificate, then those that vouch for it.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM: the signer's key, PKCS#8, not encrypted. It stays where it is.")] = None,
    algorithm: Annotated[str, typer.Option(help="As the key is: es256, es384, es512, ps256, ps384, ps512, ed25519.")] = "es256",
    timestamps: Annotated[str, typer.Option(help="Address of an RFC 3161 time server; without it the manifest says no time.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Check the manifests that are there; exit code 1 if one is not valid.")] = False,
    json: Json = False,
) -> None:
    """Write a signed C2PA manifest beside every shard of generated or rendered faces, or check those that are there."""
    from ..core.errors import UserError
    from .c2pa_sidecar import check_signatures, sign_dataset

    if check:
        found = check_signatures(folder)
        show.written(found, "C2PA manifests", json)
        if any(state not in ("valid", "trusted") for state in found.values()):
            raise typer.Exit(1)
        return
    if certificate is None or key is None:
        raise UserError("signing needs --certificate and --key (PEM files); to look at manifests that are there use --check")
    files = sign_dataset(folder, certificate, key, algorithm=algorithm, timestamps=timestamps or None)
    show.written({"manifests": len(files), "beside": folder / "data"}, "Signed", json, f"Check them: facefoundry sign {folder} --check")
