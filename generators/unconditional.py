"""Faces of nobody in particular: a denoiser trained with an empty context, asked with that context alone (generators.md §2.4).

ADMIS embeds such faces and takes the embeddings as new identities: they lie where faces lie, and no real person stands behind any of them.
One pass a step, no guidance: half the cost of identity-conditioned sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.device import memory_format
from ..core.errors import UserError
from ..core.seeds import derive_seed, noise
from .prediction import to_noise
from .sampling import SamplerConfig
from .solvers import build_solver


@torch.inference_mode()
def unconditional_faces(generator: Any, seeds: Sequence[int], settings: SamplerConfig | None = None) -> Tensor:
    """Make one face for each seed with the empty context.

    Args:
        generator: one with `network` (a denoiser with `empty_rows`), `autoencoder`, `dtype` and `device`, as UIFace.
        settings: solver and steps; guidance and the rest have nothing to act on.

    Returns:
        float32 RGB in [-1, 1], (B, 3, 112, 112); row i depends on seeds[i] alone, up to the rounding of batched kernels.

    Raises:
        UserError: the generator's denoiser knows no empty context.
    """
    network = getattr(generator, "network", None)
    if not hasattr(network, "empty_rows"):
        raise UserError(f"the generator '{generator.name}' has no empty context to make faces of nobody from; use uiface, or a denoiser trained with empty_share > 0")
    settings = settings or SamplerConfig()
    solver, empty_BD = build_solver(settings.solver, settings.steps), network.empty_rows(len(seeds))
    latent_BCHW = noise([derive_seed(seed, "latent") for seed in seeds], generator.autoencoder.latent_shape).to(generator.device)
    for index, point in enumerate(solver.points):
        t_B = torch.full((len(seeds),), point.t, device=latent_BCHW.device)
        given_BCHW = latent_BCHW.to(empty_BD.dtype).contiguous(memory_format=memory_format(latent_BCHW.device))
        said_BCHW = network(given_BCHW, t_B, empty_BD).float()
        latent_BCHW = solver.step(index, latent_BCHW, to_noise(network.config.prediction, said_BCHW, latent_BCHW, point.alpha))
    return generator.autoencoder.decode(latent_BCHW).float().clamp(-1, 1)
