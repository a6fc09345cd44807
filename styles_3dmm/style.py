"""The style code: what makes one picture of a head, as one row of numbers with names.

Blocks, in this order: shape (identity coefficients), expr (expression), pose (yaw, pitch, roll in degrees), cam (px per mm, pixel of the head's origin at
112 px), tex (skin albedo and whatever else colours the head), light (nine spherical harmonics by three channels, `light`). They are the groups of MorphFace's
236-number DECA code (CVPR 2025), whose codes read into the same layout.
Axes: N images, P columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..core.check import check
from ..core.errors import UserError, near_names
from ..core.euler import angles
from .morphable import MorphableHead

BLOCKS = ("shape", "expr", "pose", "cam", "tex", "light")
POSE = ("yaw_deg", "pitch_deg", "roll_deg")
CAMERA = ("scale_px_per_mm", "x_px", "y_px")
TONE = ("skin_r", "skin_g", "skin_b")
LIGHT = tuple(f"light_{k}_{channel}" for k in range(9) for channel in "rgb")
"""A row-major (9, 3) light, laid flat."""

_DECA = {"shape": ("shape", 100), "exp": ("expr", 50), "pose": ("pose", 6), "cam": ("cam", 3), "tex": ("tex", 50), "light": ("light", 27)}
_SIDE = 112


@dataclass(frozen=True, kw_only=True)
class StyleLayout:
    """Which column of a style code is what.

    Attributes:
        head: name of the head whose coefficients these are.
        blocks: (block, names of its columns), in the order of `BLOCKS`; names are unique over all blocks.
        units: whether the expression's columns are face units in [0, 1].
    """

    head: str
    blocks: tuple[tuple[str, tuple[str, ...]], ...]
    units: bool = True

    def __post_init__(self) -> None:
        if tuple(block for block, _ in self.blocks) != BLOCKS:
            raise ValueError(f"blocks {[block for block, _ in self.blocks]}, expected {list(BLOCKS)} in this order")
        if len(set(self.names)) != len(self.names):
            raise ValueError("two columns of the style layout have one name")

    @classmethod
    def of(cls, head: MorphableHead, texture: tuple[str, ...] = TONE) -> StyleLayout:
        """Return the layout of a head's own fits; `texture` names what colours it."""
        shape = tuple(f"shape_{k}" for k in range(len(head.identity_KV3)))
        expression = tuple(f"expr_{name}" for name in head.expression_names) or tuple(f"expr_{e}" for e in range(len(head.expression_EV3)))
        columns = (shape, expression, POSE, CAMERA, texture, LIGHT)
        return cls(head=head.name, blocks=tuple(zip(BLOCKS, columns)), units=bool(head.expression_names))

    @classmethod
    def from_json(cls, text: str) -> StyleLayout:
        """Read what `to_json` wrote.

        Raises:
            UserError: it is something else.
        """
        try:
            value = json.loads(text)
            return cls(head=value["head"], units=value["units"], blocks=tuple((block, tuple(names)) for block, names in value["blocks"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"the style layout cannot be read ({error}); expected what StyleLayout.to_json wrote: make the codes again") from error

    def to_json(self) -> str:
        """Return the layout as text."""
        return json.dumps({"head": self.head, "units": self.units, "blocks": self.blocks}, sort_keys=True)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name a column."""
        return tuple(name for _, names in self.blocks for name in names)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Columns of each block."""
        edges = np.cumsum([0, *(len(names) for _, names in self.blocks)]).tolist()
        return {block: slice(start, stop) for (block, _), start, stop in zip(self.blocks, edges, edges[1:])}

    def __len__(self) -> int:
        return len(self.names)

    def column(self, name: str) -> int:
        """Return the column of a name.

        Raises:
            UserError: there is none; near names are told.
        """
        if name not in self.names:
            raise UserError(f"the style code has no column '{name}'; {near_names(name, self.names)}")
        return self.names.index(name)

    def take(self, code_NP: np.ndarray, block: str) -> np.ndarray:
        """Return one block of codes, (N, its columns)."""
        check("code_NP", code_NP, f"N {len(self)}")
        return code_NP[:, self.slices[block]]

    def pack(self, **block_NX: np.ndarray) -> np.ndarray:
        """Return codes, (N, P) float32, of all six blocks by name, each (N, ...); a light may be (N, 9, 3)."""
        if set(block_NX) != set(BLOCKS):
            raise ValueError(f"blocks {sorted(block_NX)}, expected {sorted(BLOCKS)}")
        flat = {block: np.asarray(value).reshape(len(value), -1) for block, value in block_NX.items()}
        for block, names in self.blocks:
            check(block, flat[block], f"{len(flat['pose'])} {len(names)}")
        return np.concatenate([flat[block] for block in BLOCKS], axis=1).astype(np.float32)

    def unpack(self, code_NP: np.ndarray) -> dict[str, np.ndarray]:
        """Return the blocks of codes by name; inverse of `pack` but for the light, which stays (N, 27)."""
        return {block: self.take(code_NP, block) for block in BLOCKS}

    def clip(self, code_NP: np.ndarray) -> np.ndarray:
        """Return codes brought back to what can be rendered: face units and skin albedo within [0, 1], a scale above 0."""
        code_NP = np.array(code_NP, np.float32)
        if self.units:
            np.clip(code_NP[:, self.slices["expr"]], 0.0, 1.0, out=code_NP[:, self.slices["expr"]])
        for name in TONE:
            if name in self.names:
                code_NP[:, self.column(name)] = np.clip(code_NP[:, self.column(name)], 0.01, 1.0)
        scale = self.column(CAMERA[0])
        code_NP[:, scale] = np.maximum(code_NP[:, scale], 1e-3)
        return code_NP


def deca_layout() -> StyleLayout:
    """Return the layout of DECA's 236 numbers; the first three of its pose are angles in our convention, the others turn the jaw (radians)."""
    columns = [tuple(f"{block}_{k}" for k in range(size)) for block, size in _DECA.values()]
    columns[2:4] = [(*POSE, "jaw_x", "jaw_y", "jaw_z"), CAMERA]
    columns[5] = LIGHT
    return StyleLayout(head="flame", blocks=tuple(zip(BLOCKS, columns)), units=False)


def deca_codes(source: Path | Mapping[str, np.ndarray]) -> tuple[np.ndarray, StyleLayout]:
    """Return DECA's codes, (N, 236) float32, and their layout, to be used in the place of our fits.

    Args:
        source: an .npz, or a mapping, with DECA's own keys: shape (N, 100), exp (N, 50), pose (N, 6), cam (N, 3), tex (N, 50), light (N, 27) or (N, 9, 3);
            made on crops that are the whole aligned face (no crop of DECA's own, generators.md §3.2), so that cameras mean the same pixels.

    Camera and the head's turn come out in our units and axes (px at 112, degrees); the shift is the pixel of FLAME's own origin. The light's first
    coefficient is divided by π: DECA's code leaves π out of the constant that goes with it (see `light`).

    Raises:
        UserError: a key is missing or misshapen.
    """
    found = _read_deca(source)
    # DECA: picture = s (X + t) in [-1, 1], x right, y up, metres.
    scale_N, shift_N2 = found["cam"][:, 0], found["cam"][:, 1:]
    half = _SIDE / 2
    x_N, y_N = half * (1 + scale_N * shift_N2[:, 0]) - 0.5, half * (1 - scale_N * shift_N2[:, 1]) - 0.5
    light_N93 = found["light"].reshape(-1, 9, 3).copy()
    light_N93[:, 0] /= np.pi
    flip_3 = np.array([1.0, -1.0, 1.0])
    turn_N33 = Rotation.from_rotvec(found["pose"][:, :3]).as_matrix() * flip_3[:, None] * flip_3
    layout = deca_layout()
    pose_N6 = np.concatenate([angles(turn_N33), found["pose"][:, 3:]], axis=1)
    camera_N3 = np.column_stack([half * scale_N / 1000.0, x_N, y_N])
    return layout.pack(shape=found["shape"], expr=found["exp"], pose=pose_N6, cam=camera_N3, tex=found["tex"], light=light_N93), layout


def _read_deca(source: Path | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if isinstance(source, (str, Path)):
        try:
            with np.load(source, allow_pickle=False) as archive:
                source = {key: archive[key] for key in archive.files}
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read DECA codes from {source} ({error}); expected an .npz of arrays with the keys {', '.join(_DECA)}") from error
    missing = [key for key in _DECA if key not in source]
    if missing:
        raise UserError(f"the DECA codes lack {', '.join(missing)}; expected {', '.join(_DECA)}, as DECA's encode() returns them")
    found = {key: np.asarray(source[key], np.float64).reshape(len(source[key]), -1) for key in _DECA}
    for key, (_, size) in _DECA.items():
        if found[key].shape != (len(found["pose"]), size):
            raise UserError(f"DECA's '{key}' has shape {found[key].shape}, expected ({len(found['pose'])}, {size}); other sizes of its blocks are other networks")
    return found
