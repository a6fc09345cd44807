"""Training of the bundled generators: the autoencoder first, then the UIFace denoiser on its latents.

UIFace objective (generators.md §2.1): E‖ε - ε_θ(z_t, t, c̃)‖², c̃ the empty context with probability 0.2, else the partially
dropped identity context; the first row of every batch is always empty, so that the empty context always learns.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.device import autocast, memory_format
from ..core.errors import UserError
from ..core.files import sha256_file
from ..core.images import to_float
from ..core.perceptual import LiveFeatureNetwork
from ..core.progress import track
from ..core.seeds import derive_seed, numpy_rng
from ..core.training import LoopConfig, data_digest, fresh, run_loop, step_noise, step_rows
from ..core.weights import load_into, load_weights, save_weights
from .autoencoder import Autoencoder, PatchAutoencoder, PatchAutoencoderConfig, reconstruction
from .face_batches import FaceBatches, whole_batches
from .prediction import min_snr_weight, target
from .schedule import STEPS, add_noise
from .registry import AUTOENCODERS
from .sharpen import SharpenRecipe, check_eyes, sharpen_decoder
from .unet import FamilyUNet, UNetConfig


class AutoencoderRecipe(Config):
    """Network, loop, and the weights of the loss: |x - x̂| + `gradient` · |∇x - ∇x̂|, latents disturbed by `latent_noise`.

    Attributes:
        weights: a finished first stage of any registered class (`tokenizer train` makes one): used as it is, and nothing else here counts.
        sharpen: a second training of the decoder, after this one, for pictures as sharp as real ones; None = none.
    """

    weights: Path | None = None
    network: PatchAutoencoderConfig = PatchAutoencoderConfig()
    loop: LoopConfig
    gradient: float = 0.5
    latent_noise: float = 0.05
    sharpen: SharpenRecipe | None = None


class DenoiserRecipe(Config):
    """Network, loop, and how rows are drawn.

    Attributes:
        empty_share: share of rows trained with the empty context.
        focus: share of rows whose t / 1000 is logit-normal (-0.3, 1), the middle noise levels, where most is to be learnt; the
            others, and all of them with 0 (the published training), are uniform.
        min_snr: γ of min-SNR weighting (Hang et al., ICCV 2023; the paper uses 5); 0, the published training, weighs the squared error of the
            prediction equally at every t.
        warm_start: denoiser weights to begin from; layers it lacks keep their own initialisation.
    """

    network: UNetConfig
    loop: LoopConfig
    empty_share: float = Field(0.2, ge=0, le=1)
    focus: float = Field(0.0, ge=0, le=1)
    min_snr: float = Field(0.0, ge=0)
    warm_start: Path | None = None


class GeneratorRecipe(Config):
    """A training file: `facefoundry train generator RECIPE --data FACES`."""

    name: str
    autoencoder: AutoencoderRecipe
    denoiser: DenoiserRecipe

    @model_validator(mode="after")
    def _denoiser_fits_the_latents(self) -> Self:
        first, second = self.autoencoder.network, self.denoiser.network
        if self.autoencoder.weights is not None:  # known when it is loaded
            return self
        if first.channels != second.channels:
            raise ValueError(f"the autoencoder makes {first.channels} latent channels, the denoiser takes {second.channels}: expected the same number in both networks")
        side, halvings = 112 // first.patch, len(second.multipliers) - 1
        if side % 2**halvings:
            raise ValueError(f"patches of {first.patch} give latents of {side}x{side}, which {halvings + 1} levels cannot halve {halvings} times: expected fewer multipliers or another patch")
        return self


def train_generator(recipe: GeneratorRecipe, image_NHWC: np.ndarray, embed_ND: np.ndarray, out: Path, *, eyes: LiveFeatureNetwork | None = None) -> dict[str, Path]:
    """Train autoencoder and denoiser; return the paths of the two weights files.

    Args:
        image_NHWC: uint8 aligned faces, (N, 112, 112, 3).
        embed_ND: unit identity embeddings of the same faces, (N, identity_dim).
        out: folder for states, logs and weights; a run found there is continued.
        eyes: what `autoencoder.sharpen.perceptual` looks with.
    """
    check("image_NHWC", image_NHWC, "N 112 112 3")
    check("embed_ND", embed_ND, f"{len(image_NHWC)} {recipe.denoiser.network.identity_dim}")
    check_unit_rows("embed_ND", embed_ND)
    autoencoder_path = recipe.autoencoder.weights or train_autoencoder(recipe.autoencoder, image_NHWC, out / "autoencoder", eyes=eyes)
    denoiser_path = train_denoiser(recipe.denoiser, image_NHWC, embed_ND, autoencoder_path, out / "denoiser")
    return {"autoencoder": autoencoder_path, "denoiser": denoiser_path}


def train_autoencoder(recipe: AutoencoderRecipe, image_NHWC: np.ndarray, out: Path, *, eyes: LiveFeatureNetwork | None = None) -> Path:
    """Train the patch autoencoder, then sharpen it where asked for; return its weights file (a finished one is kept).

    Raises:
        UserError: `out` holds the state of a training with another recipe or other faces.
    """
    path = out / "autoencoder.safetensors"
    if recipe.sharpen is not None:
        check_eyes(recipe.sharpen, eyes)  # not after the first training
    if path.exists() and not (out / "state.pt").exists():  # brought here from another run; with a state, the loop checks whose it is
        network = load_autoencoder(path) if recipe.sharpen is not None else None
    else:
        network = _first_training(recipe, image_NHWC, out, path)
    return path if recipe.sharpen is None else sharpen_decoder(recipe.sharpen, network, image_NHWC, out / "sharp", eyes=eyes)


def _first_training(recipe: AutoencoderRecipe, image_NHWC: np.ndarray, out: Path, path: Path) -> PatchAutoencoder:
    network = fresh(lambda: PatchAutoencoder(recipe.network), recipe.loop.seed, "autoencoder")
    sample = numpy_rng(recipe.loop.seed, "basis").permutation(len(image_NHWC))[:2000]
    network.fit_basis(to_float(image_NHWC[np.sort(sample)]))
    batches = FaceBatches(image_NHWC, recipe.loop, network.latent_shape)
    steps = run_loop(AutoencoderObjective(network, recipe), batches, recipe.loop, out, data=data_digest(image_NHWC), settings=_around(recipe), label="autoencoder")
    facts = {"steps": steps, "batch": recipe.loop.batch, "images": len(image_NHWC)}
    save_weights(path, network, kind="autoencoder", config=recipe.network.model_dump(mode="json"), facts=facts)
    return network


def train_denoiser(recipe: DenoiserRecipe, image_NHWC: np.ndarray, embed_ND: np.ndarray, autoencoder_path: Path, out: Path) -> Path:
    """Train the denoiser on cached latents; return its weights file."""
    autoencoder = load_autoencoder(autoencoder_path)
    if autoencoder.latent_shape[0] != recipe.network.channels:
        raise UserError(f"{autoencoder_path} makes latents of shape {autoencoder.latent_shape}, the denoiser takes {recipe.network.channels} channels: set denoiser.network.channels to {autoencoder.latent_shape[0]}")
    latent_MCHW = cached_latents(autoencoder, image_NHWC, out / "latents.npy")
    network = fresh(lambda: FamilyUNet(recipe.network), recipe.loop.seed, "denoiser")
    if recipe.warm_start is not None:
        held, _, _ = load_weights(recipe.warm_start, kind="denoiser")
        load_into(network, {**network.state_dict(), **held}, recipe.warm_start)
    batches = LatentBatches(latent_MCHW, embed_ND, recipe)
    steps = run_loop(DenoiserObjective(network, recipe), batches, recipe.loop, out, data=data_digest(image_NHWC, embed_ND), settings=_around(recipe), label="denoiser")
    facts = {"steps": steps, "batch": recipe.loop.batch, "images": len(image_NHWC), "autoencoder_sha256": sha256_file(autoencoder_path)}
    path = out / "denoiser.safetensors"
    save_weights(path, network, kind="denoiser", config=recipe.network.model_dump(mode="json"), facts=facts)
    return path


def load_autoencoder(path: Path) -> Autoencoder:
    """Load an autoencoder of any registered class, in eval mode; a file that names none holds a `PatchAutoencoder`."""
    tensors, config, _ = load_weights(path, kind="autoencoder")
    network = AUTOENCODERS[config.get("name", "patch")].parse(config, source=str(path)).build()
    load_into(network, tensors, path)
    return network.eval()


def _around(recipe: AutoencoderRecipe | DenoiserRecipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude={"loop", "weights", "sharpen"})


@torch.no_grad()
def cached_latents(autoencoder: Autoencoder, image_NHWC: np.ndarray, path: Path) -> np.ndarray:
    """Return float16 latents of the faces, then of their mirror images, (2N, C, h, w), memory-mapped from a file beside `path`.

    The file's name carries a hash of the faces and of the encoder, so that neither can change behind it.
    """
    shape = (2 * len(image_NHWC), *autoencoder.latent_shape)
    sample = autoencoder.encode(to_float(image_NHWC[:8])).numpy().round(3)
    path = path.with_stem(f"{path.stem}-{derive_seed(image_NHWC[:: max(1, len(image_NHWC) // 64)].tobytes().hex(), sample.tobytes().hex()):016x}")
    if path.exists() and (cached := np.load(path, mmap_mode="r")).shape == shape:
        return cached
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")  # several processes of one training may get here at once
    latent_MCHW = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
    for start in track(range(0, len(image_NHWC), 64), "latents"):
        image_BCHW = to_float(image_NHWC[start : start + 64])
        rows = slice(start, start + len(image_BCHW))
        latent_MCHW[rows] = autoencoder.encode(image_BCHW).numpy()
        latent_MCHW[len(image_NHWC) :][rows] = autoencoder.encode(image_BCHW.flip(-1)).numpy()
    latent_MCHW.flush()
    partial.rename(path)
    return np.load(path, mmap_mode="r")


class AutoencoderObjective(nn.Module):
    """Reconstruction with the disturbance a sampler will bring: |x - x̂| plus the same of horizontal and vertical differences."""

    def __init__(self, network: PatchAutoencoder, recipe: AutoencoderRecipe) -> None:
        super().__init__()
        self.network, self._recipe = network, recipe

    def forward(self, image_BCHW: Tensor, noise_BCHW: Tensor) -> dict[str, Tensor]:
        latent_BCHW = self.network.encode(image_BCHW) + self._recipe.latent_noise * noise_BCHW
        with autocast(image_BCHW.device, self._recipe.loop.precision):
            back_BCHW = self.network.decode(latent_BCHW).float()
        loss, psnr_db = reconstruction(back_BCHW, image_BCHW, self._recipe.gradient)
        return {"loss": loss, "psnr_db": psnr_db}


class LatentBatches:
    """Latents with noise, time, identity and the rows that train the empty context.

    Latent rows [0, N) are upright and [N, 2N) mirrored; both share the embedding of the upright face.
    """

    def __init__(self, latent_MCHW: np.ndarray, embed_ND: np.ndarray, recipe: DenoiserRecipe) -> None:
        self._latent_MCHW, self._embed_ND, self._recipe = latent_MCHW, torch.from_numpy(embed_ND), recipe
        self.steps_per_epoch = whole_batches(len(embed_ND), recipe.loop.batch)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return clean latents, noise, times (B,), identities (B, D) and `empty_B` (bool; the first row always)."""
        loop, count = self._recipe.loop, len(self._embed_ND)
        rows = step_rows(count, loop.batch, step, loop.seed)[rank::world]
        rng = numpy_rng(loop.seed, step, "conditions", rank)
        mirrored = rng.random(len(rows)) < 0.5
        clean_BCHW = torch.from_numpy(self._latent_MCHW[rows + count * mirrored]).float()
        t_B = torch.from_numpy(draw_times(len(rows), self._recipe.focus, rng))
        empty_B = torch.from_numpy(rng.random(len(rows)) < self._recipe.empty_share)
        empty_B[0] = True
        return clean_BCHW, step_noise(tuple(clean_BCHW.shape), loop.seed, step, rank), t_B, self._embed_ND[rows], empty_B


class DenoiserObjective(nn.Module):
    """Mean squared error of what the network says (ε, v or flow), unweighted unless the recipe asks for min-SNR.

    Args:
        network: `FamilyUNet`, or another with its `embed_context` and forward.
    """

    def __init__(self, network: nn.Module, recipe: DenoiserRecipe) -> None:
        super().__init__()
        self.network, self._recipe = network, recipe

    def forward(self, clean_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor, *condition: Tensor) -> dict[str, Tensor]:
        """Return "loss"; `condition` is what the network's `embed_context` takes."""
        kind = self._recipe.network.prediction
        noisy_BCHW = add_noise(clean_BCHW, noise_BCHW, t_B).contiguous(memory_format=memory_format(clean_BCHW.device))
        with autocast(clean_BCHW.device, self._recipe.loop.precision):
            said_BCHW = self.network(noisy_BCHW, t_B, self.network.embed_context(*condition))
        error_B = F.mse_loss(said_BCHW.float(), target(kind, clean_BCHW, noise_BCHW, t_B), reduction="none").mean((1, 2, 3))
        if self._recipe.min_snr:
            error_B = error_B * min_snr_weight(kind, t_B, self._recipe.min_snr)
        return {"loss": error_B.mean()}


def draw_times(count: int, focus: float, rng: np.random.Generator) -> np.ndarray:
    """Return training times in 0..999, (count,) int64; see `DenoiserRecipe.focus`."""
    uniform, middle = rng.integers(0, STEPS, count), STEPS / (1 + np.exp(0.3 - rng.normal(size=count)))
    return np.where(rng.random(count) < focus, middle.astype(np.int64).clip(0, STEPS - 1), uniform)
