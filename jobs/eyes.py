"""What `eyeseg predict` does: pictures of eyes from files, folders and datasets; findings as masks, CSV, JSON, picture and score columns.

Axes: E eyes, H W pixels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from ..core.images import decode, encode_labels, encode_png
from ..core.progress import log, track
from ..identity.entries import IMAGE_SUFFIXES, Entry, EntrySource
from ..identity.parquet import parquet_shards
from ..identity.sources import SIDE
from .eye_sheet import eye_sheet
from .scored import write_columns

if TYPE_CHECKING:
    from ..consumers.segmentation.eyeseg import EyeSeg

BATCH = 8

EYE_BOXES = {"left": (38.3, 51.7), "right": (73.5, 51.5)}
"""Centres of the eyes of an aligned face, px, by the side of the picture on which they are seen."""

BOX_PX = (24, 32)


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenEye:
    """One eye and what was found in it.

    Attributes:
        name: of the picture it is from; `side` "" = the whole picture is the eye.
        uncertainty: s_unc.
        gaze_2: yaw and pitch in degrees, or None where too little of the iris is seen.
        grey_HW, label_HW, unsure_HW: the eye, its parts (uint8), their uncertainty; None where they were dropped.
    """

    name: str
    side: str
    uncertainty: float
    gaze_2: np.ndarray | None
    grey_HW: np.ndarray | None
    label_HW: np.ndarray | None
    unsure_HW: np.ndarray | None


def predict_eyes(sources: Sequence[Path], model: str, out: Path, *, faces: bool = False, pictures: int = 24) -> dict[str, Any]:
    """Segment all eyes; write masks/, eyes.csv, overlay.png, report.json and, of a single dataset folder, `dataset/` with columns; return the report.

    Raises:
        UserError: no picture that can be read.
    """
    from ..consumers.segmentation.eyeseg import load_eyeseg

    see, left_out = load_eyeseg(model), []
    aligned = [faces or bool(parquet_shards(source)) for source in sources]
    seen: list[SeenEye] = []
    for source, are_faces in zip(sources, aligned):
        prefix = f"{source.stem}/" if len(sources) > 1 and source.is_dir() else ""
        for eye in _seen(see, eyes_of(source, faces=are_faces, left_out=left_out)):
            write_bytes(out / "masks" / f"{prefix}{Path(eye.name).with_suffix('')}{'_' + eye.side if eye.side else ''}.png", encode_labels(eye.label_HW))
            # The pixels of those on the picture alone stay in memory.
            seen.append(eye if len(seen) < pictures else replace(eye, grey_HW=None, label_HW=None, unsure_HW=None))
    if not seen:
        raise UserError(f"no picture in {', '.join(map(str, sources))} can be used{'; first problem: ' + ': '.join(left_out[0]) if left_out else ''}")
    report = {"eyes": len(seen), "model": model, "mean uncertainty": float(np.mean([eye.uncertainty for eye in seen])), "without gaze": sum(eye.gaze_2 is None for eye in seen), "left out": len(left_out)}
    report |= {"masks": str(out / "masks"), "table": str(_write_table(out / "eyes.csv", seen))}
    if pictures:
        write_bytes(out / "overlay.png", encode_png(eye_sheet(seen[:pictures])))
        report["picture"] = str(out / "overlay.png")
    if len(sources) == 1 and parquet_shards(sources[0]):
        report["dataset"] = str(write_columns(sources[0], out / "dataset", columns_of(seen), {"scores eye_*": f"both eyes of each face by {model}"}))
    if left_out:
        log.warning("%d pictures left out, first: %s: %s", len(left_out), *left_out[0])
    write_json(out / "report.json", {**report, "left out": left_out})
    return report


def eyes_of(source: Path, *, faces: bool, left_out: list[tuple[str, str]]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (picture, side, grey pixels (H, W) uint8) of a file, a folder, a zip or a dataset; what cannot be used is added to `left_out`.

    Args:
        faces: the pictures are aligned faces: both eyes are cut out.
    """
    from ..consumers.segmentation.eye_data import grey

    single = source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES
    for entry in [Entry(path=source.name, identity="", data=source.read_bytes())] if single else EntrySource(source):
        if entry.data is not None and Path(entry.path).suffix.lower() not in IMAGE_SUFFIXES and not parquet_shards(source):
            continue
        try:
            image_HWC = decode(entry.data) if entry.data is not None else None
        except UserError as error:
            left_out.append((entry.path, str(error)))
            continue
        if image_HWC is None or (faces and image_HWC.shape != (SIDE, SIDE, 3)):
            left_out.append((entry.path, entry.problem or f"no aligned {SIDE}x{SIDE} face"))
            continue
        grey_HW = grey(image_HWC[None])[0]
        if not faces:
            yield entry.path, "", grey_HW
            continue
        for side, (x, y) in EYE_BOXES.items():
            top, left = round(y - BOX_PX[0] / 2), round(x - BOX_PX[1] / 2)
            yield entry.path, side, grey_HW[top : top + BOX_PX[0], left : left + BOX_PX[1]]


def columns_of(seen: Sequence[SeenEye]) -> dict[str, dict[str, float]]:
    """Return the columns of faces: mean uncertainty of the two eyes, and where they look (eyes weighted by 1 / uncertainty)."""
    from ..consumers.segmentation.gaze import fuse_gaze

    columns: dict[str, dict[str, float]] = {"eye_uncertainty": {}, "eye_yaw_deg": {}, "eye_pitch_deg": {}}
    for name, both in groupby(seen, key=lambda eye: eye.name):
        eyes = list(both)
        columns["eye_uncertainty"][name] = float(np.mean([eye.uncertainty for eye in eyes]))
        looking = [eye for eye in eyes if eye.gaze_2 is not None]
        if looking:
            yaw, pitch = fuse_gaze(np.array([eye.gaze_2 for eye in looking]), np.array([eye.uncertainty for eye in looking]))
            columns["eye_yaw_deg"][name], columns["eye_pitch_deg"][name] = float(yaw), float(pitch)
    return columns


def _seen(see: EyeSeg, eyes: Iterator[tuple[str, str, np.ndarray]]) -> Iterator[SeenEye]:
    """Segment a stream; neighbours of one size go through the network together."""
    from ..consumers.segmentation.gaze import gaze_of

    held: list[tuple[str, str, np.ndarray]] = []
    for eye in track(_and_end(eyes), "segmenting eyes"):
        if held and (eye is None or len(held) == BATCH or eye[2].shape != held[0][2].shape):
            parts = see(np.stack([grey_HW for _, _, grey_HW in held]))
            found = zip(held, parts.label_BHW.numpy(), parts.uncertainty_BHW.numpy(), parts.score_B.tolist())
            yield from (
                SeenEye(name=name, side=side, grey_HW=grey_HW, label_HW=label_HW, unsure_HW=unsure_HW, uncertainty=score, gaze_2=gaze_of(label_HW))
                for (name, side, grey_HW), label_HW, unsure_HW, score in found
            )
            held = []
        held += [eye] if eye is not None else []


def _and_end(eyes: Iterator[tuple[str, str, np.ndarray]]) -> Iterator[tuple[str, str, np.ndarray] | None]:
    yield from eyes
    yield None


def _write_table(path: Path, seen: Sequence[SeenEye]) -> Path:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("picture", "side", "uncertainty", "yaw_deg", "pitch_deg"))
    for eye in seen:
        yaw_pitch = ("", "") if eye.gaze_2 is None else (f"{eye.gaze_2[0]:.2f}", f"{eye.gaze_2[1]:.2f}")
        rows.writerow((eye.name, eye.side, f"{eye.uncertainty:.5f}", *yaw_pitch))
    write_bytes(path, text.getvalue().encode())
    return path
