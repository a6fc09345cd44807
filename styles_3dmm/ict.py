"""ICT-FaceKit (Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020): a folder of .obj files of one mesh, MIT licence.

`generic_neutral_mesh.obj` is the mean, `identity000.obj` ... the mean plus one standard deviation of a component each, `jawOpen.obj` ... the mean with a face unit
at 1 (ARKit's, halves as "_L" and "_R"); `vertex_indices.json` names units and landmarks. Centimetres. Parts are told by the neutral mesh's materials.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.progress import track
from .eyeball import seat
from .foreign import RawModel
from .morphable import PARTS
from .obj import Obj, read_obj, read_vertices

LICENCE = "MIT (ICT-FaceKit, Copyright (c) 2020 USC Institute for Creative Technologies)"
NEUTRAL = "generic_neutral_mesh.obj"
_INDEX = "vertex_indices.json"

_PART_OF = {"GumsTongue": "mouth", "Teeth": "teeth", "ScleraLeft": "sclera", "IrisLeft": "sclera", "ScleraRight": "sclera", "IrisRight": "sclera"}
_SHELLS = ("LacrimalFluid", "EyeBlend", "EyeOcclusion", "EyeLashes")
"""Glassy layers before the eyes: Lambertian skin there would hide them, so they are left out."""
_MOUTH_SOCKET = (11248, 13293)
"""Vertices of the mouth's inside in the published mesh (its README); it shares a material with the back of the head."""


def read_ict(folder: Path) -> RawModel:
    """Read the folder `FaceXModel`.

    Raises:
        UserError: a file is missing or damaged, or a shape has another number of vertices than the neutral mesh.
    """
    index, neutral = _index(folder), read_obj(folder / NEUTRAL, by="usemtl")
    names = [f"identity{number:03d}" for number in range(len(list(folder.glob("identity[0-9][0-9][0-9].obj"))))]
    if not names:
        raise UserError(f"{folder} has no identity000.obj; expected the folder FaceXModel of ICT-FaceKit with its identity shapes")
    units = [str(name) for name in index["expressions"]]
    moved = {name: _moved(folder / f"{name}.obj", neutral.vertex_V3) for name in track([*names, *units], "shapes of ICT-FaceKit")}
    groups = [name for name in neutral.polygons if name.removeprefix("M_") not in _SHELLS]
    pieces = [neutral.triangles([group]) for group in groups]
    triangle_T3, kept_V = np.concatenate(pieces), np.unique(np.concatenate(pieces))
    part_T = np.concatenate([_part(group, piece_T3) for group, piece_T3 in zip(groups, pieces)])
    eye_V, centre_23 = _eyes(neutral)
    return RawModel(
        name="ict-facekit",
        licence=LICENCE,
        mean_V3=neutral.vertex_V3[kept_V],
        identity_KV3=np.stack([moved[name][kept_V] for name in names]),
        expression_EV3=np.stack([moved[name][kept_V] for name in units]) if units else np.zeros((0, len(kept_V), 3)),
        triangle_T3=np.searchsorted(kept_V, triangle_T3),
        mm=10.0,
        part_T=part_T,
        known=_known(index["idx_to_landmark_verts"], kept_V, folder),
        eye_V=eye_V[kept_V] if centre_23 is not None else None,
        eye_centre_23=centre_23,
        expression_names=tuple(_arkit(name) for name in units),
    )


def _index(folder: Path) -> dict:
    path = folder / _INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; expected the folder FaceXModel of ICT-FaceKit") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); copy it again") from error
    missing = [key for key in ("expressions", "idx_to_landmark_verts") if not isinstance(index, dict) or key not in index]
    if missing:
        raise UserError(f"{path} has no '{missing[0]}'; expected the one of ICT-FaceKit's FaceXModel")
    return index


def _moved(path: Path, neutral_V3: np.ndarray) -> np.ndarray:
    vertex_V3 = read_vertices(path)
    if vertex_V3.shape != neutral_V3.shape:
        raise UserError(f"{path} has {len(vertex_V3)} vertices, the neutral mesh {len(neutral_V3)}; copy it again")
    return vertex_V3 - neutral_V3


def _part(group: str, triangle_T3: np.ndarray) -> np.ndarray:
    """Parts of a material's triangles, (T,): known ones, and 255 for skin, on which the landmarks tell lips, brows and hair."""
    name = group.removeprefix("M_")
    part_T = np.full(len(triangle_T3), PARTS.index(_PART_OF[name]) if name in _PART_OF else 255, np.uint8)
    if name == "BackHead":
        low, high = _MOUTH_SOCKET
        part_T[((triangle_T3 >= low) & (triangle_T3 <= high)).all(1)] = PARTS.index("mouth")
    return part_T


def _eyes(neutral: Obj) -> tuple[np.ndarray, np.ndarray | None]:
    """Which vertices are of which eyeball, and the eyeballs' centres (viewer's right first); None without eyeballs."""
    eye_V, centres = np.zeros(len(neutral.vertex_V3), np.int8), []
    for number, side in enumerate(("Left", "Right"), start=1):  # the model's left is at the viewer's right
        groups = [f"M_{name}{side}" for name in ("Sclera", "Iris") if f"M_{name}{side}" in neutral.polygons]
        if not groups:
            return eye_V, None
        own = np.unique(neutral.triangles(groups))
        eye_V[own] = number
        centres.append(seat(neutral.vertex_V3[own])[0])
    return eye_V, np.stack(centres)


def _known(vertices: list[int], kept_V: np.ndarray, folder: Path) -> dict[int, int]:
    if len(vertices) != 68 or not np.isin(vertices, kept_V).all():
        raise UserError(f"{folder / _INDEX} names {len(vertices)} landmarks, expected 68 on the face; copy it again")
    return dict(enumerate(np.searchsorted(kept_V, vertices).tolist()))


def _arkit(name: str) -> str:
    return name.removesuffix("_L") + "Left" if name.endswith("_L") else name.removesuffix("_R") + "Right" if name.endswith("_R") else name
