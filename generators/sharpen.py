"""A second training of a patch autoencoder's decoder, for pictures as sharp as real ones; the encoder, and so every latent, stays as it is.

L = |x - x̂| + γ |∇x - ∇x̂| + λ_P L_perc + λ_G w L_adv + λ_T L_texture (VQGAN, Esser et al., CVPR 2021, §3.1, with the absolute error of our first training): w is the adaptive
weight, L_adv a critic's of patches (core.adversarial). Choices [C]: the critic sees the fine detail alone (what a 3×3 mean leaves), so that it cannot ask for
another shape or colour, and learns in a few hundred steps what is missing; the decoder is made for a sampler's latents, which are not an encoder's. It is trained on
faces' latents with noise added, part of their fine detail taken away, or as a denoiser says them (`one_step`), against the faces as they were. Axes: B faces, C H W of a latent.
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
from .one_step import OneStep


LOUDER = 4.0
"""Brings the detail of a picture to about the spread of the picture: a critic's first layer expects that."""


class SharpenRecipe(Config):
    """Loop, terms and disturbance.

    Attributes:
        gradient: γ.
        perceptual: λ_P; 0 = no perceptual term.
        perceptual_share: share of a step's faces the perceptual network looks at; it costs as much as the decoder.
        texture: λ_T; the term asks for as much fine detail as the faces have, at every place of a patch alike (`texture_gap`).
        gan: λ_G on the adaptive weight; 0 = no critic.
        gan_most: greatest adaptive weight. Without a bound a critic that cannot tell anything yet, whose gradient is small, is made as loud as the reconstruction.
        gan_from: share of the steps in which the critic learns alone; a fresh one has nothing to teach.
        critic: channels of the critic's first layer.
        latent_noise: deviation of the noise on a face's latent is drawn between 0 and this (latents have about unit variance).
        denoiser: bundled name or path of a denoiser of these latents; with one, the latents of some faces are what it says of them (`one_step`).
        denoised: share of a step's faces this is done to.
        denoised_t: the time of the noise that is added before is drawn up to this, in 0..999.
        fade: share of a latent's detail (what its 3×3 mean leaves) that is taken away is drawn between 0 and this, one draw a face.
    """

    loop: LoopConfig
    gradient: float = Field(0.5, ge=0)
    perceptual: float = Field(0.0, ge=0)
    perceptual_share: float = Field(0.25, gt=0, le=1)
    texture: float = Field(0.0, ge=0)
    gan: float = Field(0.0, ge=0)
    gan_most: float = Field(0.1, gt=0)
    gan_from: float = Field(0.1, ge=0, le=1)
    critic: int = Field(16, ge=1)
    latent_noise: float = Field(0.1, ge=0)
    fade: float = Field(0.0, ge=0, le=1)
    denoiser: str | None = None
    denoised: float = Field(0.5, gt=0, le=1)
    denoised_t: int = Field(200, ge=1, le=999)


class SharpDecoderRecipe(Config):
    """A training file: `facefoundry train decoder RECIPE --data FACES`.

    Attributes:
        autoencoder: bundled name or path of the weights whose decoder is trained on.
        sharpen: how.
    """

    name: str = "decoder"
    autoencoder: str = "autoencoder-small"
    sharpen: SharpenRecipe


class SharpenObjective(nn.Module):
    """forward(image_BCHW, noise_BCHW, strength_B3, play_B) → losses.

    Args:
        eyes, one_step: frozen; no part of the module, neither trained nor stored.
    """

    def __init__(self, network: PatchAutoencoder, recipe: SharpenRecipe, eyes: LiveFeatureNetwork | None, one_step: OneStep | None = None) -> None:
        super().__init__()
        self.network, self._recipe, self._frozen = network, recipe, (eyes, one_step)
        self.critic = PatchCritic(recipe.critic) if recipe.gan else None

    def forward(self, image_BCHW: Tensor, noise_BCHW: Tensor, strength_B3: Tensor, play_B: Tensor) -> dict[str, Tensor]:
        """Return "loss" and its parts.

        Args:
            strength_B3: in [0, 1]; scales each face's noise, fading and time.
            play_B: whether the decoder plays against the critic; every entry says the same.
        """
        recipe = self._recipe
        latent_BCHW = self._sampled(self.network.encode(image_BCHW), noise_BCHW, strength_B3[:, 2])
        latent_BCHW = disturbed(latent_BCHW, noise_BCHW, recipe.latent_noise * strength_B3[:, 0], recipe.fade * strength_B3[:, 1])
        with autocast(image_BCHW.device, recipe.loop.precision):
            back_BCHW = self.network.decode(latent_BCHW)
        back_BCHW = back_BCHW.float()
        loss, psnr_db = reconstruction(back_BCHW, image_BCHW, recipe.gradient)
        parts = {"rec": loss}
        if recipe.perceptual:
            parts["perceptual"] = perceptual_loss(self._frozen[0], back_BCHW, image_BCHW, recipe.perceptual_share)
            loss = loss + recipe.perceptual * parts["perceptual"]
        if recipe.texture:
            parts["texture"] = texture_gap(back_BCHW, image_BCHW, self.network.config.patch)
            loss = loss + recipe.texture * parts["texture"]
        if self.critic is not None:
            parts["gan"], parts["critic"] = game(self.critic, LOUDER * detail(image_BCHW), LOUDER * detail(back_BCHW))
            loss = loss + parts["critic"]
            if play_B[0]:
                parts["gan_weight"] = adaptive_weight(parts["rec"], parts["gan"], self.network.decoder.out.weight, most=recipe.gan_most)
                loss = loss + recipe.gan * parts["gan_weight"] * parts["gan"]
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}, "psnr_db": psnr_db.detach()}


    def _sampled(self, latent_BCHW: Tensor, noise_BCHW: Tensor, strength_B: Tensor) -> Tensor:
        """Put the denoiser's word in the place of some latents, evenly over the batch: the perceptual term looks at its first faces, and shall see both."""
        one_step, recipe = self._frozen[1], self._recipe
        if one_step is None:
            return latent_BCHW
        places = torch.arange(1, len(latent_BCHW) + 1, device=latent_BCHW.device) * recipe.denoised
        row_R = (places.floor() > (places - recipe.denoised).floor()).nonzero()[:, 0]
        if not len(row_R):
            return latent_BCHW
        t_R = (strength_B[row_R] * (recipe.denoised_t + 1)).long().clamp_max(recipe.denoised_t)
        # Another row's noise: a face's own is added to the result afterwards.
        return latent_BCHW.index_copy(0, row_R, one_step(latent_BCHW[row_R], noise_BCHW.roll(1, 0)[row_R], t_R))


def disturbed(latent_BCHW: Tensor, noise_BCHW: Tensor, deviation_B: Tensor, fade_B: Tensor) -> Tensor:
    """Return latents with a share `fade` of their detail taken away and noise of `deviation` added."""
    deviation, fade = deviation_B[:, None, None, None], fade_B[:, None, None, None]
    return latent_BCHW - fade * detail(latent_BCHW) + deviation * noise_BCHW


def texture_gap(found_BCHW: Tensor, wanted_BCHW: Tensor, patch: int) -> Tensor:
    """Return how far the mean size of the fine detail is from the wanted one: a mean over the places of a patch and the colours, where it is a mean over the batch.

    A regression leaves little detail, and less in the middle of a patch than at its edge: the patches can be seen. No pixel is told what to be, only their mean.
    """
    found_P, wanted_P = (F.pixel_unshuffle(detail(x_BCHW).abs(), patch).mean((0, 2, 3)) for x_BCHW in (found_BCHW, wanted_BCHW))
    return F.l1_loss(found_P, wanted_P)


def detail(x_BCHW: Tensor) -> Tensor:
    """Return what a 3×3 mean leaves of pictures or latents."""
    return x_BCHW - F.avg_pool2d(F.pad(x_BCHW, (1, 1, 1, 1), mode="replicate"), 3, 1)


class SharpenBatches:
    """Faces, noise, how strongly each latent is disturbed, and whether the decoder plays."""

    def __init__(self, image_NHWC: np.ndarray, recipe: SharpenRecipe, latent_shape: tuple[int, int, int]) -> None:
        self._faces, self._seed = FaceBatches(image_NHWC, recipe.loop, latent_shape), recipe.loop.seed
        self.steps_per_epoch = self._faces.steps_per_epoch
        self._plays_from = recipe.gan_from * recipe.loop.total_steps(self)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return what `SharpenObjective` takes."""
        image_BCHW, noise_BCHW = self._faces(step, rank, world)
        strength_B3 = torch.from_numpy(numpy_rng(self._seed, step, "strength", rank).random((len(image_BCHW), 3), np.float32))
        return image_BCHW, noise_BCHW, strength_B3, torch.full((len(image_BCHW),), step >= self._plays_from)


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
    one_step = OneStep.open(recipe.denoiser, network.latent_shape[0]) if recipe.denoiser is not None else None
    objective = fresh(lambda: SharpenObjective(network.requires_grad_(True), recipe, eyes, one_step), recipe.loop.seed, "critic")
    batches = SharpenBatches(image_NHWC, recipe, network.latent_shape)
    settings = {**recipe.model_dump(mode="json", exclude={"loop"}), "start": start, "eyes": getattr(eyes, "name", None), "denoiser": getattr(one_step, "name", None)}
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
