"""Training FAN: a recogniser is taken as given, its faces are split into identity and context, and a copy of it learns low resolution.

Source: FAN (arXiv 1911.11680), a reconstruction (recognition.md §5.2), not verified against the authors' implementation.
Axes: N images of the data set, I identities, D identity.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..core.config import Config
from ..core.errors import UserError
from ..core.files import weights_path
from ..core.seeds import derive_seed
from ..core.training import LoopConfig, data_digest, fresh, run_loop
from ..identity.sources import Faces, load_faces
from .augment import AugmentConfig
from .batches import Batches, JointBatches
from .checkpoint import load_recogniser, save_network
from .fan import Fan, FanConfig, save_fan
from .fan_networks import FanNetworkConfig
from .fan_objectives import AdaptConfig, AdaptObjective, DisentangleConfig, DisentangleObjective
from .heads import ClassCentres, HeadConfig
from .scale_augment import ScaleConfig
from .start import class_means


class FanRecipe(Config):
    """How FAN is trained.

    Attributes:
        encoder: the recogniser that is E_H and from which E_L starts (bundled name or path).
        networks: sizes of the rest.
        scales: random scale augmentation of stage 2.
        unpaired: faces of low resolution with no partner of high resolution, aligned and enlarged to 112×112, as `load_faces` takes them; null = other faces of the
            data, shrunk.
        head: margin head over the fixed centres (the mean of a few embeddings of each person, E_H's).
        augment: of both stages, before faces are shrunk.
        disentangle: stage 1; skipped where the adaptation draws no pictures.
        adapt: stage 2; `batch` counts its unpaired rows too.
    """

    encoder: str = "mobilefacenet-small"
    networks: FanNetworkConfig = FanNetworkConfig()
    scales: ScaleConfig = ScaleConfig()
    unpaired: Path | None = None
    head: HeadConfig = HeadConfig(name="cosface", scale=24, margin=0.1)
    augment: AugmentConfig = AugmentConfig(flip=0.5)
    disentangle: DisentangleConfig = DisentangleConfig(optimiser="adamw", lr=1e-3)
    adapt: AdaptConfig = AdaptConfig(optimiser="adamw", lr=3e-4)


def train_fan(recipe: FanRecipe, faces: Faces, out: Path) -> dict[str, Path]:
    """Train both stages, or go on where a killed run stopped.

    Returns:
        "recogniser" (E_L alone, which `load_embedder` reads) and, where pictures are drawn, "fan" (all of it, which `load_fan` reads).

    Raises:
        UserError: fewer than two identities; an encoder or unpaired faces that cannot be read; see also `run_loop`.
    """
    names, label_N = np.unique(faces.identity_N, return_inverse=True)
    label_N = label_N.astype(np.int64)
    if len(names) < 2:
        raise UserError(f"the data has {len(names)} identity, FAN needs at least 2 (one folder for each person)")
    if not 2 <= recipe.adapt.batch - recipe.adapt.unpaired_rows:
        raise UserError(f"adapt.unpaired_rows {recipe.adapt.unpaired_rows} of adapt.batch {recipe.adapt.batch} leaves fewer than 2 paired rows; lower it or raise 'batch'")
    fixed, backbone, _ = load_recogniser(weights_path(recipe.encoder))
    fan = fresh(lambda: Fan(FanConfig(backbone=backbone, networks=recipe.networks), deepcopy(fixed)), recipe.disentangle.seed, "fan")
    settings = recipe.model_dump(mode="json", exclude={"disentangle", "adapt"})
    digest, steps = data_digest(faces.image_NHWC, label_N), {}
    if recipe.adapt.pictures:
        objective = fresh(lambda: DisentangleObjective(fan, fixed, recipe.disentangle, len(names)), recipe.disentangle.seed, "disentangle")
        steps["disentangle"] = run_loop(objective, _rows(recipe, recipe.disentangle, faces, label_N), recipe.disentangle, out / "disentangle", data=digest, settings=settings, label="disentangling")
        settings["disentangle"] = recipe.disentangle.model_dump(mode="json")
    steps["adapt"] = _adapt(recipe, fan, fixed, (faces, label_N), out / "adapt", settings, digest)
    facts = {"recipe": recipe.model_dump(mode="json"), "steps": steps, "faces": len(label_N), "identities": len(names)}
    paths = {"recogniser": out / "recogniser.safetensors"}
    save_network(paths["recogniser"], fan.encoder, backbone, facts=facts)
    if recipe.adapt.pictures:
        paths["fan"] = out / "fan.safetensors"
        save_fan(paths["fan"], fan, facts=facts)
    return paths


def _adapt(recipe: FanRecipe, fan: Fan, fixed: nn.Module, data: tuple[Faces, np.ndarray], out: Path, settings: dict, digest: str) -> int:
    faces, label_N = data
    batches = _adapt_rows(recipe, faces, label_N)
    centres = ClassCentres(int(label_N.max()) + 1, fan.config.backbone.embed_dim)
    centres.weight.data = class_means(fixed, faces.image_NHWC, label_N)
    objective = fresh(
        lambda: AdaptObjective(fan, fixed, recipe.adapt, recipe.scales, centres, recipe.head, shrink_unpaired=recipe.unpaired is None), recipe.adapt.seed, "adapt"
    )
    return run_loop(objective, batches, recipe.adapt, out, data=digest, settings=settings, label="adapting")


def _rows(recipe: FanRecipe, loop: LoopConfig, faces: Faces, label_N: np.ndarray, *, batch: int | None = None, purpose: str = "paired") -> Batches:
    return Batches(faces.image_NHWC, torch.from_numpy(label_N), batch=batch or loop.batch, seed=derive_seed(loop.seed, purpose), changes=recipe.augment)


def _adapt_rows(recipe: FanRecipe, faces: Faces, label_N: np.ndarray) -> Batches | JointBatches:
    """Lay out a step of stage 2: paired rows, then unpaired ones with label -1."""
    loop, extra = recipe.adapt, recipe.adapt.unpaired_rows
    paired = _rows(recipe, loop, faces, label_N, batch=loop.batch - extra)
    if not extra:
        return paired
    others = faces if recipe.unpaired is None else load_faces(recipe.unpaired)
    unlabelled_N = np.full(len(others), -1, np.int64)
    return JointBatches([paired, _rows(recipe, loop, others, unlabelled_N, batch=extra, purpose="unpaired")])
