"""How near generated faces come to the people the generators learned from: the table of docs/limits.md, which this writes anew.

Run: `python benchmarks/leakage.py UIFace=DEMO "ID³"=DEMO_ID3`, datasets of `facefoundry demo`. Without the real faces there is nothing to compare with.
Each image against the centres of the 4,200 people of train112.zip, by dlib; beside it photographs of people who are in no training file (LFW folds 7-8).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from facefoundry.core.files import write_json
from facefoundry.identity.centres import class_centres
from facefoundry.identity.sources import load_faces
from facefoundry.quality.leakage import leakage
from facefoundry.recognition.embedder import embed_faces, load_embedder

HERE = Path(__file__).parent
FACES = HERE.parent.parent / "shared" / "data" / "faces"
PAGE = HERE.parent / "docs" / "limits.md"
MARKS = ("<!-- written by benchmarks/leakage.py -->\n", "<!-- end -->\n")


def main() -> None:
    """Measure, write the results, and lay the table into the page."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--real", type=Path, default=FACES / "train112.zip", help="faces the generators learned from")
    parser.add_argument("--strangers", type=Path, default=FACES / "lfw_folds7_8.zip", help="real faces of nobody in --real")
    parser.add_argument("--threshold", type=float, default=0.58, help="cosine that 1 of 1,000 pairs of strangers reach")
    args = parser.parse_args()
    real_RD = class_centres(*embedded(args.real))
    sets = dict(item.split("=", 1) for item in args.datasets)
    found = {f"{name}, images of the demo": nearness(Path(folder), real_RD, args.threshold) for name, folder in sets.items()}
    found["real strangers, photographs"] = nearness(args.strangers, real_RD, args.threshold)
    write_json(HERE / "results_leakage.json", {"people": len(real_RD), "threshold": args.threshold, "found": found})
    lay_in(table(found))


def embedded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return dlib's unit rows (N, 128) of a set of faces and who each is (N,)."""
    faces = load_faces(path)
    return embed_faces(load_embedder("dlib"), faces.image_NHWC), faces.identity_N


def nearness(path: Path, real_RD: np.ndarray, threshold: float) -> dict[str, float]:
    """Return what one set of faces has to do with real people: of its images the cosine to the nearest, of all comparisons the share that match."""
    embed_ND, identity_N = embedded(path)
    found = leakage(embed_ND, class_centres(embed_ND, identity_N), real_RD, threshold=threshold)
    return {
        "images": len(embed_ND), "median": float(np.median(found.cosine_N)), "highest": float(found.cosine_N.max()),
        "image_hit": found.image_hit, "image_rate": found.image_rate, "real_fmr": found.real_fmr,
    }  # fmt: skip


def table(found: dict[str, dict[str, float]]) -> str:
    """Return the Markdown table."""
    rows = ["| images against the 4,200 | number | nearest person, median | highest | with somebody from 0.58 up | comparisons that match |", "|---|--:|--:|--:|--:|--:|"]
    rows += [f"| {name} | {f['images']:,.0f} | {f['median']:.3f} | {f['highest']:.2f} | {f['image_hit']:.0%} | {f['image_rate']:.4%} |" for name, f in found.items()]
    return "\n".join(rows).replace("%", " %") + "\n"


def lay_in(text: str) -> None:
    """Put the table between its marks in the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    PAGE.write_text(before + MARKS[0] + "\n" + text + "\n" + MARKS[1] + rest.split(MARKS[1])[1], encoding="utf-8")
    logging.info("%s\nwritten: %s", text, PAGE)


if __name__ == "__main__":
    main()
