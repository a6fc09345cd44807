"""Faces as the autoencoders' trainings see them, a function of the step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.images import to_float
from ..core.seeds import numpy_rng
from ..core.training import LoopConfig, step_noise, step_rows


class FaceBatches:
    """Faces, mirrored half the time, and the disturbance of their latents."""

    def __init__(self, image_NHWC: np.ndarray, loop: LoopConfig, latent_shape: tuple[int, int, int]) -> None:
        self._image_NHWC, self._loop, self._latent_shape = image_NHWC, loop, latent_shape
        self.steps_per_epoch = whole_batches(len(image_NHWC), loop.batch)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        """Return images, (B, 3, 112, 112), and standard normal noise of the latents' shape."""
        rows = step_rows(len(self._image_NHWC), self._loop.batch, step, self._loop.seed)[rank::world]
        image_BCHW = to_float(self._image_NHWC[rows])
        flip_B = torch.from_numpy(numpy_rng(self._loop.seed, step, "mirror", rank).random(len(rows)) < 0.5)
        image_BCHW = torch.where(flip_B[:, None, None, None], image_BCHW.flip(-1), image_BCHW)
        return image_BCHW, step_noise((len(rows), *self._latent_shape), self._loop.seed, step, rank)


def whole_batches(count: int, batch: int) -> int:
    """Return how many whole batches there are.

    Raises:
        UserError: not one.
    """
    if count < batch:
        raise UserError(f"the data has {count} faces, less than one batch of {batch}; pass more faces or a smaller 'batch'")
    return count // batch
