"""MinusFace: what a generator fails to rebuild of the coefficients, with its 192 channels shuffled, turned back into a picture.

Source: Mi et al., "Privacy-preserving face recognition using trainable feature subtraction", CVPR 2024 with supplement, and the public code (consumers.md §4).
With e the front end, d its inverse, g the generator: r = e(X) - g(e(X)), sent is d(shuffle(r)). Training makes d(r) blank and r speak of identity, which
it can because d has a null space of 189 dimensions a position. Permutation and residual never leave the client. FaceLinkGen and FEM (2026) break it.
Axes: B faces, C H W.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ...identity.sources import Faces
from ...recognition.backbones import BackboneConfig
from ...recognition.heads import margin_loss
from ...recognition.train import RecogniserObjective, RecogniserRecipe
from .draws import Draws
from .front_end import forward_dct, inverse_dct
from .protected import PRIVACY_METHODS, ClientPart, MethodSettings, PrivacyMethod, PrivacyRecipe, Protected
from .train import MapRecogniser, learn
from .unet import PlainUNet
from .wire import WireField

MAPS = 192


class MinusFaceSettings(MethodSettings):
    """`release_compatible` has no effect on what a client sends: the public code draws permutations from torch's generator, this client from the operating system.

    Attributes:
        widths: channels of the generator's levels; five in the release, side must be a multiple of 2^(levels - 1).
        copies: pictures with permutations of their own that are sent together.
    """

    widths: tuple[int, ...] = Field((64, 128, 256, 512, 1024), min_length=2, max_length=5)
    copies: int = Field(1, ge=1, le=8)

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        if self.side % 2 ** (len(self.widths) - 1):
            raise ValueError(f"'widths' has {len(self.widths)} levels, which halve the side {len(self.widths) - 1} times: {self.side} is no multiple of {2 ** (len(self.widths) - 1)}; give fewer widths")
        return self


class MinusFaceRecipe(PrivacyRecipe):
    """A training of MinusFace: generator and helper recogniser, then the recogniser of what is sent.

    Attributes:
        alpha, beta: weights of the L1 term and of the margin head in the first training.
        generator_rate: rate of the generator as a multiple of `lr`; in the public code a misspelt name leaves it at 1 (`release_compatible`).
        generator_epochs: of the first training.
        samples: how often each face counts in an epoch of the second training, each time with another permutation.
    """

    method: MinusFaceSettings = MinusFaceSettings()
    lr: float = Field(0.01, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    alpha: float = Field(5.0, ge=0)
    beta: float = Field(1.0, ge=0)
    generator_rate: float = Field(0.5, gt=0)
    generator_epochs: float = Field(24.0, gt=0)
    samples: int = Field(3, ge=1)


class MinusFaceClient(ClientPart):
    """Holds the generator; the residual and its permutation exist only inside `forward`."""

    settings: MinusFaceSettings

    def __init__(self, settings: MinusFaceSettings) -> None:
        super().__init__(settings)
        self.generator = PlainUNet(MAPS, settings.widths)

    @property
    def fields(self) -> tuple[WireField, ...]:
        """"image": (3 · copies, side, side) in [0, 1]."""
        side = self.settings.side
        return (self.number_field("image", 3 * self.settings.copies, side, side, lo=0.0, hi=1.0),)

    def residual(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (r, g(e(X))), (B, 192, side, side) each; the secret side of the method."""
        coefficients = forward_dct(self.seen(image_BCHW))
        rebuilt = self.generator(coefficients)
        return coefficients - rebuilt, rebuilt

    def forward(self, image_BCHW: Tensor, draws: Draws) -> dict[str, Tensor]:
        residual, _ = self.residual(image_BCHW)
        pictures = [inverse_dct(shuffle(residual, draws.permutations(len(residual), MAPS))) for _ in range(self.settings.copies)]
        return {"image": torch.cat(pictures, 1)}


class MinusFaceServer(MapRecogniser):
    """A recogniser of pictures in [0, 1], 3 channels a copy."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image)


def shuffle(residual_BCHW: Tensor, order_BC: Tensor) -> Tensor:
    """Permute each face's 192 channels, across planes: (B, 192, H, W) by (B, 192) int64 → the same shape."""
    return residual_BCHW[torch.arange(len(order_BC))[:, None], order_BC]


@PRIVACY_METHODS.register("minusface")
class MinusFace(PrivacyMethod):
    """A picture of shuffled residuals in place of a face."""

    name = "minusface"
    Settings, Recipe = MinusFaceSettings, MinusFaceRecipe
    client: MinusFaceClient

    @classmethod
    def build_client(cls, settings: MinusFaceSettings) -> MinusFaceClient:
        return MinusFaceClient(settings)

    @classmethod
    def build_server(cls, settings: MinusFaceSettings, backbone: BackboneConfig) -> MinusFaceServer:
        return MinusFaceServer(3 * settings.copies, settings, backbone, secret_order=True)

    @classmethod
    def tiny(cls) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return cls(MinusFaceSettings(side=16, widths=(4, 8)), BackboneConfig(embed_dim=16, width=0.125)).eval()

    @classmethod
    def train_on(cls, recipe: MinusFaceRecipe, faces: Faces, out: Path) -> Path:
        first = recipe.model_copy(update={"epochs": recipe.generator_epochs})
        stage, _ = learn(first, faces, out / "generator", lambda: Subtraction(recipe), objective=SubtractionObjective)
        ready = stage.network.client.state_dict()

        def network() -> MinusFace:
            method = cls(recipe.method, recipe.backbone)
            method.client.load_state_dict(ready)
            method.client.requires_grad_(False)
            return method

        second = recipe.model_copy(update={"epochs": recipe.epochs * recipe.samples})
        found, facts = learn(second, faces, out / "server", network)
        return found.network.save(out, facts=facts)

    def view(self, protected: Protected) -> Tensor:
        return protected.tensors["image"][:, :3]


class Subtraction(nn.Module):
    """Generator and helper recogniser of the first training; the helper is thrown away."""

    def __init__(self, recipe: MinusFaceRecipe) -> None:
        super().__init__()
        self.client = MinusFaceClient(recipe.method)
        self.helper = MapRecogniser(MAPS, recipe.method, recipe.backbone)
        for module in self.client.generator.modules() if not recipe.method.release_compatible else ():
            module.rate_factor = recipe.generator_rate


class SubtractionObjective(RecogniserObjective):
    """α·mean|X - X'| + β·head(f(r)), pictures in [-1, 1], X' = 2·d(g(e(X))) - 1."""

    def __init__(self, recipe: RecogniserRecipe, identities: int, network: nn.Module) -> None:
        super().__init__(recipe, identities, network)
        self._alpha, self._beta = recipe.alpha, recipe.beta

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        residual, rebuilt = self.network.client.residual(image_BCHW)
        away = (self.network.client.seen(image_BCHW) - (2.0 * inverse_dct(rebuilt) - 1.0)).abs().mean()
        found = margin_loss(self.head, self.centres, self.network.helper(residual), label_B)
        return {**found, "loss": self._alpha * away + self._beta * found["loss"], "head": found["loss"], "away": away}
