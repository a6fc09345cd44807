"""ID³: identity and attributes as conditions, and sampling over the adjusted gradient field (NeurIPS 2024, arXiv 2409.17576).

The field of the adjusted density adds to the score the gradient of what a recogniser f sees in the one-step estimate:

    ε̃ = ε_θ - η √(1-ᾱ_t) c(t) g,      g = ∇_{x_t} <y, f(x̂0(x_t))>

a reconstruction [D] (generators.md §1.4): the paper's code is not public. "full" differentiates through ε_θ and f, about three passes of the network a
step; "cheap" takes ε_θ as constant, g = ∇_{x̂0} <y, f(x̂0)> / √ᾱ_t, one pass and f. In latent mode f sees the decoded estimate.
Axes: B images, C H W latent, D identity embedding, A attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.device import Precision, memory_format
from ..core.errors import UserError, near_names
from ..core.files import weights_path
from ..core.seeds import derive_seed, noise
from ..core.types import Embedder, FaceBatch
from ..identity.cone import perturb_cone
from .ancestral import Ancestral
from .attributes import SCALES, AttributeLaw
from .autoencoder import Autoencoder
from .cache import LIVE, FeatureCache, forward_macs
from .guidance import guided, negative_anchors, reference_context
from .id3_loss import identity_weight
from .id3_network import ID3Network, ID3NetworkConfig, load_id3
from .id3_train import check_guide
from .pixel import open_autoencoder
from .prediction import to_noise
from .redraw import Redraw, with_redraws
from .registry import GENERATORS
from .sampling import SamplerConfig
from .solvers import Point, Solver, build_solver
from .uiface import UIFaceConfig

LoadEmbedder = Callable[[str], Embedder]


class ID3Sampler(SamplerConfig):
    """Every part of the sampling as a switch; those every generator has are in `SamplerConfig`.

    Attributes:
        gradient: "full", "cheap", or "none": plain conditional sampling.
        eta: η, strength of the gradient; 1 is the reading of the paper and moves little on the bundled latents: 100 to 300 do with "full", while "cheap"
            paints patterns that only the guide believes from about 30.
        least_alpha: steps with a smaller ᾱ go without gradient: x̂0 means nothing there.
        ancestral: DDPM's random steps in the place of `solver`; with `steps: 1000` the mode nearest to the paper.
        guidance: as everywhere, but 0 here: the paper names none.
    """

    steps: int = Field(50, ge=1, le=1000)
    guidance: float = Field(0.0, ge=0)
    gradient: Literal["full", "cheap", "none"] = "full"
    eta: float = Field(1.0, ge=0)
    least_alpha: float = Field(1e-3, gt=0, lt=1)
    ancestral: bool = False


@GENERATORS.register("id3")
class ID3Config(Config):
    """What the generator is made of.

    Attributes:
        denoiser: bundled name or path of safetensors weights.
        autoencoder: the same, or "pixel", "pixel2", ... (`pixel.open_autoencoder`).
        guide: embedder whose gradient guides the sampling; differentiable, in the space of the anchors.
        attributes: fixed values by name, in their units; the others are drawn from the law of the training set for each image.
        redraw: when an image is drawn again (Algorithm 3).
    """

    name: Literal["id3"] = "id3"
    denoiser: str = "id3-small"
    autoencoder: str = "autoencoder-small"
    guide: str = "mobilefacenet-small"
    sampler: ID3Sampler = ID3Sampler()
    attributes: dict[str, float] = {}
    redraw: Redraw = Redraw()
    precision: Precision = "bf16"

    @field_validator("attributes")
    @classmethod
    def _known(cls, values: dict[str, float]) -> dict[str, float]:
        for name, value in values.items():
            if name not in SCALES:
                raise ValueError(f"unknown attribute '{name}'; {near_names(name, SCALES)}")
            if not abs(value) <= SCALES[name]:
                raise ValueError(f"{name} is {value}, expected at most {SCALES[name]:g} in size")
        return values

    def build(self, device: torch.device, load_embedder: LoadEmbedder | None = None) -> ID3:
        """Load the weights and return the generator.

        Args:
            load_embedder: gives the guide and the judge by name (`recognition.embedder.load_embedder`; generators do not know it).
        """
        network, facts = load_id3(weights_path(self.denoiser))
        law = AttributeLaw.from_document(facts["attribute_law"]) if facts.get("attribute_law") else None
        wanted = self.guide if self.sampler.gradient != "none" else None
        judge = self.redraw.embedder or self.guide if self.redraw.keep_cosine is not None else None
        found = {name: _load(name, load_embedder) for name in {wanted, judge} - {None}}
        return ID3(network, open_autoencoder(self.autoencoder), self, device, law=law, guide=found.get(wanted), judge=found.get(judge))

    @classmethod
    def tiny(cls, device: torch.device = torch.device("cpu"), sampler: ID3Sampler | None = None, redraw: Redraw = Redraw()) -> ID3:
        """A random network with a random linear recogniser that builds in a moment; for tests only."""
        plain = UIFaceConfig.tiny(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = ID3Network(ID3NetworkConfig(unet=plain.network.config, attributes=("yaw_deg", "pitch_deg"), attribute_width=8))
            nn.init.normal_(network.attributes.layers[2].weight)
            toy = ToyEmbedder(plain.anchor_dim)
        network.unet = plain.network
        config = cls(sampler=sampler or ID3Sampler(steps=5), redraw=redraw, precision="fp32", attributes={"yaw_deg": 20.0})
        return ID3(network, plain.autoencoder, config, device, law=None, guide=toy, judge=toy)


class ID3:
    """Identity anchors and seeds in, faces out; images depend on (anchor, seed) alone, up to the rounding of batched kernels.

    Args:
        law: of the attributes that are not fixed by the settings; without one they are unknown to the network.
        guide: needed unless `gradient` is "none".
        judge: needed where `redraw.keep_cosine` is set.
    """

    name = "id3"

    def __init__(
        self, network: ID3Network, autoencoder: Autoencoder, config: ID3Config, device: torch.device, *, law: AttributeLaw | None, guide: Embedder | None, judge: Embedder | None
    ) -> None:
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
        self.network = network.eval().requires_grad_(False).to(device, self.dtype, memory_format=memory_format(device))
        self.autoencoder = autoencoder.eval().requires_grad_(False).to(device) if isinstance(autoencoder, nn.Module) else autoencoder
        self.config, self.device, self.law, self.guide, self.judge = config, device, law, guide, judge
        self.anchor_dim = network.config.unet.identity_dim
        if config.sampler.gradient != "none":
            if guide is None:
                raise UserError("sampling with gradient 'full' or 'cheap' needs the guide: pass a differentiable embedder, or set sampler.gradient to none")
            check_guide(guide, self.anchor_dim)

    def generate(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> FaceBatch:
        """Make one face for each anchor and seed.

        Args:
            anchor_BD: unit rows, (B, anchor_dim).
            seeds: B image seeds.

        Raises:
            ValueError: shapes differ, or an anchor is not finite and of unit length.
        """
        check("anchor_BD", anchor_BD, f"{len(seeds)} {self.anchor_dim}")
        check_unit_rows("anchor_BD", np.asarray(anchor_BD))
        # A caller's inference mode would forbid the gradient with respect to the latent.
        with torch.inference_mode(False), torch.no_grad():
            return with_redraws(self._draw, anchor_BD, seeds, self.judge, self.config.redraw)

    def attributes(self, seeds: Sequence[int]) -> np.ndarray:
        """Return the attributes of the images of these seeds, (B, A) float32; NaN = unknown to the network."""
        names = self.network.config.attributes
        drawn_BA = np.full((len(seeds), len(names)), np.nan, np.float32) if self.law is None else self.law.draw(seeds, names)
        # CemiFace generates with m = 0 (generators.md §1.2).
        for name, value in {"similarity": 0.0, **self.config.attributes}.items():
            if name in names:
                drawn_BA[:, names.index(name)] = value
        return drawn_BA

    def _draw(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> FaceBatch:
        config = self.config.sampler
        latent_BCHW = noise([derive_seed(seed, "latent") for seed in seeds], self.autoencoder.latent_shape).to(self.device)
        attribute_BA = torch.from_numpy(self.attributes(seeds)).to(self.device)
        wanted_BD = perturb_cone(anchor_BD, seeds, config.cone)
        context_BD, reference_BD = self._context(wanted_BD, attribute_BA), self.network.without_identity(attribute_BA)
        if config.negative > 0:
            reference_BD = reference_context(reference_BD, self._context(negative_anchors(anchor_BD), attribute_BA), config.negative)
        solver = Ancestral(config.steps, seeds) if config.ancestral else build_solver(config.solver, config.steps)
        latent_BCHW, passes = self._sample(latent_BCHW, torch.from_numpy(wanted_BD).to(self.device), context_BD, reference_BD, solver)
        image_BCHW = self.autoencoder.decode(latent_BCHW).float().clamp(-1, 1)
        return FaceBatch(image_BCHW=image_BCHW, seeds=tuple(seeds), passes_B=(passes,) * len(seeds))

    def _sample(self, latent_BCHW: Tensor, identity_BD: Tensor, context_BD: Tensor, reference_BD: Tensor, solver: Solver) -> tuple[Tensor, float]:
        """Return clean latents and the passes of one image; a backward pass through the network counts as two."""
        config, passes = self.config.sampler, 0.0
        caches = [FeatureCache(config.cache) if config.cache > 1 else None for _ in range(2)]
        for index, point in enumerate(solver.points):
            shallow = [cache is not None and cache.advance() for cache in caches][0]
            form = config.gradient if point.alpha >= config.least_alpha and config.eta > 0 else "none"
            denoise = self._denoiser(context_BD, point, caches[0])
            noise_BCHW, gradient_BCHW = identity_gradient(denoise, self._embed, latent_BCHW, identity_BD, point.alpha, form)
            if config.guidance > 0:
                noise_BCHW = guided(latent_BCHW, noise_BCHW, self._denoiser(reference_BD, point, caches[1])(latent_BCHW), point, config)
            passes += ((3 if form == "full" else 1) + (config.guidance > 0)) * (self._shallow_cost(latent_BCHW) if shallow else 1.0)
            latent_BCHW = solver.step(index, latent_BCHW, adjusted(noise_BCHW, gradient_BCHW, point, config.eta))
        return latent_BCHW, passes

    def _context(self, identity_BD: np.ndarray, attribute_BA: Tensor) -> Tensor:
        return self.network.condition(torch.as_tensor(identity_BD, dtype=self.dtype, device=self.device), attribute_BA)

    def _denoiser(self, context_BD: Tensor, point: Point, cache: FeatureCache | None) -> Callable[[Tensor], Tensor]:
        def denoise(latent_BCHW: Tensor) -> Tensor:
            t_B = torch.full((len(latent_BCHW),), point.t, device=latent_BCHW.device)
            joined = latent_BCHW.to(context_BD.dtype).contiguous(memory_format=memory_format(latent_BCHW.device))
            said_BCHW = self.network(joined, t_B, context_BD, None, cache).float()
            if cache is not None and cache.deep is not None:
                cache.deep = cache.deep.detach()
            return to_noise(self.network.config.unet.prediction, said_BCHW, latent_BCHW, point.alpha)

        return denoise

    def _shallow_cost(self, latent_BCHW: Tensor) -> float:
        unet, size = self.network.config.unet, (latent_BCHW.shape[-2], latent_BCHW.shape[-1])
        return forward_macs(unet, size, LIVE) / forward_macs(unet, size)

    def _embed(self, clean_BCHW: Tensor) -> Tensor:
        return self.guide(self.autoencoder.decode(clean_BCHW)).to(clean_BCHW.device)


def identity_gradient(
    denoise: Callable[[Tensor], Tensor], embed: Callable[[Tensor], Tensor], latent_BCHW: Tensor, identity_BD: Tensor, alpha: float, form: Literal["full", "cheap", "none"]
) -> tuple[Tensor, Tensor]:
    """Return the predicted noise and g = ∇_{x_t} <y, f(x̂0(x_t))>, both of the latents' shape; g is 0 for "none".

    Args:
        denoise: latents → noise.
        embed: clean latents → unit rows, (B, D).
        identity_BD: unit identities y.
        alpha: ᾱ_t.
    """
    if form == "none":
        noise_BCHW = denoise(latent_BCHW)
        return noise_BCHW, torch.zeros_like(noise_BCHW)
    signal, spread = alpha**0.5, (1 - alpha) ** 0.5
    with torch.set_grad_enabled(form == "full"):
        asked_BCHW = latent_BCHW.detach().requires_grad_(form == "full")
        noise_BCHW = denoise(asked_BCHW)
        clean_BCHW = (asked_BCHW - spread * noise_BCHW) / signal
    with torch.enable_grad():
        if form == "cheap":
            clean_BCHW = asked_BCHW = clean_BCHW.requires_grad_()
        cosine = (identity_BD * embed(clean_BCHW)).sum()
        (gradient_BCHW,) = torch.autograd.grad(cosine, asked_BCHW)
    return noise_BCHW.detach(), gradient_BCHW / signal if form == "cheap" else gradient_BCHW


def adjusted(noise_BCHW: Tensor, gradient_BCHW: Tensor, point: Point, eta: float) -> Tensor:
    """Return ε̃ = ε - η √(1-ᾱ_t) c(t) g, of the latents' shape (reconstructed, generators.md §1.4).

    Args:
        noise_BCHW, gradient_BCHW: ε_θ and g as `identity_gradient` gives them.
        eta: η; 0 = the noise as it is.
    """
    return noise_BCHW - eta * (1 - point.alpha) ** 0.5 * float(identity_weight(point.t)) * gradient_BCHW


class ToyEmbedder:
    """A random linear recogniser of coarse pixels, for `tiny()`."""

    name, differentiable = "toy", True

    def __init__(self, dim: int) -> None:
        self.dim, self._weight = dim, torch.randn(3 * 7 * 7, dim)

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        return F.normalize(F.avg_pool2d(image_BCHW, 16).flatten(1) @ self._weight.to(image_BCHW))


def _load(name: str, load_embedder: LoadEmbedder | None) -> Embedder:
    if load_embedder is None:
        raise UserError(f"the generator 'id3' is guided by the embedder '{name}' and was not given a way to load it; call build(device, facefoundry.recognition.embedder.load_embedder)")
    return load_embedder(name)
