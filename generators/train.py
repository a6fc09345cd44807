"""Training of the bundled generators: the autoencoder first, then the UIFace denoiser on its latents.

UIFace objective (generators.md §2.1): E‖ε - ε_θ(z_t, t, c̃)‖², c̃ the empty context with probability 0.2, else the partially
dropped identity context; the first row of every batch is always empty, so that the empty context always learns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.device import default_device, memory_format
from ..core.files import sha256_file
from ..core.images import to_float
from ..core.progress import track
from ..core.seeds import derive_seed, numpy_rng
from ..core.training import LoopConfig, epoch_rows, fit
from ..core.weights import load_into, load_weights, save_weights
from .autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from .schedule import STEPS, add_noise, velocity
from .unet import FamilyUNet, UNetConfig


class AutoencoderRecipe(Config):
    """Network, loop, and the weights of the loss: |x - x̂| + `gradient` · |∇x - ∇x̂|, latents disturbed by `latent_noise`."""

    network: PatchAutoencoderConfig = PatchAutoencoderConfig()
    loop: LoopConfig
    gradient: float = 0.5
    latent_noise: float = 0.05


class DenoiserRecipe(Config):
    """Network, loop, and how rows are drawn.

    Attributes:
        empty_share: share of rows trained with the empty context.
        focus: share of rows whose t / 1000 is logit-normal (-0.3, 1), the middle noise levels, where most is to be learnt; the
            others, and all of them with 0 (the published training), are uniform.
    """

    network: UNetConfig
    loop: LoopConfig
    empty_share: float = Field(0.2, ge=0, le=1)
    focus: float = Field(0.0, ge=0, le=1)


class GeneratorRecipe(Config):
    """A training file: `facefoundry train generator RECIPE --data FACES`."""

    name: str
    autoencoder: AutoencoderRecipe
    denoiser: DenoiserRecipe


def train_generator(recipe: GeneratorRecipe, image_NHWC: np.ndarray, embed_ND: np.ndarray, out: Path) -> dict[str, Path]:
    """Train autoencoder and denoiser; return the paths of the two weights files.

    Args:
        image_NHWC: uint8 aligned faces, (N, 112, 112, 3).
        embed_ND: unit identity embeddings of the same faces, (N, identity_dim).
        out: folder for states, logs and weights; a run found there is continued.
    """
    check("image_NHWC", image_NHWC, "N 112 112 3")
    check("embed_ND", embed_ND, f"{len(image_NHWC)} {recipe.denoiser.network.identity_dim}")
    check_unit_rows("embed_ND", embed_ND)
    autoencoder_path = train_autoencoder(recipe.autoencoder, image_NHWC, out / "autoencoder")
    denoiser_path = train_denoiser(recipe.denoiser, image_NHWC, embed_ND, autoencoder_path, out / "denoiser")
    return {"autoencoder": autoencoder_path, "denoiser": denoiser_path}


def train_autoencoder(recipe: AutoencoderRecipe, image_NHWC: np.ndarray, out: Path) -> Path:
    """Train the patch autoencoder; return its weights file (made once: a finished one is kept)."""
    path = out / "autoencoder.safetensors"
    if path.exists():
        return path
    network = _initialised(PatchAutoencoder, recipe.network, recipe.loop.seed)
    sample = numpy_rng(recipe.loop.seed, "basis").permutation(len(image_NHWC))[:2000]
    network.fit_basis(to_float(image_NHWC[np.sort(sample)]))
    task = AutoencoderTask(network, recipe, image_NHWC)
    modules = fit(task, recipe.loop, out, label="autoencoder")
    facts = {"steps": recipe.loop.steps, "batch": recipe.loop.batch, "images": len(image_NHWC)}
    save_weights(path, modules["network"], kind="autoencoder", config=recipe.network.model_dump(mode="json"), facts=facts)
    return path


def train_denoiser(recipe: DenoiserRecipe, image_NHWC: np.ndarray, embed_ND: np.ndarray, autoencoder_path: Path, out: Path) -> Path:
    """Train the denoiser on cached latents; return its weights file."""
    autoencoder = load_autoencoder(autoencoder_path)
    latent_MCHW = cached_latents(autoencoder, image_NHWC, out / "latents.npy")
    task = DenoiserTask(_initialised(FamilyUNet, recipe.network, recipe.loop.seed), recipe, latent_MCHW, torch.from_numpy(embed_ND))
    modules = fit(task, recipe.loop, out, label="denoiser")
    facts = {"steps": recipe.loop.steps, "batch": recipe.loop.batch, "images": len(image_NHWC), "autoencoder_sha256": sha256_file(autoencoder_path)}
    path = out / "denoiser.safetensors"
    save_weights(path, modules["network"], kind="denoiser", config=recipe.network.model_dump(mode="json"), facts=facts)
    return path


def load_autoencoder(path: Path) -> PatchAutoencoder:
    """Load an autoencoder written by `train_autoencoder`, in eval mode."""
    tensors, config, _ = load_weights(path, kind="autoencoder")
    network = PatchAutoencoder(PatchAutoencoderConfig.parse(config, source=str(path)))
    load_into(network, tensors, path)
    return network.eval()


@torch.no_grad()
def cached_latents(autoencoder: PatchAutoencoder, image_NHWC: np.ndarray, path: Path) -> np.ndarray:
    """Return float16 latents of the faces, then of their mirror images, (2N, C, h, w), memory-mapped from a file beside `path`.

    The file's name carries a hash of the faces and of the encoder, so that neither can change behind it.
    """
    shape = (2 * len(image_NHWC), *autoencoder.latent_shape)
    sample = autoencoder.encode(to_float(image_NHWC[:8])).numpy().round(3)
    path = path.with_stem(f"{path.stem}-{derive_seed(image_NHWC[:: max(1, len(image_NHWC) // 64)].tobytes().hex(), sample.tobytes().hex()):016x}")
    if path.exists() and (cached := np.load(path, mmap_mode="r")).shape == shape:
        return cached
    path.parent.mkdir(parents=True, exist_ok=True)
    latent_MCHW = np.lib.format.open_memmap(path.with_suffix(".partial"), mode="w+", dtype=np.float16, shape=shape)
    for start in track(range(0, len(image_NHWC), 64), "latents"):
        image_BCHW = to_float(image_NHWC[start : start + 64])
        rows = slice(start, start + len(image_BCHW))
        latent_MCHW[rows] = autoencoder.encode(image_BCHW).numpy()
        latent_MCHW[len(image_NHWC) :][rows] = autoencoder.encode(image_BCHW.flip(-1)).numpy()
    latent_MCHW.flush()
    path.with_suffix(".partial").rename(path)
    return np.load(path, mmap_mode="r")


class AutoencoderTask:
    """Reconstruction with the disturbance a sampler will bring."""

    def __init__(self, network: PatchAutoencoder, recipe: AutoencoderRecipe, image_NHWC: np.ndarray) -> None:
        self.modules = nn.ModuleDict({"network": network.to(memory_format=memory_format(default_device()))})
        self.recipe, self.image_NHWC = recipe, image_NHWC
        self.fingerprint = recipe.fingerprint()

    def loss(self, step: int, device: torch.device, rank: int, world: int) -> tuple[Tensor, dict[str, float]]:
        """|x - x̂| plus the same of horizontal and vertical differences."""
        loop = self.recipe.loop
        rows = epoch_rows(len(self.image_NHWC), loop.batch, step, loop.seed, rank, world)
        image_BCHW = to_float(self.image_NHWC[np.sort(rows)]).to(device)
        image_BCHW = _mirrored(image_BCHW, numpy_rng(loop.seed, step, "mirror", rank))
        network = _unwrapped(self.modules)["network"]
        latent_BCHW = network.encode(image_BCHW)
        noise = _normal(latent_BCHW, loop.seed, step, rank)
        back_BCHW = network.decode(latent_BCHW + self.recipe.latent_noise * noise).float()
        plain = F.l1_loss(back_BCHW, image_BCHW)
        edges = sum(F.l1_loss(back_BCHW.diff(dim=d), image_BCHW.diff(dim=d)) for d in (-1, -2))
        psnr = 10 * torch.log10(4 / F.mse_loss(back_BCHW, image_BCHW))
        return plain + self.recipe.gradient * edges, {"psnr_db": float(psnr.detach())}


class DenoiserTask:
    """Noise prediction on latents, rows [0, N) upright and [N, 2N) mirrored, sharing the embedding of the upright face."""

    def __init__(self, network: FamilyUNet, recipe: DenoiserRecipe, latent_MCHW: np.ndarray, embed_ND: Tensor) -> None:
        self.modules = nn.ModuleDict({"network": network.to(memory_format=memory_format(default_device()))})
        self.recipe, self.latent_MCHW, self.embed_ND = recipe, latent_MCHW, embed_ND
        self.fingerprint = recipe.fingerprint()

    def loss(self, step: int, device: torch.device, rank: int, world: int) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error on ε (or v), unweighted."""
        loop, count = self.recipe.loop, len(self.embed_ND)
        rows = epoch_rows(count, loop.batch, step, loop.seed, rank, world)
        rng = numpy_rng(loop.seed, step, "conditions", rank)
        mirrored = rng.random(len(rows)) < 0.5
        clean_BCHW = torch.from_numpy(self.latent_MCHW[rows + count * mirrored]).float().to(device)
        t_B = torch.from_numpy(draw_times(len(rows), self.recipe.focus, rng)).to(device)
        empty_B = torch.from_numpy(rng.random(len(rows)) < self.recipe.empty_share).to(device)
        empty_B[0] = True
        noise_BCHW = _normal(clean_BCHW, loop.seed, step, rank)
        noisy_BCHW = add_noise(clean_BCHW, noise_BCHW, t_B).to(memory_format=memory_format(device))
        network = _unwrapped(self.modules)["network"]
        context_BD = network.embed_context(self.embed_ND[rows].to(device), empty_B)
        guess_BCHW = network(noisy_BCHW, t_B, context_BD).float()
        target_BCHW = noise_BCHW if self.recipe.network.prediction == "epsilon" else velocity(clean_BCHW, noise_BCHW, t_B)
        return F.mse_loss(guess_BCHW, target_BCHW), {}


def draw_times(count: int, focus: float, rng: np.random.Generator) -> np.ndarray:
    """Return training times in 0..999, (count,) int64; see `DenoiserRecipe.focus`."""
    uniform, middle = rng.integers(0, STEPS, count), STEPS / (1 + np.exp(0.3 - rng.normal(size=count)))
    return np.where(rng.random(count) < focus, middle.astype(np.int64).clip(0, STEPS - 1), uniform)


def _initialised(network: type[nn.Module], config: Config, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        return network(config)


def _unwrapped(modules: Any) -> Any:
    return modules.module if hasattr(modules, "module") else modules


def _normal(like: Tensor, seed: int, step: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, step, "noise", rank))
    return torch.randn(like.shape, generator=generator).to(like.device)


def _mirrored(image_BCHW: Tensor, rng: np.random.Generator) -> Tensor:
    flip_B = torch.from_numpy(rng.random(len(image_BCHW)) < 0.5).to(image_BCHW.device)
    return torch.where(flip_B[:, None, None, None], image_BCHW.flip(-1), image_BCHW)
