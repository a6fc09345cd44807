"""What the aigi verbs do: sources by name, findings as CSV, JSON, picture and score column."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from ..core.images import encode_png
from ..identity.parquet import parquet_shards
from ..identity.sources import load_faces
from .contact_sheet import SIDE_PX, sheet
from .scored import write_scored

if TYPE_CHECKING:
    from ..consumers.aigi.data import MatchConfig, Pictures

PAIRS_A_ROW = 4


def pictures_of(real: Sequence[str], fake: Sequence[str], config: MatchConfig, *, most: int = 0) -> Pictures:
    """Read `NAME=PATH` or `PATH` sources of both classes and bring them to one pipeline."""
    from ..consumers.aigi.data import matched, read_part

    return matched([read_part(path, name, fake=value, most=most) for value, words in ((False, real), (True, fake)) for name, path in map(_named, words)], config)


def detect_faces(source: Path, model: str, out: Path, *, column: str, threshold: float, pictures: int) -> dict[str, Any]:
    """Judge every face of a source; write scores.csv, heat.png, report.json and, of a dataset folder, `dataset/` with the score; return the report."""
    from ..consumers.aigi.detector import detect, load_detector

    detector, facts = load_detector(model)
    faces = load_faces(source)
    found = detect(detector, faces.image_NHWC)
    rows = [("path", "identity", column), *((path, faces.names[who], f"{value:.5f}") for path, who, value in zip(faces.paths, faces.identity_N, found.fake_N))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / "scores.csv", text.getvalue().encode())
    shown = np.argsort(-found.fake_N, kind="stable")
    shown = np.unique(np.concatenate((shown[: (pictures + 1) // 2], shown[len(shown) - pictures // 2 :]))) if pictures else shown[:0]
    shown = shown[np.argsort(-found.fake_N[shown], kind="stable")]
    report = {
        "images": len(faces), "model": model, "threshold": threshold, "called fake": int((found.fake_N >= threshold).sum()),
        "mean score": float(found.fake_N.mean()), "attention entropy": float(found.entropy_N.mean()), "left out": len(faces.failed), "scores": str(out / "scores.csv"),
    }  # fmt: skip
    if len(shown):
        write_bytes(out / "heat.png", encode_png(heat_sheet(faces.image_NHWC[shown], found.heat_NGG[shown], found.fake_N[shown])))
        report["picture"] = str(out / "heat.png")
    if parquet_shards(source):
        scores = {path: float(value) for path, value in zip(faces.paths, found.fake_N)}
        report["dataset"] = str(write_scored(source, out / "dataset", column, scores, {f"score {column}": f"P(generated) by {model}"}))
    write_json(out / "report.json", {**report, "trained on": {key: facts.get(key) for key in ("real", "fake")}})
    return report


def heat_sheet(image_NHWC: np.ndarray, heat_NGG: np.ndarray, score_N: np.ndarray) -> np.ndarray:
    """Each face beside its heat (the artifact expert's probability of "fake" a place, blue 0 to red 1, over the grey face) with the score on it."""
    cells = []
    for image_HWC, heat_GG, score in zip(image_NHWC, heat_NGG, score_N):
        cells += [image_HWC, _stamped(overlay(image_HWC, heat_GG), f"{score:.2f}")]
    order = list(range(len(cells)))
    return sheet(np.stack(cells), [order[start : start + 2 * PAIRS_A_ROW] for start in range(0, len(order), 2 * PAIRS_A_ROW)])


def overlay(image_HWC: np.ndarray, heat_GG: np.ndarray) -> np.ndarray:
    """The grey face tinted by heat in [0, 1], uint8."""
    from matplotlib import colormaps

    wide_HW = np.asarray(Image.fromarray(heat_GG.astype(np.float32)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))
    grey_HW1 = image_HWC.mean(2, keepdims=True)
    return np.clip(0.5 * grey_HW1 + 127.5 * colormaps["coolwarm"](np.clip(wide_HW, 0, 1))[..., :3], 0, 255).astype(np.uint8)


def _stamped(image_HWC: np.ndarray, text: str) -> np.ndarray:
    picture = Image.fromarray(image_HWC)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 27, 12), fill=(0, 0, 0))
    draw.text((2, 0), text, fill=(255, 255, 255))
    return np.asarray(picture)


def _named(word: str) -> tuple[str, str]:
    """`NAME=PATH` → both; of a bare path the name is its last part."""
    name, equals, path = word.partition("=")
    if not equals:
        return Path(word).name.partition(".")[0], word
    if not name or not path:
        raise UserError(f"'{word}': expected NAME=FOLDER, e.g. uiface=minted")
    return name, path
