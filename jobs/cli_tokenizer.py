"""The tokenizer verbs: train, encode, decode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .cli_train import Data, Out, Recipe, Settings
from .options import Json

tokenizer_app = typer.Typer(help="Faces as tokens (GloTok): train a tokenizer, encode faces, decode tokens.", no_args_is_help=True)

Weights = Annotated[str, typer.Option(help="The glotok.safetensors that `tokenizer train` wrote.")]
Rows = Annotated[int, typer.Option(min=1, help="Faces on strip.png.")]


@tokenizer_app.command("train")
def train_tokenizer_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = [], json: Json = False) -> None:  # noqa: B006 (typer copies it)
    """Train a tokenizer and, with the key `model`, an autoregressive model over its tokens."""
    from ..consumers.tokenizer.train import TokenizerRecipe
    from ..identity.sources import load_faces
    from .tokenizer import train_on

    paths = train_on(TokenizerRecipe.load(recipe, settings), load_faces(data), out)
    show.written(paths, "Trained", json, f"Use it: facefoundry tokenizer encode FACES --weights {paths['tokenizer']} --out tokens")


@tokenizer_app.command("encode")
def encode_verb(
    faces: Annotated[Path, typer.Argument(help="Aligned faces: folder per identity, a zip of that, a dataset folder, or a .rec file.")],
    weights: Weights,
    out: Annotated[Path, typer.Option(help="New folder: tokens.npz, strip.png, report.json and, of a dataset folder, dataset/ with the tokens as columns.")],
    rows: Rows = 12,
    json: Json = False,
) -> None:
    """Turn faces into tokens and say what comes back of them: rFID, PSNR, SSIM, perceptual distance, identity, use of the books."""
    from .tokenizer import encode_faces

    _tell(encode_faces(faces, weights, out, rows=rows), json, "Encoded")


@tokenizer_app.command("decode")
def decode_verb(
    tokens: Annotated[Path, typer.Argument(help="tokens.npz, the folder that holds it, or a dataset folder with the columns token_sem and token_vis.")],
    weights: Weights,
    out: Annotated[Path, typer.Option(help="New folder: a PNG for each face under its own name, and strip.png.")],
    rows: Rows = 12,
    json: Json = False,
) -> None:
    """Turn tokens back into faces."""
    from .tokenizer import decode_tokens

    _tell(decode_tokens(tokens, weights, out, rows=rows), json, "Decoded")


def _tell(values: dict[str, Any], json: bool, title: str) -> None:
    show.as_json(values) if json else show.table(values.items(), title=title)
