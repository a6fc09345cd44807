"""FLAME (Li et al., "Learning a model of facial shape and expression from 4D scans", SIGGRAPH Asia 2017): `generic_model.pkl` or an .npz of the same arrays.

Metres; `shapedirs` (V, 3, 400) are standard deviations, identity first. What is taken: the linear part. Left out: skinning and `posedirs`, so jaw and neck stay as in
the template (open mouths come from the expressions as far as they go); the eyeballs are those of the skinning weights and turn with the gaze.
The file has no landmarks: give a landmark file, or they are carried over from the bundled head.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ..core.errors import UserError
from .foreign import RawModel
from .safe_pickle import Array, Holder, read_pickle

LICENCE = "FLAME, Max Planck Institute for Intelligent Systems: non-commercial scientific research only, by the licence you accepted at flame.is.tue.mpg.de (FLAME 2023 Open: CC BY 4.0)"
_IDENTITIES = 300
_EYE_JOINTS = (3, 4)
"""The model's left eye, at the viewer's right, and its right one."""


def read_flame(path: Path) -> RawModel:
    """Read a .pkl (by a list of allowed names: nothing in it is run) or .npz.

    Raises:
        UserError: damaged, refused, or an array is missing or of another shape.
    """
    stored = _npz(path) if path.suffix == ".npz" else read_pickle(path)
    mean_V3 = _array(stored, "v_template", path, (None, 3))
    count = len(mean_V3)
    shape_V3C = _array(stored, "shapedirs", path, (count, 3, None))
    triangle_T3 = _array(stored, "f", path, (None, 3), also="faces").astype(np.int64)
    shape_CV3 = np.moveaxis(shape_V3C, 2, 0)
    eye_V, centre_23 = _eyes(stored, mean_V3, path)
    return RawModel(
        name="flame",
        licence=LICENCE,
        mean_V3=mean_V3,
        identity_KV3=shape_CV3[:_IDENTITIES],
        expression_EV3=shape_CV3[_IDENTITIES:],
        triangle_T3=triangle_T3,
        mm=1000.0,
        eye_V=eye_V,
        eye_centre_23=centre_23,
    )


def _eyes(stored: dict[str, Any], mean_V3: np.ndarray, path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Eyeballs by the skinning weights and their joints; (None, None) where the file has neither."""
    if "weights" not in stored or "J_regressor" not in stored:
        return None, None
    weight_VJ = _array(stored, "weights", path, (len(mean_V3), None))
    regressor_JV = _array(stored, "J_regressor", path, (None, len(mean_V3)))
    if weight_VJ.shape[1] <= max(_EYE_JOINTS) or len(regressor_JV) <= max(_EYE_JOINTS):
        return None, None
    eye_V = np.zeros(len(mean_V3), np.int8)
    for number, joint in enumerate(_EYE_JOINTS, start=1):
        eye_V[weight_VJ[:, joint] > 0.5] = number
    return eye_V, regressor_JV[list(_EYE_JOINTS)] @ mean_V3


def _array(stored: dict[str, Any], name: str, path: Path, shape: tuple[int | None, ...], also: str = "") -> np.ndarray:
    """Return an array, of a chumpy holder what it holds, of a sparse one the whole.

    Raises:
        UserError: it is not there, holds no numbers, or has another shape.
    """
    value = stored.get(name, stored.get(also))
    if value is None:
        raise UserError(f"{path} has no '{name}'; expected FLAME's generic_model.pkl or an .npz of its arrays (there: {', '.join(map(str, list(stored)[:12]))})")
    array = _opened(value, name, path)
    if array.ndim != len(shape) or any(size not in (None, real) for size, real in zip(shape, array.shape)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise UserError(f"{path}: '{name}' has shape {array.shape}, expected ({expected}); the file is damaged or of another model")
    return array.astype(np.float64)


def _opened(value: Any, name: str, path: Path) -> np.ndarray:
    try:
        array = _made(value)
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path}: '{name}' is no array ({error}); the file is damaged, or its maker stores it otherwise: save it as .npz where it opens") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: '{name}' is no array of numbers; the file is damaged, or its maker stores it otherwise: save it as .npz where it opens")
    return array


def _made(value: Any) -> Any:
    """Make the array of what a pickle held: itself, chumpy's "x", or SciPy's compressed columns."""
    if isinstance(value, Array):
        return value.numpy()
    if not isinstance(value, Holder):
        return value
    kept = value.kept if isinstance(value.kept, dict) else {}
    if {"data", "indices", "indptr"} <= kept.keys():
        matrix = sparse.csc_matrix(tuple(_made(kept[name]) for name in ("data", "indices", "indptr")), shape=kept.get("_shape", kept.get("shape")))
        matrix.check_format(full_check=True)
        return matrix.toarray()
    return _made(kept.get("x"))


def _npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("v_template", "shapedirs", "f", "faces", "weights", "J_regressor") if name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"cannot read {path}: {error}; expected an .npz of FLAME's arrays without pickled objects") from error
