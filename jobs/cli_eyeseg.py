"""The verbs about eyes: eyeseg train, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show
from .cli_train import Out, Recipe, Settings
from .options import Json

eyeseg_app = typer.Typer(help="Parts of eyes with an uncertainty, and where they look: train a segmenter, use it.", no_args_is_help=True)


@eyeseg_app.command("train")
def train_eyeseg_verb(
    recipe: Recipe,
    out: Out,
    photos: Annotated[Path | None, typer.Option(help="Photographs to learn from beside the rendered eyes: images/NAME.jpg, and masks/NAME.png with 0 background, 1 sclera, 2 iris, 3 pupil.")] = None,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    json: Json = False,
) -> None:
    """Train a segmenter of eyes on rendered ones, on photographs, or on both."""
    from ..consumers.segmentation.train import EyeSegRecipe, train_eyeseg

    path = train_eyeseg(EyeSegRecipe.load(recipe, settings), out, photos)
    show.written({"segmenter": path}, "Trained", json, f"Use it: facefoundry eyeseg predict PICTURES --model {path} --out seen")


@eyeseg_app.command("predict")
def predict_verb(
    sources: Annotated[list[Path], typer.Argument(help="Pictures of eyes: files, folders or zips; or a dataset folder of aligned faces, whose eyes are cut out.")],
    out: Annotated[Path, typer.Option(help="Folder of masks/, eyes.csv, overlay.png, report.json and, of a dataset folder, dataset/ with uncertainty and gaze as columns.")],
    model: Annotated[str, typer.Option(help="eyeseg-small, or the eyeseg.safetensors of `eyeseg train`.")] = "eyeseg-small",
    faces: Annotated[bool, typer.Option("--faces", help="The pictures are aligned 112x112 faces: look at both eyes of each.")] = False,
    pictures: Annotated[int, typer.Option(min=0, help="Eyes on overlay.png, the first ones.")] = 24,
    json: Json = False,
) -> None:
    """Find sclera, iris and pupil, how sure that is (0 = sure, by pixel and picture), and the gaze."""
    from .eyes import predict_eyes

    report = predict_eyes(sources, model, out, faces=faces, pictures=pictures)
    show.as_json(report) if json else show.table(report.items(), title="Eyes")
