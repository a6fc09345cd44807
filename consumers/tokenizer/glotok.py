"""GloTok: a face as two grids of tokens, semantic and visual, behind the house's autoencoder interface (consumers.md §7).

From the paper: convolutional VQGAN encoder and decoder, two adapters, two codebooks of short rows (8 numbers) looked up by cosine or distance, one
transformer block a book that refines what was quantised, the decoder reading both side by side. The paper's code is not public; reconstructed here [C]: the
1×1 adapters, the refinement's width, the pixel folding that makes it affordable on a CPU (`fold` 1 = the paper's). The convolutions and the quantiser are
diffusers'. Axes: B faces, D numbers of a code, K rows of a book, H W positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ...core.check import check
from ...core.config import Config
from ...core.errors import UserError
from ...core.files import weights_path
from ...core.weights import load_into, load_weights, save_weights
from ...generators.registry import AUTOENCODERS
from .residual import ResidualRefinement, residual_loss

BOOKS = ("semantic", "visual")


@AUTOENCODERS.register("glotok")
class GloTokConfig(Config):
    """Sizes; the paper's are fold 1, four halvings of 256 pixels, books of 4,096 and 12,288.

    Attributes:
        side: size in pixels at which the network works; faces are resized to it and back.
        fold: pixels fold × fold become channels before the first convolution.
        widths: channels of the levels; each level after the first halves the side.
        blocks: residual blocks a level; one more on the way up.
        groups: of the group normalisation; divides every width.
        code_dim: numbers of a codebook row.
        semantic, visual: rows of the two books.
        lookup: nearest by cosine (rows and encoder outputs are brought to length 1) or by Euclidean distance.
        beta: weight of the commitment ‖sg[Ẑ] - Z‖².
        residual: whether quantised codes are refined.
        residual_width: of the refining block.
    """

    name: Literal["glotok"] = "glotok"
    side: int = Field(112, ge=8)
    fold: int = Field(4, ge=1)
    widths: tuple[int, ...] = Field((64, 128), min_length=1)
    blocks: int = Field(1, ge=1)
    groups: int = Field(16, ge=1)
    code_dim: int = Field(8, ge=2)
    semantic: int = Field(512, ge=2, le=65536)
    visual: int = Field(1024, ge=2, le=65536)
    lookup: Literal["cosine", "euclidean"] = "cosine"
    beta: float = Field(0.25, ge=0)
    residual: bool = True
    residual_width: int = Field(64, ge=32)

    @model_validator(mode="after")
    def _tokens_tile_the_face(self) -> Self:
        step = self.fold * 2 ** (len(self.widths) - 1)
        if self.side % step:
            raise ValueError(f"side {self.side} with fold {self.fold} and {len(self.widths)} levels: expected a side that {step} divides")
        if any(width % self.groups for width in self.widths) or self.residual_width % 32:
            raise ValueError(f"widths {self.widths}, residual_width {self.residual_width}: expected multiples of groups ({self.groups}) and of 32")
        return self

    @property
    def grid(self) -> int:
        """Tokens a side, of either book."""
        return self.side // (self.fold * 2 ** (len(self.widths) - 1))

    def build(self) -> GloTok:
        """Return the network with random weights."""
        return GloTok(self)

    @classmethod
    def tiny(cls) -> GloTok:
        """A random network that builds in a moment; for tests only."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return cls(fold=8, widths=(16, 16), groups=4, semantic=12, visual=20, residual_width=32).build()


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantised:
    """What the books make of encoder outputs.

    Attributes:
        code_BDHW: both books' codes side by side, (B, 2 D, H, W), refined where the network refines: what the decoder reads. Straight-through: their
            gradient passes to the encoder.
        plain_BDHW: the same before refinement.
        token_B2HW: row of the semantic, then of the visual book, int64.
        commitment: L_Q, sum of both books.
        residual: L_res, sum of both books; 0 without refinement.
    """

    code_BDHW: Tensor
    plain_BDHW: Tensor
    token_B2HW: Tensor
    commitment: Tensor
    residual: Tensor


class UnitRows(nn.Module):
    """Parametrisation: the rows of a matrix at length 1."""

    def forward(self, row_KD: Tensor) -> Tensor:
        return F.normalize(row_KD, dim=1)


class GloTok(nn.Module):
    """Faces ↔ tokens ↔ faces.

    As a first stage: `encode` gives what the encoder says, not quantised and of about unit variance; `decode` quantises (as `generators.vq` does).

    Attributes:
        latent_shape: (2 D, grid, grid), semantic channels first.
    """

    def __init__(self, config: GloTokConfig) -> None:
        super().__init__()
        from diffusers.models.autoencoders.vae import Decoder, Encoder  # a second of imports, for those who use it

        self.config = config
        levels, pixels, codes = len(config.widths), 3 * config.fold**2, 2 * config.code_dim
        self.encoder = Encoder(pixels, config.widths[-1], ("DownEncoderBlock2D",) * levels, config.widths, config.blocks, config.groups, double_z=False)
        self.adapters = nn.ModuleList(nn.Conv2d(config.widths[-1], config.code_dim, 1) for _ in BOOKS)
        self.books = nn.ModuleList(_book(rows, config) for rows in (config.semantic, config.visual))
        self.decoder = Decoder(codes, pixels, ("UpDecoderBlock2D",) * levels, config.widths, config.blocks, config.groups)
        # Last: with refinement or without, the same seed gives the other parts the same first weights.
        refining = [ResidualRefinement(config.code_dim, config.grid**2, config.residual_width) for _ in BOOKS] if config.residual else []
        self.refine = nn.ModuleList(refining)
        self.latent_shape = (codes, config.grid, config.grid)
        # Codes of length 1 have variance 1/D a channel: a denoiser expects about 1.
        self.spread = config.code_dim**-0.5 if config.lookup == "cosine" else 1.0

    def rows(self, book: int) -> Tensor:
        """Return a codebook, (K, D); of length 1 where looked up by cosine."""
        return self.books[book].embedding.weight

    def codes(self, image_BCHW: Tensor) -> Tensor:
        """Faces → encoder outputs Z of both books, (B, 2 D, H, W) float32, at length 1 each where looked up by cosine."""
        features = self._features(image_BCHW)
        return self._unit(torch.cat([adapter(features) for adapter in self.adapters], 1).float())

    @torch.no_grad()
    def settle(self, image_BCHW: Tensor) -> None:
        """Turn and scale the adapters so that, before any training, the outputs for these faces have mean 0 and covariance 1 [C].

        A random encoder says nearly the same everywhere: its outputs share one direction (mean cosine .9), and so do rows that restart at them, against
        all that the histogram asks of the book.
        """
        features_NC = self._features(image_BCHW).movedim(1, -1).flatten(0, 2)
        for adapter in self.adapters:
            weight_DC = adapter.weight[:, :, 0, 0]
            output_ND = (features_NC @ weight_DC.T + adapter.bias).double()
            variance_D, axis_DD = torch.linalg.eigh(torch.cov(output_ND.T))
            floor = 1e-6 * float(variance_D.max()) + 1e-12  # a direction in which these faces hardly differ stays quiet
            whiten_DD = (axis_DD * variance_D.clamp_min(floor).rsqrt() @ axis_DD.T).to(weight_DC)
            adapter.weight.copy_((whiten_DD @ weight_DC)[:, :, None, None])
            adapter.bias.copy_(whiten_DD @ (adapter.bias - output_ND.mean(0).to(adapter.bias)))

    def quantise(self, code_BDHW: Tensor) -> Quantised:
        """Replace each position's two codes by the nearest rows, and refine them."""
        found = [self._from_book(number, part_BDHW) for number, part_BDHW in enumerate(code_BDHW.float().chunk(2, 1))]
        refined, plain, token, commitment, residual = zip(*found)
        return Quantised(code_BDHW=torch.cat(refined, 1), plain_BDHW=torch.cat(plain, 1), token_B2HW=torch.stack(token, 1), commitment=sum(commitment), residual=sum(residual))

    def draw(self, code_BDHW: Tensor) -> Tensor:
        """Quantised, refined codes → faces (B, 3, 112, 112), about [-1, 1] (not clamped)."""
        return _resized(F.pixel_shuffle(self.decoder(code_BDHW).float(), self.config.fold), 112)

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, 112, 112) in [-1, 1] → latents (B, 2 D, grid, grid), for denoisers."""
        return self.codes(image_BCHW) / self.spread

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Latents → nearest codes → faces (B, 3, 112, 112), about [-1, 1]."""
        return self.draw(self.quantise(self._unit(latent_BCHW.float() * self.spread)).code_BDHW)

    def tokens(self, image_BCHW: Tensor) -> Tensor:
        """Faces → int64 (B, 2, grid, grid), the semantic book's rows first."""
        return self.quantise(self.codes(image_BCHW)).token_B2HW

    def embed(self, token_B2HW: Tensor) -> Tensor:
        """Tokens → the rows they name side by side, before refinement, (B, 2 D, H, W).

        Raises:
            UserError: a token that its book does not have.
        """
        check("token_B2HW", token_B2HW, f"B 2 {self.config.grid} {self.config.grid}")
        parts = []
        for number, name in enumerate(BOOKS):
            token_BHW, rows_KD = token_B2HW[:, number].long(), self.rows(number)
            if token_BHW.numel() and not 0 <= int(token_BHW.min()) <= int(token_BHW.max()) < len(rows_KD):
                raise UserError(f"{name} tokens {int(token_BHW.min())} to {int(token_BHW.max())}, but the book has rows 0 to {len(rows_KD) - 1}; decode them with the tokenizer that made them")
            parts.append(F.embedding(token_BHW, rows_KD).movedim(-1, 1))
        return torch.cat(parts, 1)

    def decode_tokens(self, token_B2HW: Tensor) -> Tensor:
        """Tokens (B, 2, grid, grid) → faces (B, 3, 112, 112), about [-1, 1]."""
        plain_BDHW = self.embed(token_B2HW)
        return self.draw(self._refined(plain_BDHW))

    def _from_book(self, number: int, code_BDHW: Tensor) -> tuple[Tensor, ...]:
        book = self.books[number]
        with torch.autocast(code_BDHW.device.type, enabled=False):
            plain_BDHW, commitment, (_, _, token_BHW) = book(code_BDHW)
        if not self.refine:
            return plain_BDHW, plain_BDHW, token_BHW, commitment, commitment.new_zeros(())
        row_BDHW = F.embedding(token_BHW, self.rows(number)).movedim(-1, 1)
        residual = residual_loss(code_BDHW, row_BDHW, self.refine[number](row_BDHW))
        return plain_BDHW + self.refine[number](plain_BDHW), plain_BDHW, token_BHW, commitment, residual

    def _refined(self, plain_BDHW: Tensor) -> Tensor:
        return torch.cat([part + refine(part) for part, refine in zip(plain_BDHW.chunk(2, 1), self.refine)], 1) if self.refine else plain_BDHW

    def _features(self, image_BCHW: Tensor) -> Tensor:
        return self.encoder(F.pixel_unshuffle(_resized(image_BCHW, self.config.side), self.config.fold))

    def _unit(self, code_BDHW: Tensor) -> Tensor:
        if self.config.lookup == "euclidean":
            return code_BDHW
        return torch.cat([F.normalize(part, dim=1) for part in code_BDHW.chunk(2, 1)], 1)


def save_glotok(path: Path, network: GloTok, *, facts: Mapping[str, Any]) -> None:
    """Write the tokenizer as safetensors of kind "autoencoder": `generators.train.load_autoencoder` reads it too."""
    save_weights(path, network, kind="autoencoder", config=network.config.model_dump(mode="json"), facts=dict(facts))


def load_glotok(path: Path | str) -> tuple[GloTok, dict[str, Any]]:
    """Return a tokenizer in evaluation mode and the facts of its file.

    Raises:
        UserError: no such file, another kind of weights, or an autoencoder of another class.
    """
    place = weights_path(str(path))
    tensors, config, facts = load_weights(place, kind="autoencoder")
    if config.get("name") != "glotok":
        raise UserError(f"{place} is an autoencoder of the class '{config.get('name', 'patch')}', expected a tokenizer ('glotok') that `facefoundry tokenizer train` wrote")
    network = GloTokConfig.parse(config, source=f"header of {place}").build()
    load_into(network, tensors, place)
    return network.eval(), facts


def _book(rows: int, config: GloTokConfig) -> nn.Module:
    from diffusers.models.autoencoders.vae import VectorQuantizer

    book = VectorQuantizer(rows, config.code_dim, config.beta, sane_index_shape=True, legacy=False)  # legacy puts β on the wrong term
    if config.lookup == "cosine":
        nn.init.normal_(book.embedding.weight, std=0.05)  # short rows turn quickly under Adam, whose steps have one length
        nn.utils.parametrize.register_parametrization(book.embedding, "weight", UnitRows())
    return book


def _resized(image_BCHW: Tensor, side: int) -> Tensor:
    return image_BCHW if image_BCHW.shape[-1] == side else F.interpolate(image_BCHW, (side, side), mode="bilinear", antialias=True)
