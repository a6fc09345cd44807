"""Training of ID³ on the latents of an autoencoder that stands: recipe, batches with attributes, the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import weights_path
from ..core.seeds import numpy_rng
from ..core.training import data_digest, fresh, run_loop, step_noise, step_rows
from ..core.types import Embedder
from ..core.weights import save_weights
from .attributes import fit_law, mirrored
from .id3_loss import ID3Objective, IdentityTerm
from .id3_network import KIND, ID3Network, ID3NetworkConfig, warm_start
from .pixel import open_autoencoder
from .train import DenoiserRecipe, LatentBatches, cached_latents, draw_times


class Id3Recipe(Config):
    """A training file: `facefoundry train generator RECIPE --data FACES`.

    Attributes:
        denoiser: network, loop, how rows are drawn; `warm_start` takes a bundled name, a denoiser of the family or an ID³ one.
        projection, attributes, attribute_width: see `ID3NetworkConfig`.
        attribute_dropout: share of rows trained without attributes.
        predictors: attribute predictors by name ("pose"); attributes none of them knows are unknown to the network.
        identity_term: see `IdentityTerm`.
        autoencoder: bundled name or path of its weights, or "pixel", "pixel2", "pixel4", ... for faces as they are.
        guide: the embedder of the identity term; it has to be differentiable and of the space of the identity condition.
    """

    name: str
    denoiser: DenoiserRecipe
    projection: tuple[int, ...] = ()
    attributes: tuple[str, ...] = ("age_years", "yaw_deg", "pitch_deg", "roll_deg")
    attribute_width: int = Field(128, ge=1)
    attribute_dropout: float = Field(0.1, ge=0, le=1)
    predictors: tuple[str, ...] = ("pose",)
    identity_term: IdentityTerm = IdentityTerm()
    autoencoder: str = "autoencoder-small"
    guide: str = "mobilefacenet-small"

    def network(self) -> ID3NetworkConfig:
        """Return the settings of the network."""
        return ID3NetworkConfig(unet=self.denoiser.network, projection=self.projection, attributes=self.attributes, attribute_width=self.attribute_width)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.network()
        if self.identity_term.form == "cemiface" and "similarity" not in self.attributes:
            raise ValueError("identity_term.form 'cemiface' needs 'similarity' among the attributes: the network must know which cosine is asked for")
        return self


def train_id3(recipe: Id3Recipe, image_NHWC: np.ndarray, embed_ND: np.ndarray, attribute_NA: np.ndarray, guide: Embedder, out: Path) -> Path:
    """Train the denoiser of ID³; return its weights file (kind "id3-denoiser"; the law of the attributes travels in its facts).

    Args:
        image_NHWC: uint8 aligned faces, (N, 112, 112, 3).
        embed_ND: their unit identity embeddings, (N, identity_dim).
        attribute_NA: their attributes in the order and units of `recipe.attributes`; NaN = unknown.
        guide: the loaded `recipe.guide`.
        out: folder of latents, state, log and weights; a run found there is continued.

    Raises:
        UserError: the guide gives no gradient or has another dimension; `out` holds another training.
    """
    dim, count = recipe.denoiser.network.identity_dim, len(image_NHWC)
    check("image_NHWC", image_NHWC, "N 112 112 3")
    check("embed_ND", embed_ND, f"{count} {dim}")
    check_unit_rows("embed_ND", embed_ND)
    check("attribute_NA", attribute_NA, f"{count} {len(recipe.attributes)}")
    check_guide(guide, dim)
    autoencoder = open_autoencoder(recipe.autoencoder)
    if autoencoder.latent_shape[0] != recipe.denoiser.network.channels:
        raise UserError(f"the autoencoder '{recipe.autoencoder}' makes latents of {autoencoder.latent_shape[0]} channels, denoiser.network.channels is {recipe.denoiser.network.channels}; set it to the former")
    latent_MCHW = cached_latents(autoencoder, image_NHWC, out / "latents.npy")
    network = fresh(lambda: ID3Network(recipe.network()), recipe.denoiser.loop.seed, "denoiser")
    if recipe.denoiser.warm_start is not None:
        warm_start(network, weights_path(str(recipe.denoiser.warm_start)))
    batches = Id3Batches(latent_MCHW, embed_ND, attribute_NA, recipe)
    objective = ID3Objective(network, recipe.denoiser, recipe.identity_term, guide, autoencoder)
    digest = data_digest(image_NHWC, embed_ND, attribute_NA)
    steps = run_loop(objective, batches, recipe.denoiser.loop, out, data=digest, settings=_settings(recipe), label="id3")
    law = fit_law(attribute_NA, recipe.attributes)
    facts = {"steps": steps, "batch": recipe.denoiser.loop.batch, "images": count, "recipe": _settings(recipe), "attribute_law": law and law.document()}
    path = out / "denoiser.safetensors"
    save_weights(path, network, kind=KIND, config=recipe.network().model_dump(mode="json"), facts=facts)
    return path


def check_guide(guide: Embedder, dim: int) -> None:
    """Raise UserError unless gradients pass through an embedder and its rows are as long as the identity condition."""
    if not guide.differentiable:
        raise UserError(f"the guide '{guide.name}' gives no gradient with respect to the image; choose a torch embedder, e.g. mobilefacenet-small")
    if guide.dim != dim:
        raise UserError(f"the guide '{guide.name}' gives {guide.dim} numbers a face, the generator's identity has {dim}; choose a guide of the space the identities live in")


def _settings(recipe: Id3Recipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json")
    values["denoiser"].pop("loop")
    return values


class Id3Batches:
    """`LatentBatches` with attributes: yaw and roll change sign with a mirrored face, and some rows go without.

    A column `similarity` (CemiFace's m) without values of its own is drawn from {-1, -0.98, ..., 1}.
    """

    def __init__(self, latent_MCHW: np.ndarray, embed_ND: np.ndarray, attribute_NA: np.ndarray, recipe: Id3Recipe) -> None:
        plain = LatentBatches(latent_MCHW, embed_ND, recipe.denoiser)  # its count of steps, its check of the sizes
        self.steps_per_epoch, self._recipe = plain.steps_per_epoch, recipe
        self._latent_MCHW, self._embed_ND = latent_MCHW, torch.from_numpy(embed_ND)
        both_MA = np.concatenate([attribute_NA, mirrored(attribute_NA, recipe.attributes)])
        self._attribute_MA = torch.from_numpy(both_MA.astype(np.float32))

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return what `ID3Objective.forward` takes."""
        recipe, count = self._recipe.denoiser, len(self._embed_ND)
        rows = step_rows(count, recipe.loop.batch, step, recipe.loop.seed)[rank::world]
        rng = numpy_rng(recipe.loop.seed, step, "id3 conditions", rank)
        side = count * (rng.random(len(rows)) < 0.5)
        t_B = torch.from_numpy(draw_times(len(rows), recipe.focus, rng))
        empty_B, bare_B = (torch.from_numpy(rng.random(len(rows)) < share) for share in (recipe.empty_share, self._recipe.attribute_dropout))
        empty_B[0] = True
        clean_BCHW = torch.from_numpy(self._latent_MCHW[rows + side]).float()
        attribute_BA = self._with_similarity(self._attribute_MA[rows + side], rng)
        return clean_BCHW, step_noise(tuple(clean_BCHW.shape), recipe.loop.seed, step, rank), t_B, self._embed_ND[rows], empty_B, attribute_BA, bare_B

    def _with_similarity(self, attribute_BA: Tensor, rng: np.random.Generator) -> Tensor:
        if "similarity" not in self._recipe.attributes:
            return attribute_BA
        column_A = torch.tensor([name == "similarity" for name in self._recipe.attributes])
        drawn_B = torch.from_numpy(rng.integers(-50, 51, len(attribute_BA)) / 50).float()
        return torch.where(attribute_BA.isnan() & column_A, drawn_B[:, None], attribute_BA)
