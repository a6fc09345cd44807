"""The verbs about styles: style codes of pictures, and the prior they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .options import Json

styles_app = typer.Typer(help="Styles of pictures: fit the head to faces, learn how styles vary.", no_args_is_help=True)


@styles_app.command("fit")
def fit(
    faces: Annotated[Path, typer.Argument(help="Aligned 112x112 faces: folder per identity, a zip of that, or a dataset folder.")],
    out: Annotated[Path, typer.Option(help="The .npz of style codes to write. It describes real people: do not publish it.")],
    head: Annotated[Path | None, typer.Option(help="Another head: what `facefoundry head` writes, ICT-FaceKit, FLAME, BFM, eos; left out, the bundled one.")] = None,
    json: Json = False,
) -> None:
    """Fit the head to faces: identity, expression, pose, camera, skin and light of each (some 30 faces a second and core)."""
    import numpy as np

    from ..core.errors import UserError
    from ..core.progress import track
    from ..identity.sources import load_faces
    from ..recognition.pose import aligned_landmarks
    from ..styles_3dmm.codes import fit_codes
    from ..styles_3dmm.head_file import default_head
    from ..styles_3dmm.head_formats import read_head

    if out.suffix != ".npz":
        raise UserError(f"--out {out}: expected a name that ends in .npz")
    model, found = default_head() if head is None else read_head(head), load_faces(faces)
    landmark_N682 = np.stack([aligned_landmarks(image_HWC) for image_HWC in track(found.image_NHWC, "landmarks")])
    codes = fit_codes(model, found.image_NHWC, landmark_N682, found.identity_N)
    codes.save(out)
    without = int((~np.isfinite(codes.code_NP).all(1)).sum())
    facts = {"faces": len(found), "left out": len(found.failed), "without a fit": without, "residual_px": float(np.median(codes.residual_N)), "head": model.name, "licence": model.licence, "out": out}
    _tell(facts, json, "Style codes")


@styles_app.command("prior")
def prior(
    codes: Annotated[Path, typer.Argument(help="Style codes, as `styles fit` writes them.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write: laws of populations, nobody's code.")],
    least_images: Annotated[int, typer.Option(min=2, help="Leave out people with fewer pictures.")] = 8,
    json: Json = False,
) -> None:
    """Fit the style prior: how styles differ between people, and how much each person's own pictures do."""
    from ..core.errors import UserError
    from ..styles_3dmm.codes import StyleCodes
    from ..styles_3dmm.style_prior import fit_style_prior

    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: expected a name that ends in .safetensors")
    found = StyleCodes.load(codes)
    law = fit_style_prior(found.code_NP, found.identity_N, found.layout, least_images=least_images)
    law.save(out)
    _tell({**law.facts, "columns": len(law.layout), "rank between people": law.between_PR.shape[1], "out": out}, json, "Style prior")


def _tell(values: dict[str, Any], json: bool, title: str) -> None:
    if json:
        show.as_json(values)
    else:
        show.table(values.items(), title=title)
