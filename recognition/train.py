"""Training a recogniser: a backbone and class centres under a margin head, on aligned faces of known people.

Source of the baseline recipe: ArcFace (CVPR 2019) and TFace; SGD, momentum 0.9, gradient clipped at 5 over the backbone. Beside the head a pair loss
(DDL) may look at rows of its own, and a second source (synthetic faces beside real ones) may fill a stated share of every step.
Axes: B images of a step, N images of the data set, I identities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.device import autocast
from ..core.errors import UserError
from ..core.seeds import derive_seed
from ..core.training import LoopConfig, data_digest, fresh, run_loop
from ..identity.sources import Faces
from .augment import AugmentConfig
from .backbones import BackboneConfig
from .batches import Batches, JointBatches
from .branches import DdlConfig
from .checkpoint import save_network
from .ddl import ddl_of_embeddings
from .heads import ClassCentres, HeadConfig, margin_loss
from .mixing import MixConfig, source_counts, with_second


class RecogniserRecipe(LoopConfig):
    """How a recogniser is trained; see `LoopConfig` for the rest.

    Attributes:
        batch: at least 2: batch normalisation has nothing to learn from one face.
        head: margin head and its settings.
        identity_balanced: draw every identity equally often, whatever its number of images.
        repeat_first: how often each identity's first image, by name, counts in an epoch. With a set minted under `anchor_image: true` that is
            the image made from the identity's anchor itself, unless a filter set it aside; ADMIS counts it five times (generators.md §2.4).
        per_identity: images of one identity that lie side by side in a step; above 1 a step holds batch / per_identity identities
            (in place of `identity_balanced`), no two alike.
        mix: second source of faces, and its share of the head's rows in every step.
        ddl: the pair loss DDL on rows of its own in every step; `batch` counts them too, the head sees the others.
        augment: AdaFace's strong three at probability 0.2, and a mirror.
    """

    batch: int = Field(64, ge=2)
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    identity_balanced: bool = False
    repeat_first: int = Field(1, ge=1, le=100)
    per_identity: int = Field(1, ge=1)
    mix: MixConfig | None = None
    ddl: DdlConfig | None = None
    augment: AugmentConfig = AugmentConfig(flip=0.5, crop=0.2, lowres=0.2, photometric=0.2)

    @property
    def head_rows(self) -> int:
        """Rows of a step that the margin head sees."""
        return self.batch - (self.ddl.rows if self.ddl else 0)

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        if self.ddl and self.accumulate > 1:
            raise ValueError("'ddl' compares rows of a whole step and cannot be computed in parts; set accumulate: 1")
        if self.head_rows < 2:
            raise ValueError(f"'ddl' takes {self.batch - self.head_rows} of the {self.batch} rows of a step; raise 'batch' or lower 'ddl.pairs' so that at least 2 are left for the head")
        if self.per_identity > 1 and self.repeat_first > 1:
            raise ValueError("'per_identity' draws no image twice in a step and 'repeat_first' would; set one of them to 1")
        return self


class RecogniserObjective(nn.Module):
    """Backbone, centres, head and cross-entropy, and DDL where asked for; forward(image_BCHW, label_B) → loss, accuracy, mean target cosine.

    The head's rows come first, then those of DDL's branches, as `train_recogniser` lays them out.
    """

    def __init__(self, recipe: RecogniserRecipe, identities: int) -> None:
        super().__init__()
        self._precision, self._ddl = recipe.precision, recipe.ddl
        self._share = (recipe.head_rows, recipe.batch)
        self.network = recipe.backbone.build()
        self.centres = ClassCentres(identities, recipe.backbone.embed_dim)
        self.head = recipe.head.build()

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        with autocast(image_BCHW.device, self._precision):
            raw_BD = self.network(image_BCHW)
        rows = len(raw_BD) * self._share[0] // self._share[1]
        found = margin_loss(self.head, self.centres, raw_BD[:rows], label_B[:rows])
        if self._ddl is None:
            return found
        pair_loss = ddl_of_embeddings(raw_BD[rows:].chunk(len(self._ddl.hard) + 1), self._ddl)
        parts = {f"ddl_{name}": value for name, value in pair_loss.items() if name != "loss"}
        return {**found, "loss": found["loss"] + pair_loss["loss"], "head": found["loss"], **parts}


def train_recogniser(recipe: RecogniserRecipe, faces: Faces, out: Path) -> Path:
    """Train from fresh weights, or go on where a killed run of the same recipe and data stopped.

    Args:
        faces: aligned faces; `identity_N` are the classes (those of `recipe.mix` are further ones).
        out: folder of `recogniser.safetensors`, `log.jsonl`, `tensorboard/` and `state.pt`.

    Returns:
        The checkpoint, which `load_embedder` reads. The class centres are not in it.

    Raises:
        UserError: fewer than two identities; a second source or branch list that cannot be read; see also `run_loop`.
    """
    first_rows = len(faces)
    if recipe.mix is not None:
        faces = with_second(faces, recipe.mix)
    names, label_N = np.unique(faces.identity_N, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"the data has {len(names)} identity, a recogniser needs at least 2 (one folder for each person)")
    label_N = label_N.astype(np.int64)
    objective = fresh(lambda: RecogniserObjective(recipe, len(names)), recipe.seed, "recogniser")
    batches = _batches(recipe, faces, label_N, first_rows)
    listed = recipe.ddl.members(faces.paths) if recipe.ddl else []
    steps = run_loop(objective, batches, recipe, out, data=data_digest(faces.image_NHWC, label_N, *listed))
    path = out / "recogniser.safetensors"
    facts = {"recipe": recipe.model_dump(mode="json"), "steps": steps, "faces": len(label_N), "first_source_faces": first_rows, "identities": len(names)}
    save_network(path, objective.network, recipe.backbone, facts=facts)
    return path


def _batches(recipe: RecogniserRecipe, faces: Faces, label_N: np.ndarray, first_rows: int) -> Batches | JointBatches:
    """Lay out a step: rows of the first source, rows of the second, DDL's easy branch, its hard ones."""
    times_N = first_counts(label_N, recipe.repeat_first)
    target_N = torch.from_numpy(label_N)
    balanced = recipe.identity_balanced or recipe.per_identity > 1
    parts = []
    for number, rows in enumerate(source_counts(recipe.mix, recipe.head_rows)):
        inside_N = (np.arange(len(label_N)) >= first_rows) == bool(number)
        parts.append(
            Batches(
                faces.image_NHWC,
                target_N,
                batch=rows,
                seed=derive_seed(recipe.seed, "mix") if number else recipe.seed,
                changes=recipe.augment,
                groups_N=label_N if balanced else None,
                times_N=times_N * inside_N,
                each=recipe.per_identity,
            )
        )
    if recipe.ddl is not None:
        parts += recipe.ddl.parts(faces, label_N, recipe.seed)
    return parts[0] if len(parts) == 1 else JointBatches(parts)


def first_counts(label_N: np.ndarray, times: int) -> np.ndarray:
    """Return how often each row counts in an epoch: the first row of each identity `times`, every other once, int64 (N,)."""
    count_N = np.ones(len(label_N), np.int64)
    count_N[np.unique(label_N, return_index=True)[1]] = times
    return count_N
