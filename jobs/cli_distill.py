"""The verb `distill`: a few-step student, and a small decoder, of a generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show
from .cli_train import Data, Out, Recipe, Settings
from .options import Json


def distill(
    recipe: Recipe,
    data: Data,
    out: Out,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    embedder: Annotated[str, typer.Option(help="Embedder whose rows are the identity condition of the teacher.")] = "dlib",
    json: Json = False,
) -> None:
    """Distil a generator's sampler into one of 2 to 8 passes; the faces serve as identities, no pixel of them is learnt."""
    from ..generators.distill import FewStepRecipe
    from ..generators.distill import distill as learn
    from ..identity.sources import load_faces
    from ..recognition.embedder import embed_faces, load_embedder
    from .first_stages import know_first_stages

    know_first_stages()
    checked = FewStepRecipe.load(recipe, settings)
    paths = learn(checked, embed_faces(load_embedder(embedder), load_faces(data).image_NHWC), out)
    used = ", ".join(f"{key}: {path}" for key, path in paths.items())
    show.written(paths, "Distilled", json, f"Use it in a job: generator: {{name: lcm, {used}, steps: {checked.student.segments}}}")
