"""The Face Research Lab London Set as the albedo model's photographs: 102 people, neutral, frontal, one studio."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import UserError
from ..core.progress import track

ATTRIBUTION = "CC BY 4.0: DeBruine, L. & Jones, B. (2017), Face Research Lab London Set, doi:10.6084/m9.figshare.5047666; changed: statistics of skin texture"

LICENCE = "CC BY 4.0: name DeBruine & Jones (2017), London Set, doi:10.6084/m9.figshare.5047666"


def photographs(path: Path) -> list[str]:
    """Return the names of the neutral photographs in the zip.

    Raises:
        UserError: not such a zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith("neutral_front/") and name.endswith(".jpg"))
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot open {path}: {error}; expected london.zip with the folder neutral_front/") from error
    if not names:
        raise UserError(f"{path} has no neutral_front/*.jpg; expected the Face Research Lab London Set as a zip")
    return names


def read(path: Path, names: list[str]) -> Iterator[np.ndarray]:
    """Yield photographs, (H, W, 3) uint8."""
    with zipfile.ZipFile(path) as archive:
        for name in names:
            with Image.open(io.BytesIO(archive.read(name))) as picture:
                yield np.asarray(picture.convert("RGB"))


def landmarks(path: Path, names: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the names of the photographs in which a face is found, and dlib's 68 points in them, (N, 68, 2)."""
    from ..recognition.align import DlibAligner, predict_68

    aligner, kept, points = DlibAligner(upsample=0), [], []
    for name, image_HWC in zip(names, track(read(path, names), "landmarks", total=len(names))):
        five_52 = aligner.landmarks(image_HWC)
        if five_52 is not None:
            kept.append(name)
            points.append(predict_68(image_HWC, _box(five_52)))
    return kept, np.array(points).reshape(-1, 68, 2)


def _box(five_52: np.ndarray) -> tuple[int, int, int, int]:
    """The box dlib's detector would draw, from the eyes: brows to chin."""
    middle_2, apart = five_52[:2].mean(0), float(np.linalg.norm(five_52[1] - five_52[0]))
    x, y, half = middle_2[0], middle_2[1] + 0.43 * apart, 1.2 * apart
    return round(x - half), round(y - half), round(x + half), round(y + half)
