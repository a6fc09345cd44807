"""Occluders for training faces, as tensors: what hides a part of an aligned face, drawn anew for every image from the step's generator.

Kinds stand where ArcFace alignment puts the parts of a face, on a square from -1 to 1. Colours and places are random, edges are hard. Source of the idea:
cutout in CVLFace's recipe; mask and glasses are this house's reconstruction of what surveillance sets hold. Axes: B images, C H W.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Shape = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (1, 1, W), y (1, H, 1), four random numbers in 0...1 (4, B, 1, 1)) → inside, bool (B, H, W)."""


def cutout(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """A rectangle of a quarter to three quarters of the side each way, wholly inside the picture."""
    wide, tall = 0.25 + 0.5 * u[0], 0.25 + 0.5 * u[1]
    left, top = (2 * u[2] - 1) * (1 - wide), (2 * u[3] - 1) * (1 - tall)
    return ((x - left).abs() <= wide) & ((y - top).abs() <= tall)


def mask(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """All below a line across the nose, rounded off towards the cheeks."""
    top = 0.02 + 0.25 * u[0]
    return (y >= top + 0.25 * x.square()) & (x.abs() <= 0.8 + 0.2 * u[1])


def glasses(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Two ellipses over the eyes and the bridge between them."""
    wide, tall, eye = 0.22 + 0.14 * u[0], 0.16 + 0.14 * u[1], -0.08
    lens = (((x.abs() - 0.315) / wide).square() + ((y - eye) / tall).square()) <= 1.0
    return lens | ((y - eye).abs() <= 0.03)


def bar(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """A strip at any angle near the middle, a fifth to two fifths of the side thick."""
    angle = torch.pi * u[0]
    distance = x * angle.cos() + y * angle.sin() - 0.5 * (2 * u[1] - 1)
    return distance.abs() <= 0.2 + 0.2 * u[2]


OCCLUDERS: dict[str, Shape] = {"cutout": cutout, "mask": mask, "glasses": glasses, "bar": bar}


def occlude(image_BCHW: Tensor, chosen_B: Tensor, kinds: tuple[str, ...], generator: Generator) -> Tensor:
    """Return copies in which the chosen images are partly hidden by one occluder each, of one colour.

    Args:
        image_BCHW: float RGB in [-1, 1].
        chosen_B: which images, bool.
        kinds: keys of `OCCLUDERS`, each equally likely.
    """
    size, _, height, width = image_BCHW.shape
    number_4B11 = torch.rand((4, size, 1, 1), generator=generator)
    colour_BC11 = 2.0 * torch.rand((size, 3, 1, 1), generator=generator) - 1.0
    kind_B = torch.randint(len(kinds), (size,), generator=generator)
    x = ((torch.arange(width) + 0.5) * (2.0 / width) - 1.0)[None, None]
    y = ((torch.arange(height) + 0.5) * (2.0 / height) - 1.0)[None, :, None]
    hidden_BHW = torch.zeros(size, height, width, dtype=torch.bool)
    for number, kind in enumerate(kinds):
        row_M = torch.nonzero((kind_B == number) & chosen_B).flatten()
        if len(row_M):
            hidden_BHW[row_M] = OCCLUDERS[kind](x, y, number_4B11[:, row_M])
    return torch.where(hidden_BHW[:, None], colour_BC11, image_BCHW)
