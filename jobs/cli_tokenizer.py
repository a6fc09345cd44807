"""The tokenizer verbs: train, encode, decode, sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show
from .cli_train import Data, Out, Recipe, Settings
from .options import Json

tokenizer_app = typer.Typer(help="Faces as tokens (GloTok): train a tokenizer, encode faces, decode tokens, draw faces.", no_args_is_help=True)

Weights = Annotated[str, typer.Option(help="The glotok.safetensors that `tokenizer train` wrote.")]
Rows = Annotated[int, typer.Option(min=1, help="Faces on strip.png.")]
Faces = Annotated[Path, typer.Argument(help="Aligned faces: folder per identity, a zip of that, a dataset folder, or a .rec file.")]
Tokens = Annotated[Path, typer.Argument(help="tokens.npz, the folder that holds it, or a dataset folder with the columns token_sem and token_vis.")]
Encoded = Annotated[Path, typer.Option(help="New folder: tokens.npz, strip.png, report.json and, of a dataset folder, dataset/ with the tokens as columns.")]
Decoded = Annotated[Path, typer.Option(help="New folder: a PNG for each face under its own name, and strip.png.")]


@tokenizer_app.command("train")
def train_tokenizer_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = [], json: Json = False) -> None:  # noqa: B006 (typer copies it)
    """Train a tokenizer and, with the key `model`, an autoregressive model over its tokens."""
    from ..consumers.tokenizer.train import TokenizerRecipe
    from ..identity.sources import load_faces
    from .tokenizer import train_on

    paths = train_on(TokenizerRecipe.load(recipe, settings), load_faces(data), out)
    show.written(paths, "Trained", json, f"Use it: facefoundry tokenizer encode FACES --weights {paths['tokenizer']} --out tokens")


@tokenizer_app.command("encode")
def encode_verb(faces: Faces, weights: Weights, out: Encoded, rows: Rows = 12, json: Json = False) -> None:
    """Turn faces into tokens and say what comes back of them: rFID, PSNR, SSIM, perceptual distance, identity, use of the books."""
    from .tokenizer import encode_faces

    show.written(encode_faces(faces, weights, out, rows=rows), "Encoded", json)


@tokenizer_app.command("decode")
def decode_verb(tokens: Tokens, weights: Weights, out: Decoded, rows: Rows = 12, json: Json = False) -> None:
    """Turn tokens back into faces."""
    from .tokenizer import decode_tokens

    show.written(decode_tokens(tokens, weights, out, rows=rows), "Decoded", json)


@tokenizer_app.command("sample")
def sample_verb(
    weights: Annotated[Path, typer.Option(help="The folder that `tokenizer train` wrote, or its glotok.safetensors; the model over the tokens lies in model/.")],
    out: Annotated[Path, typer.Option(help="New dataset folder, with contact_sheet.png.")],
    people: Annotated[int, typer.Option(min=1, help="How many identities, of those the model was trained on.")] = 8,
    per: Annotated[int, typer.Option(min=1, help="Faces of each.")] = 8,
    seed: Annotated[int, typer.Option(help="Which identities, and which faces of them.")] = 0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw each token among so many likeliest; 0 = all.")] = 100,
    temperature: Annotated[float, typer.Option(help="Below 1: likelier tokens; above 1: more variety.")] = 1.0,
    json: Json = False,
) -> None:
    """Draw faces from the model over the tokens: new pictures of the people it was trained on."""
    from .tokenizer_sample import Drawing, sample_dataset

    made = sample_dataset(weights, out, people=people, per=per, drawing=Drawing(seed=seed, top_k=top_k, temperature=temperature))
    show.written(made, "Drawn", json, f"Look at it: {made['picture']}")
