"""The verb that brings published weights in: import-weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show

KINDS = ("uiface", "idiffface", "vq-f4")


def import_weights(
    kind: Annotated[str, typer.Argument(help="What the file is: uiface, idiffface (denoisers) or vq-f4 (their first stage).")],
    files: Annotated[list[Path], typer.Argument(help="Published checkpoint; for vq-f4 one whole file, or the encoder's and the decoder's.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Read a published PyTorch checkpoint (tensors only, every key accounted for) and write it as safetensors."""
    from ..core.errors import UserError, near_names
    from ..generators.published import import_denoiser
    from ..generators.vq import import_first_stage

    if kind not in KINDS:
        raise UserError(f"unknown kind of weights '{kind}'; {near_names(kind, KINDS)}")
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: expected a name that ends in .safetensors")
    if kind != "vq-f4" and len(files) != 1:
        raise UserError(f"{len(files)} files for a {kind} denoiser, expected one; import the first stage by itself (import-weights vq-f4)")
    facts = import_first_stage(files, out) if kind == "vq-f4" else import_denoiser(files[0], kind, out)
    if json:
        show.as_json({**facts, "out": out})
        return
    show.table([*facts.items(), ("out", out)], title="Imported")
    place = "autoencoder" if kind == "vq-f4" else "denoiser"
    show.line(f"In a job file: generator: {{name: uiface, {place}: {out}, ...}}; docs/published-weights.md has a whole one.")
