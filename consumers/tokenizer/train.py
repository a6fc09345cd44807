"""Training of a tokenizer through the house's loop: reconstruction, perception, a patch critic, and GloTok's two terms.

L = λ_R ‖x - x̂‖² + λ_Q L_Q + λ_P L_perc + λ_G L_adv + λ_res L_res + λ_hist L_hist (consumers.md §7). From the paper: λ_res = .5, λ_hist = .01, a constant rate of
2e-4, Adam. Choices [C], VQGAN's (Esser et al., CVPR 2021): β = .25, λ_R = λ_Q = 1, λ_G adaptive and switched on late; λ_P = .2 (our distance
lacks LPIPS's learned weights and is five times larger); dead rows restart, at outputs that are spread out before the first step (`GloTok.settle`); the
histogram learns on the semantic book, of a random subset of its rows each step. AdamW has torch's betas here, not the paper's (.9, .95). Axes: B faces, K rows, N bins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.adversarial import PatchCritic, adaptive_weight, game
from ...core.config import Config
from ...core.device import autocast
from ...core.perceptual import perceptual_loss
from ...core.images import to_float
from ...core.seeds import derive_seed, numpy_rng
from ...core.training import LoopConfig, data_digest, fresh, run_loop
from ...generators.train import FaceBatches
from ...recognition.feature_maps import MobileFaceNetMaps
from .autoregressive_train import TokenModelRecipe
from .glotok import BOOKS, GloTok, GloTokConfig, save_glotok
from .histogram_relation import histogram_divergence, log_histogram
from .restart import RowRestart
from .teacher import open_teacher, teacher_book

RESULT = "glotok.safetensors"
SETTLE = 64
"""Faces whose outputs the adapters are settled by."""


class TokenizerWeights(Config):
    """The terms of the loss.

    Attributes:
        rec, quantise, perceptual, residual, histogram: λ_R, λ_Q, λ_P, λ_res, λ_hist.
        gan: factor on the adaptive weight of the critic's term (VQGAN: .8; .5 in a later recipe); 0 = no critic.
        gan_from: share of the steps after which the critic plays.
        perceptual_share: share of a step's faces the perceptual network looks at; it costs more than the tokenizer.
        histogram_rows: rows of the semantic book that a step's histogram is taken of.
    """

    rec: float = Field(1.0, ge=0)
    quantise: float = Field(1.0, ge=0)
    perceptual: float = Field(0.2, ge=0)
    residual: float = Field(0.5, ge=0)
    histogram: float = Field(0.01, ge=0)
    gan: float = Field(0.5, ge=0)
    gan_from: float = Field(0.5, ge=0, le=1)
    perceptual_share: float = Field(0.5, gt=0, le=1)
    histogram_rows: int = Field(256, ge=2)


class TokenizerRecipe(Config):
    """A training file: `facefoundry tokenizer train RECIPE --data FACES`.

    Attributes:
        tokenizer: network (`GloTokConfig`).
        teacher: "recogniser", or "dinov2:FOLDER".
        weights: of the loss.
        critic: channels of the patch critic's first layer.
        restart_every: steps after which unused rows begin anew (`restart`), during the first two thirds of the training; 0 = never.
        loop: see `LoopConfig`.
        model: the autoregressive model over the tokens, trained after the tokenizer; None = none.
    """

    name: str = "glotok"
    tokenizer: GloTokConfig = GloTokConfig()
    teacher: str = "recogniser"
    weights: TokenizerWeights = TokenizerWeights()
    critic: int = Field(16, ge=1)
    restart_every: int = Field(20, ge=0)
    loop: LoopConfig
    model: TokenModelRecipe | None = None


class TokenizerObjective(nn.Module):
    """forward(image_BCHW, row_BK, play_B) → losses.

    Args:
        target_log_N: logarithm of the teacher's histogram.
        steps: of the whole training.
    """

    def __init__(self, network: GloTok, recipe: TokenizerRecipe, target_log_N: Tensor, steps: int) -> None:
        super().__init__()
        self.network, self._recipe = network, recipe
        self.critic = PatchCritic(recipe.critic) if recipe.weights.gan else None
        self.register_buffer("target_log_N", target_log_N, persistent=False)
        every, sizes = recipe.restart_every, (recipe.tokenizer.semantic, recipe.tokenizer.visual)
        self.restarts = nn.ModuleList(RowRestart(rows, every=every, until=2 * steps // 3, seed=derive_seed(recipe.loop.seed, name)) for name, rows in zip(BOOKS, sizes) if every)
        self._last: tuple[Tensor, Tensor] | None = None
        self._eyes = [MobileFaceNetMaps()] if recipe.weights.perceptual else []  # in a list: no part of the module, neither trained nor stored

    def forward(self, image_BCHW: Tensor, row_BK: Tensor, play_B: Tensor) -> dict[str, Tensor]:
        """Return "loss" and its parts.

        Args:
            row_BK: rows of the semantic book whose histogram is taken; every line holds the same.
            play_B: whether the critic plays; every entry says the same.
        """
        weights = self._recipe.weights
        with autocast(image_BCHW.device, self._recipe.loop.precision):
            code_BDHW = self.network.codes(image_BCHW)
            found = self.network.quantise(code_BDHW)
            back_BCHW = self.network.draw(found.code_BDHW)
        self._last = (code_BDHW.detach(), found.token_B2HW)
        parts = {"rec": (back_BCHW - image_BCHW).square().mean(), "quantise": found.commitment}
        if self._eyes:
            parts["perceptual"] = perceptual_loss(self._eyes[0], back_BCHW, image_BCHW, weights.perceptual_share)
        if self.network.refine:
            parts["residual"] = found.residual
        if weights.histogram:
            parts["histogram"] = histogram_divergence(log_histogram(self.network.rows(0)[row_BK[0]]), self.target_log_N)
        loss = sum(getattr(weights, name) * part for name, part in parts.items())
        if self.critic is not None:
            game, played = self._game(weights.rec * parts["rec"], back_BCHW, image_BCHW, bool(play_B[0]))
            loss, parts = loss + game, {**parts, **played}
        psnr = -10 * torch.log10(parts["rec"].detach() / 4)
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}, "psnr_db": psnr}

    def after_step(self, rate: float, scale: float) -> None:
        """Restart the books' unused rows; the loop calls it after the optimiser's step."""
        if self._last is None:
            return
        code_BDHW, token_B2HW = self._last
        for number, (restart, part_BDHW) in enumerate(zip(self.restarts, code_BDHW.chunk(2, 1))):
            restart(self.network.books[number].embedding, part_BDHW.movedim(1, -1).flatten(0, 2), token_B2HW[:, number].flatten())

    def _game(self, rec: Tensor, back_BCHW: Tensor, image_BCHW: Tensor, play: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critic's part of the loss and its figures."""
        if not play:  # several processes must still see every weight in the graph
            return 0.0 * sum(weight.sum() for weight in self.critic.parameters()), {}
        gan, critic = game(self.critic, image_BCHW, back_BCHW)
        weight = adaptive_weight(rec, gan, self.network.decoder.conv_out.weight)
        return self._recipe.weights.gan * weight * gan + critic, {"gan": gan, "critic": critic, "gan_weight": weight}


class TokenizerBatches:
    """Faces, mirrored half the time, the rows of the step's histogram, and whether the critic plays."""

    def __init__(self, image_NHWC: np.ndarray, recipe: TokenizerRecipe) -> None:
        self._faces, self._recipe = FaceBatches(image_NHWC, recipe.loop, (0, 0, 0)), recipe
        self.steps_per_epoch = self._faces.steps_per_epoch
        self._plays_from = recipe.weights.gan_from * recipe.loop.total_steps(self)

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return what `TokenizerObjective` takes."""
        image_BCHW, _ = self._faces(step, rank, world)
        rows, wanted = self._recipe.tokenizer.semantic, self._recipe.weights.histogram_rows
        row_K = torch.from_numpy(numpy_rng(self._recipe.loop.seed, step, "histogram").permutation(rows)[:wanted])
        return image_BCHW, row_K.expand(len(image_BCHW), -1), torch.full((len(image_BCHW),), step >= self._plays_from)


def train_tokenizer(recipe: TokenizerRecipe, image_NHWC: np.ndarray, out: Path, *, book_KD: np.ndarray | None = None) -> Path:
    """Train a tokenizer; return its weights file. A run found in `out` is continued.

    Args:
        image_NHWC: uint8 aligned faces, (N, 112, 112, 3).
        book_KD: the teacher's centres, where they are made already; None = made of the recipe's teacher.

    Raises:
        UserError: `out` holds the state of a training with another recipe or other faces; or fewer faces than a batch.
    """
    batches = TokenizerBatches(image_NHWC, recipe)
    if book_KD is None:
        book_KD = kept_teacher_book(recipe, image_NHWC, out)
    target_log_N = log_histogram(torch.from_numpy(book_KD))
    network = fresh(recipe.tokenizer.build, recipe.loop.seed, "tokenizer")
    network.settle(to_float(image_NHWC[np.sort(numpy_rng(recipe.loop.seed, "settle").permutation(len(image_NHWC))[:SETTLE])]))
    objective = fresh(lambda: TokenizerObjective(network, recipe, target_log_N, recipe.loop.total_steps(batches)), recipe.loop.seed, "critic")
    settings = {**recipe.model_dump(mode="json", exclude={"loop", "model"}), "target": data_digest(target_log_N.numpy())}
    steps = run_loop(objective, batches, recipe.loop, out, data=data_digest(image_NHWC), settings=settings, label="tokenizer")
    facts = {"steps": steps, "batch": recipe.loop.batch, "images": len(image_NHWC), "teacher": recipe.teacher, "weights": recipe.weights.model_dump(mode="json")}
    save_glotok(out / RESULT, network, facts=facts)
    return out / RESULT


def kept_teacher_book(recipe: TokenizerRecipe, image_NHWC: np.ndarray, out: Path) -> np.ndarray:
    """Return the teacher's centres for these faces, kept in `out` under a name that tells teacher and faces."""
    settings: tuple[Any, ...] = (recipe.teacher, recipe.tokenizer.semantic, recipe.loop.seed)
    path = out / f"teacher-{data_digest(image_NHWC[:: max(1, len(image_NHWC) // 64)], np.frombuffer(repr(settings).encode(), np.uint8))[:16]}.npy"
    if path.is_file():
        return np.load(path)
    book_KD = teacher_book(open_teacher(recipe.teacher), image_NHWC, recipe.tokenizer.semantic, seed=recipe.loop.seed)
    out.mkdir(parents=True, exist_ok=True)
    np.save(path, book_KD)
    return book_KD
