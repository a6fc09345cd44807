"""Other people's morphable models brought to the house's frame: millimetres, y down, origin between the eyes, landmarks, regions and a texture chart.

Each format has its own file (ict, flame, bfm, eos) that reads a `RawModel`; what a file does not say (landmarks, regions, chart) is made here the same way for all.
Axes: V vertices, T triangles, K identity, E expression coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..core.errors import UserError
from ..core.progress import log
from .face_labels import label_face, paint_eyes
from .head_chart import plain_chart
from .head_file import check_head, default_head
from .landmark_transfer import carry_landmarks
from .morphable import PARTS, MorphableHead

_HEIGHT_MM = 220.0
"""About how tall a face or head model is; by it the unit of a file is told that does not name one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawModel:
    """A linear model as its file has it: any unit, x to the model's left (the viewer's right), y up, z forward.

    Attributes:
        mm: millimetres of one unit of the file; None = told by the size.
        identity_KV3, expression_EV3: what a coefficient of 1 moves.
        part_T: parts where the file names them; 255 = to be told from the landmarks. None = all of them.
        uv_V2: texture coordinates, v downwards; None = the house's chart.
        known: vertices of the points (0 to 67) the file knows.
        eye_V, eye_centre_23: as in `MorphableHead`, in the file's units and axes; None = told from the lids.
    """

    name: str
    licence: str
    mean_V3: np.ndarray
    identity_KV3: np.ndarray
    expression_EV3: np.ndarray
    triangle_T3: np.ndarray
    mm: float | None = None
    part_T: np.ndarray | None = None
    uv_V2: np.ndarray | None = None
    known: dict[int, int] = field(default_factory=dict)
    eye_V: np.ndarray | None = None
    eye_centre_23: np.ndarray | None = None
    expression_names: tuple[str, ...] = ()


def adopt(raw: RawModel, source: str, known: dict[int, int] | None = None) -> MorphableHead:
    """Return a model in the house's frame and say its licence.

    Args:
        source: the file, for messages.
        known: vertices of landmarks (0 to 67) that go before the file's own.

    Raises:
        UserError: arrays do not fit together, numbers are not finite, or a landmark names no vertex.
    """
    count, known = len(raw.mean_V3), {**raw.known, **(known or {})}
    _check(raw, source, known)
    ours_3 = np.array([1.0, -1.0, 1.0]) * (raw.mm or _unit(raw.mean_V3))
    place_V3 = raw.mean_V3 * ours_3
    landmark_68 = carry_landmarks(place_V3, known)
    centre_23 = _centres(place_V3[landmark_68]) if raw.eye_centre_23 is None else raw.eye_centre_23 * ours_3
    middle_3 = centre_23.mean(0)
    place_V3, centre_23 = place_V3 - middle_3, centre_23 - middle_3
    triangle_T3 = _outwards(place_V3, np.asarray(raw.triangle_T3, np.int32))
    eye_V = np.zeros(count, np.int8) if raw.eye_V is None else raw.eye_V
    log.warning("head: %s; licence: %s", raw.name, raw.licence)
    head = MorphableHead(
        name=raw.name,
        licence=raw.licence,
        mean_V3=place_V3.astype(np.float32),
        identity_KV3=(raw.identity_KV3 * ours_3).astype(np.float32),
        expression_EV3=(raw.expression_EV3 * ours_3).astype(np.float32),
        triangle_T3=triangle_T3,
        part_T=_parts(raw.part_T, place_V3, triangle_T3, landmark_68, eye_V, centre_23),
        uv_V2=(plain_chart(place_V3) if raw.uv_V2 is None else raw.uv_V2).astype(np.float32),
        landmark_68=landmark_68,
        eye_V=eye_V.astype(np.int8),
        eye_centre_23=centre_23.astype(np.float32),
        expression_names=raw.expression_names,
    )
    return check_head(head, source)


def _check(raw: RawModel, source: str, known: dict[int, int]) -> None:
    count = len(raw.mean_V3)
    bases = {"mean_V3": raw.mean_V3[None], "identity_KV3": raw.identity_KV3, "expression_EV3": raw.expression_EV3}
    for name, array in bases.items():
        if array.ndim != 3 or array.shape[1:] != (count, 3) or not np.isfinite(array).all():
            raise UserError(f"{source}: {name} has shape {array.shape} or numbers that are not finite, expected (.., {count}, 3); the file is damaged or of another model")
    if count < 4 or not len(raw.triangle_T3) or not 0 <= raw.triangle_T3.min() <= raw.triangle_T3.max() < count:
        raise UserError(f"{source}: {len(raw.triangle_T3)} triangles over {count} vertices, expected some, all of whose corners are vertices; the file is damaged or of another model")
    lost = [point + 1 for point, vertex in known.items() if not 0 <= vertex < count]
    if lost:
        raise UserError(f"{source}: landmarks {lost[:5]} name no vertex of {count}; give the landmark file of this very mesh")


def _unit(mean_V3: np.ndarray) -> float:
    """Return the millimetres of the unit (metre, decimetre, centimetre, millimetre, micrometre) in which a head is about as tall as heads are."""
    units = np.array([1000.0, 100.0, 10.0, 1.0, 1e-3])
    return float(units[np.abs(np.log(np.ptp(mean_V3[:, 1]) * units / _HEIGHT_MM)).argmin()])


def _centres(at_L3: np.ndarray) -> np.ndarray:
    """Return where the eyeballs' centres lie behind lids, (2, 3): as far as on the bundled head."""
    head = default_head()
    lids = [slice(42, 48), slice(36, 42)]
    own_L3 = head.mean_V3[head.landmark_68]
    return np.stack([at_L3[lid].mean(0) + centre_3 - own_L3[lid].mean(0) for lid, centre_3 in zip(lids, head.eye_centre_23)])


def _outwards(place_V3: np.ndarray, triangle_T3: np.ndarray) -> np.ndarray:
    """Return the triangles wound so that (b - a) × (c - a) points out: what a file says of its winding is measured, not believed."""
    corner_T33 = place_V3[triangle_T3] - (place_V3.mean(0) * (1, 1, 0) + (0, 0, place_V3[:, 2].max() - 120.0))
    out = np.einsum("ti,ti->t", corner_T33.mean(1), np.cross(corner_T33[:, 1] - corner_T33[:, 0], corner_T33[:, 2] - corner_T33[:, 0])).sum() > 0
    return triangle_T3 if out else np.ascontiguousarray(triangle_T3[:, [0, 2, 1]])


def _parts(given_T: np.ndarray | None, place_V3: np.ndarray, triangle_T3: np.ndarray, landmark_68: np.ndarray, eye_V: np.ndarray, centre_23: np.ndarray) -> np.ndarray:
    told_T = label_face(place_V3, triangle_T3, landmark_68, eye_V, centre_23)
    if given_T is None:
        return told_T
    # Who has eyeballs has no eye drawn on the skin, and who has teeth none on the lips.
    told_T[np.isin(told_T, [PARTS.index(name) for name in ("sclera", "iris", "pupil")])] = PARTS.index("skin")
    part_T = np.where(given_T == 255, told_T, given_T).astype(np.uint8)
    ball_T = np.where(np.isin(given_T, [PARTS.index("sclera"), PARTS.index("iris")]), eye_V[triangle_T3].max(1), 0)
    if ball_T.any():
        paint_eyes(part_T, place_V3[triangle_T3].mean(1), place_V3[landmark_68], ball_T, centre_23)
    return part_T
