"""What a tokenizer is worth on held-out faces: rFID, PSNR, SSIM, perceptual distance, identity kept; gFID of a model over its tokens (consumers.md §7, §10).

FID and perceptual distance are of mobilefacenet-small's features, not Inception's and not LPIPS: they compare with each other only. FID is biased by the number
of images: always state and equal it. Axes: N B faces, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.check import check
from ...core.errors import UserError
from ...core.images import to_float, to_uint8
from ...core.perceptual import paired_distances
from ...core.progress import track
from ...quality.frechet import fid
from ...quality.perceptual import pooled
from ...recognition.embedder import MobileFaceNetSmall
from ...recognition.feature_maps import MobileFaceNetMaps
from ..privacy.image_metrics import psnr, ssim

LEAST = 2
"""Images a Fréchet distance needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """Figures a face, (N,) each, and features for the Fréchet distance.

    Attributes:
        psnr_db, ssim: of 8-bit pictures.
        perceptual: `core.perceptual.paired_distances`, 0 to 4.
        identity: cosine of the embeddings of face and reconstruction.
        image_NHWC: the reconstructions, uint8.
        real_NF, found_NF: pooled features of faces and reconstructions.
    """

    psnr_db: np.ndarray
    ssim: np.ndarray
    perceptual: np.ndarray
    identity: np.ndarray
    image_NHWC: np.ndarray
    real_NF: np.ndarray
    found_NF: np.ndarray

    def summary(self) -> dict[str, float]:
        """Means, and rFID with the number of images it rests on."""
        means = {name: float(getattr(self, name).mean()) for name in ("psnr_db", "ssim", "perceptual", "identity")}
        return {"images": len(self.psnr_db), "rfid": fid(self.real_NF, self.found_NF), **means}


@torch.inference_mode()
def measure(reconstruct: Callable[[Tensor], Tensor], image_NHWC: np.ndarray, *, batch: int = 32) -> Reconstruction:
    """Measure what comes back of faces.

    Args:
        reconstruct: float faces in [-1, 1] → the same shape; clamped and rounded to 8 bits before it is measured.
        image_NHWC: uint8 (N, 112, 112, 3), not those it was trained on.

    Raises:
        UserError: fewer than two faces.
    """
    check("image_NHWC", image_NHWC, "N 112 112 3")
    if len(image_NHWC) < LEAST:
        raise UserError(f"{len(image_NHWC)} faces; a Fréchet distance needs at least {LEAST}, and some hundreds to mean something")
    eyes, embedder = MobileFaceNetMaps(), MobileFaceNetSmall()
    parts: dict[str, list[np.ndarray]] = {name: [] for name in Reconstruction.__dataclass_fields__}
    for begin in track(range(0, len(image_NHWC), batch), "measuring"):
        real_BCHW = to_float(image_NHWC[begin : begin + batch])
        picture_BHWC = to_uint8(reconstruct(real_BCHW))
        found_BCHW = to_float(picture_BHWC)
        real_L, found_L = eyes.maps(real_BCHW), eyes.maps(found_BCHW)
        unit_pair = (found_BCHW + 1) / 2, (real_BCHW + 1) / 2
        values = {
            "psnr_db": psnr(*unit_pair), "ssim": ssim(*unit_pair), "perceptual": paired_distances(found_L, real_L),
            "identity": F.cosine_similarity(embedder(found_BCHW), embedder(real_BCHW)),
        }  # fmt: skip
        for name, value in values.items():
            parts[name].append(value.float().cpu().numpy())
        for name, array in (("image_NHWC", picture_BHWC), ("real_NF", pooled(real_L)), ("found_NF", pooled(found_L))):
            parts[name].append(array)
    return Reconstruction(**{name: np.concatenate(held) for name, held in parts.items()})


@torch.inference_mode()
def features(image_NHWC: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """Return the pooled features of uint8 faces that FID is taken of, float32 (N, F)."""
    eyes = MobileFaceNetMaps()
    return np.concatenate([pooled(eyes.maps(to_float(image_NHWC[begin : begin + batch]))) for begin in range(0, len(image_NHWC), batch)])
