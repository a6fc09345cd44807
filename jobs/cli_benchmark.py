"""`facefoundry benchmark ...`: the field's test sets, and the mini benchmark that runs anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .cli_challenge import Flip, Recogniser
from .options import Json

benchmark_app = typer.Typer(help="Score a recogniser on the field's test sets; build the mini benchmark.", no_args_is_help=True)
Root = Annotated[Path, typer.Argument(help="Folder (or zip) of the test set.")]
Align = Annotated[bool, typer.Option("--align", help="Detect and align photos that are not 112x112.")]


@benchmark_app.command("bins")
def bins(recogniser: Recogniser, files: Annotated[list[Path], typer.Argument(help=".bin sets: lfw.bin cfp_fp.bin agedb_30.bin calfw.bin cplfw.bin")], flip: Flip = True, json: Json = False) -> None:
    """k-fold accuracy on .bin sets, and their mean."""
    from .verification import score_bins

    found = score_bins(recogniser, files, flip=flip)
    _tell(found, json, [(name, f"{100 * row['accuracy']:.2f} ± {100 * row['accuracy_std']:.2f}") for name, row in found["sets"].items()] + [("mean", f"{100 * found['mean']:.2f}")], "Accuracy, %")


@benchmark_app.command("rfw")
def rfw(recogniser: Recogniser, root: Root, flip: Flip = True, json: Json = False) -> None:
    """RFW: accuracy of each race, mean, sample standard deviation."""
    from ..challenge.rfw import RACES, score_rfw
    from ..recognition.embedder import load_embedder

    found = score_rfw(load_embedder(recogniser), root, flip=flip).summary()
    _tell(found, json, [(name, f"{100 * found[name]:.2f}") for name in (*RACES, "mean", "std_ddof_1")], "RFW, %")


@benchmark_app.command("scface")
def scface(
    recogniser: Recogniser,
    root: Root,
    subjects: Annotated[int, typer.Option(min=2, help="Test subjects: 80 as in the fine-tuned protocol, 130 = everybody.")] = 80,
    splits: Annotated[int, typer.Option(min=1, help="Random test sets to average.")] = 10,
    align: Align = False,
    flip: Flip = True,
    json: Json = False,
) -> None:
    """SCface: rank-1 at three distances."""
    from ..challenge.scface import score_scface
    from .verification import embedder_and_aligner

    embedder, aligner = embedder_and_aligner(recogniser, align)
    found = score_scface(embedder, root, test_subjects=subjects, splits=splits, flip=flip, aligner=aligner, on_failure="mark" if align else "stop")
    _tell(found, json, found.items(), "SCface, rank-1")


@benchmark_app.command("tinyface")
def tinyface(recogniser: Recogniser, root: Root, align: Align = False, flip: Flip = True, json: Json = False) -> None:
    """TinyFace-type closed-set identification: rank 1, 5, 20 with distractors."""
    from ..challenge.tinyface import score_closed_set
    from .verification import embedder_and_aligner

    embedder, aligner = embedder_and_aligner(recogniser, align)
    found = score_closed_set(embedder, root, flip=flip, aligner=aligner, on_failure="mark" if align else "stop")
    _tell(found, json, found.items(), "Closed set")


@benchmark_app.command("ijb")
def ijb(
    recogniser: Recogniser,
    root: Root,
    flip: Flip = True,
    norms: Annotated[bool, typer.Option(help="Keep the features' norms (N1, official); --no-norms = N0.")] = True,
    detector: Annotated[bool, typer.Option(help="Weight by the detector's score (D1, official); --no-detector = D0.")] = True,
    json: Json = False,
) -> None:
    """IJB-B or IJB-C: TAR@FAR of template pairs, and 1:N identification where the gallery lists are there."""
    from ..recognition.embedder import load_embedder
    from .ijb import score_ijb

    found = score_ijb(load_embedder(recogniser), root, flip=flip, keep_norms=norms, detector_weights=detector)
    _tell(found, json, found.items(), f"IJB, F{2 if flip else 1}N{int(norms)}D{int(detector)}")


@benchmark_app.command("mini")
def mini(
    faces: Annotated[Path, typer.Argument(help="Folder or zip of aligned faces.")],
    pairs: Annotated[Path, typer.Option(help="Pair list naming them.")],
    out: Annotated[Path, typer.Option(help="New folder; it will hold copies of the faces: never put it into a repository.")],
    seed: Annotated[int, typer.Option(help="Of occluders, resolutions and the order of the lines.")] = 0,
    pose: Annotated[bool, typer.Option(help="Order by dlib's head pose; --no-pose = by left-right asymmetry, a faster proxy.")] = True,
    json: Json = False,
) -> None:
    """Build the mini benchmark: the pairs plain, occluded, at low resolution and of large pose difference, in FRCSyn's format (edition 0)."""
    from .verification import build_mini_benchmark

    found = build_mini_benchmark(faces, pairs, out, seed=seed, pose=pose)
    _tell(found, json, found.items(), "Mini benchmark")
    if not json:
        show.line(f"Go on: facefoundry submit frcsyn write RECOGNISER --baseline BASELINE --edition 0 --subtask 2.1 --lists {out / 'lists'} --images {out / 'images'} --calibration FACES --out entry.zip")


def _tell(values: Any, json: bool, rows: Any, title: str) -> None:
    if json:
        show.as_json(values)
    else:
        show.table(rows, title=title)
