"""Random changes to training faces, drawn from a generator that belongs to the training step.

Source of the strong three (crop on a black canvas, low resolution, photometric): AdaFace (CVPR 2022), released code.
Axes: B images, C H W.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor

from ..core.config import Config
from .occluders import occlude
from .resize import resized

Interpolation = Literal["nearest", "bilinear", "area", "bicubic", "lanczos"]
LOWRES_MODES: tuple[Interpolation, ...] = ("nearest", "bilinear", "area", "bicubic")
"""The default four; the released code draws "lanczos", too."""
BLACK = -1.0


class AugmentConfig(Config):
    """Probabilities and strengths; every 0 switches a change off.

    Attributes:
        flip: probability of a mirror image.
        shift: largest shift in each direction, as a fraction of the side (one random shift for each image).
        zoom: largest relative change of scale, e.g. 0.05.
        crop: probability of keeping only a random rectangle (area 0.2-1, aspect 3/4-4/3) on a black canvas.
        lowres: probability of shrinking to `lowres_least`-1 of the side and enlarging again.
        lowres_least: smallest side ratio of that.
        interpolations: kinds that are drawn from, for the way down and the way up separately: "nearest", "bilinear", "area", "bicubic", "lanczos".
        occlude: probability of an occluder of one colour (see `occluders`), after all other changes of shape and resolution.
        occluders: kinds that are drawn from: "cutout", "mask", "glasses", "bar".
        photometric: probability of a change of brightness, contrast and saturation.
        strength: their largest relative change.
    """

    flip: float = Field(0.5, ge=0, le=1)
    shift: float = Field(0.0, ge=0, le=0.5)
    zoom: float = Field(0.0, ge=0, lt=1)
    crop: float = Field(0.0, ge=0, le=1)
    lowres: float = Field(0.0, ge=0, le=1)
    lowres_least: float = Field(0.2, gt=0, le=1)
    interpolations: tuple[Interpolation, ...] = Field(LOWRES_MODES, min_length=1)
    occlude: float = Field(0.0, ge=0, le=1)
    occluders: tuple[Literal["cutout", "mask", "glasses", "bar"], ...] = Field(("cutout", "mask", "glasses", "bar"), min_length=1)
    photometric: float = Field(0.0, ge=0, le=1)
    strength: float = Field(0.5, ge=0, le=1)


def augment(image_BCHW: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Return changed copies of float RGB in [-1, 1]; the same generator state gives the same images."""
    size = len(image_BCHW)
    changed_BCHW = _move(image_BCHW, config, generator)
    if config.crop:
        changed_BCHW = _keep_rectangle(changed_BCHW, _chosen(size, config.crop, generator), generator)
    if config.lowres:
        changed_BCHW = _blur_by_size(changed_BCHW, _chosen(size, config.lowres, generator), config, generator)
    if config.occlude:
        changed_BCHW = occlude(changed_BCHW, _chosen(size, config.occlude, generator), config.occluders, generator)
    if config.photometric:
        changed_BCHW = _photometric(changed_BCHW, _chosen(size, config.photometric, generator), config.strength, generator)
    return changed_BCHW


def _chosen(size: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(size, generator=generator) < probability


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _move(image_BCHW: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Mirror, shift and zoom; only the mirror costs no resampling."""
    size = len(image_BCHW)
    mirrored_B = _chosen(size, config.flip, generator)
    if not (config.shift or config.zoom):
        return torch.where(mirrored_B[:, None, None, None], image_BCHW.flip(3), image_BCHW)
    zoom_B = _uniform((size,), 1 - config.zoom, 1 + config.zoom, generator)
    affine_B23 = torch.zeros(size, 2, 3)
    affine_B23[:, 0, 0] = zoom_B * (1.0 - 2.0 * mirrored_B)
    affine_B23[:, 1, 1] = zoom_B
    affine_B23[:, :, 2] = _uniform((size, 2), -2 * config.shift, 2 * config.shift, generator)
    grid = F.affine_grid(affine_B23, list(image_BCHW.shape), align_corners=False)
    return F.grid_sample(image_BCHW, grid, padding_mode="border", align_corners=False)


def _keep_rectangle(image_BCHW: Tensor, chosen_B: Tensor, generator: Generator) -> Tensor:
    size, _, height, width = image_BCHW.shape
    area_B = _uniform((size,), 0.2, 1.0, generator) * height * width
    aspect_B = torch.exp(_uniform((size,), -0.2877, 0.2877, generator))  # log(3/4) .. log(4/3)
    tall_B = (area_B / aspect_B).sqrt().clamp(max=height)
    wide_B = (area_B * aspect_B).sqrt().clamp(max=width)
    top_B = torch.rand(size, generator=generator) * (height - tall_B)
    left_B = torch.rand(size, generator=generator) * (width - wide_B)
    row_H, column_W = torch.arange(height), torch.arange(width)
    inside_BH = (row_H >= top_B[:, None]) & (row_H < (top_B + tall_B)[:, None])
    inside_BW = (column_W >= left_B[:, None]) & (column_W < (left_B + wide_B)[:, None])
    kept_BHW = (inside_BH[:, :, None] & inside_BW[:, None, :]) | ~chosen_B[:, None, None]
    return torch.where(kept_BHW[:, None], image_BCHW, BLACK)


def _blur_by_size(image_BCHW: Tensor, chosen_B: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    size, _, height, width = image_BCHW.shape
    ratio_B = _uniform((size,), config.lowres_least, 1.0, generator)
    mode_B2 = torch.randint(len(config.interpolations), (size, 2), generator=generator)
    changed_BCHW = image_BCHW.clone()
    for row in torch.nonzero(chosen_B).flatten().tolist():
        small_hw = (max(1, round(height * float(ratio_B[row]))), max(1, round(width * float(ratio_B[row]))))
        down, up = (config.interpolations[mode] for mode in mode_B2[row].tolist())
        small = resized(image_BCHW[row : row + 1], small_hw, down)
        changed_BCHW[row : row + 1] = resized(small, (height, width), up).clamp_(-1.0, 1.0)
    return changed_BCHW


def _photometric(image_BCHW: Tensor, chosen_B: Tensor, strength: float, generator: Generator) -> Tensor:
    factor_3B = _uniform((3, len(image_BCHW)), 1 - strength, 1 + strength, generator)
    # An image that is not chosen gets factors 1, which leave it as it was up to rounding.
    brightness, contrast, saturation = (torch.where(chosen_B, factor_B, 1.0)[:, None, None, None] for factor_B in factor_3B)
    light_BCHW = (image_BCHW + 1.0) * brightness - 1.0
    mean_B111 = light_BCHW.mean((1, 2, 3), keepdim=True)
    light_BCHW = mean_B111 + (light_BCHW - mean_B111) * contrast
    grey_B1HW = light_BCHW.mean(1, keepdim=True)
    return (grey_B1HW + (light_BCHW - grey_B1HW) * saturation).clamp_(-1.0, 1.0)
