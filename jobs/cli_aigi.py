"""The verbs about generated faces: aigi train, detect, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show
from .cli_train import Out, Recipe, Settings
from .options import Json

aigi_app = typer.Typer(help="Tell generated faces from real ones: train a detector, use it, judge it.", no_args_is_help=True)

Real = Annotated[list[str], typer.Option("--real", help="Aligned real faces, FOLDER or NAME=FOLDER (also a zip, a dataset folder, a .rec file). May be repeated.")]
Fake = Annotated[list[str], typer.Option("--fake", help="Generated faces, in the same forms, one for each generator. May be repeated.")]
Most = Annotated[int, typer.Option(min=0, help="Read so many files of each source, drawn at random; 0 = all.")]
Model = Annotated[str, typer.Option(help="aigi-small, or the aigi.safetensors of `aigi train`.")]


@aigi_app.command("train")
def train_aigi_verb(recipe: Recipe, real: Real, fake: Fake, out: Out, settings: Settings = [], most: Most = 0, json: Json = False) -> None:  # noqa: B006 (typer copies it)
    """Train a detector; real and fake are first brought to one codec and size, and the columns alone must tell nothing."""
    from ..consumers.aigi.train import AigiRecipe, train_aigi
    from .aigi import pictures_of

    checked = AigiRecipe.load(recipe, settings)
    path = train_aigi(checked, pictures_of(real, fake, checked.match, most=most), out)
    show.written({"detector": path}, "Trained", json, f"Use it: facefoundry aigi detect FACES --model {path} --out found")


@aigi_app.command("detect")
def detect_verb(
    faces: Annotated[Path, typer.Argument(help="Folder per identity, a zip of that, or a dataset folder of aligned 112x112 faces.")],
    out: Annotated[Path, typer.Option(help="Folder of scores.csv, heat.png, report.json and, of a dataset folder, dataset/ with the score as a column.")],
    model: Model = "aigi-small",
    column: Annotated[str, typer.Option(help="Name of the score.")] = "aigi_fake",
    threshold: Annotated[float, typer.Option(min=0, max=1, help="From which score a face is called fake.")] = 0.5,
    pictures: Annotated[int, typer.Option(min=0, help="Faces on heat.png: half the likeliest fakes, half the unlikeliest.")] = 24,
    json: Json = False,
) -> None:
    """Score every face by how likely it is generated (0 to 1), and show where."""
    from .aigi import detect_faces

    report = detect_faces(faces, model, out, column=column, threshold=threshold, pictures=pictures)
    show.as_json(report) if json else show.table(report.items(), title=str(faces))


@aigi_app.command("evaluate")
def evaluate_verb(real: Real, fake: Fake, model: Model = "aigi-small", most: Most = 0, out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None, json: Json = False) -> None:
    """Average precision and accuracy by generator, and after JPEG, blur and resizing."""
    from ..consumers.aigi.data import MatchConfig, check_metadata
    from ..consumers.aigi.detector import load_detector
    from ..consumers.aigi.evaluation import evaluate
    from ..core.files import write_json
    from .aigi import pictures_of

    detector, _ = load_detector(model)
    pictures = pictures_of(real, fake, MatchConfig(), most=most)
    values = {"metadata_accuracy": check_metadata(pictures, MatchConfig()), "conditions": evaluate(detector, pictures)}
    if out is not None:
        write_json(out, values)
    if json:
        show.as_json(values)
        return
    show.table([("from the columns alone", values["metadata_accuracy"])], title="Accuracy")
    for name, found in values["conditions"].items():
        rows = [(source, f"called fake {value['called_fake']:.3f}" + (f", AP {value['ap']:.4f}" if "ap" in value else "")) for source, value in found["sources"].items()]
        show.table([("AP", found["ap"]), ("accuracy", found["accuracy"]["balanced"]), *rows], title=name)
