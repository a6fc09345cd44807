"""Training against attacks: standard adversarial training, and AFA's two stages (dual normalisation, then the predictor of the fusing weight).

Source: AFA (Wang et al., arXiv 2105.15157), a reconstruction (recognition.md §6.2), not verified against the authors' implementation; the attack is that of Madry et
al. (ICLR 2018). Stage 1: clean faces go through the clean branch only, attacked ones through the attacked branch only, and the attack is made against that
branch. Stage 2: everything but the predictor is frozen; faces are attacked through the predictor with a strength of their own each, and the predictor learns
from the cross-entropy alone: no strength is ever told to it.
Axes: B images of a step, N images of the data set, I identities.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import UserError
from ..core.files import weights_path
from ..core.images import to_float
from ..core.seeds import numpy_rng
from ..core.training import LoopConfig, data_digest, fresh, run_loop
from ..identity.sources import Faces
from .afa import DualConfig, DualNetwork
from .attacks import AttackConfig
from .augment import AugmentConfig
from .backbones import BackboneConfig
from .batches import Batches
from .checkpoint import load_recogniser, save_network
from .dual_bn import Share
from .heads import ClassCentres, HeadConfig, margin_loss
from .start import class_means

CALIBRATED = 256
"""Clean faces whose mean and deviation are the units of what the predictor sees."""


class AfaRecipe(Config):
    """How a recogniser is trained against attacks.

    Attributes:
        init: a recogniser to go on from (bundled name or path); its settings then take the place of `backbone`. Both branches begin as its normalisation, and the
            class centres as mean embeddings.
        backbone: the network, where there is no `init`.
        dual: the predictor; null = ordinary normalisation, i.e. standard adversarial training, which has no second stage.
        head: margin head on the clean and on the attacked faces.
        attack: made on every face of a step; stage 2 draws a strength for each face up to the same one.
        clean: weight of the clean faces' loss in both stages (in stage 2 [C]: drawn strengths alone would hardly ever show a clean face); 0 without `dual` is Madry's training on attacked faces alone.
        align: stage 2, weight of 1 - cosine between an attacked face's fused embedding and its clean one [C]; 0 = cross-entropy alone, as reconstructed.
        augment: before the attack.
        base, fuse: the loops of the two stages.
    """

    init: str | None = None
    backbone: BackboneConfig = BackboneConfig()
    dual: DualConfig | None = DualConfig()
    head: HeadConfig = HeadConfig()
    attack: AttackConfig = AttackConfig()
    clean: float = Field(0.5, ge=0, le=1)
    align: float = Field(0.0, ge=0)
    augment: AugmentConfig = AugmentConfig(flip=0.5)
    base: LoopConfig = LoopConfig()
    fuse: LoopConfig = LoopConfig(epochs=2, optimiser="adamw", lr=1e-3)


class AdversarialObjective(nn.Module):
    """Stage 1, or standard adversarial training; forward(image_BCHW, label_B) → loss and accuracies (of the branches under their own faces)."""

    def __init__(self, network: nn.Module, recipe: AfaRecipe, identities: int, embed_dim: int) -> None:
        super().__init__()
        self._attack, self._clean = recipe.attack, recipe.clean
        self.network = network
        self.centres = ClassCentres(identities, embed_dim)
        self.head = recipe.head.build()

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        attacked_BCHW = self.attacked(image_BCHW, label_B)
        attacked = margin_loss(self.head, self.centres, self._branch(attacked_BCHW, 1.0), label_B)
        found = {"attacked": attacked["loss"], "attacked_accuracy": attacked["accuracy"]}
        if not self._clean:
            return {"loss": attacked["loss"], **found}
        clean = margin_loss(self.head, self.centres, self._branch(image_BCHW, 0.0), label_B)
        loss = self._clean * clean["loss"] + (1 - self._clean) * attacked["loss"]
        return {"loss": loss, "clean": clean["loss"], "clean_accuracy": clean["accuracy"], **found}

    def attacked(self, image_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """Return attacked faces, made against the attacked branch in evaluation mode: no statistic moves and no parameter gets a gradient."""
        with _evaluating(self.network):
            return self._attack(lambda image: self.head.scale * self.centres(self._branch(image, 1.0)), image_BCHW, label_B)

    def _branch(self, image_BCHW: Tensor, share: Share) -> Tensor:
        return self.network(image_BCHW, share) if isinstance(self.network, DualNetwork) else self.network(image_BCHW)


class FuseObjective(nn.Module):
    """Stage 2: only the predictor learns; forward(image_BCHW, label_B) → losses, mean weight on attacked and on clean faces."""

    def __init__(self, network: DualNetwork, centres: ClassCentres, recipe: AfaRecipe) -> None:
        super().__init__()
        self._attack, self._clean, self._align = recipe.attack.model_copy(update={"vary": True}), recipe.clean, recipe.align
        self._scale = recipe.head.build().scale
        self.network, self.centres = network.requires_grad_(False), centres.requires_grad_(False)
        network.predictor.requires_grad_(True)

    def train(self, mode: bool = True) -> FuseObjective:
        """Keep the network in evaluation mode: the branches' statistics are those of stage 1."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        attacked_BCHW = self._attack(self._logits, image_BCHW, label_B)
        share_B, clean_share_B = self.network.share(attacked_BCHW), self.network.share(image_BCHW)
        raw_BD = self.network(attacked_BCHW, share_B)
        attacked, clean = (F.cross_entropy(self._scaled(raw), label_B) for raw in (raw_BD, self.network(image_BCHW, clean_share_B)))
        found = {"attacked": attacked, "clean": clean, "share_attacked": share_B.mean(), "share_clean": clean_share_B.mean()}
        loss = self._clean * clean + (1 - self._clean) * attacked
        if self._align:
            with torch.no_grad():
                clean_BD = self.network(image_BCHW, 0.0)
            found["align"] = (1 - F.cosine_similarity(raw_BD, clean_BD)).mean()
            loss = loss + self._align * found["align"]
        return {"loss": loss, **found}

    def _logits(self, image_BCHW: Tensor) -> Tensor:
        return self._scaled(self.network(image_BCHW))

    def _scaled(self, raw_BD: Tensor) -> Tensor:
        return self._scale * self.centres(raw_BD)


def train_afa(recipe: AfaRecipe, faces: Faces, out: Path) -> Path:
    """Train both stages, or go on where a killed run stopped, and return `out/recogniser.safetensors`, which `load_embedder` reads.

    Raises:
        UserError: fewer than two identities; an init that is no recogniser; see also `run_loop`.
    """
    names, label_N = np.unique(faces.identity_N, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"the data has {len(names)} identity, a recogniser needs at least 2 (one folder for each person)")
    network, config = _network(recipe)
    objective = fresh(lambda: AdversarialObjective(network, recipe, len(names), config.embed_dim), recipe.base.seed, "afa centres")
    if recipe.init is not None:
        objective.centres.weight.data = class_means(network, faces.image_NHWC, label_N)
    digest, settings = data_digest(faces.image_NHWC, label_N), recipe.model_dump(mode="json", exclude={"base", "fuse"})
    steps = [run_loop(objective, _batches(recipe, recipe.base, faces, label_N), recipe.base, out / "base", data=digest, settings=settings, label="adversarial training")]
    if isinstance(network, DualNetwork):
        network.calibrate(to_float(faces.image_NHWC[numpy_rng(recipe.fuse.seed, "calibrate").permutation(len(faces))[:CALIBRATED]]))
        fuse = FuseObjective(network, objective.centres, recipe)
        stage = {**settings, "base": recipe.base.model_dump(mode="json")}
        steps.append(run_loop(fuse, _batches(recipe, recipe.fuse, faces, label_N), recipe.fuse, out / "fuse", data=digest, settings=stage, label="fusing weight"))
    path = out / "recogniser.safetensors"
    save_network(path, network, config, facts={"recipe": recipe.model_dump(mode="json"), "steps": steps, "faces": len(label_N), "identities": len(names)})
    return path


def _network(recipe: AfaRecipe) -> tuple[nn.Module, BackboneConfig]:
    """Return the network to train and the settings it is stored with."""
    if recipe.init is None:
        config = recipe.backbone.model_copy(update={"dual": recipe.dual})
        return fresh(config.build, recipe.base.seed, "afa"), config
    network, config, _ = load_recogniser(weights_path(recipe.init))
    if config.dual is None and recipe.dual is not None:
        network = fresh(lambda: DualNetwork(network, recipe.dual), recipe.base.seed, "afa")
        config = config.model_copy(update={"dual": recipe.dual})
    elif config.dual is not None and recipe.dual is None:
        raise UserError(f"init: {recipe.init} has dual normalisation, the recipe says dual: null; begin from an ordinary recogniser, or leave 'dual' out")
    return network, config


def _batches(recipe: AfaRecipe, loop: LoopConfig, faces: Faces, label_N: np.ndarray) -> Batches:
    return Batches(faces.image_NHWC, torch.from_numpy(label_N.astype(np.int64)), batch=loop.batch, seed=loop.seed, changes=recipe.augment)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode and back."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
