"""Identity embeddings of aligned faces: the table of embedders, the torch ones, and a whole array at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.check import check
from ..core.device import default_device
from ..core.errors import UserError, near_names
from ..core.files import bundled
from ..core.images import to_float
from ..core.progress import bar
from ..core.registry import Registry
from ..core.types import Embedder
from .checkpoint import load_network

EMBEDDERS: Registry[type] = Registry("embedder", "facefoundry.recognition")
"""Each entry: a class that is an `Embedder` when called without arguments."""


class TorchEmbedder:
    """A torch network as an `Embedder`; gradients pass to the image.

    Args:
        network: (B, 3, 112, 112) in [-1, 1] → raw embeddings (B, D); frozen and put in evaluation mode.
        name: what reports call it.
        flip: add the embedding of the mirror image before normalising (twice the cost, usually a little more accurate).
        device: None = the first accelerator, else the CPU.
    """

    differentiable = True

    def __init__(self, network: nn.Module, *, name: str, flip: bool = False, device: torch.device | None = None) -> None:
        self.device = device or default_device()
        self.network = network.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)
        self.name = f"{name}+flip" if flip else name
        self.flip = flip
        with torch.no_grad():
            self.dim = int(self.network(torch.zeros(1, 3, 112, 112, device=self.device)).shape[1])

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        return F.normalize(self.raw(image_BCHW))

    def raw(self, image_BCHW: Tensor) -> Tensor:
        """Return the network's features before normalising, float32 (B, dim): protocols add those of mirror images or weight images by their length."""
        check("image_BCHW", image_BCHW, "B 3 112 112")
        image = image_BCHW.to(self.device)
        raw_BD = self.network(image)
        if self.flip:
            raw_BD = raw_BD + self.network(image.flip(3))
        return raw_BD.float().to(image_BCHW.device)


@EMBEDDERS.register("mobilefacenet-small")
class MobileFaceNetSmall(TorchEmbedder):
    """The bundled student of the dlib network (128-d, same space as "dlib"); see weights/mobilefacenet-small.md."""

    def __init__(self, *, flip: bool = False, device: torch.device | None = None) -> None:
        network, _ = load_network(bundled("mobilefacenet-small.safetensors"))
        super().__init__(network, name="mobilefacenet-small", flip=flip, device=device)


def load_embedder(name: str | Path) -> Embedder:
    """Return an embedder by name: one of `EMBEDDERS`, the path of a `.safetensors` recogniser, `onnx:FILE` or `insightface:FOLDER`.

    Raises:
        UserError: unknown name, or a file that is not a recogniser.
    """
    if str(name) in EMBEDDERS:
        return EMBEDDERS[str(name)]()
    kind, _, place = str(name).partition(":")
    if kind in ("onnx", "insightface") and place:
        # Here, not above: that module needs packages that not everybody has.
        from .onnx_embedder import InsightfaceEmbedder, OnnxEmbedder

        return (OnnxEmbedder if kind == "onnx" else InsightfaceEmbedder)(place)
    path = Path(name)
    if path.suffix != ".safetensors" and not path.exists():
        raise UserError(f"unknown embedder '{name}'; {near_names(str(name), EMBEDDERS)}, or the path of a .safetensors recogniser, onnx:FILE, insightface:FOLDER")
    network, _ = load_network(path)
    return TorchEmbedder(network, name=path.stem)


def embed_faces(embedder: Embedder, image_NHWC: np.ndarray, batch: int = 64) -> np.ndarray:
    """Embed uint8 faces, (N, 112, 112, 3), and return unit float32 rows, (N, dim), with a progress bar.

    An embedder with an attribute `bulk` (dlib: it spreads images over processes) gets that many images at once.
    """
    check("image_NHWC", image_NHWC, "N 112 112 3")
    batch = max(batch, getattr(embedder, "bulk", 0))
    rows = [np.empty((0, embedder.dim), np.float32)]
    with bar(f"embedding ({embedder.name})", len(image_NHWC)) as advance, torch.inference_mode():
        for start in range(0, len(image_NHWC), batch):
            image_BHWC = image_NHWC[start : start + batch]
            rows.append(embedder(to_float(image_BHWC)).cpu().numpy().astype(np.float32, copy=False))
            advance(len(image_BHWC))
    return np.concatenate(rows)
