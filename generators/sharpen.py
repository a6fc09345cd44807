"""A second training of a patch autoencoder's decoder, for pictures as sharp as real ones; the encoder, and so every latent, stays as it is.

L = |x - x̂| + γ |∇x - ∇x̂| + λ_P L_perc + λ_G w L_adv (VQGAN, Esser et al., CVPR 2021, §3.1, with the absolute error of our first training): w is the adaptive
weight, L_adv a critic's of patches (core.adversarial). Choice [C]: the decoder is made for a sampler's latents, which are not an encoder's. It is trained on
faces' latents with noise added and part of their fine detail taken away, against the faces as they were. Axes: B faces, C H W of a latent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.adversarial import PatchCritic, adaptive_weight, game
from ..core.config import Config
from ..core.device import autocast
from ..core.errors import UserError
from ..core.perceptual import LiveFeatureNetwork, perceptual_loss
from ..core.seeds import numpy_rng
from ..core.training import LoopConfig, data_digest, fresh, run_loop
from ..core.weights import save_tensors
from .autoencoder import Autoencoder, PatchAutoencoder, reconstruction
from .face_batches import FaceBatches


class SharpenRecipe(Config):
    """Loop, terms and disturbance.

    Attributes:
        gradient: γ.
        perceptual: λ_P; 0 = no perceptual term.
        perceptual_share: share of a step's faces the perceptual network looks at; it costs as much as the decoder.
        gan: λ_G on the adaptive weight; 0 = no critic.
        gan_from: share of the steps in which the critic learns alone; a fresh one has nothing to teach.
        critic: channels of the critic's first layer.
        latent_noise: deviation of the noise on a face's latent is drawn between 0 and this (latents have about unit variance).
        fade: share of a latent's detail (what its 3×3 mean leaves) that is taken away is drawn between 0 and this, one draw a face.
    """

    loop: LoopConfig
    gradient: float = Field(0.5, ge=0)
    perceptual: float = Field(0.0, ge=0)
    perceptual_share: float = Field(0.25, gt=0, le=1)
    gan: float = Field(0.0, ge=0)
    gan_from: float = Field(0.1, ge=0, le=1)
    critic: int = Field(16, ge=1)
    latent_noise: float = Field(0.1, ge=0)
    fade: float = Field(0.0, ge=0, le=1)


class DecoderRecipe(Config):
    """A training file: `facefoundry train decoder RECIPE --data FACES`.

    Attributes:
        autoencoder: bundled name or path of the weights whose decoder is trained on.
        sharpen: how.
    """

    name: str = "decoder"
    autoencoder: str = "autoencoder-small"
    sharpen: SharpenRecipe


class SharpenObjective(nn.Module):
    """forward(image_BCHW, noise_BCHW, strength_B2, play_B) → losses.

    Args:
        eyes: frozen; no part of the module, neither trained nor stored.
    """

    def __init__(self, network: PatchAutoencoder, recipe: SharpenRecipe, eyes: LiveFeatureNetwork | None) -> None:
        super().__init__()
        self.network, self._recipe, self._eyes = network, recipe, (eyes,)
        self.critic = PatchCritic(recipe.critic) if recipe.gan else None

    def forward(self, image_BCHW: Tensor, noise_BCHW: Tensor, strength_B2: Tensor, play_B: Tensor) -> dict[str, Tensor]:
        """Return "loss" and its parts.

        Args:
            strength_B2: in [0, 1]; scales each face's noise and fading.
            play_B: whether the decoder plays against the critic; every entry says the same.
        """
        recipe = self._recipe
        latent_BCHW = disturbed(self.network.encode(image_BCHW), noise_BCHW, recipe.latent_noise * strength_B2[:, 0], recipe.fade * strength_B2[:, 1])
        with autocast(image_BCHW.device, recipe.loop.precision):
            back_BCHW = self.network.decode(latent_BCHW)
        back_BCHW = back_BCHW.float()
        loss, psnr_db = reconstruction(back_BCHW, image_BCHW, recipe.gradient)
        parts = {"rec": loss}
        if recipe.perceptual:
            parts["perceptual"] = perceptual_loss(self._eyes[0], back_BCHW, image_BCHW, recipe.perceptual_share)
            loss = loss + recipe.perceptual * parts["perceptual"]
        if self.critic is not None:
            parts["gan"], parts["critic"] = game(self.critic, image_BCHW, back_BCHW)
            loss = loss + parts["critic"]
            if play_B[0]:
                parts["gan_weight"] = adaptive_weight(parts["rec"], parts["gan"], self.network.decoder.out.weight)
                loss = loss + recipe.gan * parts["gan_weight"] * parts["gan"]
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}, "psnr_db": psnr_db.detach()}


def disturbed(latent_BCHW: Tensor, noise_BCHW: Tensor, deviation_B: Tensor, fade_B: Tensor) -> Tensor:
    """Return latents with a share `fade` of their detail taken away and noise of `deviation` added."""
    deviation, fade = deviation_B[:, None, None, None], fade_B[:, None, None, None]
    detail_BCHW = latent_BCHW - F.avg_pool2d(F.pad(latent_BCHW, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return latent_BCHW - fade * detail_BCHW + deviation * noise_BCHW


class SharpenBatches:
    """Faces, noise, how strongly each latent is disturbed, and whether the decoder plays."""

    def __init__(self, image_NHWC: np.ndarray, recipe: SharpenRecipe, latent_shape: tuple[int, int, int]) -> None:
        self._faces, self._seed = FaceBatches(image_NHWC, recipe.loop, latent_shape), recipe.loop.seed
        self.steps_per_epoch = self._faces.steps_per_epoch
        self._plays_from = recipe.gan_from * recipe.loop.total_steps(self)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return what `SharpenObjective` takes."""
        image_BCHW, noise_BCHW = self._faces(step, rank, world)
        strength_B2 = torch.from_numpy(numpy_rng(self._seed, step, "strength", rank).random((len(image_BCHW), 2), np.float32))
        return image_BCHW, noise_BCHW, strength_B2, torch.full((len(image_BCHW),), step >= self._plays_from)


def sharpen_decoder(recipe: SharpenRecipe, network: Autoencoder, image_NHWC: np.ndarray, out: Path, *, eyes: LiveFeatureNetwork | None = None) -> Path:
    """Train the decoder on, in place; return its weights file. A run found in `out` is continued.

    Args:
        network: trained already; its encoder is written as it came.
        image_NHWC: uint8 aligned faces, (N, 112, 112, 3).

    Raises:
        UserError: another class of autoencoder; a perceptual term without eyes; `out` holds another training; fewer faces than a batch.
    """
    if not isinstance(network, PatchAutoencoder):
        raise UserError(f"the autoencoder is a {type(network).__name__}; only the decoder of a patch autoencoder can be sharpened: leave out 'sharpen'")
    check_eyes(recipe, eyes)
    start = data_digest(*(tensor.float().cpu().numpy() for tensor in network.state_dict().values()))
    objective = fresh(lambda: SharpenObjective(network.requires_grad_(True), recipe, eyes), recipe.loop.seed, "critic")
    batches = SharpenBatches(image_NHWC, recipe, network.latent_shape)
    settings = {**recipe.model_dump(mode="json", exclude={"loop"}), "start": start, "eyes": eyes.name if eyes is not None else None}
    steps = run_loop(objective, batches, recipe.loop, out, data=data_digest(image_NHWC), settings=settings, label="decoder")
    path = out / "autoencoder.safetensors"
    save_autoencoder(path, network, facts={"steps": steps, "batch": recipe.loop.batch, "images": len(image_NHWC), **settings})
    return path


def check_eyes(recipe: SharpenRecipe, eyes: LiveFeatureNetwork | None) -> None:
    """Raise a UserError if the recipe has a perceptual term and there is nothing to look with."""
    if recipe.perceptual and eyes is None:
        raise UserError(f"sharpen.perceptual is {recipe.perceptual:g}, but no feature network was passed; pass one (recognition.feature_maps.MobileFaceNetMaps) or set sharpen.perceptual to 0")


def save_autoencoder(path: Path, network: PatchAutoencoder, *, facts: dict[str, object]) -> None:
    """Write the decoder in float16 and the encoder's basis as it is: another basis, however little, would be another latent space."""
    learned = {name for name, _ in network.named_parameters()}
    tensors = {name: tensor.half() if name in learned else tensor.clone() for name, tensor in network.state_dict().items()}
    save_tensors(path, tensors, kind="autoencoder", config=network.config.model_dump(mode="json"), facts=facts)
