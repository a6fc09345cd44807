"""Make docs/tour.md: run its commands in a fresh folder and put down what they said.

    python docs/make_tour.py                                        # a few minutes on 2 cores; no data, no network
    python docs/make_tour.py --pairs PAIRS --images LFW             # one command more: the recogniser on real pairs that you have

What is cut is marked in the page: lines after WIDTH characters, outputs after LINES lines. Figures change with the bundled weights: run it again then.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from facefoundry.jobs.local import cores

ROOT = Path(__file__).resolve().parents[1]
WIDTH, LINES = 110, 30

JOB = """\
extends: demo-lcm-job.yaml      # a recipe that ships: the few-step student, 4 passes an image; this file says only what differs
name: tour
seed: 1
identities: {count: PEOPLE}
per_identity: 8
"""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One command of the tour, and what to know about it before and after."""

    title: str
    command: str
    before: str
    after: str = ""


STOPS = (
    Stop(
        title="Plan",
        command="facefoundry plan tour.yaml",
        before="What the job would make, from what, under which licences, and what to think of before it runs. It writes nothing.",
    ),
    Stop(
        title="Mint and filter",
        command="facefoundry run tour.yaml --out faces",
        before="PEOPLE people that do not exist, eight images each. The recipe's filters set images aside, each with its reason: the worst tenth by SDD-FIQA quality, people too near to an earlier one. Kill it and run the line again: it goes on.",
        after="`faces/report.html` shows figures and curves, `faces/contact_sheet.png` the faces. The judge (dlib) also conditions the generator: its figures are kind.",
    ),
    Stop(title="Check the files", command="facefoundry verify faces", before="Every file is hashed again, every image decoded. The digest is the same wherever the same job ran on the same libraries."),
    Stop(
        title="Look closer",
        command="facefoundry inspect faces --out inspection --draws 100",
        before="Separation, spread, duplicates, looks and pose of the set; intervals are bootstrap draws of identities.",
    ),
    Stop(
        title="Other people, to score on",
        command="facefoundry run tour.yaml --out held-out --set name=held-out --set seed=2 --set identities.count=HELD --set filters=[]",
        before="Real pairs such as LFW's do not ship. Every dataset brings pairs of its own people, so a second small one, of another seed, stands in.",
    ),
    Stop(
        title="Train",
        command="facefoundry train recogniser recipes/recogniser-small.yaml --data faces --out runs/recogniser",
        before="A small MobileFaceNet on the kept faces: a few hundred images, half a minute.",
    ),
    Stop(
        title="Score",
        command="facefoundry score runs/recogniser/recogniser.safetensors --pairs held-out",
        before="On minted people it has never seen. Folds share nobody.",
    ),
    Stop(
        title="Score something to compare with",
        command="facefoundry score mobilefacenet-small --pairs held-out",
        before="The bundled recogniser knows the space the faces were made in, so this is near the most these pairs allow.",
    ),
    Stop(title="Export", command="facefoundry export faces --out rec --format rec", before="For other people's trainers: here insightface's `.rec`; Parquet, readable by `datasets.load_dataset`, is what `faces` is already."),
    Stop(
        title="Publish",
        command="facefoundry publish faces --repo me/faces --dry-run",
        before="What would go to the Hugging Face Hub, and what is missing from the card. Without `--dry-run` it uploads, to a private repository.",
    ),
)

REAL = Stop(
    title="With real pairs of your own",
    command="facefoundry score runs/recogniser/recogniser.safetensors --pairs lfw_pairs.txt --images lfw",
    before="Not one of the ten, because the images do not ship: LFW's folds 7 and 8, aligned. A recogniser of a few hundred faces is a poor one; [what minted data is worth](../README.md#figures-measured-here) was measured with 2,400 and more.",
)


def said(command: str, folder: Path) -> tuple[str, float]:
    """Run a command with the installed `facefoundry`; return what it wrote on both channels, and its seconds.

    Raises:
        SystemExit: it failed.
    """
    program, *words = shlex.split(command)
    begin_s = time.monotonic()
    done = subprocess.run([str(Path(sys.executable).with_name(program)), *words], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"})
    if done.returncode:
        raise SystemExit(f"{command} ended with exit code {done.returncode}:\n{done.stdout}")
    return done.stdout, time.monotonic() - begin_s


def cut(text: str) -> str:
    """Cut long lines and long outputs, and mark the cuts."""
    lines = [line.rstrip() for line in text.splitlines()]
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH].rstrip()} […]" for line in lines if line]
    return "\n".join(lines if len(lines) <= LINES else [*lines[:LINES], f"[… lines left out: {len(lines) - LINES}]"])


def page(stops: tuple[Stop, ...], folder: Path, people: int) -> str:
    """Run the stops for so many people and return the page."""
    parts, total_s = [], 0.0
    for number, plain in enumerate(stops, 1):
        stop = replace(plain, command=plain.command.replace("HELD", str(max(4, people * 2 // 5))), before=plain.before.replace("PEOPLE", str(people)))
        told, seconds = said(stop.command, folder)
        total_s += seconds if plain is not REAL else 0.0
        heading = f"## {number}. {stop.title}" if plain is not REAL else f"## {stop.title}"
        parts.append("\n\n".join([heading, stop.before, f"```console\n$ {stop.command}\n{cut(told)}\n```", *([stop.after] if stop.after else []), f"*{seconds:.0f} s*"]))
    machine = f"{cores()} CPU core{'s' * (cores() > 1)} ({platform.machine()}), no accelerator, torch {version('torch')}, Python {platform.python_version()}"
    return "\n\n".join([HEAD.format(job=(folder / "tour.yaml").read_text(encoding="utf-8"), people=people, minutes=total_s / 60, machine=machine, width=WIDTH, lines=LINES), *parts, FOOT])


HEAD = """\
<!-- Made by `python docs/make_tour.py`; change that file, not this one. -->
# A tour in ten commands

Mint, filter, train, score, publish: ten commands in a clone of the repository after `make demo` (or `pip install -e .`), with what they said. Together they took {minutes:.1f} minutes
on {machine}, on bundled weights alone: no data, no network.

**The sizes are those of a tour.** {people} people and half a minute of training show that the line works; their figures mean little and move by points with the seed. The ones to judge by are in
[the README](../README.md#figures-measured-here) and [benchmarks/RESULTS.md](../benchmarks/RESULTS.md), each with its command.

Output is as it came, both channels, without progress bars. Cut, and marked so: lines after {width} characters […], outputs after {lines} lines. The first file is `tour.yaml`:

```yaml
{job}```"""

FOOT = """\
## Where to go on

[Jobs](jobs.md): every key of a job file, refill, several machines. [Generators](generators.md) and how to [train](generators.md#training) them. [A GPU and published
weights](howto-gpu-published-uiface.md). [Slurm and Ray](howto-slurm-ray.md). [Challenges](challenges.md): FRCSyn, SDFR, DataCV. Your own
[generator](howto-add-a-generator.md), [head](howto-add-a-head.md), [filter](howto-add-a-filter.md), [consumer](howto-add-a-consumer.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, help="pair list of real faces that you have; needs --images")
    parser.add_argument("--images", type=Path, help="their aligned images")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "tour.md")
    parser.add_argument("--people", type=int, default=60, help="fewer for a trial of this script")
    parser.add_argument("--keep", type=Path, help="run in this new folder and keep it")
    options = parser.parse_args()
    if (options.pairs is None) != (options.images is None):
        parser.error("--pairs and --images go together")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="tour-"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tour.yaml").write_text(JOB.replace("PEOPLE", str(options.people)), encoding="utf-8")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    if options.pairs is not None:
        (folder / "lfw_pairs.txt").symlink_to(options.pairs.resolve())
        (folder / "lfw").symlink_to(options.images.resolve())
    options.out.write_text(page((*STOPS, REAL) if options.pairs is not None else STOPS, folder, options.people), encoding="utf-8")


if __name__ == "__main__":
    main()
