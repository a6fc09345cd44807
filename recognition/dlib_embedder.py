"""The dlib face network as an embedder: always available, not differentiable, its rows cached by image.

Source: Davis King's dlib_face_recognition_resnet_model_v1 (a ResNet with 29 convolutions, 128-d, 150×150 input).
Convention of this product: a FIXED crop of the aligned 112×112 face instead of dlib's own detection, and a fixed population mean
subtracted before the row is normalised, because raw dlib cosines all lie in [0.8, 1].
Axes: N B images, H W C, D = 128.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.check import check
from ..core.errors import UserError
from ..core.files import bundled
from ..core.images import to_uint8
from ..core.progress import log
from ..core.weights import read_safetensors
from .descriptor_cache import DescriptorCache, image_keys
from .dlib_files import RECOGNISER, dlib_file
from .embedder import EMBEDDERS

DIM = 128
_PAD_ROWS = 16
_BOX = (6.75, 22.75, 105.25, 121.25)
"""The square of the padded 112×112 face that dlib would have cut: median over 300 faces of its own chip."""

_CHUNK = 32
_POOL_LEAST = 256
"""Fewer new images than this are not worth starting processes for (each loads torch and the 22 MB network)."""


def default_cache() -> Path:
    """Return the folder of cached rows under the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "facefoundry" / "dlib-v1"


def dlib_chip(image_HWC: np.ndarray) -> np.ndarray:
    """Aligned face, uint8 (112, 112, 3) → the network's input, uint8 (150, 150, 3)."""
    padded_HWC = np.pad(image_HWC, ((0, _PAD_ROWS), (0, 0), (0, 0)), mode="edge")
    return np.ascontiguousarray(Image.fromarray(padded_HWC).resize((150, 150), Image.Resampling.BILINEAR, box=_BOX))


def raw_descriptors(image_NHWC: np.ndarray) -> np.ndarray:
    """Embed uint8 faces, (N, 112, 112, 3), in this process; returns dlib's own rows, (N, 128) float32, not normalised."""
    chips = [dlib_chip(image_HWC) for image_HWC in image_NHWC]
    return np.asarray(_network().compute_face_descriptor(chips), np.float32).reshape(-1, DIM)


def centred(raw_ND: np.ndarray, mean_D: np.ndarray) -> np.ndarray:
    """Subtract the population mean and normalise the rows (float32)."""
    moved_ND = raw_ND.astype(np.float64) - mean_D
    return (moved_ND / np.linalg.norm(moved_ND, axis=1, keepdims=True)).astype(np.float32)


@EMBEDDERS.register("dlib")
class DlibEmbedder:
    """dlib rows, centred and normalised.

    Args:
        processes: worker processes for large batches; 0 = one for each core this process may use. They are started by
            "spawn": a script that uses them needs the usual `if __name__ == "__main__":`.
        cache: folder of cached rows; None = no cache.
    """

    name = "dlib"
    dim = DIM
    differentiable = False
    bulk = 512

    def __init__(self, *, processes: int = 0, cache: Path | None | str = "default") -> None:
        self._processes = processes or _cores()
        folder = default_cache() if cache == "default" else cache
        self._cache = DescriptorCache(Path(folder), DIM) if folder is not None else None
        self._pool: ProcessPoolExecutor | None = None
        _, tensors = read_safetensors(bundled("dlib-centre.safetensors"))
        self._mean_D = tensors["mean"].double().numpy()

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        check("image_BCHW", image_BCHW, "B 3 112 112")
        row_BD = self.embed_uint8(to_uint8(image_BCHW))
        return torch.from_numpy(row_BD).to(image_BCHW.device)

    def embed_uint8(self, image_NHWC: np.ndarray) -> np.ndarray:
        """Embed uint8 faces, (N, 112, 112, 3), at once: unit rows, (N, 128) float32; spreads large arrays over processes."""
        check("image_NHWC", image_NHWC, "N 112 112 3")
        if self._cache is None:
            return centred(self._compute(image_NHWC), self._mean_D)
        keys = image_keys(image_NHWC)
        new = {key: row for row, key in reversed(list(enumerate(keys))) if self._cache.get(key) is None}
        if new:
            self._cache.put(list(new), self._compute(image_NHWC[list(new.values())]))
        rows = [self._cache.get(key) for key in keys]
        return centred(np.stack(rows) if rows else np.empty((0, DIM), np.float32), self._mean_D)

    def close(self) -> None:
        """Stop the worker processes, if any were started."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _compute(self, image_NHWC: np.ndarray) -> np.ndarray:
        chunks = [image_NHWC[start : start + _CHUNK] for start in range(0, len(image_NHWC), _CHUNK)]
        if self._processes > 1 and (len(image_NHWC) >= _POOL_LEAST or (self._pool is not None and len(chunks) > 1)):
            try:
                rows = list(self._workers().map(raw_descriptors, chunks))
                return np.concatenate(rows)
            except BrokenProcessPool:
                log.warning("dlib worker processes died (not enough memory, or a script without an 'if __name__ == \"__main__\":' guard); going on in this process")
                self.close()
                self._processes = 1
        return np.concatenate([np.empty((0, DIM), np.float32), *(raw_descriptors(chunk) for chunk in chunks)])

    def _workers(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._processes, mp_context=multiprocessing.get_context("spawn"))
        return self._pool


@lru_cache(maxsize=1)
def _network() -> Any:
    try:
        import dlib
    except ImportError as error:
        raise UserError("the dlib network needs the package 'dlib-bin', which is not installed; run: pip install dlib-bin") from error
    return dlib.face_recognition_model_v1(str(dlib_file(RECOGNISER)))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
