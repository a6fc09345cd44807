"""A quality score that needs no identity: a small network on a recogniser's features, trained on quality labels (recognition.md §7.3).

The publication trains a whole backbone; here the recogniser is frozen and a head of two layers learns from its features, which a processor core
does in seconds. Axes: B N rows, K columns of a row (`FaceRows.row_NK`), Q knots of the calibration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.seeds import derive_seed
from ..core.training import LoopConfig, data_digest, epoch_order, fresh, run_loop
from ..core.weights import save_weights
from .degrade import DAMAGES
from .sdd_fiqa import Mode, normalise_labels, sdd_fiqa

KIND = "quality"
RESULT = "quality.safetensors"

_PERCENT = np.arange(1.0, 100.0)


class QualityRecipe(LoopConfig):
    """How a quality regressor is trained; see `LoopConfig` for the rest.

    Attributes:
        batch, optimiser, lr: defaults that suit a small head; the publication's 5,000 and Adam 1e-4 are for a whole backbone.
        quality_of: name of the embedder whose inner features are read, and for which the labels say how good a face is.
        copies: damaged copies of each face that are labelled and learned beside it; 0 = the faces as they are.
        most_per_identity: images of a person that are used, so that a few people with hundreds do not decide.
        damages: kinds of damage to draw from.
        labels: mode of `sdd_fiqa`; `signed` its guard against wrong labels.
        tail: share of the labels cut at each end before they are scaled to 0..100 (min and max alone would hang on two outliers).
        hidden: units of the hidden layer.
        dropout: on the features and on the hidden units.
        huber: where the loss turns from square to linear, in label points (published: 1).
    """

    batch: int = Field(256, ge=1)
    optimiser: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(2e-3, gt=0)
    quality_of: str = "mobilefacenet-small"
    copies: int = Field(1, ge=0, le=8)
    most_per_identity: int = Field(20, ge=2)
    damages: tuple[str, ...] = tuple(DAMAGES)
    labels: Mode = "pool"
    signed: bool = True
    tail: float = Field(0.01, ge=0, lt=0.5)
    hidden: int = Field(64, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    huber: float = Field(1.0, gt=0)


class QualityNet(nn.Module):
    """Rows → label points, (B,): standardise, one hidden layer, one number. The knots of the calibration travel with the weights."""

    def __init__(self, columns: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mean_K: Tensor
        self.scale_K: Tensor
        self.knots_Q: Tensor
        self.register_buffer("mean_K", torch.zeros(columns))
        self.register_buffer("scale_K", torch.ones(columns))
        self.register_buffer("knots_Q", torch.linspace(1.0, 99.0, len(_PERCENT)))
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(columns, hidden), nn.PReLU(hidden), nn.Dropout(dropout), nn.Linear(hidden, 1))

    def forward(self, row_BK: Tensor) -> Tensor:
        # A column far outside its training range (a black image's sharpness) must not drown the others.
        return self.layers(((row_BK - self.mean_K) / self.scale_K).clamp(-8.0, 8.0)).squeeze(1)


class QualityObjective(nn.Module):
    """Huber loss of the predicted label; forward(rows, labels) → loss and mean absolute error, in label points."""

    def __init__(self, network: QualityNet, huber: float) -> None:
        super().__init__()
        self.network, self._huber = network, huber

    def forward(self, row_BK: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        predicted_B = self.network(row_BK)
        # huber_loss = beta * smooth_l1_loss; divided again, so that the slope far out is 1 as published.
        loss = F.huber_loss(predicted_B, label_B, delta=self._huber) / self._huber
        return {"loss": loss, "absolute_error": (predicted_B.detach() - label_B).abs().mean()}


class RowBatches:
    """Rows and labels in memory, drawn by the step."""

    def __init__(self, row_NK: np.ndarray, label_N: np.ndarray, *, batch: int, seed: int) -> None:
        self._row_NK, self._label_N = torch.from_numpy(row_NK), torch.from_numpy(label_N)
        self._batch, self._seed = min(batch, len(row_NK)), seed

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass."""
        return len(self._row_NK) // self._batch

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        """Return this process's rows of a step and their labels."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = torch.from_numpy(epoch_order(len(self._row_NK), epoch, self._seed)[place * self._batch :][: self._batch][rank::world])
        return self._row_NK[chosen], self._label_N[chosen]


def quality_labels(recipe: QualityRecipe, embed_ND: np.ndarray, identity_N: np.ndarray, *, damaged: tuple[np.ndarray, ...] = ()) -> np.ndarray:
    """Return labels 0..100 of the faces, then of each damaged copy, on one scale, float32, (N + copies · N,); NaN where an identity has one image.

    Copies are compared with the undamaged faces of the others, never with their own original.
    """
    distances = [sdd_fiqa(embed_ND, identity_N, mode=recipe.labels, seed=recipe.seed, signed=recipe.signed, raw=True, probe_ND=probe_ND) for probe_ND in (None, *damaged)]
    return normalise_labels(np.concatenate(distances), tail=recipe.tail)


def train_quality(recipe: QualityRecipe, row_NK: np.ndarray, label_N: np.ndarray, out: Path, *, facts: dict[str, Any] | None = None) -> Path:
    """Train a regressor and return its file, `out/quality.safetensors`, which `load_quality` reads.

    Args:
        row_NK: `FaceRows.row_NK` of faces (and of their damaged copies).
        label_N: 0..100; rows whose label is NaN are left out.
        facts: provenance for the header.

    Raises:
        UserError: no labelled row, NaN in the rows, or sizes that do not fit; see also `run_loop`.
    """
    row_NK, label_N = np.asarray(row_NK, np.float32), np.asarray(label_N, np.float32)
    if row_NK.ndim != 2 or label_N.shape != row_NK.shape[:1]:
        raise UserError(f"rows have shape {row_NK.shape} and labels {label_N.shape}; expected (images, columns) and one label for each")
    known_N = np.isfinite(label_N)
    if not known_N.any() or not np.isfinite(row_NK).all():
        raise UserError(f"{int(known_N.sum())} of {len(label_N)} rows have a label and {int((~np.isfinite(row_NK)).sum())} values are not finite; expected identities with two images or more, and finite features")
    row_NK, label_N = row_NK[known_N], label_N[known_N]
    network = fresh(lambda: QualityNet(row_NK.shape[1], recipe.hidden, recipe.dropout), recipe.seed, "quality")
    network.mean_K.copy_(torch.from_numpy(row_NK.mean(axis=0)))
    network.scale_K.copy_(torch.from_numpy(row_NK.std(axis=0)).clamp_min(1e-6))
    torch.nn.init.constant_(network.layers[-1].bias, float(np.median(label_N)))  # where a Huber loss of label points would spend its first steps
    batches = RowBatches(row_NK, label_N, batch=recipe.batch, seed=derive_seed(recipe.seed, "quality"))
    steps = run_loop(QualityObjective(network, recipe.huber), batches, recipe, out, data=data_digest(row_NK, label_N))
    network.knots_Q.copy_(torch.from_numpy(np.percentile(predict(network, row_NK), _PERCENT).astype(np.float32)))
    config = {"columns": row_NK.shape[1], "hidden": recipe.hidden, "quality_of": recipe.quality_of}
    known = {"recipe": recipe.model_dump(mode="json"), "steps": steps, "labelled_rows": len(label_N)}
    save_weights(out / RESULT, network, kind=KIND, config=config, facts={**known, **(facts or {})})
    return out / RESULT


def predict(network: QualityNet, row_NK: np.ndarray) -> np.ndarray:
    """Return label points, float64, (N,), not calibrated."""
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(np.ascontiguousarray(row_NK, np.float32))).double().numpy()


def calibrate(point_N: np.ndarray, knots_Q: np.ndarray) -> np.ndarray:
    """Map label points to percentiles of the training faces, float32 in (0, 100), strictly rising.

    Between the 1st and the 99th percentile linear from knot to knot; beyond them an exponential tail, so that faces worse than all training
    faces still have an order.
    """
    knots_Q = np.asarray(knots_Q, np.float64)
    spread = max(float(knots_Q[-1] - knots_Q[0]) / len(knots_Q), 1e-6)
    score_N = np.interp(point_N, knots_Q, _PERCENT)
    score_N = np.where(point_N < knots_Q[0], np.exp(np.minimum(0.0, point_N - knots_Q[0]) / spread / 10.0), score_N)
    score_N = np.where(point_N > knots_Q[-1], 100.0 - np.exp(np.minimum(0.0, knots_Q[-1] - point_N) / spread / 10.0), score_N)
    return score_N.astype(np.float32)
