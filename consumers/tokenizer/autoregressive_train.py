"""Training of the autoregressive model over tokens: every face tokenised once, upright and mirrored, then cross-entropy of both books.

Axes: N faces, M = 2 N their mirror images too, B of a step, L positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.check import check
from ...core.config import Config
from ...core.device import autocast
from ...core.errors import UserError
from ...core.files import sha256_file
from ...core.images import to_float
from ...core.progress import track
from ...core.seeds import numpy_rng
from ...core.training import LoopConfig, data_digest, fresh, run_loop, step_rows
from .autoregressive import TokenModel, TokenModelConfig, save_token_model
from .glotok import GloTok, load_glotok

RESULT = "tokens.safetensors"


class TokenModelRecipe(Config):
    """Size and loop; see `TokenModelConfig` and `LoopConfig`."""

    network: TokenModelConfig = TokenModelConfig()
    loop: LoopConfig


class TokenObjective(nn.Module):
    """forward(token_BL2, label_B) → mean cross-entropy of the two books, in nats a token, and each one's."""

    def __init__(self, network: TokenModel, recipe: TokenModelRecipe) -> None:
        super().__init__()
        self.network, self._precision = network, recipe.loop.precision

    def forward(self, token_BL2: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        with autocast(token_BL2.device, self._precision):
            logits = self.network(label_B, token_BL2)
        semantic, visual = (F.cross_entropy(logit_BLK.float().flatten(0, 1), token_BL2[..., book].flatten()) for book, logit_BLK in enumerate(logits))
        return {"loss": (semantic + visual) / 2, "semantic": semantic.detach(), "visual": visual.detach()}


class TokenBatches:
    """Tokens of upright faces or, half the time, of their mirror images."""

    def __init__(self, token_ML2: np.ndarray, label_N: np.ndarray, loop: LoopConfig) -> None:
        self._token_ML2, self._label_N, self._loop = token_ML2, label_N, loop
        self.steps_per_epoch = len(label_N) // loop.batch
        if not self.steps_per_epoch:
            raise UserError(f"the data has {len(label_N)} faces, less than one batch of {loop.batch}; pass more faces or a smaller 'batch'")

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return tokens (B, L, 2) and classes (B,), int64."""
        rows = step_rows(len(self._label_N), self._loop.batch, step, self._loop.seed)[rank::world]
        mirrored = numpy_rng(self._loop.seed, step, "mirror", rank).random(len(rows)) < 0.5
        return torch.from_numpy(self._token_ML2[rows + len(self._label_N) * mirrored].astype(np.int64)), torch.from_numpy(self._label_N[rows].astype(np.int64))


@torch.inference_mode()
def tokens_of(tokenizer: GloTok, image_NHWC: np.ndarray, *, mirrored: bool = False, batch: int = 64) -> np.ndarray:
    """Return the tokens of faces (of their mirror images), uint16 (N, 2, grid, grid), the semantic book's first."""
    check("image_NHWC", image_NHWC, "N 112 112 3")
    parts = [np.empty((0, 2, tokenizer.config.grid, tokenizer.config.grid), np.uint16)]
    for begin in track(range(0, len(image_NHWC), batch), "tokens"):
        image_BCHW = to_float(image_NHWC[begin : begin + batch])
        parts.append(tokenizer.tokens(image_BCHW.flip(-1) if mirrored else image_BCHW).numpy().astype(np.uint16))
    return np.concatenate(parts)


def train_token_model(recipe: TokenModelRecipe, tokenizer_path: Path, image_NHWC: np.ndarray, label_N: np.ndarray, out: Path, *, names: Sequence[str] = ()) -> Path:
    """Train a model over the tokens of faces, a class the identity; return its weights file. A run found in `out` is continued.

    Args:
        label_N: classes from 0 on.
        names: the classes' names, for the facts.

    Raises:
        UserError: `out` holds the state of another training; or fewer faces than a batch.
    """
    tokenizer, _ = load_glotok(tokenizer_path)
    token_M2HW = np.concatenate([tokens_of(tokenizer, image_NHWC), tokens_of(tokenizer, image_NHWC, mirrored=True)])
    token_ML2 = np.ascontiguousarray(token_M2HW.reshape(len(token_M2HW), 2, -1).transpose(0, 2, 1))
    config = recipe.network.for_tokenizer(tokenizer, int(label_N.max()) + 1)
    model = fresh(lambda: TokenModel(config), recipe.loop.seed, "token model")
    model.learn_books(tokenizer)
    settings = {**config.model_dump(mode="json"), "tokenizer": sha256_file(tokenizer_path)}
    steps = run_loop(TokenObjective(model, recipe), TokenBatches(token_ML2, label_N, recipe.loop), recipe.loop, out, data=data_digest(token_ML2, label_N), settings=settings, label="token model")
    facts = {"steps": steps, "batch": recipe.loop.batch, "images": len(label_N), "tokenizer_sha256": settings["tokenizer"], "classes": list(names)}
    save_token_model(out / RESULT, model, facts=facts)
    return out / RESULT
