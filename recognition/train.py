"""Training a recogniser: a backbone and class centres under a margin head, on aligned faces of known people.

Source of the baseline recipe: ArcFace (CVPR 2019) and TFace; SGD, momentum 0.9, gradient clipped at 5 over the backbone. Beside the head a pair loss
(DDL) may look at rows of its own, and a second source (synthetic faces beside real ones) may fill a stated share of every step.
Axes: B images of a step, N images of the data set, I identities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.device import autocast
from ..core.errors import UserError
from ..core.registry import import_named
from ..core.seeds import derive_seed
from ..core.training import LoopConfig, data_digest, fresh, join_processes, run_loop
from ..identity.sources import Faces
from .augment import AugmentConfig
from .backbones import BackboneConfig
from .batches import Batches, JointBatches
from .branches import DdlConfig
from .checkpoint import save_network
from .ddl import ddl_of_embeddings
from .heads import ClassCentres, HeadConfig, margin_loss
from .mixing import MixConfig, source_counts, with_second
from .partial_fc import PartialCentres, PartialFcConfig, partial_loss
from .start import begin_from, class_means


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
        partial_fc: class centres spread over processes, and sampled in every step; None = every process holds all centres.
        init: recogniser to begin from (own, or from `import-weights`); the class centres then begin as mean embeddings. None = fresh weights.
        augment: AdaFace's strong three at probability 0.2, and a mirror.
        imports: modules of yours to import first: they register heads, backbones, embedders. They decide nothing by themselves and are not kept.
    """

    batch: int = Field(64, ge=2)
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    identity_balanced: bool = False
    repeat_first: int = Field(1, ge=1, le=100)
    per_identity: int = Field(1, ge=1)
    mix: MixConfig | None = None
    ddl: DdlConfig | None = None
    partial_fc: PartialFcConfig | None = None
    init: Path | None = None
    augment: AugmentConfig = AugmentConfig(flip=0.5, crop=0.2, lowres=0.2, photometric=0.2)
    imports: tuple[str, ...] = Field((), exclude=True)

    @classmethod
    def parse(cls, values: Any, *, source: str = "settings", lines: dict[tuple, int] | None = None) -> Self:
        """Check the mapping of a recipe, the modules it names imported first."""
        if isinstance(values, dict):
            import_named(values.get("imports"), f"{source}, line {lines[('imports',)]}" if lines and ("imports",) in lines else source)
        return super().parse(values, source=source, lines=lines)

    @property
    def head_rows(self) -> int:
        """Rows of a step that the margin head sees."""
        return self.batch - (self.ddl.rows if self.ddl else 0)

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        if self.ddl and self.accumulate > 1:
            raise ValueError("'ddl' compares rows of a whole step and cannot be computed in parts; set accumulate: 1")
        if self.partial_fc and self.accumulate > 1:
            raise ValueError("'partial_fc' draws its classes for a whole step; set accumulate: 1")
        if self.head_rows < 2:
            raise ValueError(f"'ddl' takes {self.batch - self.head_rows} of the {self.batch} rows of a step; raise 'batch' or lower 'ddl.pairs' so that at least 2 are left for the head")
        if self.per_identity > 1 and self.repeat_first > 1:
            raise ValueError("'per_identity' draws no image twice in a step and 'repeat_first' would; set one of them to 1")
        return self


class RecogniserObjective(nn.Module):
    """Backbone, centres, head and cross-entropy, and DDL where asked for; forward(image_BCHW, label_B) → loss, accuracy, mean target cosine.

    The head's rows come first, then those of DDL's branches, as `train_recogniser` lays them out.

    Args:
        network: what is trained in place of `recipe.backbone`: faces (B, 3, 112, 112) → raw embeddings (B, backbone.embed_dim).
    """

    def __init__(self, recipe: RecogniserRecipe, identities: int, network: nn.Module | None = None) -> None:
        super().__init__()
        self._precision, self._ddl = recipe.precision, recipe.ddl
        self._share = (recipe.head_rows, recipe.batch)
        self.network = recipe.backbone.build() if network is None else network
        self.centres = ClassCentres(identities, recipe.backbone.embed_dim) if recipe.partial_fc is None else _partial(recipe, identities)
        # What every process holds for itself is not exchanged.
        self._ddp_params_and_buffers_to_ignore = [f"centres.{name}" for name, _ in self.centres.named_buffers()]
        self.head = recipe.head.build()

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        with autocast(image_BCHW.device, self._precision):
            raw_BD = self.embed(image_BCHW, label_B)
        rows = len(raw_BD) * self._share[0] // self._share[1]
        judged = margin_loss if isinstance(self.centres, ClassCentres) else partial_loss
        found = judged(self.head, self.centres, raw_BD[:rows], label_B[:rows])
        if self._ddl is None:
            return found
        pair_loss = ddl_of_embeddings(raw_BD[rows:].chunk(len(self._ddl.hard) + 1), self._ddl)
        parts = {f"ddl_{name}": value for name, value in pair_loss.items() if name != "loss"}
        return {**found, "loss": found["loss"] + pair_loss["loss"], "head": found["loss"], **parts}

    def after_step(self, rate: float, scale: float) -> None:
        """Move the class centres that the optimiser does not hold."""
        if isinstance(self.centres, PartialCentres):
            self.centres.step(rate, scale)

    def before_save(self) -> None:
        """Bring spread class centres together."""
        if isinstance(self.centres, PartialCentres):
            self.centres.collect()

    def embed(self, image_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """Return raw embeddings; a subclass may look at the labels."""
        return self.network(image_BCHW)


def _partial(recipe: RecogniserRecipe, identities: int) -> PartialCentres:
    return PartialCentres(identities, recipe.backbone.embed_dim, recipe.partial_fc, optimiser=recipe.optimiser, weight_decay=recipe.weight_decay, seed=recipe.seed)


def train_recogniser(recipe: RecogniserRecipe, faces: Faces, out: Path) -> Path:
    """Train from fresh weights or `recipe.init`, or go on where a killed run of the same recipe and data stopped.

    Args:
        faces: aligned faces; `identity_N` are the classes (those of `recipe.mix` are further ones).
        out: folder of `recogniser.safetensors`, `log.jsonl`, `tensorboard/` and `state.pt`.

    Returns:
        The checkpoint, which `load_embedder` reads. The class centres are not in it.

    Raises:
        UserError: fewer than two identities; weights to begin from that do not fit; a second source or branch list that cannot be read; see also `run_loop`.
    """
    objective, facts = fit(recipe, faces, out, RecogniserObjective)
    path = out / "recogniser.safetensors"
    save_network(path, objective.network, recipe.backbone, facts=facts)
    return path


def fit(recipe: RecogniserRecipe, faces: Faces, out: Path, build: Callable[[RecogniserRecipe, int], RecogniserObjective], *, settings: Mapping[str, Any] | None = None) -> tuple[RecogniserObjective, dict[str, Any]]:
    """Run the common loop on any network that embeds faces; arguments and errors as in `train_recogniser`.

    Args:
        build: (recipe, number of identities) → objective; fresh weights are drawn from the recipe's seed.
        settings: what decides the result beside the recipe, for the resume state.

    Returns:
        The trained objective, and what the run was, for a header.
    """
    first_rows = len(faces)
    if recipe.mix is not None:
        faces = with_second(faces, recipe.mix)
    names, label_N = np.unique(faces.identity_N, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"the data has {len(names)} identity, a recogniser needs at least 2 (one folder for each person)")
    label_N = label_N.astype(np.int64)
    if recipe.partial_fc is not None:
        join_processes()
    objective = fresh(lambda: build(recipe, len(names)), recipe.seed, "recogniser")
    begun: dict[str, Any] = {}
    if recipe.init is not None:
        begun = {"init_sha256": begin_from(recipe.init, objective.network, recipe.backbone)}
        # As long as fresh centres are: how far a step turns a direction depends on its length.
        objective.centres.assign(class_means(objective.network, faces.image_NHWC, label_N) * objective.centres.weight.detach().norm(dim=1).mean())
    batches = _batches(recipe, faces, label_N, first_rows)
    listed = recipe.ddl.members(faces.paths) if recipe.ddl else []
    steps = run_loop(objective, batches, recipe, out, data=data_digest(faces.image_NHWC, label_N, *listed), settings={**begun, **(settings or {})})
    return objective, {"recipe": recipe.model_dump(mode="json"), "steps": steps, "faces": len(label_N), "first_source_faces": first_rows, "identities": len(names), **begun}


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
