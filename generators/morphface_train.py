"""Training of MorphFace on the latents of an autoencoder that stands: recipe, batches with style maps, the run.

Objective: E‖ε - ε_θ(z_t, t, c_id, c_sty)‖² (or of v, flow), each condition dropped by itself (generators.md §3.2).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import weights_path
from ..core.progress import track
from ..core.seeds import derive_seed, numpy_rng
from ..core.training import data_digest, fresh, run_loop, step_noise, step_rows
from ..core.weights import save_weights
from .id3_network import warm_start
from .morphface_network import KIND, MorphFaceNetwork, MorphFaceNetworkConfig, StylePath
from .pixel import open_autoencoder
from .style_encoder import CHANNELS, mirrored_maps, pack_maps
from .style_source import StyleMaps
from .train import DenoiserObjective, DenoiserRecipe, LatentBatches, cached_latents, draw_times


class Drops(Config):
    """Shares of the rows trained without both conditions, without the identity alone, without the style alone."""

    both: float = Field(0.1, ge=0, le=1)
    identity: float = Field(0.1, ge=0, le=1)
    style: float = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.both + self.identity + self.style > 1:
            raise ValueError(f"both {self.both} + identity {self.identity} + style {self.style}: expected at most 1 together")
        return self

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return (rows without identity, rows without style), bool (count,)."""
        place_B = rng.random(count)
        both_B = place_B < self.both
        identity_B = (place_B >= self.both) & (place_B < self.both + self.identity)
        style_B = (place_B >= self.both + self.identity) & (place_B < self.both + self.identity + self.style)
        return torch.from_numpy(both_B | identity_B), torch.from_numpy(both_B | style_B)


class MorphFaceRecipe(Config):
    """A training file: `facefoundry train generator RECIPE --data FACES --styles CODES`.

    Attributes:
        denoiser: network, loop, how rows are drawn; `warm_start` takes a bundled name, a denoiser of the family or a MorphFace one.
        style: encoder, tokens and how they meet the identity's.
        drops: see `Drops`; it stands in the place of `denoiser.empty_share`.
        autoencoder: bundled name or path of its weights, or "pixel", "pixel2", ...
    """

    name: str
    denoiser: DenoiserRecipe
    style: StylePath = StylePath()
    drops: Drops = Drops()
    autoencoder: str = "autoencoder-small"

    def network(self) -> MorphFaceNetworkConfig:
        """Return the settings of the network."""
        return MorphFaceNetworkConfig.parse({**dict(self.style), "unet": self.denoiser.network}, source="style")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            self.network()
        except UserError as error:
            raise ValueError(str(error)) from error
        if "empty_share" in self.denoiser.model_fields_set:
            raise ValueError("denoiser.empty_share is not used here: write the shares of the rows without a condition as `drops: {both: 0.1, identity: 0.1, style: 0.1}`")
        return self


def train_morphface(recipe: MorphFaceRecipe, image_NHWC: np.ndarray, embed_ND: np.ndarray, code_NP: np.ndarray, maps: StyleMaps, out: Path) -> Path:
    """Train the denoiser of MorphFace; return its weights file (kind "morphface-denoiser").

    Args:
        image_NHWC: uint8 aligned faces, (N, 112, 112, 3).
        embed_ND: their unit identity embeddings, (N, identity_dim).
        code_NP: their style codes; rows that are not finite (no fit) are trained without style.
        maps: renders the codes.
        out: folder of latents, maps, state, log and weights; a run found there is continued.

    Raises:
        UserError: codes of another number of faces, maps of another size than the encoder's; `out` holds another training.
    """
    count, network_config = len(image_NHWC), recipe.network()
    check("image_NHWC", image_NHWC, "N 112 112 3")
    check("embed_ND", embed_ND, f"{count} {recipe.denoiser.network.identity_dim}")
    check_unit_rows("embed_ND", embed_ND)
    if len(code_NP) != count:
        raise UserError(f"{len(code_NP)} style codes for {count} faces; fit the styles of these faces, in their order")
    if maps.size_px != network_config.encoder.size_px:
        raise UserError(f"the maps are {maps.size_px} px wide, style.encoder.size_px is {network_config.encoder.size_px}; set it to the former")
    autoencoder = open_autoencoder(recipe.autoencoder)
    latent_MCHW = cached_latents(autoencoder, image_NHWC, out / "latents.npy")
    packed_N9SS = cached_maps(maps, code_NP, out)
    network = fresh(lambda: MorphFaceNetwork(network_config), recipe.denoiser.loop.seed, "denoiser")
    if recipe.denoiser.warm_start is not None:
        warm_start(network, weights_path(str(recipe.denoiser.warm_start)), KIND)
    batches = MorphFaceBatches(latent_MCHW, embed_ND, packed_N9SS, np.isfinite(code_NP).all(1), recipe)
    settings = recipe.model_dump(mode="json", exclude={"denoiser": {"loop"}})
    digest = data_digest(image_NHWC, embed_ND, code_NP, np.frombuffer(maps.fingerprint.encode(), np.uint8))
    steps = run_loop(DenoiserObjective(network, recipe.denoiser), batches, recipe.denoiser.loop, out, data=digest, settings=settings, label="morphface")
    facts = {"steps": steps, "batch": recipe.denoiser.loop.batch, "images": count, "recipe": settings, "maps": maps.fingerprint}
    path = out / "denoiser.safetensors"
    save_weights(path, network, kind=KIND, config=network_config.model_dump(mode="json"), facts=facts)
    return path


def cached_maps(maps: StyleMaps, code_NP: np.ndarray, folder: Path, batch: int = 64) -> np.ndarray:
    """Return the packed maps of all codes, (N, 9, S, S) int8, memory-mapped from a file in `folder` named by what decides them.

    Rows of codes that are not finite are 0.
    """
    digest = derive_seed(maps.fingerprint, maps.size_px, np.ascontiguousarray(code_NP, np.float32).tobytes().hex())
    path, shape = folder / f"maps-{digest:016x}.npy", (len(code_NP), CHANNELS, maps.size_px, maps.size_px)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")  # several processes of one training may get here at once
        packed = np.lib.format.open_memmap(partial, mode="w+", dtype=np.int8, shape=shape)
        known = np.flatnonzero(np.isfinite(code_NP).all(1))
        for start in track(range(0, len(known), batch), "style maps"):
            rows = known[start : start + batch]
            packed[rows] = pack_maps(maps(code_NP[rows]))
        packed.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")


class MorphFaceBatches:
    """`LatentBatches` with style maps; a mirrored face has mirrored maps."""

    def __init__(self, latent_MCHW: np.ndarray, embed_ND: np.ndarray, packed_N9SS: np.ndarray, known_N: np.ndarray, recipe: MorphFaceRecipe) -> None:
        self.steps_per_epoch, self._recipe = LatentBatches(latent_MCHW, embed_ND, recipe.denoiser).steps_per_epoch, recipe
        self._latent_MCHW, self._embed_ND, self._packed_N9SS, self._known_N = latent_MCHW, torch.from_numpy(embed_ND), packed_N9SS, torch.from_numpy(known_N)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return clean latents, noise, times, and what `MorphFaceNetwork.embed_context` takes."""
        recipe, count = self._recipe.denoiser, len(self._embed_ND)
        rows = step_rows(count, recipe.loop.batch, step, recipe.loop.seed)[rank::world]
        rng = numpy_rng(recipe.loop.seed, step, "morphface conditions", rank)
        mirror_B = torch.from_numpy(rng.random(len(rows)) < 0.5)
        t_B = torch.from_numpy(draw_times(len(rows), recipe.focus, rng))
        no_identity_B, no_style_B = self._recipe.drops.draw(len(rows), rng)
        clean_BCHW = torch.from_numpy(self._latent_MCHW[rows + count * mirror_B.numpy()]).float()
        maps_B9SS = torch.from_numpy(self._packed_N9SS[rows])
        maps_B9SS = torch.where(mirror_B[:, None, None, None], mirrored_maps(maps_B9SS), maps_B9SS)
        noise_BCHW = step_noise(tuple(clean_BCHW.shape), recipe.loop.seed, step, rank)
        return clean_BCHW, noise_BCHW, t_B, self._embed_ND[rows], no_identity_B, maps_B9SS, no_style_B | ~self._known_N[rows]
