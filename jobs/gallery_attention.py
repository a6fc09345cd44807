"""`gallery attention`: where UIFace's network looks, over time, as heat over the face it believes in at that time.

Cross-attention as UIFace's own map M_t (eq. 5-6: softmax over places, mean over tokens, heads and blocks). Self-attention is that of the reference pass,
which identity rows take over: what one marked place gathers from, mean over heads and over the blocks of the finest resolution.
Axes: B rows, R rows of a pass, N heads, L places, T tokens or places, h w grid of places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UserError
from ..generators.uiface import attention_map
from ..generators.watching import Recorder
from .captioned import Row, Tile, captioned, write_picture
from .contact_sheet import SIDE_PX
from .gallery_faces import need_watch, open_people
from .gallery_trajectory import TIMES, decoded, first_with_identity, nearest_visits
from .spec import JobSpec

PLACES = {"eye": (38.0, 52.0), "mouth": (56.0, 92.0), "backdrop": (8.0, 16.0)}
"""Where the self-attention is looked at, (x, y) in px of an aligned face."""

STRENGTH = 0.6
"""Share of the heat's colour where it is hottest."""


def gallery_of_attention(spec: JobSpec, out: Path, *, identity: int = 0, image: int = 0, times: tuple[int, ...] = TIMES) -> dict[str, Any]:
    """Write one face's attention over time.

    Rows: x̂0(t); M_t with, below it, how far it moved since the point before (UIFace compares that with δ* to end stage 1); the self-attention of three places;
    the pull of the identity, |ε - ε_reference| at each place of the latent.

    Returns:
        Shown times, `moved` (mean |M_t - M_before| at each), the first time with identity, δ* at this stride.

    Raises:
        UserError: not UIFace's generator.
    """
    people = open_people(spec, identity + 1)
    need_watch(people.generator, "gallery attention")
    recorder = Recorder()
    people.generator.generate(people.anchor_ID[identity : identity + 1], [people.seed(identity, image)], watch=recorder)
    visits, size = recorder.visits, tuple(recorder.visits[0].latent_BCHW.shape[-2:])
    border, shown = first_with_identity(visits, 0), nearest_visits([visit.t for visit in visits], times)
    map_T = [attention_map(cross_logits(found), size)[0] for found in recorder.logits]
    moved_T = [float("nan"), *(float((now - before).abs().mean()) for before, now in zip(map_T, map_T[1:]))]
    faces = [decoded(people, visits[place].clean())[0] for place in shown]
    pull = [(visits[place].noise_BCHW - visits[place].reference_BCHW).norm(dim=1)[0] for place in shown]
    line = next((column for column, place in enumerate(shown) if place >= border), None)
    rows = [
        Row(tiles=tuple(Tile(image_HWC=face) for face in faces), label=("estimate",), border=line),
        Row(tiles=tuple(Tile(image_HWC=heat(face, map_T[place]), caption=(_number(moved_T[place]),)) for face, place in zip(faces, shown)), label=("cross-", "attention", "moved by"), border=line),
        *(_self_row(name, faces, [recorder.logits[place] for place in shown], line) for name in PLACES),
        Row(tiles=tuple(Tile(image_HWC=heat(face, part) if float(part.max()) > 0 else face) for face, part in zip(faces, pull)), label=("pull of the", "identity"), border=line),
    ]  # fmt: skip
    write_picture(out, captioned(rows, [f"t = {visits[place].t}" for place in shown]))
    return {
        "times": [visits[place].t for place in shown], "moved": [round(moved_T[place], 4) for place in shown], "first_t_with_identity": visits[border].t if border < len(visits) else None,
        "smallest_move_in_stage_1": round(min(moved_T[1:border], default=float("nan")), 4), "delta": spec.generator.settings.sampler.delta, "picture": str(out),
    }  # fmt: skip


def cross_logits(found: list[tuple[str, Tensor]]) -> list[Tensor]:
    """Return the cross-attention logits of one image's last row of a pass in each block: its identity row, or in stage 1 the context-free one."""
    return [logits_RNLT[-1:] for kind, logits_RNLT in found if kind == "cross"]


def self_weights(found: list[tuple[str, Tensor]], xy_px: tuple[float, float]) -> Tensor:
    """Return what the place `xy_px` (pixels of the face) gathers from: weights (h, w) of the reference row that sum to 1, mean over heads and the finest blocks."""
    logits_RNLT = [logits for kind, logits in found if kind == "self"]
    most = max(logits.shape[2] for logits in logits_RNLT)
    side = round(most**0.5)
    column, row = (min(int(value / SIDE_PX * side), side - 1) for value in xy_px)
    weight_NT = [logits[0, :, row * side + column].softmax(-1) for logits in logits_RNLT if logits.shape[2] == most]
    return sum(weight.mean(0) for weight in weight_NT).view(side, side) / len(weight_NT)


def heat(face_HWC: np.ndarray, map_HW: Tensor) -> np.ndarray:
    """Lay a map over a face: its least value leaves the face grey, its largest is brightest; uint8 (112, 112, 3).

    Raises:
        UserError: a map that is not finite.
    """
    from matplotlib import colormaps

    if not bool(map_HW.isfinite().all()):
        raise UserError("an attention map is not finite: the sampling ran into NaN; use precision: fp32")
    fine_HW = F.interpolate(map_HW.float()[None, None], (SIDE_PX, SIDE_PX), mode="bicubic", antialias=True)[0, 0].clamp_min(0).cpu().numpy()
    share_HW1 = ((fine_HW - fine_HW.min()) / max(float(np.ptp(fine_HW)), 1e-12))[..., None]
    grey_HWC = np.repeat(face_HWC.mean(2, keepdims=True), 3, 2)
    colour_HWC = 255 * colormaps["inferno"](share_HW1[..., 0])[..., :3]
    part_HW1 = STRENGTH * (0.35 + 0.65 * share_HW1)
    return np.round((1 - part_HW1) * grey_HWC + part_HW1 * colour_HWC).astype(np.uint8)


def _self_row(name: str, faces: list[np.ndarray], logits: list[list[tuple[str, Tensor]]], line: int | None) -> Row:
    tiles = tuple(Tile(image_HWC=heat(face, self_weights(found, PLACES[name])), cross=PLACES[name]) for face, found in zip(faces, logits))
    return Row(tiles=tiles, label=("self-", "attention:", name), border=line)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"
