"""The verbs that learn: train generator, recogniser, quality."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show

train_app = typer.Typer(help="Train a generator, a recogniser or a quality score.", no_args_is_help=True)

Recipe = Annotated[Path, typer.Argument(help="Training file (YAML), see recipes/.")]
Data = Annotated[Path, typer.Option(help="Aligned faces: folder per identity, a zip of that, or a dataset folder.")]
Out = Annotated[Path, typer.Option(help="Folder of logs, state and weights; a run begun there is continued.")]
Settings = Annotated[list[str], typer.Option("--set", help="Lay a value over the file: --set loop.steps=100. May be repeated.")]


@train_app.command("generator")
def train_generator_verb(
    recipe: Recipe,
    data: Data,
    out: Out,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    embedder: Annotated[str, typer.Option(help="Embedder whose rows are the identity condition.")] = "dlib",
) -> None:
    """Train the autoencoder and the denoiser of a generator from aligned faces; a file with the key `identity_term` trains an ID³ denoiser."""
    from ..core.config import read_yaml
    from ..core.errors import UserError
    from ..generators.id3_train import Id3Recipe
    from ..generators.train import GeneratorRecipe, train_generator
    from ..identity.sources import load_faces
    from ..recognition.embedder import embed_faces, load_embedder

    checked = (Id3Recipe if "identity_term" in read_yaml(recipe)[0] else GeneratorRecipe).load(recipe, settings)
    eyes, wanted = load_embedder(embedder), checked.denoiser.network.identity_dim
    if eyes.dim != wanted:
        raise UserError(f"the embedder '{embedder}' gives {eyes.dim} numbers a face, but {recipe} has denoiser.network.identity_dim {wanted}; set it to {eyes.dim} or choose another --embedder")
    faces = load_faces(data)
    embed_ND = embed_faces(eyes, faces.image_NHWC)
    paths = {"denoiser": _train_id3(checked, faces.image_NHWC, embed_ND, out)} if isinstance(checked, Id3Recipe) else train_generator(checked, faces.image_NHWC, embed_ND, out)
    show.table(paths.items(), title="Trained")


def _train_id3(recipe: Any, image_NHWC: Any, embed_ND: Any, out: Path) -> Path:
    from ..generators.id3_train import train_id3
    from ..recognition.embedder import load_embedder
    from ..recognition.pose import ATTRIBUTE_PREDICTORS, predict_attributes

    attribute_NA = predict_attributes([ATTRIBUTE_PREDICTORS[name]() for name in recipe.predictors], image_NHWC, recipe.attributes)
    return train_id3(recipe, image_NHWC, embed_ND, attribute_NA, load_embedder(recipe.guide), out)


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


@train_app.command("quality")
def train_quality_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = []) -> None:  # noqa: B006
    """Train a quality score on SDD-FIQA labels of faces and of their damaged copies; it then needs no identities."""
    from ..identity.sources import load_faces
    from ..quality.regressor import QualityRecipe
    from ..recognition.embedder import load_embedder
    from .quality import train_quality_on

    checked = QualityRecipe.load(recipe, settings)
    path = train_quality_on(checked, load_faces(data), load_embedder(checked.quality_of), out)
    show.table([("quality", path)], title="Trained")
