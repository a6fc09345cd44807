"""The privacy verbs: train (image methods and SlerpFace), evaluate, compare."""

from __future__ import annotations

from typing import Annotated

import typer

from . import show
from .cli_privacy_attack import compare, evaluate
from .cli_train import Data, Out, Recipe, Settings
from .options import Json

privacy_app = typer.Typer(help="Privacy-preserving recognition: train a method, attack it, compare methods.", no_args_is_help=True)
privacy_app.command()(evaluate)
privacy_app.command()(compare)


@privacy_app.command("train")
def train_privacy(
    method: Annotated[str, typer.Argument(help="dctdp, duetface, minusface, partialface or slerpface.")],
    recipe: Recipe,
    data: Data,
    out: Out,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    json: Json = False,
) -> None:
    """Train the client part and the server part of a method on faces of known people."""
    from ..consumers.privacy.protected import PRIVACY_METHODS
    from ..identity.sources import load_faces

    chosen = PRIVACY_METHODS[method]
    checked = chosen.Recipe.load(recipe, settings)
    folder = chosen.train_on(checked, load_faces(data), out)
    files = {"client": folder / "client.safetensors", "server": folder / "server.safetensors"}
    show.written(files, "Trained", json, f"Attack it: facefoundry privacy evaluate --method {method} --weights {folder} --data VICTIMS --out REPORT")
