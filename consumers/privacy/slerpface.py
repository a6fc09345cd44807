"""SlerpFace: templates of which each group is turned on its sphere towards a secret key, thinned out, and compared as they are (AAAI 2025).

Who holds what: the enrolment device sees the face; the database holds templates; the key store holds keys; the verifier gets a new face, a template and
its key. The mathematics: `slerp`; the stored things: `slerp_template`; training: the common recogniser loop over `slerp_features.MapGroups`.
It is not irreversible: with the key the rotation can be undone and only what was dropped is missing (`attacks.template_inversion` says how far that goes).
Axes: B faces, G groups, C numbers of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from ...core.check import check
from ...core.errors import UserError
from ...core.images import to_float
from ...identity.sources import Faces
from ...recognition.backbones import BackboneConfig, last_side
from .draws import Draws
from .protected import PRIVACY_METHODS, ClientPart, MethodSettings, PrivacyMethod, PrivacyRecipe
from .slerp import SlerpConfig, draw_kept, match_rows, protect_rows
from .slerp_features import GroupFeatures, MapGroups
from .slerp_template import Key, Template
from .wire import WireField


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Templates of many faces as arrays, for measurements: values, kept places, and the keys apart from them."""

    template_BGC: np.ndarray
    kept_BGC: np.ndarray
    key_BGC: np.ndarray

    def rows(self, row_P: np.ndarray) -> Rows:
        """Return some of them."""
        return Rows(template_BGC=self.template_BGC[row_P], kept_BGC=self.kept_BGC[row_P], key_BGC=self.key_BGC[row_P])


class SlerpScheme:
    """Enrolment and matching over any source of groups.

    Args:
        features: `VectorGroups` of an embedder, or a trained `SlerpFace`'s.
    """

    def __init__(self, features: GroupFeatures, config: SlerpConfig | None = None) -> None:
        self.features, self.config = features, config or SlerpConfig()

    def enrol(self, image_BCHW: Tensor) -> list[tuple[Template, Key]]:
        """Return a template and its fresh key for each face. Store them apart (`KeyStore`).

        Raises:
            UserError: a face without a feature.
        """
        keys = [Key.new() for _ in image_BCHW]
        rows = self.protect_groups(*self.features(image_BCHW), keys)
        return [(Template.sealed(value_GC, kept_GC, self.config, key), key) for value_GC, kept_GC, key in zip(rows.template_BGC, rows.kept_BGC, keys)]

    def match(self, image_BCHW: Tensor, template: Template | bytes, key: Key) -> np.ndarray:
        """Score faces against a template, (B,) in [-1, 1]; larger = same person. Use the raw score: it is compressed towards 1 (consumers.md §5).

        Raises:
            UserError: wrong key, changed or truncated template, or one made with other settings.
        """
        template = template if isinstance(template, Template) else Template.from_bytes(template)
        template.check_config(self.config, self.features.groups, self.features.width)
        template.check_key(key)
        feature_BGC, weight_BG = self.features(image_BCHW)
        repeated = [np.broadcast_to(x, feature_BGC.shape) for x in (template.value_GC, template.kept_GC, key.directions(*template.value_GC.shape))]
        return match_rows(repeated[0], repeated[1], feature_BGC, weight_BG, repeated[2], self.config)

    def protect_groups(self, feature_BGC: np.ndarray, weight_BG: np.ndarray, keys: list[Key]) -> Rows:
        """Return templates of groups that are there already; one key a row."""
        check("feature_BGC", feature_BGC, f"{len(keys)} {self.features.groups} {self.features.width}")
        key_BGC = np.stack([key.directions(self.features.groups, self.features.width) for key in keys])
        kept_BGC = draw_kept(weight_BG, self.features.width, self.config)
        return Rows(template_BGC=protect_rows(feature_BGC, weight_BG, key_BGC, kept_BGC, self.config), kept_BGC=kept_BGC, key_BGC=key_BGC)


class SlerpSettings(MethodSettings):
    """Settings of a trained SlerpFace.

    Attributes:
        side: the network reads the whole face; its own `shrink` makes it cheaper.
        trunk: network whose last map is cut into groups; a training takes the recipe's `backbone`.
        width: numbers of a group.
        slerp: how templates are made; its `release_compatible` follows the one here.
    """

    side: Literal[112] = 112
    trunk: BackboneConfig = BackboneConfig(width=0.5)
    width: int = Field(16, ge=2)
    slerp: SlerpConfig = SlerpConfig()

    @property
    def scheme(self) -> SlerpConfig:
        """The template's settings with the flag laid over them."""
        return SlerpConfig.parse({**self.slerp.model_dump(), "release_compatible": self.release_compatible or self.slerp.release_compatible})


class SlerpRecipe(PrivacyRecipe):
    """A training of SlerpFace's features: the recogniser's recipe over the weighted groups."""

    method: SlerpSettings = SlerpSettings()


class SlerpClient(ClientPart):
    """Enrolment device: forward(image_BCHW, draws) → template and kept places under keys that nobody keeps (for measurements; `SlerpScheme` keeps them)."""

    def __init__(self, settings: SlerpSettings) -> None:
        super().__init__(settings)
        self.network = MapGroups(settings.trunk, settings.width)
        self.name, self.groups, self.width = "slerpface", self.network.groups, self.network.width

    @property
    def fields(self) -> tuple[WireField, ...]:
        """"template": (G, C) in [-1, 1]; "kept": (G, C) of 0 and 1."""
        shape = (self.groups, self.width)
        return (self.number_field("template", *shape, lo=-1.0, hi=1.0), WireField(name="kept", shape=shape, dtype="|u1", lo=0, hi=1))

    @torch.no_grad()
    def features(self, image_BCHW: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return groups and weights of faces."""
        feature_BGC, weight_BG = self.network.group(image_BCHW)
        weight_BG = weight_BG.double().numpy()
        return feature_BGC.double().numpy(), weight_BG / weight_BG.sum(axis=1, keepdims=True)

    def __call__(self, image_BCHW: Tensor, draws: Draws | None = None) -> Any:
        """Both roles: a source of groups for `SlerpScheme` (without draws), and the client part of the common interface."""
        return self.features(image_BCHW) if draws is None else super().__call__(image_BCHW, draws)

    def forward(self, image_BCHW: Tensor, draws: Draws) -> dict[str, Tensor]:
        # Keys and drops come from the operating system whatever `draws` says: there is no seeded enrolment.
        rows = SlerpScheme(self, self.settings.scheme).protect_groups(*self.features(image_BCHW), [Key.new() for _ in image_BCHW])
        return {"template": torch.from_numpy(rows.template_BGC), "kept": torch.from_numpy(rows.kept_BGC.astype(np.uint8))}


class StoredRows(nn.Module):
    """What the database alone can compare: the stored numbers, flattened. Without keys two templates of a person are hardly alike."""

    def forward(self, template: Tensor, kept: Tensor) -> Tensor:
        return template.float().flatten(1)


@PRIVACY_METHODS.register("slerpface")
class SlerpFace(PrivacyMethod):
    """SlerpFace with features of its own; see `SlerpScheme` for enrolment and matching."""

    name: ClassVar[str] = "slerpface"
    kind: ClassVar[Literal["image", "template"]] = "template"
    Settings = SlerpSettings
    Recipe = SlerpRecipe

    @classmethod
    def build_client(cls, settings: SlerpSettings) -> SlerpClient:
        return SlerpClient(settings)

    @classmethod
    def build_server(cls, settings: SlerpSettings, backbone: BackboneConfig) -> nn.Module:
        return StoredRows()

    @classmethod
    def tiny(cls) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            trunk = BackboneConfig(width=0.125, shrink=2)
            return cls(SlerpSettings(trunk=trunk), trunk).eval()

    @property
    def scheme(self) -> SlerpScheme:
        """Enrolment and matching with these features."""
        return SlerpScheme(self.client, self.settings.scheme)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.client.network(image_BCHW)

    def view(self, protected: Any) -> Tensor:
        """Return the stored numbers as a grey picture, a row a group: (B, 3, G, C) in [0, 1]."""
        return template_picture(protected.tensors["template"])

    @classmethod
    def train_on(cls, recipe: SlerpRecipe, faces: Faces, out: Path) -> Path:
        from .train import train_in_one_stage

        # The head's classes live in the space of the flattened groups, not in that of the backbone's own tail, which is not used.
        trunk = recipe.backbone.model_copy(update={"embed_dim": recipe.method.width * last_side(recipe.backbone.shrink) ** 2})
        method = recipe.method.model_copy(update={"trunk": trunk})
        return train_in_one_stage(cls, recipe.model_copy(update={"backbone": trunk, "method": method}), faces, out)


def template_picture(template_BGC: Tensor) -> Tensor:
    """Return templates as grey pictures, a row a group, 0 = middle grey: (B, 3, G, C) in [0, 1]."""
    scaled = 0.5 + 0.5 * template_BGC / template_BGC.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return scaled[:, None].expand(-1, 3, -1, -1).float()


def group_faces(features: GroupFeatures, image_NHWC: np.ndarray, batch: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return groups and weights of many uint8 faces, (N, 112, 112, 3)."""
    if not len(image_NHWC):
        raise UserError("no faces; expected at least one")
    batch = max(batch, 1)
    parts = [features(to_float(image_NHWC[start : start + batch])) for start in range(0, len(image_NHWC), batch)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
