"""MorphFace: identity and a morphable head's style as two conditions, blended over time (CVPR 2025, arXiv 2504.00430).

Each virtual person has habits drawn from a prior of real style statistics; each image draws its style from them. The paper's code is not public: network,
prior and schedule are choices after its idea (generators.md §3.2).
Axes: B images, K passes, C H W latent, D identity embedding or context, S style, P numbers of a style code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.device import Precision, memory_format
from ..core.errors import UserError
from ..core.files import weights_path
from ..core.seeds import derive_seed, noise
from ..core.types import FaceBatch
from ..identity.cone import perturb_cone
from .attention import AttentionControl, ContextMemory
from .autoencoder import Autoencoder
from .blending import Blending
from .cache import FeatureCache, forward_macs
from .guidance import negative_anchors, reference_context, rescaled
from .morphface_network import MorphFaceNetwork, MorphFaceNetworkConfig, load_morphface
from .pixel import open_autoencoder
from .prediction import to_noise
from .registry import GENERATORS
from .sampling import SamplerConfig
from .solvers import build_solver
from .style_encoder import StyleEncoderConfig
from .style_source import DrawnStyles, StyleSource, ToyStyles
from .uiface import UIFaceConfig


class MorphFaceSampler(SamplerConfig):
    """Every part of the sampling as a switch; those every generator has are in `SamplerConfig`.

    Attributes:
        blending: see `Blending`; it stands in the place of `guidance` and `guidance_over_time`.
        negative: as everywhere; the reference it moves is the empty identity of the passes without one.
    """

    blending: Blending = Blending()

    @model_validator(mode="after")
    def _one_guidance(self) -> Self:
        if self.guidance != 1.0 or self.guidance_over_time != "constant":
            raise ValueError("guidance and guidance_over_time are not used here: write the weights of both conditions as `blending: {style: [2, 1], identity: [1, 2]}`")
        return self

    @classmethod
    def fast(cls) -> MorphFaceSampler:
        """A quarter of the published steps, with the solver that needs no more."""
        return cls(solver="unipc", steps=12)


class StylePriorChoice(Config):
    """Which styles are drawn.

    Attributes:
        prior: bundled name or path of the style prior's weights.
        subject_agnostic: every image from the population, none from its person's habits (ablation).
        shared_spread: everybody's images vary as much as the average person's (ablation).
        fixed: columns of the style code by name, the same for every image, e.g. `{yaw_deg: 30}`.
    """

    prior: str = "style-prior"
    subject_agnostic: bool = False
    shared_spread: bool = False
    fixed: dict[str, float] = {}

    def open(self, encoder: StyleEncoderConfig) -> StyleSource:
        """Load prior and head; the styles are rendered as the encoder wants them."""
        from ..styles_3dmm.style_prior import StylePrior
        from .prior_styles import HeadMaps, PriorStyles

        prior = StylePrior.load(self.prior)
        maps = HeadMaps.of_default_head(prior.layout, encoder)
        return PriorStyles(prior, maps, subject_agnostic=self.subject_agnostic, shared_spread=self.shared_spread, fixed=self.fixed)


@GENERATORS.register("morphface")
class MorphFaceConfig(Config):
    """What the generator is made of.

    Attributes:
        denoiser: bundled name or path of safetensors weights.
        autoencoder: the same, or "pixel", "pixel2", ... (`pixel.open_autoencoder`).
        styles: where styles come from.
    """

    name: Literal["morphface"] = "morphface"
    denoiser: str = "morphface-small"
    autoencoder: str = "autoencoder-small"
    styles: StylePriorChoice = StylePriorChoice()
    sampler: MorphFaceSampler = MorphFaceSampler()
    precision: Precision = "bf16"

    def build(self, device: torch.device) -> MorphFace:
        """Load the weights, the style prior and the head, and return the generator."""
        network, _ = load_morphface(weights_path(self.denoiser))
        autoencoder = open_autoencoder(self.autoencoder)
        if autoencoder.latent_shape[0] != network.config.unet.channels:
            raise UserError(f"the autoencoder {self.autoencoder} makes {autoencoder.latent_shape[0]} latent channels, the denoiser {self.denoiser} takes {network.config.unet.channels}; name the pair that was trained together")
        return MorphFace(network, autoencoder, self.styles.open(network.config.encoder), self.sampler, device, self.precision)

    @classmethod
    def tiny(cls, device: torch.device = torch.device("cpu"), sampler: MorphFaceSampler | None = None, meeting: Literal["joint", "parallel"] = "joint") -> MorphFace:
        """A random network with random styles that builds in a moment; for tests only."""
        plain = UIFaceConfig.tiny(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = StyleEncoderConfig(size_px=16, widths=(8, 8), style_dim=8)
            network = MorphFaceNetwork(MorphFaceNetworkConfig(unet=plain.network.config, encoder=encoder, style_tokens=3, meeting=meeting))
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=1.3 * parameter[0].numel() ** -0.5)
        return MorphFace(network, plain.autoencoder, ToyStyles(), sampler or MorphFaceSampler(steps=5), device, "fp32")


class MorphFace:
    """Identity anchors and seeds in, faces out; images and styles depend on (anchor, seed) alone, up to the rounding of batched kernels."""

    name = "morphface"

    def __init__(self, network: MorphFaceNetwork, autoencoder: Autoencoder, styles: StyleSource, sampler: MorphFaceSampler, device: torch.device, precision: Precision) -> None:
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.network = network.eval().to(device, self.dtype, memory_format=memory_format(device))
        self.autoencoder = autoencoder.eval().to(device) if isinstance(autoencoder, nn.Module) else autoencoder
        self.styles, self.sampler, self.device = styles, sampler, device
        self.anchor_dim = network.config.unet.identity_dim

    def generate(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> FaceBatch:
        """Make one face for each anchor and seed, in a style of that person's habits.

        Args:
            anchor_BD: unit rows, (B, anchor_dim).
            seeds: B image seeds; noise and style of row i depend on seeds[i], habits on anchor i.

        Raises:
            ValueError: shapes differ, or an anchor is not finite and of unit length.
        """
        check("anchor_BD", anchor_BD, f"{len(seeds)} {self.anchor_dim}")
        check_unit_rows("anchor_BD", np.asarray(anchor_BD))
        return self.show(anchor_BD, seeds, self.styles.draw(anchor_BD, seeds))

    @torch.inference_mode()
    def show(self, anchor_BD: np.ndarray, seeds: Sequence[int], drawn: DrawnStyles) -> FaceBatch:
        """Make one face for each anchor, seed and given style; arguments as of `generate`."""
        check("code_BP", drawn.code_BP, f"{len(seeds)} P")
        latent_BCHW = noise([derive_seed(seed, "latent") for seed in seeds], self.autoencoder.latent_shape).to(self.device)
        maps_B9SS = torch.from_numpy(self.styles.render(drawn.code_BP)).to(self.device)
        style_BS = self.network.encoder(maps_B9SS)
        contexts = self._contexts(anchor_BD, perturb_cone(anchor_BD, seeds, self.sampler.cone), style_BS)
        latent_BCHW, passes = sample(self.network, latent_BCHW, contexts, self.sampler)
        image_BCHW = self.autoencoder.decode(latent_BCHW).float().clamp(-1, 1)
        return FaceBatch(image_BCHW=image_BCHW, seeds=tuple(seeds), passes_B=(passes,) * len(seeds), styles=drawn.styles)

    def _contexts(self, anchor_BD: np.ndarray, wanted_BD: np.ndarray, style_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the contexts (∅,∅), (∅,c_sty) and (c_id,c_sty) of all images, (B, D + S) each."""
        empty_BD, negative_BD = self.network.unet.empty_rows(len(style_BS)), None
        if self.sampler.negative > 0:
            negative_BD = self._identity(negative_anchors(anchor_BD))
        reference_BD = reference_context(empty_BD, negative_BD, self.sampler.negative)
        neither = self.network.join(reference_BD, self.network.empty_styles(len(style_BS)))
        return neither, self.network.join(reference_BD, style_BS), self.network.join(self._identity(wanted_BD), style_BS)

    def _identity(self, identity_BD: np.ndarray) -> Tensor:
        return self.network.unet.embed_context(torch.as_tensor(np.asarray(identity_BD), dtype=self.dtype, device=self.device))


def sample(network: MorphFaceNetwork, latent_BCHW: Tensor, contexts: tuple[Tensor, Tensor, Tensor], config: MorphFaceSampler) -> tuple[Tensor, float]:
    """Sampling with three-way guidance, all passes of a step in one batch.

    Args:
        latent_BCHW: standard normal noise, float32.
        contexts: of (∅,∅), (∅,c_sty), (c_id,c_sty), (B, D + S) each.

    Returns:
        Clean float32 latents and the network passes spent on an image; a shallow one counts by its multiply-adds.
    """
    solver, size = build_solver(config.solver, config.steps), (latent_BCHW.shape[-2], latent_BCHW.shape[-1])
    factors = [config.blending.factors(point.t) for point in solver.points]
    made = [k for k in range(3) if any(row[k] for row in factors)]
    context_RD = torch.cat([contexts[k] for k in made])
    control = AttentionControl(0, torch.empty(0, dtype=torch.int64), share_self=False, memory=ContextMemory(context_RD))
    cache = FeatureCache(config.cache) if config.cache > 1 else None
    shallow_cost = forward_macs(network.config.unet, size, cache.live) / forward_macs(network.config.unet, size) if cache else 1.0
    passes = 0.0
    for index, point in enumerate(solver.points):
        passes += len(made) * (shallow_cost if cache and cache.advance() else 1.0)
        latent_RCHW = latent_BCHW.repeat(len(made), 1, 1, 1)
        t_R = torch.full((len(latent_RCHW),), point.t, device=latent_BCHW.device)
        joined = latent_RCHW.to(context_RD.dtype).contiguous(memory_format=memory_format(latent_BCHW.device))
        said_RCHW = network(joined, t_R, context_RD, control, cache).float()
        parts = to_noise(network.config.unet.prediction, said_RCHW, latent_RCHW, point.alpha).chunk(len(made))
        noise_BCHW = sum(factors[index][k] * part for k, part in zip(made, parts))
        latent_BCHW = solver.step(index, latent_BCHW, rescaled(latent_BCHW, noise_BCHW, parts[-1], point.alpha, config.rescale))
    return latent_BCHW, passes
