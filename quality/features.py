"""What a quality regressor looks at: a recogniser's last features of a face, the length of its raw embedding, and how sharp the picture is.

Axes: B N images, F features of the last linear layer's input, D embedding, K columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.images import to_float
from ..core.progress import bar
from .baselines import embedding_norm, sharpness

SHRINKS = (1, 2, 4)
"""Scales at which sharpness is measured: noise lives at the first, blur shows at the last."""


class TorchEyes(Protocol):
    """An embedder that shows its torch network (recognition.embedder.TorchEmbedder does)."""

    name: str
    network: nn.Module
    device: torch.device


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRows:
    """One row an image.

    Attributes:
        penultimate_NF: input of the last linear layer, float32.
        raw_ND: embeddings before they are normalised.
        sharpness_NS: at each of `SHRINKS`.
    """

    penultimate_NF: np.ndarray
    raw_ND: np.ndarray
    sharpness_NS: np.ndarray

    @property
    def unit_ND(self) -> np.ndarray:
        """Unit embeddings."""
        return self.raw_ND / np.linalg.norm(self.raw_ND, axis=1, keepdims=True).clip(1e-12)

    @property
    def row_NK(self) -> np.ndarray:
        """The regressor's input: penultimate features, log norm, log sharpness; float32, (N, F + 4)."""
        return np.concatenate((self.penultimate_NF, np.log(embedding_norm(self.raw_ND) + 1e-6)[:, None], np.log(self.sharpness_NS + 1.0)), axis=1).astype(np.float32)


class Features:
    """Reads the rows of faces out of a recogniser.

    Args:
        embedder: one with a torch network; quality may not know the recognisers, so whoever calls brings it.

    Raises:
        UserError: the embedder has no torch network (dlib), or one without a linear layer.
    """

    def __init__(self, embedder: TorchEyes) -> None:
        if not isinstance(getattr(embedder, "network", None), nn.Module):
            raise UserError(f"the embedder '{embedder.name}' shows no torch network, and quality is read from its inner features; use mobilefacenet-small or a .safetensors recogniser")
        self.name, self._network, self._device = embedder.name, embedder.network, embedder.device
        leaves = [module for module in self._network.modules() if not list(module.children())]
        linear = [place for place, module in enumerate(leaves) if isinstance(module, nn.Linear)]
        if not linear:
            raise UserError(f"the network of '{embedder.name}' has no linear layer to read features from; expected a recogniser that ends in one")
        self.head = nn.Sequential(*leaves[linear[-1] :])
        """The last layers, penultimate features → raw embeddings."""

    def __call__(self, image_NHWC: np.ndarray, *, batch: int = 64) -> FaceRows:
        """Read uint8 faces, (N, 112, 112, 3)."""
        seen: list[Tensor] = []
        hook = self.head[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        penultimate, raw = [], []
        try:
            with bar(f"reading features ({self.name})", len(image_NHWC)) as advance, torch.inference_mode():
                for begin in range(0, len(image_NHWC), batch):
                    image_BCHW = to_float(image_NHWC[begin : begin + batch])
                    raw.append(self._network(image_BCHW.to(self._device)).float().cpu().numpy())
                    penultimate.append(seen.pop().float().cpu().numpy())
                    advance(len(image_BCHW))
        finally:
            hook.remove()
        sharpness_NS = np.stack([sharpness(image_NHWC, shrink=shrink) for shrink in SHRINKS], axis=1)
        return FaceRows(penultimate_NF=np.concatenate(penultimate), raw_ND=np.concatenate(raw), sharpness_NS=sharpness_NS)
