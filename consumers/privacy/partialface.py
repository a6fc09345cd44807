"""PartialFace: the client sends a random part of the high-frequency channels in a random order, and never says which.

Source: Mi et al., "Privacy-preserving face recognition using random frequency components", ICCV 2023; constants of the public code (consumers.md §2).
A rank is a subset of the kept channels and an order of it. It is NOT a secret against arithmetic: the true one explains a query to rounding, the others
leave 63 % (least squares, `attacks`). One subset of the six holds an odd pure-row and an odd pure-column frequency and gives the picture back at 57 dB.
Axes: B faces, M subsets, O orders, S channels a plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...core.errors import UserError
from ...core.seeds import numpy_rng
from ...identity.sources import Faces
from ...recognition.backbones import BackboneConfig
from ...recognition.train import RecogniserObjective
from .draws import Draws, TorchDraws
from .front_end import CHANNELS, LARGEST, forward_dct, inverse_dct, spread
from .protected import PRIVACY_METHODS, ClientPart, MethodSettings, PrivacyMethod, PrivacyRecipe, Protected
from .train import CoefficientServer, train_in_one_stage
from .wire import WireField

PRUNED = (0, 1, 2, 3, 8, 9, 10, 16, 17, 24)
"""The ten channels of largest mean magnitude, u + v ≤ 3; they stay with the client."""
KEPT = tuple(k for k in range(CHANNELS) if k not in PRUNED)
SUBSETS = tuple(
    tuple(8 * int(pair[0]) + int(pair[1]) for pair in row.split())
    for row in (
        "05 42 46 25 52 67 71 62 76", "55 61 66 64 23 13 57 51 77", "04 74 35 15 40 75 73 41 37",
        "60 17 43 26 33 50 16 53 22", "44 47 32 06 65 27 14 24 72", "56 63 70 54 31 45 34 36 07",
    )
)  # fmt: skip
"""The published six, as 8u + v."""
ORDERS = (tuple(range(9)), (7, 3, 0, 6, 5, 4, 1, 2, 8), (4, 8, 6, 0, 2, 5, 3, 7, 1))
"""The public code's three; the paper has six."""
RELEASED = {"subsets": 6, "orders": 3, "samples": 3}


class PartialFaceSettings(MethodSettings):
    """`release_compatible` needs 6 subsets, 3 orders and 3 samples, and lets each identity see three of the subsets in training.

    Attributes:
        subsets: m, equal parts of the 54 kept channels; 6 are the published ones, another number is drawn from `seed`.
        orders: n, permutations of a subset; the first three are the public code's where a subset has nine channels, the rest is drawn from `seed`.
        samples: r, how often each image counts in an epoch, each time with a rank of its own.
        seed: of the public parameters. They are known to everybody; the rank drawn for a query is not made from it.
    """

    subsets: int = Field(6, ge=1, le=54)
    orders: int = Field(6, ge=1, le=720)
    samples: int = Field(18, ge=1)
    seed: int = 0


class PartialFaceRecipe(PrivacyRecipe):
    """A training of PartialFace; the paper's (σ, s, r, m, n) = (10, 9, 18, 6, 6)."""

    method: PartialFaceSettings = PartialFaceSettings()


class PartialFaceClient(ClientPart):
    """Draws a rank for every face and sends its 3·S channels."""

    settings: PartialFaceSettings

    def __init__(self, settings: PartialFaceSettings) -> None:
        super().__init__(settings)
        asked = {name: getattr(settings, name) for name in RELEASED}
        if settings.release_compatible and asked != RELEASED:
            raise UserError(f"release_compatible PartialFace has {RELEASED}, the settings say {asked}; set these three, or leave release_compatible out")
        self.register_buffer("subset_MS", torch.tensor(subsets(settings)))
        self.register_buffer("order_OS", torch.tensor(orders(settings)))

    @property
    def fields(self) -> tuple[WireField, ...]:
        """"coefficients": (3 S, side, side), plane after plane, in the order of the rank, which is not sent."""
        side = self.settings.side
        return (self.number_field("coefficients", 3 * self.subset_MS.shape[1], side, side, lo=-LARGEST, hi=LARGEST),)

    def forward(self, image_BCHW: Tensor, draws: Draws) -> dict[str, Tensor]:
        return self.send(image_BCHW, draws.below(len(image_BCHW), len(self.subset_MS)), draws)

    def send(self, image_BCHW: Tensor, subset_B: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Send given subsets in a fresh order."""
        order_B = draws.below(len(image_BCHW), len(self.order_OS))
        return {"coefficients": forward_dct(self.seen(image_BCHW), self.codes(subset_B, order_B))}

    def codes(self, subset_B: Tensor, order_B: Tensor) -> Tensor:
        """Channels 8u + v in the order sent, (B, S): the same on the three planes."""
        return self.subset_MS.cpu()[subset_B].gather(1, self.order_OS.cpu()[order_B])


@PRIVACY_METHODS.register("partialface")
class PartialFace(PrivacyMethod):
    """27 channels in place of a face; the server's network serves every rank and is not told which."""

    name = "partialface"
    Settings, Recipe = PartialFaceSettings, PartialFaceRecipe
    client: PartialFaceClient

    @classmethod
    def build_client(cls, settings: PartialFaceSettings) -> PartialFaceClient:
        return PartialFaceClient(settings)

    @classmethod
    def build_server(cls, settings: PartialFaceSettings, backbone: BackboneConfig) -> CoefficientServer:
        return CoefficientServer(3 * len(KEPT) // settings.subsets, settings, backbone, secret_order=True)

    @classmethod
    def train_on(cls, recipe: PartialFaceRecipe, faces: Faces, out: Path) -> Path:
        # r samples of an image and a common shuffle: r passes, each with fresh ranks.
        repeated = recipe.model_copy(update={"epochs": recipe.epochs * recipe.method.samples})
        return train_in_one_stage(cls, repeated, faces, out, objective=ReleasedObjective if recipe.method.release_compatible else RecogniserObjective)

    def channel_codes(self) -> list[tuple[int, ...]]:
        ranks = [(m, o) for m in range(len(self.client.subset_MS)) for o in range(len(self.client.order_OS))]
        subset_R, order_R = torch.tensor(ranks).T
        return [tuple(row) for row in self.client.codes(subset_R, order_R).tolist()]

    def view(self, protected: Protected, code_BK: Tensor | None = None) -> Tensor:
        """As in `PrivacyMethod`; without the ranks, (B, S) channels, the first one is assumed."""
        sent = protected.tensors["coefficients"]
        code_BK = torch.tensor(self.channel_codes()[:1]).expand(len(sent), -1) if code_BK is None else code_BK
        return inverse_dct(spread(sent, code_BK))


class ReleasedObjective(RecogniserObjective):
    """The public code's sampling: an identity sees three of the six subsets, the triple numbered (label mod 20) in lexicographic order."""

    def embed(self, image_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """Raw embeddings, (B, D), of faces sent under one of the three subsets of their identity."""
        triple_T3 = torch.tensor(list(combinations(range(RELEASED["subsets"]), 3)))
        draws = TorchDraws()
        pick_B = draws.below(len(label_B), 3)
        subset_B = triple_T3[label_B.cpu() % len(triple_T3), pick_B]
        return self.network.server(**self.network.client.send(image_BCHW, subset_B, draws))


def subsets(settings: PartialFaceSettings) -> Sequence[Sequence[int]]:
    """Public parameter S: equal disjoint parts of the kept channels.

    Raises:
        UserError: 54 is no multiple of the number of parts.
    """
    if settings.subsets == len(SUBSETS):
        return SUBSETS
    if len(KEPT) % settings.subsets:
        raise UserError(f"{len(KEPT)} channels cannot be cut into {settings.subsets} equal subsets; choose a divisor of {len(KEPT)}")
    return np.reshape(numpy_rng(settings.seed, "partialface-subsets").permutation(KEPT), (settings.subsets, -1)).tolist()


def orders(settings: PartialFaceSettings) -> Sequence[Sequence[int]]:
    """Public parameter P: different permutations of a subset.

    Raises:
        UserError: a subset has fewer permutations than asked for.
    """
    size = len(KEPT) // settings.subsets
    found = list(ORDERS[: settings.orders]) if size == len(ORDERS[0]) else [tuple(range(size))]
    rng = numpy_rng(settings.seed, "partialface-orders")
    if settings.orders > np.prod(np.arange(1, min(size, 12) + 1)):
        raise UserError(f"{size} channels have fewer than {settings.orders} orders; lower 'orders'")
    while len(found) < settings.orders:
        drawn = tuple(rng.permutation(size).tolist())
        found += [drawn] if drawn not in found else []
    return found
