"""Training a recogniser: a backbone and class centres under a margin head, on aligned faces of known people.

Source of the baseline recipe: ArcFace (CVPR 2019) and TFace; SGD, momentum 0.9, gradient clipped at 5 over the backbone.
Axes: B images of a step, N images of the data set, I identities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.device import autocast
from ..core.errors import UserError
from ..core.training import LoopConfig, data_digest, fresh, run_loop
from ..identity.sources import Faces
from .augment import AugmentConfig
from .backbones import BackboneConfig
from .batches import Batches
from .checkpoint import save_network
from .heads import ClassCentres, HeadConfig


class RecogniserRecipe(LoopConfig):
    """How a recogniser is trained; see `LoopConfig` for the rest.

    Attributes:
        batch: at least 2: batch normalisation has nothing to learn from one face.
        head: margin head and its settings.
        identity_balanced: draw every identity equally often, whatever its number of images.
        augment: AdaFace's strong three at probability 0.2, and a mirror.
    """

    batch: int = Field(64, ge=2)
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    identity_balanced: bool = False
    augment: AugmentConfig = AugmentConfig(flip=0.5, crop=0.2, lowres=0.2, photometric=0.2)


class RecogniserObjective(nn.Module):
    """Backbone, centres, head and cross-entropy; forward(image_BCHW, label_B) → loss, accuracy, mean target cosine."""

    def __init__(self, recipe: RecogniserRecipe, identities: int) -> None:
        super().__init__()
        self._precision = recipe.precision
        self.network = recipe.backbone.build()
        self.centres = ClassCentres(identities, recipe.backbone.embed_dim)
        self.head = recipe.head.build()

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        with autocast(image_BCHW.device, self._precision):
            raw_BD = self.network(image_BCHW)
        cos_BI = self.centres(raw_BD)
        loss = F.cross_entropy(self.head(cos_BI, label_B), label_B)
        right = (cos_BI.detach().argmax(1) == label_B).float().mean()
        target = cos_BI.detach().gather(1, label_B[:, None]).mean()
        return {"loss": loss, "accuracy": right, "target_cosine": target}


def train_recogniser(recipe: RecogniserRecipe, faces: Faces, out: Path) -> Path:
    """Train from fresh weights, or go on where a killed run of the same recipe and data stopped.

    Args:
        faces: aligned faces; `identity_N` are the classes.
        out: folder of `recogniser.safetensors`, `log.jsonl`, `tensorboard/` and `state.pt`.

    Returns:
        The checkpoint, which `load_embedder` reads. The class centres are not in it.

    Raises:
        UserError: fewer than two identities; see also `run_loop`.
    """
    names, label_N = np.unique(faces.identity_N, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"the data has {len(names)} identity, a recogniser needs at least 2 (one folder for each person)")
    label_N = label_N.astype(np.int64)
    objective = fresh(lambda: RecogniserObjective(recipe, len(names)), recipe.seed, "recogniser")
    batches = Batches(
        faces.image_NHWC,
        torch.from_numpy(label_N),
        batch=recipe.batch,
        seed=recipe.seed,
        changes=recipe.augment,
        groups_N=label_N if recipe.identity_balanced else None,
    )
    steps = run_loop(objective, batches, recipe, out, data=data_digest(faces.image_NHWC, label_N))
    path = out / "recogniser.safetensors"
    facts = {"recipe": recipe.model_dump(mode="json"), "steps": steps, "faces": len(label_N), "identities": len(names)}
    save_network(path, objective.network, recipe.backbone, facts=facts)
    return path
