"""The verbs that judge privacy methods: privacy evaluate, privacy compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show
from .options import Json



def evaluate(
    method: Annotated[str, typer.Option(help="unprotected, slerpface, duetface, partialface, dctdp or minusface.")],
    weights: Annotated[str, typer.Option(help="Folder of `privacy train`; for unprotected and slerpface also an embedder (dlib, mobilefacenet-small, FILE.safetensors).")],
    data: Annotated[Path, typer.Option(help="Faces of the victims: a folder per identity, a zip of that, or a dataset folder; some people with two photos or more.")],
    out: Annotated[Path, typer.Option(help="Folder of the table, the strip of pictures and the figures.")],
    attacker: Annotated[Path | None, typer.Option(help="The attacker's own faces, of other people; left out, half of the people of --data.")] = None,
    judge: Annotated[str, typer.Option(help="Recogniser that judges recovered faces; must not be inside the method. Left out: dlib, or mobilefacenet-small where dlib is inside.")] = "",
    generator: Annotated[str, typer.Option(help="Generator that draws faces of embeddings: lcm, uiface; none leaves those attacks out.")] = "lcm",
    settings: Annotated[Path | None, typer.Option(help="YAML with how much the attacks may spend (consumers/privacy/evaluation.py names the keys).")] = None,
    json: Json = False,
) -> None:
    """Attack a method with everything we have: accuracy, recovered faces, linkability, cost; one table and one strip of pictures."""
    from .privacy_evaluation import evaluate_method, table_rows

    values = evaluate_method(method, weights, data, out, attacker=attacker, judge=judge, generator=generator, settings=settings)
    if json:
        show.as_json(values)
        return
    show.table(table_rows(values), title=values["method"])
    show.table([("table", out / "table.csv"), ("pictures", out / "strip.png"), ("for programs", out / "evaluation.json")])


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `privacy evaluate --out` wrote, one of them of the unprotected model.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("privacy.html"),
    json: Json = False,
) -> None:
    """Put evaluated methods beside each other on one page that needs no network."""
    from .privacy_page import compare_methods

    found = compare_methods(folders, out)
    if json:
        show.as_json(found)
        return
    show.table([(row["method"], f"TAR {row['tar']:.3f}, {row['worst']} {row['found']:.0%}, D_sys {row['d_sys']:.2f}") for row in found["methods"]], title="TAR at FMR 1 %, strongest attack and its re-identification, linkability")
    show.table([("page", out)])
