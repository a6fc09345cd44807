"""The trained quality score: faces in, 0..100 out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..core.check import check
from ..core.errors import UserError
from ..core.files import bundled
from ..core.images import to_uint8
from ..core.weights import load_into, load_weights
from .features import Features
from .regressor import KIND, QualityNet, calibrate, predict

BUNDLED = ("quality-small",)


class QualityModel:
    """Scores single faces; made by `load_quality`.

    Attributes:
        name: file name without its ending.
        quality_of: name of the embedder for which the score says how good a face is.
        facts: provenance from the file's header.
    """

    def __init__(self, network: QualityNet, *, name: str, quality_of: str, facts: dict[str, Any], features: Features | None) -> None:
        self.name, self.quality_of, self.facts = name, quality_of, facts
        self._network, self._features = network, features
        self._columns = int(network.mean_K.shape[0])

    def __call__(self, faces: np.ndarray | Tensor) -> np.ndarray:
        """Return scores 0..100, float32, (N,), larger is better: the percentile among the training faces, damaged copies included.

        Args:
            faces: uint8 RGB, (N, 112, 112, 3); or float RGB in [-1, 1], (N, 3, 112, 112); or feature rows, (N, K), as `FaceRows.row_NK` has them.

        Raises:
            UserError: another shape, or images where the model was loaded without an embedder.
        """
        if faces.ndim == 2:
            row_NK = np.asarray(faces, np.float32)
            if row_NK.shape[1] != self._columns:
                raise UserError(f"rows of {row_NK.shape[1]} numbers, but '{self.name}' reads {self._columns}: the inner features of '{self.quality_of}', not its embeddings; pass FaceRows.row_NK or images")
        else:
            row_NK = self._rows(to_uint8(faces) if isinstance(faces, Tensor) else faces)
        return calibrate(predict(self._network, row_NK), self._network.knots_Q.numpy())

    def _rows(self, image_NHWC: np.ndarray) -> np.ndarray:
        try:
            check("faces", image_NHWC, "N 112 112 3")
        except ValueError as error:
            raise UserError(str(error)) from error
        if self._features is None:
            raise UserError(f"'{self.name}' was loaded without an embedder and can only score feature rows; use load_quality(name, load_embedder)")
        return self._features(image_NHWC).row_NK


def load_quality(name_or_path: str | Path = "quality-small", embedder: Callable[[str], Any] | None = None) -> QualityModel:
    """Return the quality score of a bundled name or a `.safetensors` file.

    Args:
        embedder: returns the embedder of a name, i.e. `recognition.embedder.load_embedder` (quality may not import it); needed to score images.

    Raises:
        UserError: unknown name, or a file that is not a quality regressor.
    """
    if str(name_or_path) in BUNDLED:
        path = bundled(f"{name_or_path}.safetensors")
    else:
        path = Path(name_or_path)
        if path.suffix != ".safetensors" and not path.exists():
            raise UserError(f"unknown quality model '{name_or_path}'; expected {', '.join(BUNDLED)} or the path of a .safetensors file")
    tensors, config, facts = load_weights(path, kind=KIND)
    network = QualityNet(int(config["columns"]), int(config["hidden"]))
    load_into(network, tensors, path)
    quality_of = str(config["quality_of"])
    return QualityModel(network.eval(), name=path.stem, quality_of=quality_of, facts=facts, features=Features(embedder(quality_of)) if embedder else None)
