"""The verbs about who is in a dataset: centres of real people, and candidates for new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .options import Json

Faces = Annotated[Path, typer.Argument(help="Aligned faces of real people: folder per identity, a zip of that, or a dataset folder.")]
Embedder = Annotated[str, typer.Option(help="Embedder; for a job's checks the one it names as judge.")]


def centres(
    faces: Faces,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write. It holds biometric templates: do not publish it.")],
    embedder: Embedder = "dlib",
    json: Json = False,
) -> None:
    """Write the centres of real people, so that a job can keep away from them."""
    from ..core.errors import UserError
    from ..identity.centres import write_centres
    from ..identity.sources import load_faces
    from ..recognition.embedder import embed_faces, load_embedder

    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: expected a name that ends in .safetensors")
    eyes, found = load_embedder(embedder), load_faces(faces)
    rows_ID = write_centres(embed_faces(eyes, found.image_NHWC), found.identity_N, out, embedder=embedder)
    _tell({"people": len(rows_ID), "faces": len(found), "left out": len(found.failed), "dimensions": rows_ID.shape[1], "embedder": embedder, "out": out}, json, "Centres")
    if not json:
        show.line(f"In a job: centres: {out} with filters: [{{name: leakage, above: 0.58}}, {{name: leakage_identity, above: 0.58}}]; identities: {{..., centres: {out}}}")


def candidates(
    out: Annotated[Path, typer.Option(help="The .npy file to write; a job reads it with identities: {source: embeddings, file: ...}.")],
    count: Annotated[int, typer.Option(min=1, help="How many faces to make; separation will keep fewer.")] = 1000,
    generator: Annotated[str, typer.Option(help="Generator with an empty context, with its bundled weights.")] = "uiface",
    embedder: Embedder = "dlib",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the solver.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other faces.")] = 0,
    max_cosine: Annotated[float, typer.Option(help="Keep only faces below this cosine to each other.")] = 0.45,
    json: Json = False,
) -> None:
    """Embed faces of nobody (the generator without an identity) as candidates for new identities, thinned to a cosine."""
    from ..core.device import default_device
    from ..generators.registry import GENERATORS
    from ..generators.sampling import SamplerConfig
    from ..identity.centres import write_rows
    from ..recognition.embedder import load_embedder
    from .candidates import embed_nobodies
    from .steps import build_generator

    maker = build_generator(GENERATORS[generator](), default_device())
    found = embed_nobodies(maker, load_embedder(embedder), count, seed, max_cosine=max_cosine, settings=SamplerConfig(steps=steps))
    write_rows(out, found.row_ID)
    _tell({"made": count, "kept": len(found.row_ID), "too near an earlier one": found.crowded, "median cosine of a pair": round(found.median, 3), "embedder": embedder, "out": out}, json, "Candidates")


def _tell(values: dict[str, Any], json: bool, title: str) -> None:
    if json:
        show.as_json(values)
    else:
        show.table(values.items(), title=title)
