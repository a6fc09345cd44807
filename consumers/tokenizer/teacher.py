"""Whose relations the codebook learns: the features of a frozen network at the patches of the data, gathered into as many centres as the codebook has rows.

From the paper: k-means of mid-layer features over the whole data set, made once, no teacher in training. Choices [C] (consumers.md §7): k = rows of the book,
the recogniser's 14×14 maps by default, k-means on a seeded sample of patches. Axes: B N images, M patches, D features, K centres.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import Tensor

from ...core.check import check
from ...core.errors import UserError
from ...core.images import to_float
from ...core.progress import track
from ...core.seeds import numpy_rng
from ...recognition.feature_maps import MobileFaceNetMaps

PATCHES = 20_000
"""Patches k-means sees; of each image a few, so that all of the data has a say."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of a channel in [0, 1] that DINOv2 expects."""


class Teacher(Protocol):
    """A frozen network that describes patches.

    Attributes:
        name: stands in the facts of what is trained with it.
    """

    name: str

    def patches(self, image_BCHW: Tensor) -> Tensor:
        """float32 RGB in [-1, 1], (B, 3, 112, 112) → features (B, patches, D)."""
        ...


class RecogniserTeacher:
    """The bundled recogniser's map at 14×14, its middle (recognition.feature_maps)."""

    name = "recogniser"

    def __init__(self) -> None:
        self._maps = MobileFaceNetMaps()

    def patches(self, image_BCHW: Tensor) -> Tensor:
        return self._maps.maps(image_BCHW)[2].flatten(2).transpose(1, 2)


class Dinov2Teacher:
    """DINOv2 from a folder of its weights (`config.json`, `model.safetensors`), the patch tokens of the middle layer.

    Args:
        path: folder on this machine; nothing is downloaded.
        side: faces are enlarged to it; a multiple of the network's patch.
    """

    def __init__(self, path: Path | str, side: int = 224) -> None:
        from transformers import Dinov2Model

        self.name, self._side = f"dinov2:{Path(path).name}", side
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"{path} holds no config.json; expected the folder of DINOv2 weights (huggingface-cli download facebook/dinov2-small --local-dir FOLDER)")
        try:
            self._network = Dinov2Model.from_pretrained(str(path), local_files_only=True, use_safetensors=True).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} does not hold DINOv2 weights that can be read ({error}); expected config.json and model.safetensors") from error
        patch = self._network.config.patch_size
        if side % patch:
            raise UserError(f"faces of {side} pixels do not split into patches of {patch}; choose a multiple of {patch}")

    def patches(self, image_BCHW: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(values)[:, None, None] for values in IMAGENET)
        large = F.interpolate(image_BCHW, (self._side, self._side), mode="bicubic", antialias=True)
        with torch.inference_mode():
            layers = self._network(((large + 1) / 2 - mean) / deviation, output_hidden_states=True).hidden_states
        return layers[len(layers) // 2][:, 1:]  # the first token is the picture's


def open_teacher(name: str) -> Teacher:
    """Return a teacher: "recogniser", or "dinov2:FOLDER".

    Raises:
        UserError: another name, or a folder without the weights.
    """
    if name == "recogniser":
        return RecogniserTeacher()
    if found := re.fullmatch(r"dinov2:(.+)", name):
        return Dinov2Teacher(found[1])
    raise UserError(f"unknown teacher '{name}'; expected recogniser, or dinov2:FOLDER with the weights' folder")


def teacher_book(teacher: Teacher, image_NHWC: np.ndarray, rows: int, *, seed: int = 0, patches: int = PATCHES, rounds: int = 10) -> np.ndarray:
    """Return the centres of a teacher's patches, float32 (K, D): k-means started from patches drawn by the seed.

    Centres left without a patch keep their last place.

    Args:
        image_NHWC: uint8 (N, 112, 112, 3).
        rows: K.

    Raises:
        UserError: fewer different patches than rows.
    """
    check("image_NHWC", image_NHWC, "N 112 112 3")
    rng, found = numpy_rng(seed, "teacher"), []
    chosen = np.sort(rng.permutation(len(image_NHWC))[: max(64, patches // 8)])
    each = -(-patches // len(chosen))
    for begin in track(range(0, len(chosen), 64), f"teacher ({teacher.name})"):
        patch_BMD = teacher.patches(to_float(image_NHWC[chosen[begin : begin + 64]])).float().cpu().numpy()
        found += [own_MD[rng.permutation(len(own_MD))[:each]] for own_MD in patch_BMD]
    patch_MD = np.concatenate(found).astype(np.float32)
    starts_MD = np.unique(patch_MD, axis=0)
    if len(starts_MD) < rows:
        raise UserError(f"the faces have {len(starts_MD)} different patches, fewer than the {rows} rows of the book; pass more faces or a smaller book")
    start_KD = starts_MD[rng.choice(len(starts_MD), rows, replace=False)]
    centre_KD, _ = kmeans2(patch_MD, start_KD, iter=rounds, minit="matrix", missing="warn")
    return centre_KD.astype(np.float32)
