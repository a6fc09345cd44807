"""UIFace: two-stage sampling with attention injection (ICLR 2025, arXiv 2502.19803; generators.md §2.2).

Stage 1 denoises with the empty context until the face's layout has settled; stage 2 brings the identity in under guidance, while
self-attention keeps the layout of the empty pass. Each step is one batch: empty rows first, then the rows that need the identity.
What the published procedure computes twice (the identity pass of a row whose context is still empty) is not computed at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.device import Precision, compile_network, memory_format
from ..core.errors import UserError
from ..core.files import weights_path
from ..core.seeds import derive_seed, noise
from ..core.types import FaceBatch
from ..identity.cone import perturb_cone
from .attention import AttentionControl, ContextMemory
from .autoencoder import Autoencoder, PatchAutoencoder, PatchAutoencoderConfig
from .cache import FeatureCache, forward_macs
from .guidance import guided, negative_anchors, reference_context
from .prediction import to_noise
from .registry import GENERATORS
from .sampling import SamplerConfig
from .solvers import Point, build_solver
from .train import load_autoencoder
from .unet import FamilyUNet, UNetConfig, load_denoiser
from .watching import Visit, Watch


PUBLISHED_STRIDE = 20
"""Distance in t between two steps of the published 50, to which δ* belongs."""


class UIFaceSampler(SamplerConfig):
    """Every part of the sampling as a switch; those every generator has are in `SamplerConfig`.

    Attributes:
        t_max: t0 of the paper: at t < t_max every row is in stage 2; 1000 makes it a one-stage sampler.
        delta: δ*: a row whose attention map moved less than this between two steps receives its identity from the next step on. It is
            the published value for a stride of 20; over another stride the bar is δ* · stride / 20, as a map that drifts at one speed
            moves in proportion [C].
        inject_self: identity rows take over the self-attention of their reference row.
        inject_cross: stage 2 blends cross-attention statistics half and half.
        skip_duplicates: leave out passes whose result is known; off only to measure what it saves.
    """

    t_max: int = Field(500, ge=0, le=1000)
    delta: float = Field(0.006, ge=0)
    inject_self: bool = True
    inject_cross: bool = True
    skip_duplicates: bool = True

    @classmethod
    def published(cls) -> UIFaceSampler:
        """The procedure of the public code with every pass it makes and its shifted ᾱ; the measure of every speed-up."""
        return cls(solver="ddim-published", skip_duplicates=False)

    @classmethod
    def fast(cls) -> UIFaceSampler:
        """A fifth of the published passes at the exact sampler's identity and diversity (benchmarks/RESULTS.md)."""
        return cls(solver="unipc", steps=12)


@GENERATORS.register("uiface")
class UIFaceConfig(Config):
    """What the generator is made of.

    Attributes:
        denoiser, autoencoder: bundled names or paths of safetensors files.
        compile: let torch compile the denoiser; on CUDA only, elsewhere ignored.
    """

    name: Literal["uiface"] = "uiface"
    denoiser: str = "uiface-small"
    autoencoder: str = "autoencoder-small"
    sampler: UIFaceSampler = UIFaceSampler()
    precision: Precision = "bf16"
    compile: bool = False

    def build(self, device: torch.device) -> UIFace:
        """Load the weights and return the generator."""
        network = load_denoiser(weights_path(self.denoiser))
        if self.compile:
            compile_network(network, device)
        autoencoder = load_autoencoder(weights_path(self.autoencoder))
        if autoencoder.latent_shape[0] != network.config.channels:
            raise UserError(f"the autoencoder {self.autoencoder} makes {autoencoder.latent_shape[0]} latent channels, the denoiser {self.denoiser} takes {network.config.channels}; name the pair that was trained together")
        return UIFace(network, autoencoder, self.sampler, device, self.precision)

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
    def generate(self, anchor_BD: np.ndarray, seeds: Sequence[int], watch: Watch | None = None) -> FaceBatch:
        """Make one face for each anchor and seed.

        Args:
            anchor_BD: unit rows, (B, anchor_dim).
            seeds: B image seeds; the latent noise of row i depends on seeds[i] alone.
            watch: shown every point of the sampling (`watching`); changes no pixel.

        Raises:
            ValueError: shapes differ, or an anchor is not finite and of unit length.
        """
        check("anchor_BD", anchor_BD, f"{len(seeds)} {self.anchor_dim}")
        check_unit_rows("anchor_BD", np.asarray(anchor_BD))
        latent_BCHW = noise([derive_seed(seed, "latent") for seed in seeds], self.autoencoder.latent_shape).to(self.device)
        context_BD = self._context(perturb_cone(anchor_BD, seeds, self.sampler.cone))
        negative_BD = self._context(negative_anchors(anchor_BD)) if self.sampler.negative > 0 else None
        latent_BCHW, passes_B = sample(self.network, latent_BCHW, context_BD, self.sampler, negative_BD, watch)
        image_BCHW = self.autoencoder.decode(latent_BCHW).float().clamp(-1, 1)
        return FaceBatch(image_BCHW=image_BCHW, seeds=tuple(seeds), passes_B=tuple(passes_B.tolist()))

    def _context(self, identity_BD: np.ndarray) -> Tensor:
        return self.network.embed_context(torch.as_tensor(np.asarray(identity_BD), dtype=self.dtype, device=self.device))


def sample(
    network: FamilyUNet, latent_BCHW: Tensor, context_BD: Tensor, config: UIFaceSampler, negative_BD: Tensor | None = None, watch: Watch | None = None
) -> tuple[Tensor, Tensor]:
    """Two-stage sampling.

    In stage 1 the reference rows are the empty context, whatever `config.negative` says, and every pass is whole: its maps decide the
    stage, and which rows of a batch are settled must not decide what another row reuses. Stage 2 uses the feature cache.

    Args:
        latent_BCHW: standard normal noise, float32.
        context_BD: contexts of the identities.
        negative_BD: contexts to point away from, mixed into the reference by `config.negative`.
        watch: shown every point (`watching`).

    Returns:
        Clean float32 latents, and the network passes spent on each row, (B,) float64; a shallow one counts by its multiply-adds.
    """
    count, size, solver = len(latent_BCHW), (latent_BCHW.shape[-2], latent_BCHW.shape[-1]), build_solver(config.solver, config.steps)
    every = torch.arange(count, device=latent_BCHW.device)
    memory, empty_B, own_B, reference_B = _contexts(network, context_BD, negative_BD, config)
    settled_B = torch.zeros(count, dtype=torch.bool, device=latent_BCHW.device)
    passes_B = torch.zeros(count, dtype=torch.float64)
    cache = FeatureCache(config.cache) if config.cache > 1 else None
    shallow_cost = forward_macs(network.config, size, cache.live) / forward_macs(network.config, size) if cache else 1.0
    map_before, t_before = None, 0
    for index, point in enumerate(solver.points):
        second_stage = point.t < config.t_max
        rows = every if second_stage or not config.skip_duplicates else settled_B.nonzero()[:, 0]
        control = AttentionControl(
            count, rows, share_self=config.inject_self, blend_cross=second_stage and config.inject_cross,
            record=not second_stage and not bool(settled_B.all()), memory=memory if config.skip_duplicates else None, watch=watch,
        )
        wanted_B = own_B if second_stage else torch.where(settled_B, own_B, empty_B)
        memory.of_row = torch.cat([reference_B if second_stage else empty_B, wanted_B[rows]])
        cost = shallow_cost if cache and second_stage and cache.advance() else 1.0
        reference, identity = _both_passes(network, latent_BCHW, point, memory.context_UD[memory.of_row], control, cache if second_stage else None)
        predicted = reference.clone()
        predicted[rows] = guided(latent_BCHW, identity, reference, point, config) if second_stage else identity
        passes_B += cost
        passes_B[rows.cpu()] += cost
        if watch is not None:
            has_identity_B = torch.ones_like(settled_B) if second_stage else settled_B.clone()
            watch.visit(Visit(t=point.t, alpha=point.alpha, latent_BCHW=latent_BCHW, noise_BCHW=predicted, reference_BCHW=reference, has_identity_B=has_identity_B))
        if control.record:
            map_now = attention_map(control.cross_logits, size)
            if map_before is not None:
                moved_B = (map_now - map_before).abs().mean((1, 2))
                settled_B = settled_B | (moved_B < config.delta * ((t_before - point.t) / PUBLISHED_STRIDE))
            map_before, t_before = map_now, point.t
        latent_BCHW = solver.step(index, latent_BCHW, predicted)
    return latent_BCHW, passes_B


def _contexts(network: FamilyUNet, context_BD: Tensor, negative_BD: Tensor | None, config: UIFaceSampler) -> tuple[ContextMemory, Tensor, Tensor, Tensor]:
    """Return all contexts of a sampling and, for each image, the places among them of the empty one, its own and stage 2's reference."""
    empty_BD = network.empty_rows(len(context_BD))
    own_B = 1 + torch.arange(len(context_BD), device=context_BD.device)
    if config.negative == 0:
        return ContextMemory(torch.cat([empty_BD[:1], context_BD])), torch.zeros_like(own_B), own_B, torch.zeros_like(own_B)
    mixed_BD = reference_context(empty_BD, negative_BD, config.negative)
    return ContextMemory(torch.cat([empty_BD[:1], context_BD, mixed_BD])), torch.zeros_like(own_B), own_B, own_B + len(context_BD)


def _both_passes(network: FamilyUNet, latent_BCHW: Tensor, point: Point, context_RD: Tensor, control: AttentionControl, cache: FeatureCache | None) -> tuple[Tensor, Tensor]:
    """One batch of all reference rows and the identity rows; returns both predictions of the noise in float32."""
    latents = torch.cat([latent_BCHW, latent_BCHW[control.donors]])
    joined = latents.to(context_RD.dtype).contiguous(memory_format=memory_format(latents.device))
    t_B = torch.full((len(joined),), point.t, device=latent_BCHW.device)
    predicted = network(joined, t_B, context_RD, control, cache).float()
    predicted = to_noise(network.config.prediction, predicted, latents, point.alpha)
    return predicted[: control.sources], predicted[control.sources :]


def attention_map(cross_logits: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Where the network looks for identity: the map whose movement decides the stage (generators.md §2.2, as in the authors' code).

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
