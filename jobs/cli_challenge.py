"""The verbs that measure and submit: score, benchmark, leaderboard, submit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .options import Json

submit_app = typer.Typer(help="Challenge submissions.", no_args_is_help=True)
frcsyn_app = typer.Typer(help="FRCSyn: write, check and score submissions.", no_args_is_help=True)
sdfr_app = typer.Typer(help="SDFR: the ONNX model, its sanitizer scores, the Borda count.", no_args_is_help=True)
submit_app.add_typer(frcsyn_app, name="frcsyn")
submit_app.add_typer(sdfr_app, name="sdfr")

Recogniser = Annotated[str, typer.Argument(help="Name of an embedder (dlib, mobilefacenet-small) or a .safetensors recogniser.")]
Flip = Annotated[bool, typer.Option(help="Add the embedding of the mirrored image.")]
Lists = Annotated[Path, typer.Option(help="The comparison lists (folder or zip).")]
Official = Annotated[bool, typer.Option(help="Check the lists' counts against the organisers' own.")]
Edition = Annotated[int, typer.Option(min=0, max=2, help="1 = WACV 2024, 2 = CVPR 2024 and onGoing, 0 = the mini benchmark.")]
Submission = Annotated[Path, typer.Argument(help="Submission folder or zip.")]
Gender = Annotated[Path | None, typer.Option(help="Table subject,gender: task 1 then has its 8 groups; without it the 4 races.")]
Ddof = Annotated[int, typer.Option(min=0, max=1, help="Of SD; the organisers do not say which they use.")]
Task = Annotated[int, typer.Option(min=1, max=2, help="SDFR's task: 1 = 512 numbers a face, 2 = any.")]


def score(
    recogniser: Recogniser,
    pairs: Annotated[Path, typer.Option(help="Pair list ('pathA pathB same fold' a line, or LFW's pairs.txt), a .bin set, or a dataset folder (its own pairs).")],
    images: Annotated[Path | None, typer.Option(help="Folder or zip of the aligned 112x112 images the list names; the others hold theirs.")] = None,
    flip: Flip = True,
    out: Annotated[Path | None, typer.Option(help="Folder for the report: HTML, JSON, CSV, LaTeX and all scores.")] = None,
    groups: Annotated[Path | None, typer.Option(help="Table person,group for the report (person = the image's folder).")] = None,
    align: Annotated[bool, typer.Option("--align", help="Detect and align photos that are not 112x112.")] = False,
    mark: Annotated[bool, typer.Option("--mark", help="Score every pair: mark images that cannot be used, instead of stopping.")] = False,
    json: Json = False,
) -> None:
    """Verification accuracy (k-fold), TAR@FAR, AUC, EER and FNMR@FMR of a recogniser on a list of pairs."""
    from .verification import report_pairs, score_list

    result = score_list(recogniser, pairs, images, flip=flip, align=align, mark=mark)
    summary = result.summary()
    if out is not None:
        summary |= {"report": str(report_pairs(result, pairs, images, out, groups)["result.html"])}
    if json:
        show.as_json(summary)
    else:
        show.table(((name, value) for name, value in summary.items() if name != "accuracy_folds"), title="Verification")


def leaderboard(
    subtask: Annotated[str, typer.Argument(help="Sub-task, e.g. 1.1 or 2.3.")],
    edition: Annotated[int, typer.Option(min=1, max=2, help="1 = WACV 2024, 2 = CVPR 2024 and onGoing.")] = 2,
    submission: Annotated[Path | None, typer.Option(help="Submission to place; needs --lists.")] = None,
    lists: Annotated[Path | None, typer.Option(help="The comparison lists (folder or zip).")] = None,
    value: Annotated[float | None, typer.Option(help="Figure to place, in per cent: AVG - SD in task 1, AVG in task 2.")] = None,
    gender: Gender = None,
    ddof: Ddof = 0,
    json: Json = False,
) -> None:
    """The published table of an FRCSyn sub-task, and where a result would stand in it."""
    from ..challenge.leaderboard import board, place
    from .frcsyn import place_submission

    table = board(edition, subtask)
    found = None
    if submission is not None:
        found = place_submission(submission, lists, subtask, edition=edition, ddof=ddof, gender=gender)
    elif value is not None:
        found = place(table, value / 100.0)
    _show_board(table, found, json)


@frcsyn_app.command("write")
def frcsyn_write(
    proposed: Annotated[str, typer.Argument(help="The recogniser that is submitted: a name or a .safetensors file.")],
    baseline: Annotated[str, typer.Option(help="The baseline recogniser (GAP needs it).")],
    subtask: Annotated[str, typer.Option(help="Sub-task, e.g. 1.1 or 2.1.")],
    lists: Lists,
    images: Annotated[Path, typer.Option(help="Folder with a folder of aligned images for each database (bupt, agedb, cfp-fp, rof).")],
    calibration: Annotated[Path, typer.Option(help="Faces of training identities held out of the training: the threshold is fitted on them.")],
    out: Annotated[Path, typer.Option(help="Folder, or a name ending in .zip; other sub-tasks in it stay.")],
    edition: Edition = 1,
    training: Annotated[list[Path], typer.Option(help="Dataset folder that trained the proposed recogniser: its manifest is checked against the rules. May be repeated.")] = [],  # noqa: B006
    align: Annotated[bool, typer.Option("--align", help="Detect and align photos that are not 112x112.")] = False,
    official: Official = True,
    json: Json = False,
) -> None:
    """Score the lists with two recognisers and write the submission of a sub-task; check it."""
    from .frcsyn import check_training, checked_lists, subtask_row, write_entry

    held = check_training(subtask_row(subtask, edition), training)
    entry = write_entry(proposed, baseline, subtask=subtask, edition=edition, comparisons=checked_lists(lists, official), images=images, calibration=calibration, out=out, align=align)
    found = {**held, **entry.thresholds, "submission": out, "marked images": entry.marked or None, "their lines": entry.marks}
    show.written(found, "Thresholds", json, f"Check it: facefoundry submit frcsyn check {out} --lists {lists} --edition {edition}")


@frcsyn_app.command("check")
def frcsyn_check(submission: Submission, lists: Lists, edition: Edition = 1, official: Official = True, json: Json = False) -> None:
    """Check a submission against the lists; exit code 1 if the server would refuse it."""
    from ..challenge.frcsyn_submission import validate
    from .frcsyn import checked_lists

    found = validate(submission, checked_lists(lists, official), edition=edition)
    if json:
        show.as_json({"ok": found.ok, "problems": [{"severity": p.severity, "where": p.where, "message": p.message} for p in found.problems]})
    else:
        show.line("valid" if found.ok else "not valid")
        show.table((f"{problem.severity} {problem.where}", problem.message) for problem in found.problems)
    if not found.ok:
        raise typer.Exit(1)


@frcsyn_app.command("score")
def frcsyn_score(submission: Submission, lists: Lists, edition: Edition = 1, gender: Gender = None, ddof: Ddof = 0, official: Official = True, json: Json = False) -> None:
    """AVG, SD, AVG-SD, FNMR@FMR=1 %, AUC and GAP of a submission, by the labels derived from the lists."""
    from ..challenge.frcsyn_scores import read_gender_table, score_submission
    from .frcsyn import checked_lists, score_values

    found = score_submission(submission, checked_lists(lists, official), edition=edition, ddof=ddof, gender=read_gender_table(gender) if gender else None)
    values = {name: score_values(row, edition) for name, row in found.items()}
    if json:
        show.as_json(values)
        return
    for name, row in values.items():
        show.table(_flat(row), title=f"Sub-task {name}")


@frcsyn_app.command("report")
def frcsyn_report(
    submission: Submission,
    lists: Lists,
    subtask: Annotated[str, typer.Option(help="Sub-task, e.g. 1.1 or 2.1.")],
    out: Annotated[Path, typer.Option(help="Folder for HTML, JSON, CSV, LaTeX and all scores.")],
    edition: Edition = 1,
    images: Annotated[Path | None, typer.Option(help="Folder with a folder of images for each database: the hardest pairs are then shown.")] = None,
    gender: Gender = None,
    ddof: Ddof = 0,
    official: Official = True,
    json: Json = False,
) -> None:
    """Write the report of a sub-task: intervals, DET, groups, hardest pairs, what the threshold cost, the published table."""
    from .frcsyn import checked_lists, report_submission

    files = report_submission(submission, checked_lists(lists, official), subtask, out=out, edition=edition, images=images, gender=gender, ddof=ddof)
    show.written(files, "Report", json)


@sdfr_app.command("export")
def sdfr_export(recogniser: Annotated[Path, typer.Argument(help="A .safetensors recogniser.")], out: Annotated[Path, typer.Option(help="The ONNX file.")], task: Task = 2, json: Json = False) -> None:
    """Write a recogniser as SDFR's ONNX model: RGB in [0, 1], normalisation inside; run it and compare."""
    from ..challenge.sdfr_onnx import export_onnx
    from ..recognition.checkpoint import load_network

    dim = export_onnx(load_network(recogniser)[0], out, task=task)
    show.written({"model": out, "embedding": dim}, f"SDFR task {task}", json)


@sdfr_app.command("scores")
def sdfr_scores(model: Annotated[Path, typer.Argument(help="The ONNX file.")], samples: Annotated[Path, typer.Option(help="The organisers' sanitizer_samples.bin.")], out: Annotated[Path, typer.Option(help="Folder for task<N>_sanitizer_scores.txt.")], task: Task = 2, json: Json = False) -> None:
    """Check an ONNX model's shapes as the server does and write its sanitizer scores."""
    from ..challenge.bin_file import read_bin
    from ..challenge.sdfr import write_sanitizer_scores
    from ..challenge.sdfr_onnx import model_scores

    show.written({"scores": write_sanitizer_scores(out, task, model_scores(model, read_bin(samples, labelled=False), task=task))}, f"SDFR task {task}", json)


@sdfr_app.command("rank")
def sdfr_rank(table: Annotated[Path, typer.Argument(help="CSV: a line a model, its name and a figure for each benchmark; a header line.")], json: Json = False) -> None:
    """Rank models by SDFR's Borda count; equal sums are flagged, not broken."""
    from dataclasses import asdict

    from ..challenge.sdfr import borda
    from .verification import read_figures

    rows = borda(read_figures(table))
    if json:
        show.as_json([asdict(row) for row in rows])
    else:
        show.table([(f"{row.rank}. {row.name}", f"{row.points:g} points{' (tied)' if row.tied else ''}") for row in rows], title="Borda count")


@submit_app.command("datacv")
def datacv_submit(
    recogniser: Recogniser,
    test: Annotated[Path, typer.Option(help="The organisers' validation.xz or test.xz.")],
    board: Annotated[str, typer.Option(help="10K, 20K or 100K.")],
    out: Annotated[Path, typer.Option(help="Folder, or a name ending in .zip.")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    training: Annotated[Path | None, typer.Option(help="Dataset folder that trained it: checked against the board's limits.")] = None,
    json: Json = False,
) -> None:
    """DataCV: squared distances of the test pairs, one a line, LOWER = same person."""
    from .verification import submit_datacv

    show.written({"submission": submit_datacv(recogniser, test, board, split=split, training=training, out=out)}, f"DataCV, board {board}", json)


def _show_board(table: Any, found: Any, json: bool) -> None:
    from dataclasses import asdict

    from ..challenge.frcsyn_result import placement_rows
    from ..challenge.leaderboard import ranking_figure

    if json:
        show.as_json(asdict(table) | ({"rank": found.rank, "of": found.of, "value": found.value, "neighbours": placement_rows(found)} if found else {}))
        return
    show.table([(f"{number}. {entry.team}", f"{ranking_figure(table, entry):.2f}") for number, entry in enumerate(table.entries, 1)], title=f"FRCSyn edition {table.edition}, sub-task {table.subtask}, {'AVG - SD' if table.ranked_by == 'trade_off' else 'AVG'} in %")
    show.line(table.source)
    if found:
        show.table([(f"{row['rank']}. {row['team']}", f"{row['figure']:.2f}") for row in placement_rows(found)], title=f"Place {found.rank} of {found.of}")


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        rows += _flat(value, f"{prefix}{name} ") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return rows
