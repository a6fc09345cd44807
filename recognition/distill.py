"""A small torch student of another embedder: differentiable, fast, by default in the teacher's own space.

By default loss = mean(1 - cos(student, teacher)) + w · mean over pairs of (cos_student - cos_teacher)²; the second term is the distance-wise
relation loss of Park et al., "Relational Knowledge Distillation" (CVPR 2019), with cosines in place of distances. Other terms: `kd`, `ekd`, a margin head.
Axes: B images, N images of the data set, D embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.check import check_unit_rows
from ..core.device import autocast
from ..core.errors import UserError
from ..core.seeds import derive_seed
from ..core.training import LoopConfig, data_digest, fresh, run_loop
from ..core.types import Embedder
from ..core.weights import read_safetensors
from ..identity.sources import Faces
from .augment import AugmentConfig
from .backbones import BackboneConfig
from .batches import Batches, JointBatches
from .checkpoint import save_network
from .ekd import Ekd, EkdConfig, warn_small
from .embedder import embed_faces, load_embedder
from .gather import gather_rows
from .heads import ClassCentres, HeadConfig, margin_loss
from .kd import cosine_loss, feature_loss, relation_loss, rkd_angle, rkd_distance


class EkdRows(EkdConfig):
    """EKD in a recipe: the loss and its rows.

    Attributes:
        share: part of a step's rows that come as `each` images of one identity (published: half, by 4); a margin head sees the others only.
        each: images of one identity.
    """

    share: float = Field(0.5, gt=0, lt=1)
    each: int = Field(4, ge=2)


class DistilRecipe(LoopConfig):
    """A student's training; every loss with weight 0 is left out.

    Attributes:
        batch: at least 2, as in `RecogniserRecipe`.
        cosine: weight of 1 - cos(student, teacher).
        feature: weight of the squared distance between the raw student embedding and the teacher's unit row.
        relation: weight of the relation term (cosines of pairs).
        distance, angle: weights of RKD's two terms (published: 1 and 2; the angle's memory grows with batch³).
        ekd: the rank loss of evaluation-oriented distillation, with its own weights.
        head: margin head on the data's identities beside the teacher, weight 1.
        teacher: name of the embedder whose rows are learned.
        live: the teacher looks at the changed faces of every step, as the published recipes do (EKD); else once at each face as it is, which costs
            one pass over the data and teaches the student not to mind the changes.
    """

    batch: int = Field(64, ge=2)
    backbone: BackboneConfig = BackboneConfig(embed_dim=128, affine=True)
    augment: AugmentConfig = AugmentConfig()
    cosine: float = Field(1.0, ge=0)
    feature: float = Field(0.0, ge=0)
    relation: float = Field(8.0, ge=0)
    distance: float = Field(0.0, ge=0)
    angle: float = Field(0.0, ge=0)
    ekd: EkdRows | None = None
    head: HeadConfig | None = None
    teacher: str = "dlib"
    live: bool = False

    @property
    def grouped_rows(self) -> int:
        """Rows of a step that come in groups of one identity: EKD's share, rounded down to whole groups."""
        return int(self.batch * self.ekd.share) // self.ekd.each * self.ekd.each if self.ekd else 0

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        if self.ekd and self.accumulate > 1:
            raise ValueError("'ekd' compares rows of a whole step and cannot be computed in parts; set accumulate: 1")
        if self.ekd and not 0 < self.grouped_rows < self.batch:
            raise ValueError(f"'ekd' wants groups of {self.ekd.each} images in {self.ekd.share} of a step of {self.batch} rows, which is {self.grouped_rows} rows; raise 'batch'")
        if not (self.ekd or self.head or any((self.cosine, self.feature, self.relation, self.distance, self.angle))):
            raise ValueError("every loss has weight 0; give one of cosine, feature, relation, distance, angle a weight, or set 'ekd' or 'head'")
        return self


class DistilObjective(nn.Module):
    """Student and losses; forward(image_BCHW, unit teacher rows, labels) → loss and its parts.

    Rows drawn singly come first, then those in groups of one identity. Losses between images look at the rows of all processes.

    Args:
        teacher: looks at the faces of every step, in place of the rows given; no part of the module: it is neither trained nor stored.
    """

    def __init__(self, network: nn.Module, recipe: DistilRecipe, identities: int = 0, teacher: Embedder | None = None) -> None:
        super().__init__()
        self.network, self._recipe, self._teacher = network, recipe, teacher
        self.ekd = Ekd(recipe.ekd) if recipe.ekd else None
        self.centres = ClassCentres(identities, recipe.backbone.embed_dim) if recipe.head else None
        self.head = recipe.head.build() if recipe.head else None

    def forward(self, image_BCHW: Tensor, teacher_BD: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        with autocast(image_BCHW.device, self._recipe.precision):
            raw_BD = self.network(image_BCHW)
        if self._teacher is not None:
            with torch.no_grad():
                teacher_BD = self._teacher(image_BCHW)
        parts = self._teacher_terms(raw_BD.float(), teacher_BD)
        loss = sum((weight * value for weight, value in parts.values()), raw_BD.new_zeros((), dtype=torch.float32))
        found = {name: value for name, (_, value) in parts.items()}
        if "away" in found:
            found["cosine"] = 1.0 - found.pop("away")
        if self.ekd is not None:
            ranks = self.ekd(raw_BD, teacher_BD, label_B)
            loss = loss + ranks["loss"]
            found |= {"ekd_positive": ranks["positive"], "ekd_negative": ranks["negative"]}
        if self.head is not None and self.centres is not None:
            rows = len(raw_BD) * (self._recipe.batch - self._recipe.grouped_rows) // self._recipe.batch
            classes = margin_loss(self.head, self.centres, raw_BD[:rows], label_B[:rows])
            loss = loss + classes["loss"]
            found |= {"head": classes["loss"], "accuracy": classes["accuracy"], "target_cosine": classes["target_cosine"]}
        return {"loss": loss, **found}

    def _teacher_terms(self, raw_BD: Tensor, teacher_BD: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Return (weight, value) of every plain term with a weight."""
        recipe, unit_BD = self._recipe, F.normalize(raw_BD)
        terms: dict[str, tuple[float, Tensor]] = {}
        if recipe.cosine:
            terms["away"] = (recipe.cosine, cosine_loss(unit_BD, teacher_BD))
        if recipe.feature:
            terms["feature"] = (recipe.feature, feature_loss(raw_BD, teacher_BD))
        between = {"relation": relation_loss, "distance": rkd_distance, "angle": rkd_angle}
        wanted = {name: weight for name in between if (weight := getattr(recipe, name))}
        if wanted:
            student_ND, teacher_ND = gather_rows(unit_BD), gather_rows(teacher_BD)
            terms |= {name: (weight, between[name](student_ND, teacher_ND)) for name, weight in wanted.items()}
        return terms


def distil(recipe: DistilRecipe, faces: Faces, out: Path, *, teacher_ND: np.ndarray | None = None, teacher: Embedder | None = None, facts: dict[str, Any] | None = None) -> Path:
    """Train a student and return its `.safetensors` file (`out/recogniser.safetensors`, float16).

    Args:
        faces: aligned faces; identities are used by `ekd` and `head` only.
        out: folder of the logs, the resume state and the result.
        teacher_ND: unit teacher rows in the order of `faces`; without them `teacher`, or the recipe's, embeds the faces (with `live`: in every step).
        facts: provenance that goes into the header beside the recipe.

    Raises:
        UserError: sizes that do not fit; see also `run_loop`.
    """
    if recipe.live and teacher_ND is not None:
        raise UserError("'live' wants the teacher itself in every step, not its rows; leave the rows out, or set live: false")
    eyes = (teacher or load_embedder(recipe.teacher)) if teacher_ND is None else None
    if eyes is not None:
        teacher_ND = _places(len(faces), eyes.dim) if recipe.live else embed_faces(eyes, faces.image_NHWC)
    own_space = recipe.cosine or recipe.feature
    if len(teacher_ND) != len(faces) or (own_space and teacher_ND.shape[1:] != (recipe.backbone.embed_dim,)):
        raise UserError(f"teacher rows have shape {teacher_ND.shape}, expected ({len(faces)}, {recipe.backbone.embed_dim}): one row a face, as long as backbone.embed_dim")
    check_unit_rows("teacher_ND", teacher_ND)
    names, label_N = np.unique(faces.identity_N, return_inverse=True)
    network = fresh(recipe.backbone.build, recipe.seed, "student")
    objective = fresh(lambda: DistilObjective(network, recipe, len(names), eyes if recipe.live else None), recipe.seed, "centres")
    if recipe.ekd is not None:
        warn_small(recipe.batch)
    batches = _batches(recipe, faces, teacher_ND, label_N.astype(np.int64))
    steps = run_loop(objective, batches, recipe, out, data=data_digest(faces.image_NHWC, teacher_ND, *([label_N] if recipe.ekd or recipe.head else [])))
    path = out / "recogniser.safetensors"
    known = {"recipe": recipe.model_dump(mode="json"), "steps": steps, "faces": len(faces.image_NHWC), "teacher": recipe.teacher}
    save_network(path, network, recipe.backbone, facts={**known, **(facts or {})}, half=True)
    return path


def _places(count: int, dim: int) -> np.ndarray:
    """Unit rows that hold the places of those a live teacher gives; one row's memory."""
    return np.broadcast_to(np.eye(1, dim, dtype=np.float32), (count, dim))


def _batches(recipe: DistilRecipe, faces: Faces, teacher_ND: np.ndarray, label_N: np.ndarray) -> Batches | JointBatches:
    """Lay out a step: rows drawn singly, then EKD's rows in groups of one identity."""
    targets = (torch.from_numpy(np.ascontiguousarray(teacher_ND)), torch.from_numpy(label_N))
    single = Batches(faces.image_NHWC, targets, batch=recipe.batch - recipe.grouped_rows, seed=recipe.seed, changes=recipe.augment)
    if recipe.ekd is None:
        return single
    seed = derive_seed(recipe.seed, "ekd")
    grouped = Batches(faces.image_NHWC, targets, batch=recipe.grouped_rows, seed=seed, changes=recipe.augment, groups_N=label_N, each=recipe.ekd.each)
    return JointBatches([single, grouped])


def load_teacher_rows(path: Path, faces: Faces) -> np.ndarray:
    """Read precomputed unit teacher rows, one for each face and in its order.

    Args:
        path: safetensors with "embed" (N, D); or npz with "files" (paths ending as `faces.paths` do) and "embed" (N, D).

    Raises:
        UserError: no such file, missing keys, or a face without a row.
    """
    if path.suffix == ".safetensors":
        _, tensors = read_safetensors(path)
        if "embed" not in tensors:
            raise UserError(f"{path} has no tensor 'embed' (it has: {', '.join(tensors) or 'none'})")
        return tensors["embed"].float().numpy()
    try:
        with np.load(path, allow_pickle=False) as stored:
            row_of = dict(zip(stored["files"].tolist(), stored["embed"].astype(np.float32), strict=True))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"cannot read teacher rows from {path} ({error}); expected an npz with 'files' and 'embed'") from error
    keys = ["/".join(Path(name).parts[-2:]) for name in faces.paths]
    missing = [key for key in keys if key not in row_of]
    if missing:
        raise UserError(f"{path} has no row for {len(missing)} of {len(keys)} faces, e.g. {missing[0]}; embed the same data again")
    return np.stack([row_of[key] for key in keys])
