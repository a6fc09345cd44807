"""Pictures that show what a generator does: people by styles, each face beside the render it was made from.

Axes: I identities, S styles, P numbers of a style code.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..core.errors import UserError
from ..core.images import to_uint8
from ..core.progress import track
from ..core.seeds import derive_seed
from .captioned import write_picture
from .contact_sheet import SIDE_PX, sheet
from .identities import make_identities
from .plan import resolve_device
from .spec import JobSpec
from .steps import build_generator


def gallery_of_styles(spec: JobSpec, out: Path, *, identities: int, styles: int, own: bool = False) -> dict[str, Any]:
    """Write the grid of a job's first people in several styles and return what is on it.

    Args:
        out: the picture, .jpg or .png. Everybody in the same styles: a row of the renders, below it a row a person. With `own`: each person in styles of their own habits,
            left of each face its render.

    Raises:
        UserError: the job's generator takes no styles.
    """
    generator = build_generator(spec.generator.settings, torch.device(resolve_device(spec.engine.device)))
    if not hasattr(generator, "styles"):
        raise UserError(f"the generator '{spec.generator.name}' takes no styles; name one that does in the job file, e.g. generator: {{name: morphface}}")
    anchor_ID, _ = make_identities(spec.identities.model_copy(update={"count": max(identities, 2)}), spec.seed)
    anchor_ID = anchor_ID[:identities]
    seeds = [[derive_seed(spec.seed, row, column, "noise") for column in range(styles)] for row in range(identities)]
    asked = [generator.styles.draw(anchor_ID[[row if own else column % identities for column in range(styles)]], seeds[row if own else 0]) for row in range(identities)]
    begin_s = time.monotonic()
    faces = [to_uint8(generator.show(anchor_ID[[row] * styles], seeds[row], asked[row]).image_BCHW) for row in track(range(identities), "faces")]
    seconds = time.monotonic() - begin_s
    renders = [rendered(generator, drawn.code_BP) for drawn in (asked if own else asked[:1])]
    write_picture(out, _beside(renders, faces) if own else _above(renders[0], faces))
    pose = [[list(style.pose_deg) for style in drawn.styles] for drawn in asked] if asked[0].styles[0].pose_deg else None
    return {"identities": identities, "styles": styles, "images_per_s": round(identities * styles / seconds, 2), "pose_deg": pose, "sheet": str(out)}


def rendered(generator: Any, code_BP: np.ndarray) -> np.ndarray:
    """Return the shaded renders of style codes at the size of faces, uint8 (B, 112, 112, 3)."""
    from ..generators.style_encoder import SHADED

    maps_B9SS = torch.from_numpy(generator.styles.render(code_BP))
    return to_uint8(F.interpolate(maps_B9SS[:, SHADED], (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True))


def _above(render_SHWC: np.ndarray, faces: list[np.ndarray]) -> np.ndarray:
    tiles, count = np.concatenate([render_SHWC, *faces]), len(render_SHWC)
    return sheet(tiles, [list(range(row * count, (row + 1) * count)) for row in range(1 + len(faces))])


def _beside(renders: list[np.ndarray], faces: list[np.ndarray]) -> np.ndarray:
    rows = [np.stack([render, face], 1).reshape(-1, *face.shape[1:]) for render, face in zip(renders, faces)]
    return _above(rows[0], rows[1:])
