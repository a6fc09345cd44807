"""UIFace: two-stage sampling with attention injection (ICLR 2025, arXiv 2502.19803; generators.md §2.2).

Stage 1 denoises with the empty context until the face's layout has settled; stage 2 brings the identity in under guidance, while
self-attention keeps the layout of the empty pass. Each step is one batch: empty rows first, then the rows that need the identity.
What the published procedure computes twice (the identity pass of a row whose context is still empty) is not computed at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.device import Precision, memory_format
from ..core.errors import UserError
from ..core.files import bundled
from ..core.seeds import derive_seed, noise
from ..core.types import FaceBatch
from ..core.weights import load_into, load_weights
from .attention import AttentionControl
from .autoencoder import Autoencoder, PatchAutoencoder, PatchAutoencoderConfig
from .registry import GENERATORS
from .schedule import ddim_steps, ddim_update, noise_from_velocity
from .train import load_autoencoder
from .unet import FamilyUNet, UNetConfig


class UIFaceSampler(Config):
    """Every part of the sampling as a switch.

    Attributes:
        steps: DDIM steps of the full schedule.
        t_max: t0 of the paper: at t < t_max every row is in stage 2; 1000 makes it a one-stage sampler.
        delta: δ*: a row whose attention map moved less than this between two steps receives its identity from the next step on.
        guidance: w in ε = (1 + w) ε_c - w ε_u.
        rescale: share by which the guided clean estimate is brought back to the spread of the unguided one (Lin et al. 2024,
            "Common Diffusion Noise Schedules and Sample Steps Are Flawed", eq. 15-16); keeps strong guidance from burning out. 0 = published.
        inject_self: identity rows take over the self-attention of their empty row.
        inject_cross: stage 2 blends cross-attention statistics half and half.
        schedule: "exact", or "published" with the shifted ᾱ of the public code.
        skip_duplicates: leave out passes whose result is known; off only to measure what it saves.
    """

    steps: int = Field(50, ge=1, le=1000)
    t_max: int = Field(500, ge=0, le=1000)
    delta: float = Field(0.006, ge=0)
    guidance: float = Field(1.0, ge=0)
    rescale: float = Field(0.0, ge=0, le=1)
    inject_self: bool = True
    inject_cross: bool = True
    schedule: Literal["exact", "published"] = "exact"
    skip_duplicates: bool = True


@GENERATORS.register("uiface")
class UIFaceConfig(Config):
    """Attributes: `denoiser` and `autoencoder` are bundled names or paths of safetensors files."""

    name: Literal["uiface"] = "uiface"
    denoiser: str = "uiface-small"
    autoencoder: str = "autoencoder-small"
    sampler: UIFaceSampler = UIFaceSampler()
    precision: Precision = "bf16"

    def build(self, device: torch.device) -> UIFace:
        """Load the weights and return the generator."""
        path = _weights_path(self.denoiser)
        tensors, config, _ = load_weights(path, kind="denoiser")
        network = FamilyUNet(UNetConfig.parse(config, source=str(path)))
        load_into(network, tensors, path)
        return UIFace(network, load_autoencoder(_weights_path(self.autoencoder)), self.sampler, device, self.precision)

    @classmethod
    def tiny(cls, device: torch.device = torch.device("cpu"), sampler: UIFaceSampler | None = None) -> UIFace:
        """A random network that builds in a moment; for tests only."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = UNetConfig(channels=4, width=16, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=8, groups=4, identity_dim=8, context_dim=8, tokens=4)
            network = FamilyUNet(config)
            # Zero-initialised layers would hide the context: give every matrix something to say.
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=1.3 * parameter[0].numel() ** -0.5)
            autoencoder = PatchAutoencoder(PatchAutoencoderConfig(patch=14, channels=4, width=16, blocks=1))
            autoencoder.basis.copy_(torch.nn.init.orthogonal_(torch.empty_like(autoencoder.basis)))
            autoencoder.scale.fill_(10.0)
        return UIFace(network, autoencoder, sampler or UIFaceSampler(steps=10), device, "fp32")


class UIFace:
    """Identity anchors and seeds in, faces out; images depend on (anchor, seed) alone, up to the rounding of batched kernels."""

    name = "uiface"

    def __init__(self, network: FamilyUNet, autoencoder: Autoencoder, sampler: UIFaceSampler, device: torch.device, precision: Precision) -> None:
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.network = network.eval().to(device, self.dtype, memory_format=memory_format(device))
        self.autoencoder = autoencoder.eval().to(device) if isinstance(autoencoder, torch.nn.Module) else autoencoder
        self.sampler, self.device = sampler, device
        self.anchor_dim = network.config.identity_dim

    @torch.inference_mode()
    def generate(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> FaceBatch:
        """Make one face for each anchor and seed.

        Args:
            anchor_BD: unit rows, (B, anchor_dim).
            seeds: B image seeds; the latent noise of row i depends on seeds[i] alone.

        Raises:
            ValueError: shapes differ, or an anchor is not finite and of unit length.
        """
        check("anchor_BD", anchor_BD, f"{len(seeds)} {self.anchor_dim}")
        check_unit_rows("anchor_BD", np.asarray(anchor_BD))
        latent_BCHW = noise([derive_seed(seed, "latent") for seed in seeds], self.autoencoder.latent_shape).to(self.device)
        identity_BD = torch.as_tensor(np.asarray(anchor_BD), dtype=self.dtype, device=self.device)
        latent_BCHW, passes_B = sample(self.network, latent_BCHW, self.network.embed_context(identity_BD), self.sampler)
        image_BCHW = self.autoencoder.decode(latent_BCHW).float().clamp(-1, 1)
        return FaceBatch(image_BCHW=image_BCHW, seeds=tuple(seeds), passes_B=tuple(passes_B.tolist()))


def sample(network: FamilyUNet, latent_BCHW: Tensor, context_BD: Tensor, config: UIFaceSampler) -> tuple[Tensor, Tensor]:
    """Two-stage DDIM sampling; return clean float32 latents and the network passes spent on each row, (B,) int64."""
    count = len(latent_BCHW)
    settled_B = torch.zeros(count, dtype=torch.bool, device=latent_BCHW.device)
    passes_B = torch.zeros(count, dtype=torch.int64)
    map_before: Tensor | None = None
    for t, alpha, alpha_next in ddim_steps(config.steps, config.schedule):
        second_stage = t < config.t_max
        rows = torch.arange(count, device=latent_BCHW.device) if second_stage or not config.skip_duplicates else settled_B.nonzero()[:, 0]
        control = AttentionControl(
            count, rows, share_self=config.inject_self, blend_cross=second_stage and config.inject_cross,
            record=not second_stage and not bool(settled_B.all()),
        )
        wanted = context_BD if second_stage else torch.where(settled_B[:, None], context_BD, network.empty_rows(count))
        empty, identity = _both_passes(network, latent_BCHW, (t, alpha), wanted[rows], rows, control)
        predicted = empty.clone()
        predicted[rows] = guided(latent_BCHW, identity, empty, alpha, config) if second_stage else identity
        passes_B += 1
        passes_B[rows.cpu()] += 1
        if control.record:
            map_now = attention_map(control.cross_logits, tuple(latent_BCHW.shape[-2:]))
            if map_before is not None:
                settled_B = settled_B | ((map_now - map_before).abs().mean((1, 2)) < config.delta)
            map_before = map_now
        latent_BCHW = ddim_update(latent_BCHW, predicted, alpha, alpha_next)
    return latent_BCHW, passes_B


def guided(latent_BCHW: Tensor, identity_BCHW: Tensor, empty_BCHW: Tensor, alpha: float, config: UIFaceSampler) -> Tensor:
    """Classifier-free guidance (1 + w) ε_c - w ε_u, its clean estimate rescaled towards the spread of the identity pass's."""
    noise_BCHW = (1 + config.guidance) * identity_BCHW - config.guidance * empty_BCHW
    if config.rescale == 0:
        return noise_BCHW
    signal, spread = alpha**0.5, (1 - alpha) ** 0.5
    clean_BCHW, plain_BCHW = (latent_BCHW - spread * noise_BCHW) / signal, (latent_BCHW - spread * identity_BCHW) / signal
    ratio_B = plain_BCHW.std((1, 2, 3), keepdim=True) / clean_BCHW.std((1, 2, 3), keepdim=True)
    return (latent_BCHW - signal * clean_BCHW * (config.rescale * ratio_B + 1 - config.rescale)) / spread


def _both_passes(network: FamilyUNet, latent_BCHW: Tensor, time: tuple[int, float], wanted_RD: Tensor, rows: Tensor, control: AttentionControl) -> tuple[Tensor, Tensor]:
    """One batch of all empty rows and the identity rows; returns both predictions of the noise in float32."""
    t, alpha = time
    latents = torch.cat([latent_BCHW, latent_BCHW[rows]])
    joined = latents.to(wanted_RD.dtype).contiguous(memory_format=memory_format(latents.device))
    t_B = torch.full((len(joined),), t, device=latent_BCHW.device)
    predicted = network(joined, t_B, torch.cat([network.empty_rows(control.sources), wanted_RD]), control).float()
    if network.config.prediction == "v":
        predicted = noise_from_velocity(predicted, latents, alpha)
    return predicted[: control.sources], predicted[control.sources :]


def attention_map(cross_logits: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Where the network looks for identity: the map whose movement decides the stage (generators.md §2.2, UIFace eq. 5-6).

    Each block's logits are softmaxed over positions, averaged over tokens and heads, scaled to maximum 1, resized and clamped;
    the mean over blocks is min-max normalised.

    Args:
        cross_logits: one (B, N, L, T) tensor a block; L is a square number.
        size: (height, width) of the latent.

    Returns:
        (B, height, width) float32 in [0, 1].
    """
    maps = []
    for logits_BNLT in cross_logits:
        weight_BL = logits_BNLT.float().softmax(2).mean(3).mean(1)
        weight_BL = weight_BL / weight_BL.amax(1, keepdim=True)
        side = round(weight_BL.shape[1] ** 0.5)
        maps.append(F.interpolate(weight_BL.view(-1, 1, side, side), size, mode="bilinear").clamp(0, 1)[:, 0])
    mean_BHW = torch.stack(maps).mean(0)
    low, high = mean_BHW.amin((1, 2), keepdim=True), mean_BHW.amax((1, 2), keepdim=True)
    return (mean_BHW - low) / (high - low).clamp_min(1e-12)


def _weights_path(name: str) -> Path:
    """A path as it is; a bare name from the bundled weights."""
    if name.endswith(".safetensors") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no weights file at {path}")
        return path
    return bundled(f"{name}.safetensors")
