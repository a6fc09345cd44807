"""The verbs that learn: train generator, recogniser, quality, fan, afa."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .options import Json

train_app = typer.Typer(help="Train a generator, a recogniser, a quality score, FAN or AFA.", no_args_is_help=True)

Recipe = Annotated[Path, typer.Argument(help="Training file (YAML), see recipes/.")]
Data = Annotated[Path, typer.Option(help="Aligned faces: folder per identity, a zip of that, a dataset folder, or a .rec file.")]
Out = Annotated[Path, typer.Option(help="Folder of logs, state and weights; a run begun there is continued.")]
Settings = Annotated[list[str], typer.Option("--set", help="Lay a value over the file: --set loop.steps=100. May be repeated.")]


@train_app.command("generator")
def train_generator_verb(
    recipe: Recipe,
    data: Data,
    out: Out,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    embedder: Annotated[str, typer.Option(help="Embedder whose rows are the identity condition.")] = "dlib",
    styles: Annotated[Path | None, typer.Option(help="MorphFace only: style codes of the same faces in their order (.npz with code_NP and layout).")] = None,
    json: Json = False,
) -> None:
    """Train the autoencoder and the denoiser of a generator from aligned faces; `identity_term` in the file trains an ID³ denoiser, `style` a MorphFace one."""
    from ..core.errors import UserError
    from ..generators.train import train_generator
    from ..identity.sources import load_faces
    from ..recognition.embedder import embed_faces, load_embedder
    from .first_stages import know_first_stages

    know_first_stages()
    checked, train = _recipe_of_generator(recipe, settings, styles)
    eyes, wanted = load_embedder(embedder), checked.denoiser.network.identity_dim
    if eyes.dim != wanted:
        raise UserError(f"the embedder '{embedder}' gives {eyes.dim} numbers a face, but {recipe} has denoiser.network.identity_dim {wanted}; set it to {eyes.dim} or choose another --embedder")
    faces = load_faces(data)
    embed_ND = embed_faces(eyes, faces.image_NHWC)
    paths = train_generator(checked, faces.image_NHWC, embed_ND, out, eyes=_eyes(checked.autoencoder.sharpen)) if train is None else {"denoiser": train(checked, faces.image_NHWC, embed_ND, out)}
    show.written(paths, "Trained", json)


@train_app.command("decoder")
def train_decoder_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = [], json: Json = False) -> None:  # noqa: B006
    """Sharpen the decoder of an autoencoder that stands; its latents, and the denoisers trained on them, stay as they are."""
    from ..core.files import weights_path
    from ..generators.sharpen import SharpDecoderRecipe, sharpen_decoder
    from ..generators.train import load_autoencoder
    from ..identity.sources import load_faces

    checked = SharpDecoderRecipe.load(recipe, settings)
    network = load_autoencoder(weights_path(checked.autoencoder))
    path = sharpen_decoder(checked.sharpen, network, load_faces(data).image_NHWC, out, eyes=_eyes(checked.sharpen))
    show.written({"autoencoder": path}, "Trained", json)


def _eyes(sharpen: Any) -> Any:
    """Return what the perceptual term of a decoder's training looks with, or None where there is no such term."""
    from ..recognition.feature_maps import MobileFaceNetMaps

    return MobileFaceNetMaps() if sharpen is not None and sharpen.perceptual else None


def _recipe_of_generator(recipe: Path, settings: list[str], styles: Path | None) -> tuple[Any, Any]:
    """Return the checked file and what trains it (recipe, images, embeddings, folder); None = the autoencoder and UIFace's denoiser."""
    from ..core.config import read_yaml
    from ..core.errors import UserError
    from ..generators.id3_train import Id3Recipe
    from ..generators.morphface_train import MorphFaceRecipe
    from ..generators.train import GeneratorRecipe

    keys = read_yaml(recipe)[0]
    if ("style" in keys) != (styles is not None):
        raise UserError(f"{recipe} {'trains MorphFace and' if styles is None else 'has no key `style`: it'} {'needs --styles CODES, the style codes of the faces' if styles is None else 'takes no --styles'}")
    if styles is not None:
        return MorphFaceRecipe.load(recipe, settings), partial(_train_morphface, styles)
    return (Id3Recipe.load(recipe, settings), _train_id3) if "identity_term" in keys else (GeneratorRecipe.load(recipe, settings), None)


def _train_morphface(styles: Path, recipe: Any, image_NHWC: Any, embed_ND: Any, out: Path) -> Path:
    from ..generators.morphface_train import train_morphface
    from ..generators.prior_styles import HeadMaps, read_codes

    code_NP, layout = read_codes(styles)
    return train_morphface(recipe, image_NHWC, embed_ND, code_NP, HeadMaps.of_default_head(layout, recipe.style.encoder), out)


def _train_id3(recipe: Any, image_NHWC: Any, embed_ND: Any, out: Path) -> Path:
    from ..generators.id3_train import train_id3
    from ..recognition.embedder import load_embedder
    from ..recognition.pose import ATTRIBUTE_PREDICTORS, predict_attributes

    attribute_NA = predict_attributes([ATTRIBUTE_PREDICTORS[name]() for name in recipe.predictors], image_NHWC, recipe.attributes)
    return train_id3(recipe, image_NHWC, embed_ND, attribute_NA, load_embedder(recipe.guide), out)


@train_app.command("recogniser")
def train_recogniser_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = [], json: Json = False) -> None:  # noqa: B006
    """Train a recogniser with a margin head; a file with the key `teacher` distils one from another embedder."""
    from ..core.config import read_yaml
    from ..identity.sources import load_faces
    from ..recognition.distill import DistilRecipe, distil
    from ..recognition.train import RecogniserRecipe, train_recogniser

    if "teacher" in read_yaml(recipe)[0]:
        path = distil(DistilRecipe.load(recipe, settings), load_faces(data), out)
    else:
        path = train_recogniser(RecogniserRecipe.load(recipe, settings), load_faces(data), out)
    show.written({"recogniser": path}, "Trained", json, f"Score it: facefoundry score {path} --pairs PAIRS --images IMAGES")


@train_app.command("quality")
def train_quality_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = [], json: Json = False) -> None:  # noqa: B006
    """Train a quality score on SDD-FIQA labels of faces and of their damaged copies; it then needs no identities."""
    from ..identity.sources import load_faces
    from ..quality.regressor import QualityRecipe
    from ..recognition.embedder import load_embedder
    from .quality import train_quality_on

    checked = QualityRecipe.load(recipe, settings)
    path = train_quality_on(checked, load_faces(data), load_embedder(checked.quality_of), out)
    show.written({"quality": path}, "Trained", json)


@train_app.command("fan")
def train_fan_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = [], json: Json = False) -> None:  # noqa: B006
    """Train FAN: a recogniser for faces of any resolution, and a decoder that shows them normalised."""
    from ..identity.sources import load_faces
    from ..recognition.fan_train import FanRecipe, train_fan

    paths = train_fan(FanRecipe.load(recipe, settings), load_faces(data), out)
    hint = f"See it: facefoundry normalise {data} --weights {paths['fan']} --shrink 20 --out normalised" if "fan" in paths else None
    show.written(paths, "Trained", json, hint)


@train_app.command("afa")
def train_afa_verb(recipe: Recipe, data: Data, out: Out, settings: Settings = [], json: Json = False) -> None:  # noqa: B006
    """Train a recogniser against attacks: AFA's dual normalisation, or with dual: null standard adversarial training."""
    from ..identity.sources import load_faces
    from ..recognition.afa_train import AfaRecipe, train_afa

    path = train_afa(AfaRecipe.load(recipe, settings), load_faces(data), out)
    show.written({"recogniser": path}, "Trained", json, f"Attack it: facefoundry attack --weights {path} --data {data}")
