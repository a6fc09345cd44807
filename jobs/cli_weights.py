"""The verb that brings published weights in: import-weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import show

GENERATORS = ("uiface", "idiffface", "vq-f4")
RECOGNISERS = ("arcface_torch", "cvlface", "adaface", "tface", "curricularface")
KINDS = (*GENERATORS, *RECOGNISERS)


def import_weights(
    kind: Annotated[str, typer.Argument(help="What the file is: uiface, idiffface (denoisers), vq-f4 (their first stage); arcface_torch, cvlface, adaface, tface, curricularface (recognisers).")],
    files: Annotated[list[Path], typer.Argument(help="Published checkpoint; for vq-f4 one whole file, or the encoder's and the decoder's.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    bgr: Annotated[Optional[bool], typer.Option("--bgr/--rgb", help="Recognisers: the order of colours they were trained on; default what is usual for the kind.")] = None,  # noqa: UP045 (typer on 3.10)
    json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Read a published PyTorch checkpoint (tensors only, every key accounted for) and write it as safetensors."""
    from ..core.errors import UserError, near_names

    if kind not in KINDS:
        raise UserError(f"unknown kind of weights '{kind}'; {near_names(kind, KINDS)}")
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: expected a name that ends in .safetensors")
    if kind != "vq-f4" and len(files) != 1:
        raise UserError(f"{len(files)} files for a {kind} {'recogniser' if kind in RECOGNISERS else 'denoiser'}, expected one" + ("" if kind in RECOGNISERS else "; import the first stage by itself (import-weights vq-f4)"))
    if bgr is not None and kind not in RECOGNISERS:
        raise UserError(f"--bgr and --rgb are for recognisers, not for {kind}; leave them out")
    facts = _imported(kind, files, out, bgr)
    if json:
        show.as_json({**facts, "out": out})
        return
    show.table([*facts.items(), ("out", out)], title="Imported")
    if kind in RECOGNISERS:
        show.line(f"Score it: facefoundry score {out} --pairs PAIRS --images IMAGES; begin a training from it: init: {out}")
        return
    place = "autoencoder" if kind == "vq-f4" else "denoiser"
    show.line(f"In a job file: generator: {{name: uiface, {place}: {out}, ...}}; docs/published-weights.md has a whole one.")


def _imported(kind: str, files: list[Path], out: Path, bgr: bool | None) -> dict[str, Any]:
    if kind in RECOGNISERS:
        from ..recognition.published import import_recogniser

        return import_recogniser(files[0], kind, out, bgr=bgr)
    if kind == "vq-f4":
        from ..generators.vq import import_first_stage

        return import_first_stage(files, out)
    from ..generators.published import import_denoiser

    return import_denoiser(files[0], kind, out)


def export_onnx(
    recogniser: Annotated[Path, typer.Argument(help="A .safetensors recogniser: own, or from import-weights.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write; a note of what it takes lies beside it.")],
    json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Write a recogniser as ONNX, RGB in [-1, 1] to raw embedding; what is written is run and compared (1e-4)."""
    from ..recognition.checkpoint import load_network
    from ..recognition.onnx_embedder import export_recogniser, note_of

    dim = export_recogniser(load_network(recogniser)[0], out)
    if json:
        show.as_json({"model": out, "note": note_of(out), "dim": dim})
        return
    show.table([("model", out), ("what it takes", note_of(out)), ("embedding", dim)], title="Exported")
    show.line(f"Use it: facefoundry score onnx:{out} --pairs PAIRS --images IMAGES, or judge: onnx:{out} in a job")
