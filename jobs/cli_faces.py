"""The verbs that change faces and look at what becomes of them: normalise, attack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import show
from .options import Json



def normalise(
    source: Annotated[Path, typer.Argument(help="Aligned face crops of any size: an image, a folder, a folder per identity, a zip, or a dataset folder.")],
    weights: Annotated[Path, typer.Option(help="The fan.safetensors that `train fan` wrote.")],
    out: Annotated[Path, typer.Option(help="New folder: a PNG for each face under its own name, and strip.png.")],
    shrink: Annotated[int, typer.Option(min=0, max=112, help="First shrink the faces to so many pixels a side, to see what comes back; 0 = as they are.")] = 0,
    rows: Annotated[int, typer.Option(min=1, help="Faces on the strip.")] = 12,
    json: Json = False,
) -> None:
    """Turn low-resolution faces into normalised ones (FAN); the strip shows input, bicubic enlarging, normalised."""
    from .normalise import normalise_folder

    found = normalise_folder(source, weights, out, shrink_px=shrink, rows=rows)
    show.as_json(found) if json else show.table(found.items(), title="Normalised")


def attack(
    data: Annotated[Path, typer.Option(help="Aligned faces: folder per identity, a zip of that, or a dataset folder.")],
    weights: Annotated[str, typer.Option(help="A .safetensors recogniser, or mobilefacenet-small.")] = "mobilefacenet-small",
    strengths: Annotated[str, typer.Option(help="Largest changes of a pixel, in grey levels of 255; 0 = clean.")] = "0,1,2,4,8",
    method: Annotated[str, typer.Option("--attack", help="pgd, apgd, apgd-t, square or autoattack (torchattacks).")] = "pgd",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the attack.")] = 20,
    probes: Annotated[int, typer.Option(min=1, help="Faces, and pairs, that are attacked.")] = 200,
    pairs: Annotated[Path | None, typer.Option(help="Pair list over the same data: verification too; its thresholds are those of the clean pairs.")] = None,
    seed: Annotated[int, typer.Option(help="Of the probes and random starts.")] = 0,
    json: Json = False,
) -> None:
    """Clean and robust accuracy of a recogniser: rank-1 identification (a person's first face is the gallery), and verification."""
    from .robustness import attack_report, percent, strengths_of

    found = attack_report(weights, data, strengths_of(strengths), attack=method, steps=steps, probes=probes, pairs=pairs, seed=seed)
    if json:
        show.as_json(found)
        return
    rows = found.pop("rows")
    show.table(found.items(), title="Attack")
    show.table(((f"strength {row['strength']:g}", percent(row)) for row in rows), title="Accuracy")
