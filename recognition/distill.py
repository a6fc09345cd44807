"""A small torch student of another embedder: differentiable, fast, in the teacher's own space.

loss = mean(1 - cos(student, teacher)) + w · mean over pairs of (cos_student - cos_teacher)²; the second term is the distance-wise
relation loss of Park et al., "Relational Knowledge Distillation" (CVPR 2019), with cosines in place of distances.
Axes: B images, N images of the data set, D embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.check import check_unit_rows
from ..core.device import autocast
from ..core.errors import UserError
from ..core.training import LoopConfig, data_digest, fresh, run_loop
from ..core.types import Embedder
from ..core.weights import read_safetensors
from ..identity.sources import Faces
from .augment import AugmentConfig
from .backbones import BackboneConfig
from .batches import Batches
from .checkpoint import save_network
from .embedder import embed_faces, load_embedder


class DistilRecipe(LoopConfig):
    """A student's training.

    Attributes:
        batch: at least 2, as in `RecogniserRecipe`.
        relation: weight of the relation term.
        teacher: name of the embedder whose rows are learned.
    """

    batch: int = Field(64, ge=2)
    backbone: BackboneConfig = BackboneConfig(embed_dim=128, affine=True)
    augment: AugmentConfig = AugmentConfig()
    relation: float = Field(8.0, ge=0)
    teacher: str = "dlib"


class DistilObjective(nn.Module):
    """Student and loss; forward(image_BCHW, unit teacher rows) → loss and its parts."""

    def __init__(self, network: nn.Module, recipe: DistilRecipe) -> None:
        super().__init__()
        self.network, self._relation, self._precision = network, recipe.relation, recipe.precision

    def forward(self, image_BCHW: Tensor, teacher_BD: Tensor) -> dict[str, Tensor]:
        with autocast(image_BCHW.device, self._precision):
            raw_BD = self.network(image_BCHW)
        student_BD = F.normalize(raw_BD.float())
        away = 1.0 - (student_BD * teacher_BD).sum(1).mean()
        relation = relation_loss(student_BD, teacher_BD)
        return {"loss": away + self._relation * relation, "cosine": 1.0 - away, "relation": relation}


def relation_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean squared difference of the cosines of all pairs of different images in the batch; unit rows in."""
    count = len(student_BD)
    gap_BB = student_BD @ student_BD.T - teacher_BD @ teacher_BD.T
    return gap_BB.fill_diagonal_(0.0).square().sum() / max(1, count * (count - 1))


def distil(recipe: DistilRecipe, faces: Faces, out: Path, *, teacher_ND: np.ndarray | None = None, teacher: Embedder | None = None, facts: dict[str, Any] | None = None) -> Path:
    """Train a student and return its `.safetensors` file (`out/recogniser.safetensors`, float16).

    Args:
        faces: aligned faces; identities are not used.
        out: folder of the logs, the resume state and the result.
        teacher_ND: unit teacher rows in the order of `faces`; without them `teacher`, or the recipe's, embeds the faces.
        facts: provenance that goes into the header beside the recipe.

    Raises:
        UserError: sizes that do not fit; see also `run_loop`.
    """
    if teacher_ND is None:
        teacher_ND = embed_faces(teacher or load_embedder(recipe.teacher), faces.image_NHWC)
    if teacher_ND.shape != (len(faces.image_NHWC), recipe.backbone.embed_dim):
        raise UserError(f"teacher rows have shape {teacher_ND.shape}, expected ({len(faces.image_NHWC)}, {recipe.backbone.embed_dim}): one row a face, as long as backbone.embed_dim")
    check_unit_rows("teacher_ND", teacher_ND)
    network = fresh(recipe.backbone.build, recipe.seed, "student")
    batches = Batches(faces.image_NHWC, torch.from_numpy(teacher_ND), batch=recipe.batch, seed=recipe.seed, changes=recipe.augment)
    steps = run_loop(DistilObjective(network, recipe), batches, recipe, out, data=data_digest(faces.image_NHWC, teacher_ND))
    path = out / "recogniser.safetensors"
    known = {"recipe": recipe.model_dump(mode="json"), "steps": steps, "faces": len(faces.image_NHWC), "teacher": recipe.teacher}
    save_network(path, network, recipe.backbone, facts={**known, **(facts or {})}, half=True)
    return path


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
