"""Few-step sampling with a distilled student: 2 to 8 passes an image, guidance baked in (trained by `distill`, which names the papers).

Each pass jumps from t to the next of the student's times with its own noise estimate ("kept", what the student was trained for), or predicts the
clean latent and adds fresh noise (the multistep sampling of consistency models, Song et al. 2023, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..core.check import check
from ..core.config import Config
from ..core.device import Precision, memory_format
from ..core.errors import UserError
from ..core.files import sha256_file, weights_path
from ..core.quantise import SCALE, quantise_rows
from ..core.seeds import derive_seed, noise
from ..core.types import FaceBatch
from ..core.weights import load_into, load_weights, save_tensors, save_weights
from ..identity.cone import perturb_cone
from . import low_rank
from .autoencoder import Autoencoder
from .prediction import to_clean, to_noise
from .registry import GENERATORS
from .schedule import alpha_bars
from .train import load_autoencoder
from .uiface import UIFaceConfig
from .unet import FamilyUNet, UNetConfig

KIND = "denoiser-few-step"
"""What a student's weights are called in their header; its `rank` says whether they are factors or the whole network."""

Noise = Literal["kept", "fresh"]


class StudentConfig(Config):
    """What the header of a student's weights says.

    Attributes:
        base: bundled name or path of the denoiser the student was made from.
        base_sha256: of that file; an adapter fits no other.
        times: training steps the student was trained at, falling.
        segments: jumps end every `len(times) / segments` times.
        rank: of the factors; 0 = stored whole.
        network: of a student stored whole.
    """

    base: str
    base_sha256: str = ""
    times: tuple[int, ...]
    segments: int
    rank: int
    network: UNetConfig | None = None


def save_student(path: Path, network: FamilyUNet, config: StudentConfig, *, facts: dict[str, Any]) -> Path:
    """Write a trained student: factors as int8 rows where it has a rank, the small tensors in float16; else the whole network in bfloat16."""
    if config.rank:
        config = config.model_copy(update={"base_sha256": sha256_file(weights_path(config.base))})
        stored = quantise_rows({name: tensor.cpu() for name, tensor in low_rank.factors(network).items()})
        held = {name: (tensor if name.endswith(SCALE) or tensor.dtype == torch.int8 else tensor.half()).contiguous() for name, tensor in stored.items()}
        save_tensors(path, held, kind=KIND, config=config.model_dump(mode="json"), facts=facts)
    else:
        config = config.model_copy(update={"network": network.config})
        save_weights(path, network, kind=KIND, config=config.model_dump(mode="json"), facts=facts, dtype=torch.bfloat16)
    return path


def load_student(path: Path) -> tuple[FamilyUNet, StudentConfig]:
    """Return a plain network, factors merged, and what its header says.

    Raises:
        UserError: not a student; or the base is missing or not the one it was trained on.
    """
    tensors, values, _ = load_weights(path, kind=KIND)
    config = StudentConfig.parse(values, source=str(path))
    if config.network is not None:
        network = FamilyUNet(config.network)
        load_into(network, tensors, path)
        return network, config
    base = weights_path(config.base)
    if (found := sha256_file(base)) != config.base_sha256:
        raise UserError(f"{path} was trained on another '{config.base}' (SHA-256 {config.base_sha256[:12]}…, {base} has {found[:12]}…); bring back that base, or distil a student of this one")
    base_tensors, base_config, _ = load_weights(base, kind="denoiser")
    network = FamilyUNet(UNetConfig.parse(base_config, source=str(base)))
    load_into(network, base_tensors, base)
    low_rank.merge(network, tensors)
    return network, config


@GENERATORS.register("lcm")
class LCMConfig(Config):
    """Few-step student.

    Attributes:
        denoiser: bundled name or path of the student's weights.
        autoencoder: the teacher's, or one with a smaller decoder on the same basis.
        steps: passes an image; a divisor of the student's times and, with noise "kept", a multiple of its segments.
        noise: "kept" jumps along the teacher's trajectory; "fresh" adds new noise, drawn from the image's seed, after every pass.
        cone: lower bound of the cosine between an image's identity context and its anchor (`identity.cone`); 1 = no perturbation.
    """

    name: Literal["lcm"] = "lcm"
    denoiser: str = "lcm-small"
    autoencoder: str = "autoencoder-small"
    steps: int = Field(4, ge=1)
    noise: Noise = "kept"
    cone: float = Field(1.0, ge=0, le=1)
    precision: Precision = "bf16"

    def build(self, device: torch.device) -> LCM:
        """Load the weights and return the generator."""
        network, student = load_student(weights_path(self.denoiser))
        return LCM(network, load_autoencoder(weights_path(self.autoencoder)), student, self, device)

    @classmethod
    def tiny(cls, device: torch.device = torch.device("cpu")) -> LCM:
        """A random network that builds in a moment; for tests only."""
        random = UIFaceConfig.tiny(device)
        student = StudentConfig(base="", times=(960, 640, 320, 160), segments=4, rank=0)
        return LCM(random.network, random.autoencoder, student, cls(precision="fp32"), device)


class LCM:
    """Identity anchors and seeds in, faces out, one pass of the network a step."""

    name = "lcm"

    def __init__(self, network: FamilyUNet, autoencoder: Autoencoder, student: StudentConfig, config: LCMConfig, device: torch.device) -> None:
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
        self.network = network.eval().to(device, self.dtype, memory_format=memory_format(device))
        self.autoencoder = autoencoder.eval().to(device) if isinstance(autoencoder, torch.nn.Module) else autoencoder
        self.times, self.noise, self.device = step_times(student, config.steps, config.noise), config.noise, device
        self.cone = config.cone
        self.anchor_dim = network.config.identity_dim

    @torch.inference_mode()
    def generate(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> FaceBatch:
        """Make one face for each anchor, (B, anchor_dim) unit rows, and seed; row i's noise depends on seeds[i] alone."""
        check("anchor_BD", anchor_BD, f"{len(seeds)} {self.anchor_dim}")
        identity_BD = torch.as_tensor(perturb_cone(anchor_BD, seeds, self.cone), dtype=self.dtype, device=self.device)
        latent_BCHW = few_steps(self.network, self._noise(seeds, "latent"), self.network.embed_context(identity_BD), self.times, lambda step: self._fresh(seeds, step))
        image_BCHW = self.autoencoder.decode(latent_BCHW).float().clamp(-1, 1)
        return FaceBatch(image_BCHW=image_BCHW, seeds=tuple(seeds), passes_B=(len(self.times),) * len(seeds))

    def _fresh(self, seeds: Sequence[int], step: int) -> Tensor | None:
        return self._noise(seeds, f"latent after step {step}") if self.noise == "fresh" else None

    def _noise(self, seeds: Sequence[int], purpose: str) -> Tensor:
        return noise([derive_seed(seed, purpose) for seed in seeds], self.autoencoder.latent_shape).to(self.device)


def step_times(student: StudentConfig, steps: int, kind: Noise) -> tuple[int, ...]:
    """Return the times of `steps` passes, evenly chosen among the student's.

    Raises:
        UserError: the student was not trained for jumps of that length.
    """
    count = len(student.times)
    unit = student.segments if kind == "kept" else 1
    allowed = [n for n in range(1, count + 1) if count % n == 0 and n % unit == 0]
    if steps not in allowed:
        raise UserError(f"steps: {steps} passes with noise '{kind}', but this student was trained for {', '.join(map(str, allowed))}; choose one of them, or distil one for {steps}")
    return student.times[:: count // steps]


def few_steps(network: FamilyUNet, latent_BCHW: Tensor, context_BD: Tensor, times: Sequence[int], fresh: Any) -> Tensor:
    """Return clean float32 latents after one pass at each of `times`.

    Args:
        fresh: step number → new noise of the latents' shape, or None to keep the student's own.
    """
    alphas = [*(float(alpha) for alpha in alpha_bars()[list(times)]), 1.0]
    for step, t in enumerate(times):
        t_B = torch.full((len(latent_BCHW),), t, device=latent_BCHW.device)
        shown = latent_BCHW.to(context_BD.dtype).contiguous(memory_format=memory_format(latent_BCHW.device))
        said_BCHW = network(shown, t_B, context_BD).float()
        latent_BCHW = jump(network.config.prediction, said_BCHW, latent_BCHW, alphas[step], alphas[step + 1], fresh(step))
    return latent_BCHW


def jump(kind: str, said_BCHW: Tensor, latent_BCHW: Tensor, alpha: float, alpha_next: float, fresh_BCHW: Tensor | None = None) -> Tensor:
    """Go from ᾱ to ᾱ_next with what the network said: √ᾱ_next ẑ_0 + √(1-ᾱ_next) ε, ε the student's estimate or fresh noise.

    With ᾱ_next = ᾱ and the noise kept nothing moves: f(z, t → t) = z, the boundary condition of consistency models.
    """
    clean_BCHW = to_clean(kind, said_BCHW, latent_BCHW, alpha)
    noise_BCHW = to_noise(kind, said_BCHW, latent_BCHW, alpha) if fresh_BCHW is None else fresh_BCHW
    return alpha_next**0.5 * clean_BCHW + (1 - alpha_next) ** 0.5 * noise_BCHW
