"""The verbs that learn and measure: train, score, submit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show

train_app = typer.Typer(help="Train a generator or a recogniser.", no_args_is_help=True)
submit_app = typer.Typer(help="Challenge submissions.", no_args_is_help=True)
frcsyn_app = typer.Typer(help="FRCSyn: write, check and score submissions.", no_args_is_help=True)
submit_app.add_typer(frcsyn_app, name="frcsyn")

Recipe = Annotated[Path, typer.Argument(help="Training file (YAML), see recipes/.")]
Data = Annotated[Path, typer.Option(help="Aligned faces: folder per identity, a zip of that, or a dataset folder.")]
Out = Annotated[Path, typer.Option(help="Folder of logs, state and weights; a run begun there is continued.")]
Settings = Annotated[list[str], typer.Option("--set", help="Lay a value over the file: --set loop.steps=100. May be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
Lists = Annotated[Path, typer.Option(help="The official comparison lists (folder or zip).")]
Edition = Annotated[int, typer.Option(min=1, max=2, help="1 = WACV 2024, 2 = CVPR 2024 and onGoing.")]
Submission = Annotated[Path, typer.Argument(help="Submission folder or zip.")]


@train_app.command("generator")
def train_generator_verb(
    recipe: Recipe,
    data: Data,
    out: Out,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    embedder: Annotated[str, typer.Option(help="Embedder whose rows are the identity condition.")] = "dlib",
) -> None:
    """Train the autoencoder and the denoiser of a generator from aligned faces."""
    from ..core.errors import UserError
    from ..generators.train import GeneratorRecipe, train_generator
    from ..identity.sources import load_faces
    from ..recognition.embedder import embed_faces, load_embedder

    checked = GeneratorRecipe.load(recipe, settings)
    eyes, wanted = load_embedder(embedder), checked.denoiser.network.identity_dim
    if eyes.dim != wanted:
        raise UserError(f"the embedder '{embedder}' gives {eyes.dim} numbers a face, but {recipe} has denoiser.network.identity_dim {wanted}; set it to {eyes.dim} or choose another --embedder")
    faces = load_faces(data)
    paths = train_generator(checked, faces.image_NHWC, embed_faces(eyes, faces.image_NHWC), out)
    show.table(paths.items(), title="Trained")


@train_app.command("recogniser")
def train_recogniser_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = []) -> None:  # noqa: B006
    """Train a recogniser with a margin head; a file with the key `teacher` distils one from another embedder."""
    from ..core.config import read_yaml
    from ..identity.sources import load_faces
    from ..recognition.distill import DistilRecipe, distil
    from ..recognition.train import RecogniserRecipe, train_recogniser

    if "teacher" in read_yaml(recipe)[0]:
        path = distil(DistilRecipe.load(recipe, settings), load_faces(data), out)
    else:
        path = train_recogniser(RecogniserRecipe.load(recipe, settings), load_faces(data), out)
    show.table([("recogniser", path)], title="Trained")
    show.line(f"Score it: facefoundry score {path} --pairs PAIRS --images IMAGES")


def score(
    recogniser: Annotated[str, typer.Argument(help="Name of an embedder (dlib, mobilefacenet-small) or a .safetensors recogniser.")],
    pairs: Annotated[Path, typer.Option(help="Pair list: 'pathA pathB same fold' a line, or LFW's pairs.txt.")],
    images: Annotated[Path, typer.Option(help="Folder or zip of the aligned 112x112 images the list names.")],
    flip: Annotated[bool, typer.Option(help="Add the embedding of the mirrored image.")] = True,
    json: Json = False,
) -> None:
    """Verification accuracy (k-fold), TAR@FAR, AUC, EER and FNMR@FMR of a recogniser on a list of pairs."""
    from ..challenge.lfw import score_pairs
    from ..recognition.embedder import load_embedder

    summary = score_pairs(load_embedder(recogniser), images, pairs, flip=flip).summary()
    if json:
        show.as_json(summary)
    else:
        show.table(((name, value) for name, value in summary.items() if name != "accuracy_folds"), title="Verification")


@frcsyn_app.command("write")
def frcsyn_write(
    proposed: Annotated[str, typer.Argument(help="The recogniser that is submitted: a name or a .safetensors file.")],
    baseline: Annotated[str, typer.Option(help="The baseline recogniser (GAP needs it).")],
    subtask: Annotated[str, typer.Option(help="Sub-task, e.g. 1.1 or 2.1.")],
    lists: Lists,
    images: Annotated[Path, typer.Option(help="Folder with a folder of aligned images for each database (bupt, agedb, cfp-fp, rof).")],
    calibration: Annotated[Path, typer.Option(help="Faces of training identities held out of the training: the threshold is fitted on them.")],
    out: Annotated[Path, typer.Option(help="Folder, or a name ending in .zip.")],
    edition: Edition = 1,
) -> None:
    """Score the lists with two recognisers and write the submission of a sub-task."""
    from .frcsyn import write_entry

    files = write_entry(proposed, baseline, subtask=subtask, edition=edition, lists=lists, images=images, calibration=calibration, out=out)
    show.table([*files.items(), ("submission", out)], title="Thresholds")


@frcsyn_app.command("check")
def frcsyn_check(submission: Submission, lists: Lists, edition: Edition = 1, json: Json = False) -> None:
    """Check a submission against the lists; exit code 1 if the server would refuse it."""
    from ..challenge.frcsyn import load_comparisons
    from ..challenge.frcsyn_submission import validate

    found = validate(submission, load_comparisons(lists), edition=edition)
    if json:
        show.as_json({"ok": found.ok, "problems": [{"severity": p.severity, "where": p.where, "message": p.message} for p in found.problems]})
    else:
        show.line("valid" if found.ok else "not valid")
        show.table((f"{problem.severity} {problem.where}", problem.message) for problem in found.problems)
    if not found.ok:
        raise typer.Exit(1)


@frcsyn_app.command("score")
def frcsyn_score(submission: Submission, lists: Lists, edition: Edition = 1, json: Json = False) -> None:
    """AVG, SD, AVG-SD, FNMR@FMR=1 %, AUC and GAP of a submission, by the labels derived from the lists."""
    from dataclasses import asdict

    from ..challenge.frcsyn import load_comparisons
    from ..challenge.frcsyn_scores import score_submission

    found = {name: asdict(row) for name, row in score_submission(submission, load_comparisons(lists), edition=edition).items()}
    if json:
        show.as_json(found)
        return
    for name, row in found.items():
        show.table(_flat(row), title=f"Sub-task {name}")


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        rows += _flat(value, f"{prefix}{name} ") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return rows
