"""Basel Face Models: 2009 (Paysan et al., AVSS 2009; `01_MorphableModel.mat`) and 2017/2019 (Gerig et al., FG 2018; .h5 in statismo's layout).

2009: micrometres, `shapeEV` are standard deviations, triangles count from 1. 2017 and 2019: millimetres, `pcaVariance` are variances, an expression model whose mean is part of the
mean face. The names of the landmarks in the .h5 are scalismo-faces' [C]; those not among them are carried over from the bundled head.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from ..core.errors import UserError, missing_extra
from .foreign import RawModel

LICENCE = "Basel Face Model {year}, University of Basel: non-commercial research only, by the licence you signed at faces.dmi.unibas.ch"

_POINT_OF = {
    "right.eye.corner_outer": 36, "right.eye.corner_inner": 39, "left.eye.corner_inner": 42, "left.eye.corner_outer": 45, "center.nose.tip": 30,
    "right.lips.corner": 48, "left.lips.corner": 54, "center.lips.upper.outer": 51, "center.lips.lower.outer": 57, "center.chin.tip": 8,
}  # fmt: skip
_FARTHEST = 5.0
"""Millimetres a named landmark may lie off the mesh: some models leave the chin or the mouth away."""


def read_bfm(path: Path) -> RawModel:
    """Read a .mat (2009) or an .h5 (2017, 2019).

    Raises:
        UserError: damaged, of another model, or h5py is missing.
    """
    if path.suffix == ".mat":
        return from_2009(_mat(path), path)
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("h5py", "bfm", f"reading {path.name}") from error
    try:
        with h5py.File(path, "r") as file:
            return from_2019(file, path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}; expected an .h5 of the Basel Face Model, whole") from error


def from_2009(stored: Mapping[str, Any], path: Path) -> RawModel:
    """Make the model of the arrays of the .mat."""
    mean_V3 = _array(stored, "shapeMU", path).reshape(-1, 3)
    deviation_K = _array(stored, "shapeEV", path).ravel()
    return RawModel(
        name="bfm-2009",
        licence=LICENCE.format(year=2009),
        mean_V3=mean_V3,
        identity_KV3=_basis(_array(stored, "shapePC", path), deviation_K, len(mean_V3), path),
        expression_EV3=np.zeros((0, len(mean_V3), 3)),
        triangle_T3=_array(stored, "tl", path).astype(np.int64) - 1,
        mm=1e-3,
    )


def from_2019(file: Mapping[str, Any], path: Path) -> RawModel:
    """Make the model of an opened .h5, or of anything that finds arrays by the same names."""
    mean_V3 = _array(file, "shape/model/mean", path).reshape(-1, 3)
    identity_KV3 = _pca(file, "shape", len(mean_V3), path)
    expression_EV3 = np.zeros((0, len(mean_V3), 3))
    if "expression/model/mean" in file:
        own_V3 = _array(file, "expression/model/mean", path).reshape(-1, 3)
        if own_V3.shape != mean_V3.shape:
            raise UserError(f"{path}: expressions of {len(own_V3)} vertices for a shape of {len(mean_V3)}; the file is damaged")
        mean_V3, expression_EV3 = mean_V3 + own_V3, _pca(file, "expression", len(mean_V3), path)
    cell = _array(file, "shape/representer/cells", path).astype(np.int64)
    return RawModel(
        name="bfm-2019" if "2019" in path.name else "bfm-2017" if "2017" in path.name else "bfm",
        licence=LICENCE.format(year="2017/2019"),
        mean_V3=mean_V3,
        identity_KV3=identity_KV3,
        expression_EV3=expression_EV3,
        triangle_T3=cell.T if len(cell) == 3 else cell,
        mm=1.0,
        known=_landmarks(file, mean_V3),
    )


def _pca(file: Mapping[str, Any], part: str, count: int, path: Path) -> np.ndarray:
    deviation_K = np.sqrt(_array(file, f"{part}/model/pcaVariance", path).ravel().clip(0.0))
    return _basis(_array(file, f"{part}/model/pcaBasis", path), deviation_K, count, path)


def _basis(column_CK: np.ndarray, deviation_K: np.ndarray, count: int, path: Path) -> np.ndarray:
    """Return unit columns, (3 V, K), as what one standard deviation moves, (K, V, 3)."""
    if column_CK.shape != (3 * count, len(deviation_K)):
        raise UserError(f"{path}: a basis of shape {column_CK.shape}, expected ({3 * count}, {len(deviation_K)}); the file is damaged or of another model")
    return (column_CK * deviation_K).T.reshape(-1, count, 3)


def _landmarks(file: Mapping[str, Any], mean_V3: np.ndarray) -> dict[int, int]:
    """Return the vertices next to the named places in the file, as far as it names any."""
    if "metadata/landmarks/json" not in file:
        return {}
    try:
        text = np.asarray(file["metadata/landmarks/json"][()]).ravel()[0]
        listed = json.loads(text.decode() if isinstance(text, bytes) else str(text))
        places = {_POINT_OF[row["id"]]: np.array(row["coordinates"], float).reshape(3) for row in listed if row["id"] in _POINT_OF}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {}  # without them the landmarks are found by shape
    off = {point: np.linalg.norm(mean_V3 - place_3, axis=1) for point, place_3 in places.items()}
    return {point: int(off_V.argmin()) for point, off_V in off.items() if off_V.min() < _FARTHEST}


def _array(stored: Mapping[str, Any], name: str, path: Path) -> np.ndarray:
    if name not in stored:
        raise UserError(f"{path} has no '{name}'; expected 01_MorphableModel.mat of 2009, or an .h5 of 2017 or 2019")
    array = np.asarray(stored[name][()])
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path}: '{name}' holds no numbers; the file is damaged")
    return array.astype(np.float64)


def _mat(path: Path) -> dict[str, Any]:
    try:
        return loadmat(path, variable_names=["shapeMU", "shapePC", "shapeEV", "tl"])
    except Exception as error:  # SciPy's reader meets damage with errors of many types, of zlib and struct among them
        raise UserError(f"cannot read {path}: {error}; expected the Basel Face Model's 01_MorphableModel.mat, whole") from error
