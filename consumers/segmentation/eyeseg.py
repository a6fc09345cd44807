"""EyeSeg (IJCAI 2025): eye parts with a Bayesian uncertainty a pixel and a picture.

Of the paper abstract and one caption are public; this is the reconstruction of consumers.md §6 [C]: each pixel's feature is a von Mises-Fisher posterior, its
concentration learned; under the closed-set prior (the pixel is one of the K classes, each as likely) the class posterior is a softmax of κ times
the cosines to the class prototypes. These are the corners of a simplex; the reconstruction would learn them (`network.simplex` says why not). Axes: B pictures, K classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.check import check
from ...core.files import weights_path
from ...core.weights import load_into, load_weights, save_weights
from .frame import Frame
from .network import EyeSegNet
from .vmf import log_normaliser, shortfall

KIND = "eyeseg"
CLASSES = ("background", "sclera", "iris", "pupil")


@dataclass(frozen=True, kw_only=True, eq=False)
class EyeParts:
    """What is seen in pictures of eyes.

    Attributes:
        probability_BKHW: closed-set posterior, float32.
        kappa_BHW: concentrations.
        uncertainty_BHW: u = 1 - A_d(κ) in (0, 1), the expected shortfall of the cosine.
    """

    probability_BKHW: Tensor
    kappa_BHW: Tensor
    uncertainty_BHW: Tensor

    @property
    def label_BHW(self) -> Tensor:
        """Most probable class, uint8."""
        return self.probability_BKHW.argmax(1).to(torch.uint8)

    @property
    def gini_BHW(self) -> Tensor:
        """1 - Σ p²: ambiguity of the class posterior."""
        return 1.0 - self.probability_BKHW.square().sum(1)

    @property
    def score_B(self) -> Tensor:
        """s_unc: mean u over the pixels of a picture that are not background; over all where none is."""
        eye_BHW = (self.label_BHW != 0).float()
        eye_BHW = torch.where(eye_BHW.sum((1, 2), keepdim=True) > 0, eye_BHW, torch.ones_like(eye_BHW))
        return (self.uncertainty_BHW * eye_BHW).sum((1, 2)) / eye_BHW.sum((1, 2))


def posterior(cosine_BKHW: Tensor, kappa_BHW: Tensor) -> Tensor:
    """Return p(c | x) = softmax_c(κ μ·w_c), the learned concentration as an inverse temperature."""
    return (cosine_BKHW * kappa_BHW[:, None]).softmax(1)


def eyeseg_loss(cosine_BKHW: Tensor, kappa_BHW: Tensor, label_BHW: Tensor, dim: int, *, edge_weight: float = 20.0, stride: int = 2) -> dict[str, Tensor]:
    """Return the loss and its parts: -log C_d(κ) - κ μ·w_y, and `class_loss` of the closed-set posterior.

    The first is the Kullback-Leibler divergence of a Dirac at the class's prototype against the pixel's posterior, up to a constant (Li et al., CVPR
    2021); at a fixed cosine it is least where A_d(κ) equals the cosine, so that κ says how far the pixel lies from its class.

    Args:
        stride: the first term is the mean over every such pixel of a row and a column; the network's own pixels are two apart.
    """
    check("cosine_BKHW", cosine_BKHW, f"B K {label_BHW.shape[1]} {label_BHW.shape[2]}")
    label_BHW, grid = label_BHW.long(), (slice(None), slice(None, None, stride), slice(None, None, stride))
    own_BHW = cosine_BKHW.gather(1, label_BHW[:, None])[:, 0]
    density = (-log_normaliser(kappa_BHW[grid], dim) - kappa_BHW[grid] * own_BHW[grid]).mean()
    losses = class_loss(cosine_BKHW * kappa_BHW[:, None], label_BHW, edge_weight=edge_weight)
    return {**losses, "loss": density + losses["loss"], "density": density.detach()}


def class_loss(logit_BKHW: Tensor, label_BHW: Tensor, *, edge_weight: float = 20.0) -> dict[str, Tensor]:
    """Return cross-entropy with heavier borders (1 + 20 · edge) plus generalised Dice, and both alone: RITnet's loss (Chaudhary et al., ICCVW 2019) without its distance maps."""
    label_BHW = label_BHW.long()
    weight_BHW = 1.0 + edge_weight * edges(label_BHW)
    entropy = (F.cross_entropy(logit_BKHW, label_BHW, reduction="none") * weight_BHW).sum() / weight_BHW.sum()
    dice = generalised_dice(logit_BKHW.softmax(1), label_BHW)
    return {"loss": entropy + dice, "cross_entropy": entropy.detach(), "dice": dice.detach()}


def edges(label_BHW: Tensor) -> Tensor:
    """Return 1 where a pixel's 3×3 neighbourhood holds another class, float32 (B, H, W)."""
    label = label_BHW.float()[:, None]
    most, least = F.max_pool2d(label, 3, 1, 1), -F.max_pool2d(-label, 3, 1, 1)
    return (most != least).float()[:, 0]


def generalised_dice(probability_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
    """1 minus the Dice overlap, classes weighted by one over their squared area in the batch (Sudre et al. 2017)."""
    classes, label_N = probability_BKHW.shape[1], label_BHW.reshape(-1)
    own_N = probability_BKHW.gather(1, label_BHW[:, None]).reshape(-1)
    area_K = torch.bincount(label_N, minlength=classes).to(own_N)
    weight_K = torch.where(area_K > 0, 1.0 / area_K.clamp(min=1.0) ** 2, torch.zeros_like(area_K))
    overlap = (weight_K * torch.zeros_like(area_K).index_add(0, label_N, own_N)).sum()
    return 1.0 - 2.0 * overlap / (weight_K * (probability_BKHW.sum((0, 2, 3)) + area_K)).sum()


class EyeSeg:
    """A trained segmenter; made by `load_eyeseg`.

    Attributes:
        size_px: height and width the network works at.
    """

    def __init__(self, network: EyeSegNet, size_px: tuple[int, int]) -> None:
        self.network, self.size_px = network.eval(), size_px

    @torch.no_grad()
    def __call__(self, grey_BHW: np.ndarray) -> EyeParts:
        """Segment grey pictures, uint8 (B, H, W), of any size (laid into the network's frame unstretched); the answer has their size."""
        check("grey_BHW", grey_BHW, "B H W")
        if grey_BHW.dtype != np.uint8:
            raise ValueError(f"grey_BHW is {grey_BHW.dtype}, expected uint8")
        frame = Frame(grey_BHW.shape[1:], self.size_px)
        image_B1HW = frame.put(torch.from_numpy(grey_BHW.astype(np.float32))[:, None]) / 127.5 - 1.0
        mu_BDHW, kappa_BHW = self.network(image_B1HW)
        maps = [posterior(self.network.cosines(mu_BDHW), kappa_BHW), kappa_BHW[:, None], shortfall(kappa_BHW, self.network.dim)[:, None]]
        probability_BKHW, kappa_B1HW, uncertainty_B1HW = frame.back(torch.cat(maps, dim=1)).split([self.network.classes, 1, 1], dim=1)
        return EyeParts(probability_BKHW=probability_BKHW, kappa_BHW=kappa_B1HW[:, 0], uncertainty_BHW=uncertainty_B1HW[:, 0])


def save_eyeseg(path: Path, network: EyeSegNet, *, widths: Sequence[int], size_px: tuple[int, int], facts: dict[str, Any], dtype: torch.dtype | None = None) -> None:
    """Write a trained network, in `dtype` where that is given."""
    save_weights(path, network, dtype=dtype, kind=KIND, config={"widths": list(widths), "dim": network.dim, "classes": network.classes, "size_px": list(size_px)}, facts=facts)


def load_eyeseg(name_or_path: str = "eyeseg-small") -> EyeSeg:
    """Return the segmenter of a bundled name or a `.safetensors` file.

    Raises:
        UserError: no such file, or one of another kind.
    """
    path = weights_path(name_or_path)
    tensors, config, _ = load_weights(path, kind=KIND)
    network = EyeSegNet(tuple(config["widths"]), config["dim"], config["classes"])
    load_into(network, tensors, path)
    return EyeSeg(network, tuple(config["size_px"]))
