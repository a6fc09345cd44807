"""eos models (Huber et al., VISAPP 2016; github.com/patrikhuber/eos): `.bin` as the library writes them, or the same fields as `.json`.

The .bin is cereal's plain binary archive, little-endian, without a mark at its head. Read from eos' sources (MorphableModel.hpp, PcaModel.hpp, Blendshape.hpp, eigen_cerealisation.hpp)
and confirmed on its share/sfm_shape_3448.bin:
    model      u32 version (1-4), shape PCA, colour PCA, [2+] optional expression model, [3+] optional landmark names, texture coordinates, [4] texture triangles
    PCA        matrix mean (3V, 1), matrix orthonormal basis (3V, K), matrix eigenvalues (K, 1), list of i32 triples
    matrix     i32 rows, i32 columns, f32 column by column;   list: u64 length, items;   text: u64 length, bytes
    optional   u8 1 = nothing, or 0 and the value;   expression model: i32 0 = PCA, 1 = list of blendshapes (text name, matrix)
eos itself writes no models as JSON: the .json here is ours [C], with the names of eos' members as keys (under cereal's "value0" or at the top) and matrices as lists of rows.
Units are told by the size. The colour model is not used.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from .foreign import RawModel

LICENCE = "not stated in the file: ask its maker (Surrey Face Model: non-commercial use only, www.cvssp.org/facemodel; Basel and Liverpool-York models: research only, by their own licences)"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pca:
    mean_C: np.ndarray
    basis_CK: np.ndarray
    variance_K: np.ndarray
    triangle_T3: np.ndarray

    def moved(self) -> np.ndarray:
        """What one standard deviation moves, (K, V, 3)."""
        if self.basis_CK.shape != (len(self.mean_C), len(self.variance_K)) or len(self.mean_C) % 3:
            raise ValueError(f"a basis of shape {self.basis_CK.shape} for a mean of {len(self.mean_C)} numbers and {len(self.variance_K)} eigenvalues")
        return (self.basis_CK * np.sqrt(self.variance_K.clip(0.0))).T.reshape(-1, len(self.mean_C) // 3, 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Model:
    shape: _Pca
    expression: _Pca | list[tuple[str, np.ndarray]] | None
    landmarks: dict[str, int]
    uv_V2: np.ndarray
    """(0, 2) without any."""


def read_eos(path: Path) -> RawModel:
    """Read a .bin or .json.

    Raises:
        UserError: missing, cut off, of an unknown version, or its parts do not fit together.
    """
    try:
        data = path.read_bytes()
        model = _from_json(json.loads(data)) if path.suffix == ".json" else _from_binary(data)
        return _raw(model)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; expected an eos model") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        what = f"no '{error.args[0]}'" if isinstance(error, KeyError) and error.args else error
        raise UserError(f"{path} is cut off or no eos model ({what}); expected what eos' save_model writes (version 1 to 4), or its fields as JSON") from error


def _raw(model: _Model) -> RawModel:
    mean_C, identity_KV3 = model.shape.mean_C, model.shape.moved()
    count, names = len(mean_C) // 3, ()
    expression_EV3 = np.zeros((0, count, 3))
    if isinstance(model.expression, _Pca):
        expression_EV3, mean_C = model.expression.moved(), mean_C + model.expression.mean_C
    elif model.expression:
        names = tuple(name for name, _ in model.expression)
        expression_EV3 = np.stack([moved_C.reshape(count, 3) for _, moved_C in model.expression])
    return RawModel(
        name="eos",
        licence=LICENCE,
        mean_V3=mean_C.reshape(count, 3),
        identity_KV3=identity_KV3,
        expression_EV3=expression_EV3,
        triangle_T3=model.shape.triangle_T3,
        # One pair a vertex, or none; pairs of seams have triangles of their own, which our heads do not.
        uv_V2=model.uv_V2 if len(model.uv_V2) == count else None,
        known={int(name) - 1: vertex for name, vertex in model.landmarks.items() if name.isdigit() and 1 <= int(name) <= 68},
        expression_names=names,
    )


class _Reader:
    """Takes the parts of a binary archive one after another."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError(f"{size} bytes wanted at {self.at}, {len(self.data) - self.at} left")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> int:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def matrix(self) -> np.ndarray:
        rows, columns = self.number("i"), self.number("i")
        if rows < 0 or columns < 0:
            raise ValueError(f"a matrix of {rows} rows and {columns} columns")
        return np.frombuffer(self.take(4 * rows * columns), "<f4").reshape(columns, rows).T.astype(np.float64)

    def rows(self, kind: str, width: int) -> np.ndarray:
        """A list of tuples of numbers, (N, width)."""
        count = self.number("Q")
        return np.frombuffer(self.take(count * width * np.dtype(kind).itemsize), kind).reshape(count, width)

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def optional(self, read: Callable[[], Any], otherwise: Any) -> Any:
        return otherwise if self.number("B") else read()

    def pca(self) -> _Pca:
        mean, basis, variance = self.matrix(), self.matrix(), self.matrix()
        return _Pca(mean_C=mean.ravel(), basis_CK=basis, variance_K=variance.ravel(), triangle_T3=self.rows("<i4", 3))

    def expression(self) -> _Pca | list[tuple[str, np.ndarray]]:
        kind = self.number("i")
        if kind not in (0, 1):
            raise ValueError(f"an expression model of kind {kind}, expected 0 or 1")
        return self.pca() if kind == 0 else [(self.text(), self.matrix().ravel()) for _ in range(self.number("Q"))]

    def landmarks(self) -> dict[str, int]:
        return {self.text(): self.number("i") for _ in range(self.number("Q"))}


def _from_binary(data: bytes) -> _Model:
    reader = _Reader(data)
    version = reader.number("I")
    if not 1 <= version <= 4:
        raise ValueError(f"version {version}, expected 1 to 4")
    shape, _colour = reader.pca(), reader.pca()
    expression = reader.optional(reader.expression, None) if version >= 2 else None
    landmarks = reader.optional(reader.landmarks, {}) if version >= 3 else {}
    uv_V2 = reader.rows("<f8", 2)
    if version >= 4 and len(reader.rows("<i4", 3)):
        uv_V2 = uv_V2[:0]
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes after its end")
    return _Model(shape=shape, expression=expression, landmarks=landmarks, uv_V2=uv_V2)


def _from_json(value: Any) -> _Model:
    value = value.get("value0", value)
    expression = value.get("expression_model")
    if isinstance(expression, list):
        expression = [(str(row["name"]), np.array(row["deformation"], float).ravel()) for row in expression]
    elif expression is not None:
        expression = _pca_of(expression)
    uv_V2 = np.array(value.get("texture_coordinates") or np.zeros((0, 2)), float).reshape(-1, 2)
    landmarks = {str(name): int(vertex) for name, vertex in (value.get("landmark_definitions") or {}).items()}
    seams = bool(value.get("texture_triangle_indices"))
    return _Model(shape=_pca_of(value["shape_model"]), expression=expression, landmarks=landmarks, uv_V2=uv_V2[:0] if seams else uv_V2)


def _pca_of(value: dict[str, Any]) -> _Pca:
    return _Pca(
        mean_C=np.array(value["mean"], float).ravel(),
        basis_CK=np.array(value["orthonormal_pca_basis"], float),
        variance_K=np.array(value["eigenvalues"], float).ravel(),
        triangle_T3=np.array(value["triangle_list"], np.int64).reshape(-1, 3),
    )
