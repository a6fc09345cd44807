"""Training of EyeSeg on rendered eyes, photographs, or both, through the house's loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.config import Config
from ...core.seeds import numpy_rng
from ...core.training import LoopConfig, data_digest, fresh, run_loop, step_rows
from ...styles_3dmm.eyes import Look
from .eye_data import Eyes, eyes_in, rendered_eyes
from .eyeseg import eyeseg_loss, save_eyeseg
from .network import EyeSegNet

RESULT = "eyeseg.safetensors"


class RenderedEyes(Config):
    """What is drawn to learn from: number, look, seed."""

    count: int = Field(3000, ge=0)
    look: Look = "mixed"
    seed: int = 0


class EyeSegRecipe(Config):
    """How a segmenter of eyes is trained.

    Attributes:
        size_px: height and width it works at, multiples of 16.
        widths, dim, dropout: of the network (`EyeSegNet`).
        rendered: the drawn eyes; count 0 = none.
        photos_share: share of a step's pictures that come from the photographs in `--data`, where there are any.
        detach_share: share of the steps in which the concentrations learn without moving the trunk.
        flip, shift, gain: augmentation: mirror image by chance, shift up to this share of the side, contrast and brightness up to this change.
        loop: see `LoopConfig`.
    """

    name: str = "eyeseg"
    size_px: tuple[int, int] = (160, 240)
    widths: tuple[int, ...] = (16, 24, 40, 64)
    dim: int = Field(8, ge=2)
    dropout: float = Field(0.0, ge=0, lt=1)
    rendered: RenderedEyes = RenderedEyes()
    photos_share: float = Field(0.5, ge=0, le=1)
    detach_share: float = Field(0.06, ge=0, le=1)
    flip: float = Field(0.5, ge=0, le=1)
    shift: float = Field(0.08, ge=0, lt=0.5)
    gain: float = Field(0.2, ge=0, lt=1)
    loop: LoopConfig = LoopConfig(optimiser="adamw", lr=2e-3, batch=16, steps=1500, weight_decay=1e-4, warmup=0.03)

    def network(self) -> EyeSegNet:
        """Return a fresh network."""
        return fresh(lambda: EyeSegNet(self.widths, self.dim, dropout=self.dropout), self.loop.seed, "eyeseg")


class EyeSegObjective(nn.Module):
    """forward(pictures, labels, whether κ moves the trunk) → losses."""

    def __init__(self, network: EyeSegNet, objective: Literal["vmf", "softmax"] = "vmf") -> None:
        super().__init__()
        self.network, self._objective = network, objective

    def forward(self, image_B1HW: Tensor, label_BHW: Tensor, free_B: Tensor) -> dict[str, Tensor]:
        mu_BDHW, kappa_BHW = self.network(image_B1HW, detach_concentration=not bool(free_B[0]))
        if self._objective == "softmax":  # the plain network of the claim: one inverse temperature for all pixels
            kappa_BHW = torch.full_like(kappa_BHW, 10.0)
        losses = eyeseg_loss(self.network.cosines(mu_BDHW), kappa_BHW, label_BHW, self.network.dim)
        return losses if self._objective == "vmf" else {**losses, "loss": losses["loss"] - losses["loss"].detach() + 0 * kappa_BHW.sum() + losses["loss"].detach()}


class EyeBatches:
    """Eyes in memory, drawn and augmented by the step."""

    def __init__(self, sets: list[tuple[Eyes, float]], recipe: EyeSegRecipe, steps: int) -> None:
        self._sets, self._recipe, self._steps = sets, recipe, steps

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the first set."""
        return max(1, len(self._sets[0][0]) // self._recipe.loop.batch)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return this process's pictures of a step, their labels, and whether the concentrations move the trunk."""
        recipe, seed = self._recipe, self._recipe.loop.seed
        pictures, labels = [], []
        for number, (eyes, share) in enumerate(self._sets):
            count = round(share * recipe.loop.batch)
            rows = step_rows(len(eyes), min(count, len(eyes)), step, seed + number) if count else np.empty(0, np.int64)
            pictures.append(eyes.grey_NHW[rows])
            labels.append(eyes.label_NHW[rows])
        rng = numpy_rng(seed, step, "eyes")
        grey, label = _augment(np.concatenate(pictures), np.concatenate(labels), recipe, rng)
        mine = slice(rank, None, world)
        free = torch.full((len(grey[mine]),), step >= recipe.detach_share * self._steps)
        return torch.from_numpy(grey[mine])[:, None], torch.from_numpy(label[mine]), free


def train_eyeseg(recipe: EyeSegRecipe, out: Path, photos: Path | None = None) -> dict[str, Any]:
    """Train a segmenter, writing `out/eyeseg.safetensors`; a second call in the same folder carries on or finds it done.

    Args:
        photos: folder with images/ and masks/, to learn from beside the drawn eyes.
    """
    sets = []
    share = recipe.photos_share if photos is not None else 0.0
    if recipe.rendered.count and share < 1.0:
        sets.append((rendered_eyes(recipe.rendered.count, recipe.rendered.seed, size_px=recipe.size_px, look=recipe.rendered.look), 1.0 - share))
    if photos is not None and share > 0.0:
        sets.append((eyes_in(photos, size_px=recipe.size_px), share))
    network = train_on(recipe, sets, out)
    facts = {"rendered": recipe.rendered.count, "photos": sum(len(eyes) for eyes, _ in sets) - recipe.rendered.count if photos else 0, "steps": recipe.loop.steps, "batch": recipe.loop.batch}
    save_eyeseg(out / RESULT, network, widths=recipe.widths, size_px=recipe.size_px, facts=facts)
    return facts


def train_on(recipe: EyeSegRecipe, sets: list[tuple[Eyes, float]], out: Path, objective: Literal["vmf", "softmax"] = "vmf") -> EyeSegNet:
    """Train on eyes in memory, each set with its share of a step, and return the network."""
    network = recipe.network()
    digest = data_digest(*(array for eyes, _ in sets for array in (eyes.grey_NHW, eyes.label_NHW)))
    settings = {**recipe.model_dump(mode="json", exclude={"loop"}), "objective": objective, "shares": [share for _, share in sets]}
    run_loop(EyeSegObjective(network, objective), EyeBatches(sets, recipe, recipe.loop.steps), recipe.loop, out, data=digest, settings=settings, label="eyes")
    return network.eval()


def _augment(grey_BHW: np.ndarray, label_BHW: np.ndarray, recipe: EyeSegRecipe, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mirror, shift (the border repeated) and change the contrast; float32 in about [-1, 1]."""
    height, width = grey_BHW.shape[1:]
    image = np.empty(grey_BHW.shape, np.float32)
    label = np.empty_like(label_BHW)
    for row in range(len(grey_BHW)):
        flip = rng.random() < recipe.flip
        dy, dx = (int(rng.integers(-int(recipe.shift * side), int(recipe.shift * side) + 1)) for side in (height, width))
        rows, columns = np.clip(np.arange(height) + dy, 0, height - 1), np.clip(np.arange(width) + dx, 0, width - 1)
        columns = columns[::-1] if flip else columns
        gain, bias = 1.0 + rng.uniform(-recipe.gain, recipe.gain), rng.uniform(-recipe.gain, recipe.gain)
        image[row] = (grey_BHW[row][np.ix_(rows, columns)] / 127.5 - 1.0) * gain + bias
        label[row] = label_BHW[row][np.ix_(rows, columns)]
    return image, label
