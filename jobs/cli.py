"""The command line. Heavy imports happen inside the verbs: `facefoundry --help` answers at once."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .cli_aigi import aigi_app
from .cli_benchmark import benchmark_app
from .cli_challenge import leaderboard, score, submit_app
from .cli_distill import distill
from .cli_eyeseg import eyeseg_app
from .cli_faces import attack, normalise
from .cli_gallery import gallery_app
from .cli_head import head_app
from .cli_identity import candidates, centres
from .cli_jobs import register
from .cli_privacy import privacy_app
from .cli_publish import publish, sign
from .cli_quality import inspect, quality
from .cli_styles import styles_app
from .cli_tokenizer import tokenizer_app
from .cli_train import train_app
from .cli_weights import export_onnx, import_weights
from .options import Json
from .plugins import enter_verbs
from ..core.errors import UserError

app = typer.Typer(name="facefoundry", help="Mint identity-grouped synthetic face datasets, filter them, train on them, score the result.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(train_app, name="train")
app.add_typer(submit_app, name="submit")
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(styles_app, name="styles")
app.add_typer(gallery_app, name="gallery")
app.add_typer(head_app, name="head")
app.add_typer(privacy_app, name="privacy")
app.add_typer(aigi_app, name="aigi")
app.add_typer(eyeseg_app, name="eyeseg")
app.add_typer(tokenizer_app, name="tokenizer")

JobFile = Annotated[Path, typer.Argument(help="Job file (YAML); docs/jobs.md lists every key.")]
Folder = Annotated[Path, typer.Argument(help="Folder that `run --out` wrote.")]
Settings = Annotated[list[str], typer.Option("--set", help="Lay a value over the file: --set identities.count=100. May be repeated.")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes; 0 = one a CPU core, or one a GPU. The dataset does not depend on it.")]


class DemoGenerator(str, Enum):
    """The generators with bundled weights."""

    uiface = "uiface"
    id3 = "id3"
    lcm = "lcm"
    morphface = "morphface"


def main() -> None:
    """Run the command line; a user's mistake ends with exit code 2, its message and no trace."""
    try:
        enter_verbs(typer.main.get_command(app), sys.argv[1:])()
    except UserError as error:
        show.mistake(str(error))
        sys.exit(2)


@app.callback()
def options(quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Results and mistakes only: no progress bars, no remarks.")] = False) -> None:
    """Mint identity-grouped synthetic face datasets, filter them, train on them, score the result."""
    from ..core.progress import be_quiet

    be_quiet(quiet)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the dataset.")] = Path("demo"),
    identities: Annotated[int, typer.Option(min=2, help="How many people.")] = 24,
    per_identity: Annotated[int, typer.Option(min=2, help="How many images of each.")] = 8,
    generator: Annotated[DemoGenerator, typer.Option(help="id3: trained with an identity term, the best figures; uiface: two-stage sampling; lcm: four passes an image; morphface: in styles of a morphable head.")] = DemoGenerator.id3,
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Mint a small dataset from the bundled weights: no data, no network, a minute or two."""
    from .spec import bundled_job

    show.remark(f"Minting {identities} people with {per_identity} images each into {out} …")
    run(bundled_job("demo-job.yaml" if generator is DemoGenerator.uiface else f"demo-{generator.value}-job.yaml"), out=out, settings=[f"identities.count={identities}", f"per_identity={per_identity}"], workers=workers, json=json)


@app.command()
def plan(job: JobFile, settings: Settings = [], json: Json = False) -> None:  # noqa: B006 (typer copies it)
    """Check a job file and say what it would make: counts, shards, disk, fingerprint, licence chain, warnings. Writes nothing."""
    from .run import plan_summary
    from .spec import load_job

    found = plan_summary(load_job(job, settings))
    if json:
        show.as_json(found)
        return
    licences, warnings = found.pop("licences"), found.pop("warnings")
    show.table(found.items(), title="Plan")
    show.table(licences.items(), title="Licence chain")
    show.table([word.split(": ", 1) for word in warnings], title="Before you run it" if warnings else None)


@app.command()
def run(
    job: JobFile,
    out: Annotated[Path, typer.Option(help="Folder of the dataset; a job begun there is continued.")],
    settings: Settings = [],  # noqa: B006
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Make the dataset of a job file: generate, embed, filter, write, report. Killed? Run it again."""
    from .run import run_job
    from .spec import load_job

    result = run_job(load_job(job, settings), out, workers=workers or None)
    if not result.values:
        return  # the first of several processes tells the result
    counts, figures = result.values["counts"], result.values["figures"]
    if json:
        show.as_json({**result.values, "folder": str(out), "seconds": round(result.seconds, 1)})
        return
    kept = f"{counts['kept']} kept, {counts['rejected']} rejected" + (f", {counts['failed']} failed" if counts["failed"] else "")
    show.table(
        [
            ("images", kept), ("identities", counts["identities"]), (f"AUC by {_judge(out)}", figures.get("auc")),
            ("mean cosine to anchor", figures.get("anchor_cosine")), ("mean cosine within / between", _pair(figures)), ("time", f"{result.seconds:.0f} s"),
        ],
        title=result.values["name"],
    )  # fmt: skip
    show.table([("dataset", out), ("report", out / "report.html"), ("contact sheet", out / "contact_sheet.png")])
    show.line(f"Open it anywhere: datasets.load_dataset({str(out)!r})")


@app.command()
def status(folder: Folder, json: Json = False) -> None:
    """Say how far a job is, how fast, and how long it will take."""
    from .run import job_status

    found = job_status(folder)
    if json:
        show.as_json(found)
        return
    stages = found.pop("stages")
    show.table(found.items())
    show.table([(name, f"{stage['done']} of {stage['shards']} shards, {stage['images']} images, {stage['working']} working, {stage['failed']} failed") for name, stage in stages.items()])


@app.command()
def verify(folder: Folder, json: Json = False) -> None:
    """Hash every file of a dataset again and decode every image; exit code 1 if something is wrong."""
    from .run import verify_job

    found = verify_job(folder)
    _tell(found, json, title="Sound" if found["ok"] else "Damaged")
    if not found["ok"]:
        raise typer.Exit(1)


@app.command()
def report(folder: Folder, json: Json = False) -> None:
    """Write report.html and report.json of a finished job again."""
    from .report import write_report

    values = write_report(folder)
    _tell(values if json else {"report": folder / "report.html", **values["counts"], **values["figures"]}, json)


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="Folder per identity, a zip of that, ImageFolder, Parquet, .rec, WebDataset, TFRecord, LMDB, or a list of files.")],
    out: Annotated[Path, typer.Option(help="New dataset folder.")],
    align: Annotated[bool, typer.Option(help="Detect and align photos that are not 112x112.")] = True,
    title: Annotated[str, typer.Option(help="Name on the card; the source's name if empty.")] = "",
    origin: Annotated[str, typer.Option(help="real, generated:BY-WHAT or rendered:BY-WHAT; if empty what an export of ours says of itself, else real.")] = "",
    json: Json = False,
) -> None:
    """Bring other people's faces into a dataset folder; rows that fail are kept aside with their reason."""
    from ..identity.ingest import ingest as bring_in
    from .export import open_set, origin_of

    summary = bring_in(source, out, aligner=_aligner() if align else None, origin=origin or origin_of(source) or "real", title=title or None, entries=open_set(source))
    facts = {"kept": summary.kept, "rejected": summary.rejected, "identities": summary.identities, **summary.facts(), "dataset": out}
    _tell(facts, json, title="Ingested")


def _aligner() -> Any:
    from ..recognition.align import DlibAligner

    return DlibAligner()


def _judge(folder: Path) -> str:
    from .plan import read_plan

    return read_plan(folder).spec.judge


def _pair(figures: dict[str, float]) -> str | None:
    if "mated_mean" not in figures or "non_mated_mean" not in figures:
        return None
    return f"{figures['mated_mean']:.3f} / {figures['non_mated_mean']:.3f}"


def _tell(values: dict[str, Any], json: bool, title: str | None = None) -> None:
    if json:
        show.as_json(values)
    else:
        show.table(values.items(), title=title)


app.command()(score)
app.command()(leaderboard)
app.command()(import_weights)
app.command()(export_onnx)
app.command()(distill)
app.command()(inspect)
app.command()(quality)
app.command()(centres)
app.command()(candidates)
app.command()(publish)
app.command()(sign)
app.command()(normalise)
app.command()(attack)
register(app)
