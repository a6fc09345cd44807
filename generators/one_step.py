"""Latents of faces as a denoiser leaves them: noise is added up to a time, and one pass says what was there.

A decoder that is to serve a sampler sees such latents with the face they came from. They have what a sampler's last steps have: less fine detail than an
encoder's, and in its place what the denoiser thinks likely. Axes: B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.device import memory_format
from ..core.errors import UserError
from ..core.files import sha256_file, weights_path
from .prediction import to_clean
from .schedule import add_noise, alpha_bars
from .unet import FamilyUNet, load_denoiser


class OneStep:
    """A frozen denoiser of the family's U-Net, asked without an identity: below t = 300 the latent itself tells it.

    Args:
        network: frozen and put in evaluation mode.
        name: stands in the facts of what is trained with it.
    """

    def __init__(self, network: FamilyUNet, name: str) -> None:
        self.name, self._network = name, network.eval().requires_grad_(False)
        self.channels = network.config.channels

    @classmethod
    def open(cls, name: str, channels: int) -> OneStep:
        """Return that of a bundled name or path.

        Raises:
            UserError: it denoises latents of another number of channels.
        """
        path = weights_path(name)
        made = cls(load_denoiser(path).to(torch.bfloat16), f"{name} {sha256_file(path)[:16]}")
        if made.channels != channels:
            raise UserError(f"the denoiser {name} takes {made.channels} latent channels, the autoencoder makes {channels}; name the pair that was trained together")
        return made

    @torch.no_grad()
    def __call__(self, latent_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """Return the estimate of the latents after noise of times t_B (0..999) was added, float32."""
        noisy_BCHW = add_noise(latent_BCHW, noise_BCHW, t_B)
        network = self._network.to(latent_BCHW.device)
        dtype = network.stem.weight.dtype
        joined = noisy_BCHW.to(dtype).contiguous(memory_format=memory_format(latent_BCHW.device))
        said_BCHW = network(joined, t_B, network.empty_rows(len(t_B)).to(dtype)).float()
        alpha = alpha_bars()[t_B.cpu()].to(latent_BCHW).view(-1, 1, 1, 1)
        return to_clean(network.config.prediction, said_BCHW, noisy_BCHW, alpha)
