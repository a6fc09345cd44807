"""Training of the embedded detector: first the artifact expert alone, then, with it frozen, the adapter and the reader.

After TranX-Adapter (consumers.md §8), whose expert and language model are frozen; here the reader is small and learns with the adapter. Axes: B images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from ...core.config import Config
from ...core.errors import UserError
from ...core.images import to_float
from ...core.seeds import numpy_rng
from ...core.training import LoopConfig, data_digest, fresh, run_loop, step_rows
from .artifact import ArtifactBranch
from .data import MatchConfig, Pictures, check_metadata
from .detector import Detector, DetectorConfig, Verdict, save_detector
from .wear import WearConfig, wear

RESULT = "aigi.safetensors"


class AigiRecipe(Config):
    """How a detector is trained.

    Attributes:
        detector: what it is built from.
        match: how real and fake are brought to one pipeline.
        wear: what happens to the pictures of a step, real and fake alike.
        semantic_weight: of the semantic head's own loss, without which its predictions cost nothing and mean nothing.
        expert: training of the artifact branch.
        adapter: training of the rest.
    """

    name: str = "aigi"
    detector: DetectorConfig = DetectorConfig()
    match: MatchConfig = MatchConfig()
    wear: WearConfig = WearConfig()
    semantic_weight: float = Field(0.3, ge=0)
    expert: LoopConfig = LoopConfig(optimiser="adamw", lr=1e-3, batch=48, steps=500, weight_decay=1e-3, warmup=0.03)
    adapter: LoopConfig = LoopConfig(optimiser="adamw", lr=1e-3, batch=48, steps=400, weight_decay=1e-3, warmup=0.03)


class ExpertObjective(nn.Module):
    """forward(images, whether fake) → losses: cross-entropy of the mean of the places' logits."""

    def __init__(self, network: ArtifactBranch) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BCHW: Tensor, fake_B: Tensor) -> dict[str, Tensor]:
        logit_B = self.network(image_BCHW)[1].mean(1)
        return {"loss": F.binary_cross_entropy_with_logits(logit_B, fake_B), "accuracy": _right(logit_B, fake_B)}


class AdapterObjective(nn.Module):
    """forward(images, whether fake) → losses of the answer and of the semantic head; the artifact branch is frozen."""

    def __init__(self, network: Detector, semantic_weight: float) -> None:
        super().__init__()
        self.network, self._weight = network, semantic_weight
        network.artifact.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Keep the frozen branch in evaluation mode."""
        super().train(mode)
        self.network.artifact.eval()
        return self

    def forward(self, image_BCHW: Tensor, fake_B: Tensor) -> dict[str, Tensor]:
        return self.losses(self.network(image_BCHW), fake_B)

    def losses(self, verdict: Verdict, fake_B: Tensor) -> dict[str, Tensor]:
        """Return the losses of a verdict."""
        answer = F.binary_cross_entropy_with_logits(verdict.logit_B, fake_B)
        semantic = F.binary_cross_entropy_with_logits(verdict.semantic_logit_BM.mean(1), fake_B)
        return {
            "loss": answer + self._weight * semantic,
            "answer": answer.detach(), "semantic": semantic.detach(), "accuracy": _right(verdict.logit_B, fake_B),
            "entropy": verdict.entropy_B.mean().detach(), "cost": verdict.cost_B.mean().detach(),
        }  # fmt: skip


class MixedBatches:
    """Half of a step real, half fake, the sources of each class as equally as the numbers allow; worn by the step."""

    def __init__(self, pictures: Pictures, config: WearConfig, loop: LoopConfig, purpose: str) -> None:
        self._pictures, self._config, self._loop, self._purpose = pictures, config, loop, purpose
        self._shares = _shares(pictures, loop.batch)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over as many pictures as there are."""
        return max(1, len(self._pictures) // self._loop.batch)

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of a step; the two classes lie mixed, so that every process gets both."""
        seed = self._loop.seed
        chosen = [row_M[step_rows(len(row_M), count, step, seed + number)] for number, (row_M, count) in enumerate(self._shares)]
        return numpy_rng(seed, step, "mix").permutation(np.concatenate(chosen))

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return this process's pictures of a step, float in [-1, 1], and 1 for each fake one."""
        row_B = self.rows(step)[rank::world]
        image_BHWC = wear(self._pictures.image_NHWC[row_B], self._config, numpy_rng(self._loop.seed, step, rank, self._purpose))
        return to_float(image_BHWC), torch.from_numpy(self._pictures.fake_N[row_B].astype(np.float32))


def train_aigi(recipe: AigiRecipe, pictures: Pictures, out: Path) -> Path:
    """Train a detector, writing `out/aigi.safetensors`, and return its path; a second call in the same folder carries on or finds it done.

    Raises:
        UserError: the files alone tell real from fake, too few pictures for a step; see also `run_loop`.
    """
    told = check_metadata(pictures, recipe.match)
    expert = train_expert(recipe, pictures, out / "expert")
    detector = train_adapter(recipe, pictures, expert, out / "adapter")
    count = {name: int(len(pictures.rows_of(name))) for name, _ in pictures.sources}
    facts: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude={"detector"}), "steps": [recipe.expert.steps, recipe.adapter.steps],
        "real": {name: count[name] for name, fake in pictures.sources if not fake}, "fake": {name: count[name] for name, fake in pictures.sources if fake},
        "metadata_accuracy": told,
    }  # fmt: skip
    save_detector(out / RESULT, detector, facts=facts)
    return out / RESULT


def train_expert(recipe: AigiRecipe, pictures: Pictures, out: Path) -> ArtifactBranch:
    """Train the artifact branch alone, its tokens' mean logit against the class."""
    expert = fresh(lambda: ArtifactBranch(recipe.detector.artifact), recipe.expert.seed, "expert")
    settings = {"wear": recipe.wear.model_dump(mode="json"), "artifact": recipe.detector.artifact.model_dump(mode="json")}
    run_loop(ExpertObjective(expert), MixedBatches(pictures, recipe.wear, recipe.expert, "expert"), recipe.expert, out, data=_digest(pictures), settings=settings, label="expert")
    return expert


def train_adapter(recipe: AigiRecipe, pictures: Pictures, expert: ArtifactBranch, out: Path) -> Detector:
    """Train fusion and reader over a trained expert."""
    detector = fresh(lambda: Detector(recipe.detector), recipe.adapter.seed, "detector")
    detector.artifact.load_state_dict(expert.state_dict())
    settings = {**recipe.model_dump(mode="json", exclude={"adapter"})}
    objective = AdapterObjective(detector, recipe.semantic_weight)
    run_loop(objective, MixedBatches(pictures, recipe.wear, recipe.adapter, "adapter"), recipe.adapter, out, data=_digest(pictures), settings=settings, label="adapter")
    return detector


def _shares(pictures: Pictures, batch: int) -> list[tuple[np.ndarray, int]]:
    """Rows of each source and how many of them a step holds."""
    shares = []
    for value, total in ((False, batch // 2), (True, batch - batch // 2)):
        names = [name for name, fake in pictures.sources if fake == value]
        if total < len(names):
            raise UserError(f"a step of {batch} has {total} places for {len(names)} sources of {'fake' if value else 'real'} faces; raise 'batch' to at least {2 * len(names)}")
        shares += [(pictures.rows_of(name), total // len(names) + (number < total % len(names))) for number, name in enumerate(names)]
    for row_M, count in shares:
        if len(row_M) < count:
            name = pictures.sources[pictures.source_N[row_M[0]]][0]
            raise UserError(f"the source '{name}' has {len(row_M)} faces, a step of {batch} takes {count} of them; pass more faces or a smaller 'batch'")
    return shares


def _right(logit_B: Tensor, fake_B: Tensor) -> Tensor:
    return ((logit_B > 0) == (fake_B > 0.5)).float().mean().detach()


def _digest(pictures: Pictures) -> str:
    return data_digest(pictures.image_NHWC, pictures.source_N)
