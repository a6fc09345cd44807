"""What FAN's two stages minimise: disentangling on high-resolution faces, adapting to low-resolution ones.

Source: FAN (arXiv 1911.11680), a reconstruction (recognition.md §5.2), not verified against the authors' implementation. Every adversarial pair stands in one loss, see
`core.adversarial`. Axes: B images of a step, P of them paired, D identity, N context, I identities.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.adversarial import PatchCritic, critic_loss, frozen, game, player_loss, uniform_loss
from ..core.training import LoopConfig
from .fan import Fan
from .fan_networks import FeatureCritic
from .heads import ClassCentres, HeadConfig, margin_loss
from .scale_augment import ScaleConfig


class PictureWeights(LoopConfig):
    """A stage's loop, and the weights of its losses on pictures; a stage with all of them 0 draws no picture.

    Attributes:
        rec: mean absolute difference of picture and face.
        identity: 1 - cosine of the fixed encoder's embeddings of picture and face.
        gan: the image critic's.
    """

    rec: float = Field(10.0, ge=0)
    identity: float = Field(1.0, ge=0)
    gan: float = Field(0.1, ge=0)

    @property
    def pictures(self) -> bool:
        """Whether anything looks at pictures."""
        return bool(self.rec or self.identity or self.gan)


class DisentangleConfig(PictureWeights):
    """Stage 1.

    Attributes:
        uniform: weight of what drives identity out of the context code.
    """

    uniform: float = Field(1.0, ge=0)


class AdaptConfig(PictureWeights):
    """Stage 2.

    Attributes:
        feature: squared distance of the low-resolution face's direction to the high-resolution one's.
        feature_gan: the feature critic's, on unpaired faces.
        margin: the margin softmax over fixed class centres.
        unpaired_rows: rows of a step that have no high-resolution partner.
        joint: let the pictures' losses reach the identity encoder too; without it recognition alone decides what the embedding holds [C].
    """

    feature: float = Field(1.0, ge=0)
    feature_gan: float = Field(0.1, ge=0)
    margin: float = Field(1.0, ge=0)
    unpaired_rows: int = Field(8, ge=0)
    joint: bool = False


class _Pictures(nn.Module):
    """What both stages share: the fixed encoder E_H, the trained network, the image critic and the losses on pictures."""

    def __init__(self, fan: Fan, fixed: nn.Module, weights: PictureWeights) -> None:
        super().__init__()
        self.network, self.fixed, self._weights = fan, fixed.requires_grad_(False).eval(), weights
        self.image_critic = PatchCritic(fan.config.networks.critic) if weights.gan else None

    def train(self, mode: bool = True) -> nn.Module:
        """Keep the fixed encoder in evaluation mode."""
        super().train(mode)
        self.fixed.eval()
        return self

    def picture_losses(self, picture_BCHW: Tensor, real_BCHW: Tensor, identity_BD: Tensor, paired: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and the parts. The first `paired` pictures have their face in `real_BCHW`; `identity_BD` is what each shall show."""
        weights, parts = self._weights, {}
        loss = picture_BCHW.new_zeros(())
        if weights.rec and paired:
            parts["rec"] = (picture_BCHW[:paired] - real_BCHW[:paired]).abs().mean()
            loss = loss + weights.rec * parts["rec"]
        if weights.identity:
            parts["identity"] = (1 - F.cosine_similarity(self.fixed(picture_BCHW), identity_BD.detach())).mean()
            loss = loss + weights.identity * parts["identity"]
        if self.image_critic is not None:
            parts["gan"], parts["critic"] = game(self.image_critic, real_BCHW, picture_BCHW)
            loss = loss + weights.gan * parts["gan"] + parts["critic"]
        return loss, parts


class DisentangleObjective(_Pictures):
    """Stage 1, high resolution: E_N, G and the critics learn; forward(image_BCHW, label_B) → losses.

    The classifier learns identities from the context code (detached); the code learns to leave it at chance.
    """

    def __init__(self, fan: Fan, fixed: nn.Module, config: DisentangleConfig, identities: int) -> None:
        super().__init__(fan, fixed, config)
        self._uniform = config.uniform
        self.classifier = nn.Linear(fan.config.networks.context_dim, identities)
        fan.encoder.requires_grad_(False)

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            identity_BD = self.fixed(image_BCHW)
        context_BN = self.network.context(image_BCHW)
        guess_BI = self.classifier(context_BN.detach())
        parts = {"classifier": F.cross_entropy(guess_BI, label_B), "uniform": uniform_loss(frozen(self.classifier, context_BN))}
        picture_BCHW = self.network.decoder(identity_BD, context_BN)
        loss, found = self.picture_losses(picture_BCHW, image_BCHW, identity_BD, len(image_BCHW))
        guessed = (guess_BI.argmax(1) == label_B).float().mean()
        return {"loss": loss + parts["classifier"] + self._uniform * parts["uniform"], **parts, **found, "identity_guessed": guessed}


class AdaptObjective(_Pictures):
    """Stage 2, low resolution: E_L, and where there are pictures E_N and G, learn; forward(image_BCHW, label_B) → losses.

    Rows with label -1 come last and are unpaired: faces of low resolution, or (`shrink_unpaired`) of high resolution that only ever appear shrunk.
    """

    def __init__(self, fan: Fan, fixed: nn.Module, config: AdaptConfig, scales: ScaleConfig, centres: ClassCentres, head: HeadConfig, *, shrink_unpaired: bool) -> None:
        super().__init__(fan, fixed, config)
        self._config, self._scales, self._shrink_unpaired = config, scales, shrink_unpaired
        fan.encoder.requires_grad_(True)
        for module in (fan.context, fan.decoder):
            module.requires_grad_(config.pictures)
        self.centres, self.head = centres.requires_grad_(False), head.build()
        self.feature_critic = FeatureCritic(fan.config.backbone.embed_dim) if config.feature_gan and config.unpaired_rows else None

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        paired = int((label_B >= 0).sum())
        high_PCHW = image_BCHW[:paired]
        with torch.no_grad():
            target_PD = F.normalize(self.fixed(high_PCHW))
        low_BCHW = self._low(image_BCHW, paired)
        raw_BD = self.network.encoder(low_BCHW)
        unit_BD = F.normalize(raw_BD)
        parts = {"feature": (unit_BD[:paired] - target_PD).square().sum(1).mean()}
        loss = self._config.feature * parts["feature"]
        if self._config.margin:
            classes = margin_loss(self.head, self.centres, raw_BD[:paired], label_B[:paired])
            parts |= {"margin": classes["loss"], "accuracy": classes["accuracy"]}
            loss = loss + self._config.margin * classes["loss"]
        if self.feature_critic is not None:
            parts["feature_gan"] = player_loss(frozen(self.feature_critic, unit_BD[paired:]))
            parts["feature_critic"] = critic_loss(self.feature_critic(target_PD), self.feature_critic(unit_BD[paired:].detach()))
            loss = loss + self._config.feature_gan * parts["feature_gan"] + parts["feature_critic"]
        if self._config.pictures:
            shown_BD = raw_BD if self._config.joint else raw_BD.detach()
            picture_BCHW = self.network.decoder(shown_BD, self.network.context(low_BCHW))
            wanted_BD = torch.cat((target_PD, unit_BD[paired:]))
            pictures, found = self.picture_losses(picture_BCHW, high_PCHW, wanted_BD, paired)
            loss, parts = loss + pictures, parts | found
        return {"loss": loss, **parts}

    def _low(self, image_BCHW: Tensor, paired: int) -> Tensor:
        if self._shrink_unpaired:
            return self._scales(image_BCHW)
        return torch.cat((self._scales(image_BCHW[:paired]), image_BCHW[paired:]))
