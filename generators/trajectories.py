"""What a teacher's sampler did, on disk: latents on the way from noise to a face, the targets of few-step distillation.

The teacher's own `sample` is run, with every switch it was given (two stages, injected attention, guidance, rescaling); the latents are taken from
what its network is shown, so that a trajectory is the sampler's by construction. Axes: N trajectories, S states of one (noisiest first, the clean
latent last), B rows of a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_atomic
from ..core.progress import track
from ..core.seeds import derive_seed, noise, numpy_rng
from ..core.training import data_digest
from .schedule import STEPS
from .uiface import UIFace, sample


class TrajectoryConfig(Config):
    """How many trajectories, and where they are kept.

    Attributes:
        count: trajectories.
        batch: rows sampled at once, and rows of one file.
        times: training steps near which a latent is kept, falling; the sampler's nearest are taken. The first is its first, pure noise.
    """

    count: int = Field(6000, ge=1)
    batch: int = Field(32, ge=1)
    times: tuple[int, ...] = (960, 800, 640, 480, 360, 240, 160, 80)

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if not self.times or list(self.times) != sorted(set(self.times), reverse=True) or not 0 <= self.times[-1] <= self.times[0] < STEPS:
            raise ValueError(f"times {list(self.times)}: expected falling numbers from {STEPS - 1} to 0")
        return self


class Trajectories:
    """States of all trajectories, memory-mapped.

    Attributes:
        times: t of each state but the clean one.
        embed_ND: unit identity of each trajectory.
    """

    def __init__(self, files: list[Path], times: tuple[int, ...], embed_ND: np.ndarray) -> None:
        self._files = [np.load(path, mmap_mode="r") for path in files]
        self.times, self.embed_ND = times, embed_ND

    def __len__(self) -> int:
        return len(self.embed_ND)

    def digest(self) -> str:
        """Return the SHA-256 of states, times and identities."""
        return data_digest(np.array(self.times), self.embed_ND, *self._files)

    def state(self, rows: np.ndarray, place: np.ndarray) -> Tensor:
        """Return state `place[i]` of trajectory `rows[i]`, float32 (B, C, h, w)."""
        size = len(self._files[0])
        return torch.from_numpy(np.stack([self._files[row // size][row % size, at] for row, at in zip(rows, place)])).float()


def record(teacher: UIFace, latent_BCHW: Tensor, context_BD: Tensor) -> dict[int, Tensor]:
    """Sample as the teacher does; return the latent at every visited time, and the clean one at -1; float32."""
    seen: dict[int, Tensor] = {}

    def look(_: Any, shown: tuple[Any, ...]) -> None:
        seen.setdefault(int(shown[1][0]), shown[0][: len(latent_BCHW)].float())  # empty rows come first, one for each latent

    handle = teacher.network.register_forward_pre_hook(look)
    try:
        seen[-1], _ = sample(teacher.network, latent_BCHW, context_BD, teacher.sampler)
    finally:
        handle.remove()
    seen[max(seen)] = latent_BCHW  # not rounded to the network's precision
    return seen


def nearest_times(visited: list[int], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Return the first visited time and, for the other wanted ones, the nearest visited.

    Raises:
        UserError: two wanted times have the same nearest.
    """
    found = [max(visited), *(min(visited, key=lambda t: (abs(t - goal), t)) for goal in wanted[1:])]
    if len(set(found)) < len(found):
        raise UserError(f"the teacher's sampler visits only {len(visited)} times, too few for the trajectories' times {list(wanted)}; give the teacher more sampler.steps or fewer times")
    return tuple(found)


@torch.inference_mode()
def cached_trajectories(teacher: UIFace, embed_ND: np.ndarray, config: TrajectoryConfig, folder: Path, *, seed: int) -> Trajectories:
    """Sample `config.count` trajectories, or read those that are there; one file a batch, so that a killed run loses one batch.

    Args:
        embed_ND: unit identity rows; each trajectory takes one, all of them equally often.
        folder: of the files; the caller names it after everything that decides them.
    """
    order = np.concatenate([numpy_rng(seed, turn, "identities").permutation(len(embed_ND)) for turn in range(-(-config.count // len(embed_ND)))])
    chosen_ND = embed_ND[order[: config.count]]
    times = nearest_times([t for t in record(teacher, *_start(teacher, chosen_ND, 0, 1, seed)) if t >= 0], config.times)
    files = []
    for first in track(range(0, config.count, config.batch), "trajectories"):
        files.append(folder / f"{first // config.batch:06d}.npy")
        if not files[-1].exists():
            seen = record(teacher, *_start(teacher, chosen_ND, first, config.batch, seed))
            state_BSCHW = torch.stack([seen[t] for t in (*times, -1)], 1).cpu().half().numpy()
            write_atomic(files[-1], lambda temporary: _save(temporary, state_BSCHW))
    return Trajectories(files, times, chosen_ND)


def _start(teacher: UIFace, embed_ND: np.ndarray, first: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    part = torch.as_tensor(embed_ND[first : first + count], dtype=teacher.dtype, device=teacher.device)
    seeds = [derive_seed(seed, first + row, "trajectory") for row in range(len(part))]
    return noise(seeds, teacher.autoencoder.latent_shape).to(teacher.device), teacher.network.embed_context(part)


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)
