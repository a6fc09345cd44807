"""The denoiser of ID³: the family U-Net with two conditions, identity and attributes (generators.md §1.3 [C])."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import UserError, near_names
from ..core.weights import load_into, load_weights
from .attention import AttentionControl
from .attributes import SCALES, AttributeEmbedding
from .cache import FeatureCache
from .unet import FamilyUNet, UNetConfig

KIND = "id3-denoiser"


class ID3NetworkConfig(Config):
    """What the network is made of.

    Attributes:
        unet: the U-Net; its identity path makes the shared context vector.
        projection: hidden widths of a ReLU perceptron in the place of the identity path's linear layer. The paper's projection module of
            sizes (512, 256, 768) is `[512, 256]` with `unet.context_dim: 768` [S].
        attributes: names of `attributes.SCALES`, in the order the network reads them.
        attribute_width: hidden width of the attribute embedding.
    """

    unet: UNetConfig
    projection: tuple[int, ...] = ()
    attributes: tuple[str, ...] = ("age_years", "yaw_deg", "pitch_deg", "roll_deg")
    attribute_width: int = Field(128, ge=1)

    @field_validator("attributes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in SCALES:
                raise ValueError(f"unknown attribute '{name}'; {near_names(name, SCALES)}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"attributes {list(names)}: expected at least one, each once")
        return names


class ID3Network(nn.Module):
    """ε_θ(z_t, t, y, s): as `FamilyUNet`, with a context of identity y and attributes s.

    The attributes' embedding is added to the identity's context, from which every block makes its tokens and, with `context_in_time`,
    the time embedding learns it too: the network of a trained `FamilyUNet` gains attributes without changing what it computes.
    """

    def __init__(self, config: ID3NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = FamilyUNet(config.unet)
        if config.projection:
            self.unet.context = _perceptron(config.unet.identity_dim, *config.projection, config.unet.context_dim)
        self.attributes = AttributeEmbedding(config.attributes, config.attribute_width, config.unet.context_dim)

    def condition(self, identity_BD: Tensor, attribute_BA: Tensor, *, no_identity_B: Tensor | None = None, no_attributes_B: Tensor | None = None) -> Tensor:
        """Unit identities and attributes (NaN = unknown) → context (B, context_dim); the last two (bool) choose rows with an empty one."""
        return self.unet.embed_context(identity_BD, no_identity_B) + self.attributes(attribute_BA, no_attributes_B)

    def without_identity(self, attribute_BA: Tensor) -> Tensor:
        """Context of rows that have attributes only, (B, context_dim): the reference of guidance towards the identity."""
        return self.unet.empty_rows(len(attribute_BA)) + self.attributes(attribute_BA)

    def forward(self, latent_BCHW: Tensor, t_B: Tensor, context_BD: Tensor, control: AttentionControl | None = None, cache: FeatureCache | None = None) -> Tensor:
        return self.unet(latent_BCHW, t_B, context_BD, control, cache)


def load_id3(path: Path) -> tuple[ID3Network, dict[str, Any]]:
    """Return the network in evaluation mode and the facts of its file."""
    tensors, config, facts = load_weights(path, kind=KIND)
    network = ID3Network(ID3NetworkConfig.parse(config, source=str(path)))
    load_into(network, tensors, path)
    return network.eval(), facts


def warm_start(network: nn.Module, path: Path, kind: str = KIND) -> None:
    """Begin from another network of this kind, or from a plain denoiser of the family; layers the file lacks keep their own initialisation.

    Args:
        network: holds a U-Net of the family as `unet`.

    Raises:
        UserError: neither of the two, or its layers have other shapes.
    """
    try:
        held, _, _ = load_weights(path, kind="denoiser")
        held = {f"unet.{name}": tensor for name, tensor in held.items()}
    except UserError:
        held, _, _ = load_weights(path, kind=kind)
    load_into(network, {**network.state_dict(), **held}, path)


def _perceptron(*widths: int) -> nn.Sequential:
    layers = [layer for c_in, c_out in zip(widths, widths[1:]) for layer in (nn.Linear(c_in, c_out), nn.ReLU())]
    return nn.Sequential(*layers[:-1])
