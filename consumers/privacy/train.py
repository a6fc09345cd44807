"""What the methods' trainings share: a recogniser fed with something else than a face, and the common loop around it.

Training imitates clients with torch's generator, which the loop pins to the step: a killed run ends where it would have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...identity.sources import Faces
from ...recognition.backbones import BackboneConfig
from ...recognition.train import RecogniserObjective, RecogniserRecipe, fit
from .protected import MethodSettings, PrivacyMethod, PrivacyRecipe


class MapRecogniser(nn.Module):
    """A recogniser of maps: (B, channels, side, side) → raw embeddings (B, D).

    Args:
        settings: `side` and `standardise` count here.
        backbone: its `channels` and `side` are replaced.
        secret_order: what a channel holds is another thing for each face (a rank, a permutation). Statistics over a batch would then mix channels
            whose sizes differ by a factor of 1000, and the small ones vanish: `standardise` takes each face's channels by themselves.
    """

    def __init__(self, channels: int, settings: MethodSettings, backbone: BackboneConfig, *, secret_order: bool = False) -> None:
        super().__init__()
        norm = nn.InstanceNorm2d if secret_order else nn.BatchNorm2d
        self.standard = norm(channels, affine=False) if settings.standardise else nn.Identity()
        self.network = backbone.model_copy(update={"channels": channels, "side": settings.side}).build()

    def forward(self, map_BCHW: Tensor) -> Tensor:
        return self.network(self.prepare(map_BCHW))

    def prepare(self, map_BCHW: Tensor) -> Tensor:
        """Standardise, and lay out by pixels: convolutions of many channels are three times faster so on a CPU."""
        return self.standard(map_BCHW).contiguous(memory_format=torch.channels_last)


class CoefficientServer(MapRecogniser):
    """Server part of PartialFace and DCTDP: one array of coefficients in."""

    def forward(self, coefficients: Tensor) -> Tensor:  # the argument is the array's name in a message
        return super().forward(coefficients)


Build = Callable[[RecogniserRecipe, int, nn.Module], RecogniserObjective]


def learn(recipe: PrivacyRecipe, faces: Faces, out: Path, network: Callable[[], nn.Module], *, objective: Build = RecogniserObjective, settings: dict[str, Any] | None = None) -> tuple[RecogniserObjective, dict[str, Any]]:
    """Train what `network` builds (faces → raw embeddings) under the recipe's head; see `recognition.train.fit`."""
    return fit(recipe, faces, out, lambda asked, identities: objective(asked, identities, network()), settings=settings)


def train_in_one_stage(cls: type[PrivacyMethod], recipe: PrivacyRecipe, faces: Faces, out: Path, *, objective: Build = RecogniserObjective) -> Path:
    """Train both parts of a method together and write them to `out`."""
    found, facts = learn(recipe, faces, out, lambda: cls(recipe.method, recipe.backbone), objective=objective)
    return found.network.save(out, facts=facts)
