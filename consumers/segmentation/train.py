"""Training of EyeSeg on rendered eyes, photographs, or both, through the house's loop.

Axes: B pictures of a step, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.config import Config
from ...core.errors import UserError
from ...core.seeds import numpy_rng
from ...core.training import LoopConfig, data_digest, fresh, run_loop, step_rows
from ...styles_3dmm.eyes import Look
from .eye_data import Eyes, eyes_in, rendered_eyes
from .eyeseg import class_loss, eyeseg_loss, save_eyeseg
from .network import EyeSegNet, PlainSegNet

RESULT = "eyeseg.safetensors"


class RenderedEyes(Config):
    """What is drawn to learn from: number, look, seed."""

    count: int = Field(3000, ge=0)
    look: Look = "mixed"
    seed: int = 0


class EyeAugment(Config):
    """What is done to a picture and its labels at each step.

    Attributes:
        flip: chance of a mirror image.
        shift: up to this share of the side, the border repeated.
        zoom: side times or over up to 1 + this.
        gain: contrast and brightness up to this change.
        gamma: exponent times or over up to 1 + this.
    """

    flip: float = Field(0.5, ge=0, le=1)
    shift: float = Field(0.08, ge=0, lt=0.5)
    zoom: float = Field(0.25, ge=0, le=1)
    gain: float = Field(0.2, ge=0, lt=1)
    gamma: float = Field(0.25, ge=0, le=1)


class EyeSegRecipe(Config):
    """How a segmenter of eyes is trained.

    Attributes:
        size_px: height and width it works at, multiples of 16; pictures of another shape are laid into it.
        widths, dim: of the network (`EyeSegNet`).
        rendered: the drawn eyes; count 0 = none.
        photos_share: share of a step's pictures that come from the photographs, where there are any.
        leave_out: patterns (`r24?`) of names of photographs that are never learnt from: those of the people to be tested on.
        detach_share: share of the steps in which the concentrations learn without moving the trunk.
        augment: see `EyeAugment`.
        loop: see `LoopConfig`.
    """

    size_px: tuple[int, int] = (192, 256)
    widths: tuple[int, ...] = (16, 32, 64, 96)
    dim: int = Field(8, ge=4)
    rendered: RenderedEyes = RenderedEyes()
    photos_share: float = Field(0.5, ge=0, le=1)
    leave_out: tuple[str, ...] = ()
    detach_share: float = Field(0.06, ge=0, le=1)
    augment: EyeAugment = EyeAugment()
    loop: LoopConfig = LoopConfig(optimiser="adamw", lr=2e-3, batch=16, steps=1500, weight_decay=1e-4, warmup=0.03)


class EyeSegObjective(nn.Module):
    """forward(pictures, labels, whether κ moves the trunk) → losses of the method."""

    def __init__(self, network: EyeSegNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_B1HW: Tensor, label_BHW: Tensor, free_B: Tensor) -> dict[str, Tensor]:
        mu_BDHW, kappa_BHW = self.network(image_B1HW, detach_concentration=not bool(free_B[0]))
        return eyeseg_loss(self.network.cosines(mu_BDHW), kappa_BHW, label_BHW, self.network.dim)


class PlainObjective(nn.Module):
    """The same but for the posterior: softmax cross-entropy and Dice of class scores."""

    def __init__(self, network: PlainSegNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_B1HW: Tensor, label_BHW: Tensor, free_B: Tensor) -> dict[str, Tensor]:
        return class_loss(self.network(image_B1HW), label_BHW)


class EyeBatches:
    """Eyes in memory, each set with its share of a step, drawn and augmented by the step."""

    def __init__(self, sets: list[tuple[Eyes, float]], recipe: EyeSegRecipe) -> None:
        self._sets, self._recipe = sets, recipe
        batch = recipe.loop.batch
        self._counts = [round(share * batch) for _, share in sets]
        self._counts[0] += batch - sum(self._counts)
        for (eyes, _), count in zip(sets, self._counts):
            if len(eyes) < count:
                raise UserError(f"{len(eyes)} eyes ({eyes.names[0]} …) are fewer than the {count} of them in a step of {batch}; give more, or lower loop.batch or photos_share")
        self._bound = recipe.detach_share * recipe.loop.total_steps(self)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the first set."""
        return max(1, len(self._sets[0][0]) // max(1, self._counts[0]))

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return this process's pictures of a step, their labels, and whether the concentrations move the trunk."""
        seed = self._recipe.loop.seed
        rows = [(eyes, step_rows(len(eyes), count, step, seed + number)) for number, ((eyes, _), count) in enumerate(zip(self._sets, self._counts)) if count]
        grey_BHW, label_BHW = (np.concatenate([getattr(eyes, name)[chosen] for eyes, chosen in rows]) for name in ("grey_NHW", "label_NHW"))
        image_BHW, label_BHW = augmented(grey_BHW, label_BHW, self._recipe.augment, numpy_rng(seed, step, "eyes"))
        free_B = torch.full((len(image_BHW),), step >= self._bound)
        return tuple(values[rank::world] for values in (torch.from_numpy(image_BHW)[:, None], torch.from_numpy(label_BHW), free_B))


def train_eyeseg(recipe: EyeSegRecipe, out: Path, photos: Path | None = None) -> Path:
    """Train a segmenter and return the file, `out/eyeseg.safetensors`; a second call in the same folder carries on or finds it done.

    Args:
        photos: folder with images/ and masks/, to learn from beside the drawn eyes.

    Raises:
        UserError: nothing to learn from; pictures or masks that do not fit each other.
    """
    drawn, share = recipe.rendered, recipe.photos_share if photos is not None else 0.0
    sets = []
    if drawn.count and share < 1.0:
        sets.append((rendered_eyes(drawn.count, drawn.seed, size_px=recipe.size_px, look=drawn.look), 1.0 - share))
    if photos is not None and share > 0.0:
        sets.append((eyes_in(photos, size_px=recipe.size_px).without(recipe.leave_out), share if sets else 1.0))
    if not sets:
        raise UserError("there are no eyes to learn from: rendered.count is 0 and no photographs are given; raise it, or give --photos")
    network = fresh(lambda: EyeSegNet(recipe.widths, recipe.dim), recipe.loop.seed, "eyeseg")
    train_on(recipe, EyeSegObjective(network), sets, out)
    facts: dict[str, Any] = {"steps": recipe.loop.steps, "batch": recipe.loop.batch, "eyes": {eyes.names[0].split("/")[0]: len(eyes) for eyes, _ in sets}}
    path = out / RESULT
    save_eyeseg(path, network, widths=recipe.widths, size_px=recipe.size_px, facts=facts)
    return path


def train_on(recipe: EyeSegRecipe, objective: EyeSegObjective | PlainObjective, sets: list[tuple[Eyes, float]], out: Path) -> None:
    """Train an objective's network in place on eyes in memory, each set with its share of a step."""
    digest = data_digest(*(array for eyes, _ in sets for array in (eyes.grey_NHW, eyes.label_NHW)))
    settings = {**recipe.model_dump(mode="json", exclude={"loop"}), "objective": type(objective).__name__, "shares": [share for _, share in sets]}
    run_loop(objective, EyeBatches(sets, recipe), recipe.loop, out, data=digest, settings=settings, label="eyes")


def augmented(grey_BHW: np.ndarray, label_BHW: np.ndarray, augment: EyeAugment, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mirror, shift, zoom and change the light of uint8 pictures and, where it concerns them, their labels; pictures float32 in about [-1, 1]."""
    image_BHW, label_out_BHW = np.empty(grey_BHW.shape, np.float32), np.empty_like(label_BHW)
    for row in range(len(grey_BHW)):
        zoom = np.exp(rng.uniform(-1, 1) * np.log1p(augment.zoom))
        rows, columns = (_places(side, zoom, rng.uniform(-augment.shift, augment.shift)) for side in grey_BHW.shape[1:])
        place = np.ix_(rows, columns[::-1] if rng.random() < augment.flip else columns)
        gain, bias, gamma = 1.0 + rng.uniform(-augment.gain, augment.gain), rng.uniform(-augment.gain, augment.gain), np.exp(rng.uniform(-1, 1) * np.log1p(augment.gamma))
        tone_256 = ((np.arange(256) / 255.0) ** gamma * 2.0 - 1.0) * gain + bias
        image_BHW[row], label_out_BHW[row] = tone_256.astype(np.float32)[grey_BHW[row][place]], label_BHW[row][place]
    return image_BHW, label_out_BHW


def _places(side: int, zoom: float, shift: float) -> np.ndarray:
    """Which pixel of a side is seen at each of its places: nearest, the border repeated."""
    middle = (side - 1) / 2
    return np.clip(np.rint((np.arange(side) - middle) / zoom + middle + shift * side), 0, side - 1).astype(np.int64)
