"""A small autoregressive model over a tokenizer's tokens, a class the identity: what a tokenizer is worth to whoever generates with it (consumers.md §7).

As in the paper the model reads the two books' rows side by side, not indices; its backbones there (FAR, xAR) draw continuous codes, here a plain causal
transformer draws tokens [C]: at each position the semantic one, then the visual one given it (the order of FQGAN's head). Axes: B faces, L positions
row by row, C width, D numbers of a code, I classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ...core.config import Config
from ...core.errors import UserError
from ...core.progress import track
from ...core.seeds import derive_seed
from ...core.weights import load_into, load_weights, save_weights
from ...generators.attention import Attention, zeroed
from .glotok import GloTok

KIND = "token-model"


class TokenModelConfig(Config):
    """Sizes.

    Attributes:
        width: C, a multiple of head_dim.
        layers: transformer blocks.
        dropout: on embeddings and after attention and MLP.
        classes, rows, code_dim, grid: set by whoever builds it for a tokenizer (`for_tokenizer`).
    """

    width: int = Field(128, ge=32)
    layers: int = Field(4, ge=1)
    head_dim: int = Field(32, ge=8)
    dropout: float = Field(0.1, ge=0, lt=1)
    classes: int = Field(1, ge=1)
    rows: tuple[int, int] = (512, 1024)
    code_dim: int = Field(8, ge=2)
    grid: int = Field(14, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.head_dim:
            raise ValueError(f"width {self.width}, head_dim {self.head_dim}: expected a multiple")
        return self

    def for_tokenizer(self, tokenizer: GloTok, classes: int) -> TokenModelConfig:
        """Return the settings of a model of this size over the tokens of `tokenizer`."""
        about = tokenizer.config
        return self.model_copy(update={"classes": classes, "rows": (about.semantic, about.visual), "code_dim": about.code_dim, "grid": about.grid})


@dataclass
class KeyValueCache:
    """Keys and values of the positions already read, one pair a block, (B, heads, L, head_dim)."""

    held: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def extend(self, block: int, key_BNLH: Tensor, value_BNLH: Tensor) -> tuple[Tensor, Tensor]:
        """Add the newest positions of a block and return all of them."""
        if block in self.held:
            key_BNLH, value_BNLH = (torch.cat(pair, 2) for pair in zip(self.held[block], (key_BNLH, value_BNLH)))
        self.held[block] = (key_BNLH, value_BNLH)
        return key_BNLH, value_BNLH


class CausalAttention(Attention):
    """Self-attention in which a position sees itself and those before it."""

    def forward(self, x_BLC: Tensor, block: int, cache: KeyValueCache | None) -> Tensor:
        key_BNLH, value_BNLH = self.keys_and_values(x_BLC)
        if cache is not None:
            if cache.held.get(block) is not None and x_BLC.shape[1] != 1:
                raise ValueError(f"{x_BLC.shape[1]} positions over a filled cache, expected one at a time")
            key_BNLH, value_BNLH = cache.extend(block, key_BNLH, value_BNLH)
        whole = key_BNLH.shape[2] == x_BLC.shape[1]
        return self._merge(F.scaled_dot_product_attention(self._heads(self.query(x_BLC)), key_BNLH, value_BNLH, is_causal=whole and x_BLC.shape[1] > 1))


class CausalBlock(nn.Module):
    """Pre-norm attention and MLP, each adding to the stream."""

    def __init__(self, config: TokenModelConfig) -> None:
        super().__init__()
        width = config.width
        self.norm, self.mlp_norm, self.dropout = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.attention = CausalAttention(width, width, config.head_dim)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BLC: Tensor, block: int, cache: KeyValueCache | None) -> Tensor:
        x_BLC = x_BLC + self.dropout(self.attention(self.norm(x_BLC), block, cache))
        return x_BLC + self.dropout(self.mlp(self.mlp_norm(x_BLC)))


class TokenModel(nn.Module):
    """p(tokens | class), position by position.

    Args:
        config: with `classes`, `rows`, `code_dim`, `grid` set.
    """

    def __init__(self, config: TokenModelConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        for name, rows in zip(("semantic_rows", "visual_rows"), config.rows):
            self.register_buffer(name, torch.zeros(rows, config.code_dim))
        self.class_start = nn.Embedding(config.classes, width)
        self.code_in = nn.Linear(2 * config.code_dim, width)
        self.place = nn.Parameter(torch.randn(config.grid**2, width) * 0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(width)
        self.semantic_out = nn.Linear(width, config.rows[0])
        self.semantic_in = nn.Linear(config.code_dim, width)
        self.visual_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), zeroed(nn.Linear(width, config.rows[1])))

    def learn_books(self, tokenizer: GloTok) -> None:
        """Copy the books whose tokens the model reads; brought to unit variance, as the layers after them expect."""
        for number, rows_KD in enumerate((self.semantic_rows, self.visual_rows)):
            rows_KD.copy_(tokenizer.rows(number).detach() / tokenizer.spread)

    def forward(self, label_B: Tensor, token_BL2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of both books at all positions, (B, L, K) each, given the true tokens before (and for the visual one at) each."""
        hidden_BLC = self.hidden(self._start(label_B, token_BL2[:, :-1]))
        return self.semantic_out(hidden_BLC), self.visual(hidden_BLC, token_BL2[..., 0])

    def hidden(self, x_BLC: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Embedded inputs → what the heads read."""
        x_BLC = self.dropout(x_BLC)
        for number, block in enumerate(self.blocks):
            x_BLC = block(x_BLC, number, cache)
        return self.norm_out(x_BLC)

    def visual(self, hidden_BLC: Tensor, semantic_BL: Tensor) -> Tensor:
        """Logits of the visual book given the semantic token of the same position."""
        return self.visual_out(hidden_BLC + self.semantic_in(F.embedding(semantic_BL, self.semantic_rows)))

    def read(self, token_BL2: Tensor) -> Tensor:
        """Tokens → the two rows side by side, embedded, (B, L, C), without place."""
        return self.code_in(torch.cat([F.embedding(token_BL2[..., 0], self.semantic_rows), F.embedding(token_BL2[..., 1], self.visual_rows)], -1))

    def _start(self, label_B: Tensor, before_BL2: Tensor) -> Tensor:
        return torch.cat([self.class_start(label_B)[:, None], self.read(before_BL2)], 1) + self.place[: before_BL2.shape[1] + 1]

    @torch.inference_mode()
    def sample(self, label_B: Tensor, seeds: Sequence[int], *, top_k: int = 100, temperature: float = 1.0, cached: bool = True) -> Tensor:
        """Draw tokens for classes, int64 (B, 2, grid, grid); a face depends on (class, seed) alone.

        Args:
            label_B: int64 classes.
            top_k: of each distribution the most probable rows that may be drawn; 0 = all.
            temperature: divides the logits.
            cached: keep keys and values of earlier positions; off only to compare.

        Raises:
            UserError: a class the model does not have, or settings out of range.
        """
        self._check_request(label_B, seeds, top_k, temperature)
        chance_BL2 = torch.stack([torch.rand(len(self.place), 2, generator=torch.Generator().manual_seed(derive_seed(seed, "tokens")), dtype=torch.float64) for seed in seeds]).to(label_B.device)
        token_BL2, cache = torch.zeros(len(label_B), 0, 2, dtype=torch.int64, device=label_B.device), KeyValueCache() if cached else None
        for position in range(len(self.place)):
            x_BLC = self._start(label_B, token_BL2)
            hidden_BC = self.hidden(x_BLC[:, -1:] if cached else x_BLC, cache)[:, -1]
            semantic_B = drawn(self.semantic_out(hidden_BC), chance_BL2[:, position, 0], top_k, temperature)
            visual_B = drawn(self.visual(hidden_BC[:, None], semantic_B[:, None])[:, 0], chance_BL2[:, position, 1], top_k, temperature)
            token_BL2 = torch.cat([token_BL2, torch.stack([semantic_B, visual_B], 1)[:, None]], 1)
        return token_BL2.transpose(1, 2).unflatten(2, (self.config.grid, self.config.grid))

    def _check_request(self, label_B: Tensor, seeds: Sequence[int], top_k: int, temperature: float) -> None:
        if len(label_B) != len(seeds) or not len(seeds):
            raise UserError(f"{len(label_B)} classes and {len(seeds)} seeds; expected one seed a class, and at least one")
        if int(label_B.min()) < 0 or int(label_B.max()) >= self.config.classes:
            raise UserError(f"classes {int(label_B.min())} to {int(label_B.max())}, but the model was trained on 0 to {self.config.classes - 1}")
        if top_k < 0 or not temperature > 0:
            raise UserError(f"top_k {top_k}, temperature {temperature}; expected 0 or more, and above 0")


def drawn(logit_BK: Tensor, chance_B: Tensor, top_k: int, temperature: float) -> Tensor:
    """Return one row a face, (B,), by the inverse of the distribution function at `chance_B` in [0, 1)."""
    logit_BK = logit_BK.double() / temperature
    if 0 < top_k < logit_BK.shape[1]:
        logit_BK = logit_BK.masked_fill(logit_BK < logit_BK.topk(top_k, 1).values[:, -1:], -torch.inf)
    below_BK = logit_BK.softmax(1).cumsum(1)
    return torch.searchsorted(below_BK / below_BK[:, -1:], chance_B[:, None].contiguous(), right=True)[:, 0].clamp_max(logit_BK.shape[1] - 1)


@torch.inference_mode()
def sample_faces(model: TokenModel, tokenizer: GloTok, labels: Sequence[int], seeds: Sequence[int], *, batch: int = 64, top_k: int = 100, temperature: float = 1.0) -> Tensor:
    """Draw faces of classes, float32 (N, 3, 112, 112) in [-1, 1]."""
    parts = []
    for begin in track(range(0, len(labels), batch), "drawing tokens"):
        rows = slice(begin, begin + batch)
        token_B2HW = model.sample(torch.as_tensor(list(labels[rows])), list(seeds[rows]), top_k=top_k, temperature=temperature)
        parts.append(tokenizer.decode_tokens(token_B2HW).clamp(-1, 1))
    return torch.cat(parts)


def save_token_model(path: Path, model: TokenModel, *, facts: Mapping[str, Any]) -> None:
    """Write the model as safetensors; `facts` should name the tokenizer's file by its hash and the classes."""
    save_weights(path, model, kind=KIND, config=model.config.model_dump(mode="json"), facts=dict(facts))


def load_token_model(path: Path) -> tuple[TokenModel, dict[str, Any]]:
    """Return a model in evaluation mode and the facts of its file.

    Raises:
        UserError: no such file, or other weights.
    """
    tensors, config, facts = load_weights(path, kind=KIND)
    model = TokenModel(TokenModelConfig.parse(config, source=f"header of {path}"))
    load_into(model, tensors, path)
    return model.eval(), facts
