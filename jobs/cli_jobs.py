"""The verbs round a job: schema, preview, estimate, retry-failed, merge, diff, export, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show
from .options import Json

JobFile = Annotated[Path, typer.Argument(help="Job file (YAML).")]
Settings = Annotated[list[str], typer.Option("--set", help="Lay a value over the file: --set identities.count=100. May be repeated.")]


def register(app: typer.Typer) -> None:
    """Enter the verbs into the command line."""
    for verb in (schema, preview, estimate, retry_failed, merge, diff, export, browse, doctor):
        app.command()(verb)


def schema(
    kind: Annotated[str, typer.Argument(help="job, or a training file: generator, id3, morphface, few-step, recogniser, distil, quality.")] = "job",
    out: Annotated[Path | None, typer.Option(help="File to write; left out, it goes to standard output.")] = None,
) -> None:
    """Write the JSON Schema of a job file or a training file, for editors and other programs."""
    from ..core.files import write_json
    from .schema import schema as make

    found = make(kind)
    if out is None:
        show.as_json(found)
        return
    write_json(out, found)
    show.line(f"{out}: put this on the first line of a {kind} file, and an editor with a YAML language server completes and checks it:")
    show.line(f"# yaml-language-server: $schema={out}")


def preview(
    job: JobFile,
    number: Annotated[int, typer.Option("--images", "-n", min=1, help="How many images.")] = 8,
    per_identity: Annotated[int, typer.Option(min=1, help="Images a person: a row of the sheet.")] = 4,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("preview.png"),
    settings: Settings = [],  # noqa: B006 (typer copies it)
    json: Json = False,
) -> None:
    """Make the first images of a job and show them on a contact sheet; no dataset is begun."""
    from .preview import preview as make
    from .spec import load_job

    found = make(load_job(job, settings), out, images=number, per_identity=per_identity)
    rows = {"images": found["images"], "identities": found["identities"], "failed": len(found["failed"]) or None, "cosine to the anchor": found["anchor_cosine"], "time": f"{found['seconds']} s", "contact sheet": out}
    _tell(found if json else rows, json, "Preview")


def estimate(
    job: JobFile,
    batches: Annotated[int, typer.Option(min=1, help="Batches to time; one more goes first to warm up.")] = 2,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes of the run; 0 = as `run` would.")] = 0,
    price: Annotated[float | None, typer.Option(min=0, help="Dollars an hour of this machine.")] = None,
    on: Annotated[list[str], typer.Option(help="Hardware to carry the arithmetic over to: l4, a10g, l40s, a100, rtx-pro-6000, h200. May be repeated; default all.")] = [],  # noqa: B006
    settings: Settings = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Time a few batches of a job and say the hours here, and hours and dollars on named hardware."""
    from .estimate import SHARE_OF_PEAK, estimate as make
    from .spec import load_job

    found = make(load_job(job, settings), batches=batches, workers=workers or None, usd_per_h=price, on=on)
    if json:
        show.as_json(found)
        return
    parts, low_high = found["seconds_per_image"], sorted(found["hours_by_batch"])
    rows = [
        ("images", found["images"]), ("on", f"{found['workers']} worker(s), {found['device']}, batches of {found['batch']}"), ("measured on", f"{found['measured_images']} images"),
        ("seconds an image", ", ".join(f"{name} {value:.4g}" for name, value in parts.items())), ("images a second", found["images_per_s"]),
        ("time here", f"{_hours(found['hours'])} (by the batches: {_hours(low_high[0])} to {_hours(low_high[1])})"), ("cost here", found["usd"] and f"{found['usd']:.2f} $"),
        ("disk at the peak", f"{found['peak_disk_gb']:.3g} GB"), ("memory of a worker", f"{found['memory_mb']} MB"), ("arithmetic", f"{found['gflop_per_image']:.4g} GFLOP an image"),
    ]  # fmt: skip
    show.table(rows, title=found["job"])
    low, high = SHARE_OF_PEAK
    show.table([(entry["hardware"], f"{_hours(entry['hours'][0])} to {_hours(entry['hours'][1])}, {entry['usd'][0]:.2f} to {entry['usd'][1]:.2f} $") for entry in found["elsewhere"]], title="Generating on one card, by its peak rate")
    show.line(f"Elsewhere is arithmetic, not measured: {low:.0%} to {high:.0%} of the peak. Run `facefoundry estimate` there to know.")


def retry_failed(
    folder: Annotated[Path, typer.Argument(help="Folder that `run --out` wrote.")],
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 = one a CPU core, or one a GPU.")] = 0,
    json: Json = False,
) -> None:
    """Make the shards again in which images failed; exit code 1 if some still fail."""
    from .retry import retry_failed as make

    found = make(folder, workers=workers or None)
    _tell(found, json, "Nothing had failed" if not found["failed_before"] else "Retried")
    if found["failed_after"]:
        raise typer.Exit(1)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Dataset folders, two or more.")],
    out: Annotated[Path, typer.Option(help="New dataset folder.")],
    title: Annotated[str, typer.Option(help="Name on the card; the folder's name if empty.")] = "",
    max_cosine: Annotated[float, typer.Option(min=-1, max=1, help="From which the anchors of two people of different sets are too near.")] = 0.45,
    drop_close: Annotated[bool, typer.Option("--drop-close", help="Set the later of two such people aside; otherwise they are only counted.")] = False,
    json: Json = False,
) -> None:
    """Put several datasets together as one: people numbered anew, equal images set aside."""
    from .merge import merge as make

    _tell({**make(folders, out, title=title or out.name, max_cosine=max_cosine, drop_close=drop_close), "dataset": out}, json, "Merged")


def diff(
    first: Annotated[Path, typer.Argument(help="Job file, or folder of a job.")],
    second: Annotated[Path, typer.Argument(help="The other one.")],
    json: Json = False,
) -> None:
    """Say what sets two jobs apart: settings, files, versions, and of finished ones figures and images; exit code 1 if they make different datasets."""
    from .diff import diff_jobs

    found = diff_jobs(first, second)
    if json:
        show.as_json(found)
    else:
        show.line("The same dataset." if found["same_dataset"] else "Different datasets.")
        for part in ("settings", "engine", "materials", "versions", "counts", "figures"):
            if found.get(part):
                show.table([(key, f"{_short(left)}  |  {_short(right)}") for key, (left, right) in found[part].items()], title=part)
        show.table([(name.replace("_", " "), count) for name, count in found.get("images", {}).items()], title="images" if "images" in found else None)
    if not found["same_dataset"]:
        raise typer.Exit(1)


def export(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder of ours (run, ingest, merge).")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    to: Annotated[str, typer.Option("--format", help="rec, imagefolder, webdataset, list, tfrecord, lmdb.")],
    quality: Annotated[int, typer.Option(min=0, max=100, help="Write every image anew as a JPEG of this quality; 0 = the bytes they are.")] = 0,
    json: Json = False,
) -> None:
    """Write the kept faces in another format: labels counted from 0, colours exact."""
    from .export import export as make

    _tell({**make(dataset, out, to, quality=quality or None), "folder": out}, json, "Exported")


def browse(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 = any free one.")] = 0,
    show_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Show a dataset face by face on a local page: filter by identity, score, pose, dropped reason. Ctrl-C ends it."""
    from .browse import server

    with server(dataset, port) as running:
        address = f"http://127.0.0.1:{running.server_address[1]}/"
        show.line(f"{address}  (Ctrl-C ends it)")
        if show_page:
            typer.launch(address)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            show.remark("ended")


def doctor(json: Json = False) -> None:
    """Say what is installed, which backends are active, and what to install for what; exit code 1 if something needed is missing."""
    from .doctor import examine

    found = examine()
    if json:
        show.as_json(found)
    else:
        for part in ("machine", "backends", "packages", "weights_mb"):
            show.table(found[part].items(), title=part.replace("_mb", " (MB)"))
        show.table([(name, "installed" if entry["installed"] else f"not installed; {entry['for']}") for name, entry in found["optional"].items()], title="optional")
        show.table(found["plugins"].items(), title="from other packages" if found["plugins"] else None)
        for text in found["advice"]:
            show.line(f"- {text}")
        for text in found["problems"]:
            show.mistake(text)
        show.line("All that is needed is here." if found["ok"] else "Something needed is missing.")
    if not found["ok"]:
        raise typer.Exit(1)


def _tell(values: dict[str, Any], json: bool, title: str) -> None:
    if json:
        show.as_json(values)
    else:
        show.table(values.items(), title=title)


def _hours(hours: float) -> str:
    return f"{hours * 3600:.0f} s" if hours < 1 / 30 else f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
