"""A benchmark small enough to run here, in FRCSyn's file format: real pairs plain, occluded, at low resolution, and of large pose difference.

    lists/sub-tasks_2.1/<key>_comparison.txt     pathA;pathB, CRLF, no labels
    images/<key>/<form>/<person>/<image>.png     aligned 112x112
It is edition 0, sub-task 2.1: the whole line submit -> check -> score -> report runs on it. What is written holds real faces: it goes beside
a project, never into it. The second image of a pair is the changed one, as ROF pairs a neutral with an occluded face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from ..core.images import decode, encode_png
from ..core.progress import bar
from ..core.seeds import derive_seed, numpy_rng
from ..identity.trees import open_tree
from .occluders import OCCLUDERS, occlude
from .pair_lists import Pairs, read_pairs

KEYS = ("lfw", "lfw-occluded", "lfw-lowres", "lfw-pose")
Pose = Callable[[np.ndarray], np.ndarray]
"""Aligned faces, uint8 (N, 112, 112, 3) → yaw of each (any monotone scale with a sign)."""

POSE_SHARE = 0.5
"""Share of the mated and of the non-mated pairs, those of the largest pose difference, that make up the pose variant."""

LOWRES_PX = (14, 28)


def build_mini(faces: Path | str, pairs: Pairs | Path | str, out: Path | str, *, pose: Pose | None = None, seed: int = 0) -> dict[str, int | str]:
    """Write the mini benchmark of a folder or zip of aligned faces; return the counts.

    Args:
        faces: what the pair list names, aligned 112x112.
        out: a new folder; it will hold copies of the faces.
        pose: yaw predictor. Without one the faces are ordered by left-right asymmetry, a proxy that light from the side also raises.

    Raises:
        UserError: images missing or not aligned, or `out` is there and not empty.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is there already and not empty; choose a new folder")
    pairs = pairs if isinstance(pairs, Pairs) else read_pairs(pairs)
    image_of = _load(faces, pairs.images())
    chosen = _largest_difference(pairs, image_of, pose or asymmetry)
    for key, rows in {"lfw": None, "lfw-occluded": None, "lfw-lowres": None, "lfw-pose": chosen}.items():
        _write_variant(out, key, pairs, image_of, rows, seed)
    facts: dict[str, int | str] = {"pairs": len(pairs), "pose_pairs": len(chosen), "images": len(image_of), "pose_by": "predictor" if pose else "left-right asymmetry (proxy)", "seed": seed}
    write_json(out / "mini.json", facts)
    return facts


def low_resolution(image_HWC: np.ndarray, seed: int) -> np.ndarray:
    """Shrink an aligned face to 14-28 px (drawn by the seed) by area and enlarge it again."""
    side = int(numpy_rng(seed, "lowres").integers(LOWRES_PX[0], LOWRES_PX[1] + 1))
    small = Image.fromarray(image_HWC).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small.resize((112, 112), Image.Resampling.BICUBIC))


def asymmetry(image_NHWC: np.ndarray) -> np.ndarray:
    """Return (right - left) detail over all detail in an aligned face: the turned-away half is short of edges. A proxy of yaw's sign and size."""
    grey_NHW = image_NHWC.astype(np.float64).mean(axis=3)
    edge_NHW = np.abs(np.diff(grey_NHW, axis=2))[:, 30:100]
    half = edge_NHW.shape[2] // 2
    left_N, right_N = edge_NHW[:, :, 8:half].mean((1, 2)), edge_NHW[:, :, half + 1 : -8].mean((1, 2))
    return (right_N - left_N) / np.maximum(right_N + left_N, 1e-9)


def _largest_difference(pairs: Pairs, image_of: dict[str, np.ndarray], pose: Pose) -> np.ndarray:
    names = sorted(image_of)
    yaw = dict(zip(names, np.asarray(pose(np.stack([image_of[name] for name in names])), np.float64).tolist()))
    apart_P = np.array([abs(yaw[first] - yaw[second]) for first, second in pairs.paths])
    chosen = []
    for kind in (pairs.same_P, ~pairs.same_P):
        rows = np.flatnonzero(kind)
        chosen.append(rows[np.argsort(-apart_P[rows], kind="stable")[: max(1, int(POSE_SHARE * len(rows)))]])
    return np.sort(np.concatenate(chosen))


def _load(faces: Path | str, names: Sequence[str]) -> dict[str, np.ndarray]:
    with open_tree(faces) as tree:
        found = {}
        for name in names:
            try:
                found[name] = decode(tree.read(name))
            except UserError as error:
                raise UserError(f"{faces}: {name}: {error}") from error
            if found[name].shape != (112, 112, 3):
                raise UserError(f"{faces}: {name} is {found[name].shape[1]}x{found[name].shape[0]}, expected an aligned 112x112 face")
    return found


def _write_variant(out: Path, key: str, pairs: Pairs, image_of: dict[str, np.ndarray], rows: np.ndarray | None, seed: int) -> None:
    chosen = list(range(len(pairs))) if rows is None else rows.tolist()
    order = numpy_rng(seed, "mini", key).permutation(len(chosen))
    lines, written = [], set()
    with bar(f"writing {key}", len(chosen)) as step:
        for row in (chosen[place] for place in order):
            first, second = pairs.paths[row]
            names = []
            for name, changed in ((first, False), (second, key in ("lfw-occluded", "lfw-lowres"))):
                form, image_HWC = _changed(key, name, image_of[name], seed) if changed else ("plain", image_of[name])
                path = PurePosixPath(form, PurePosixPath(name).with_suffix(".png"))
                if path not in written:
                    write_bytes(out / "images" / key / path, encode_png(image_HWC))
                    written.add(path)
                names.append(str(path))
            lines.append(";".join(names))
            step(1)
    write_bytes(out / "lists" / "sub-tasks_2.1" / f"{key}_comparison.txt", "".join(f"{line}\r\n" for line in lines).encode("ascii"))


def _changed(key: str, name: str, image_HWC: np.ndarray, seed: int) -> tuple[str, np.ndarray]:
    own = derive_seed(seed, "mini", key, name)
    if key == "lfw-lowres":
        return "lowres", low_resolution(image_HWC, own)
    kind = sorted(OCCLUDERS)[own % len(OCCLUDERS)]
    return kind, occlude(image_HWC, kind, own)
