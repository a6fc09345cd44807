"""What the verb `normalise` does: faces of any size in, a folder of normalised ones and a picture strip out.

Axes: B faces, H W C.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch.nn.functional as F

from ..core.errors import UserError
from ..core.files import write_bytes
from ..core.images import decode, encode_png, to_float, to_uint8
from ..core.progress import bar, log
from ..identity.entries import Entry, EntrySource
from ..recognition.fan import Fan, load_fan, normalise_faces
from ..recognition.scale_augment import enlarge
from .contact_sheet import SIDE_PX, sheet

STRIP = "strip.png"
_CHUNK = 64


def normalise_folder(source: Path, weights: Path, out: Path, *, shrink_px: int = 0, rows: int = 12) -> dict[str, Any]:
    """Write `out/<name>.png` for each face and `out/strip.png` (input, bicubic, normalised); return what became of them.

    Args:
        source: an image, or whatever `EntrySource` reads; crops are square and aligned.
        shrink_px: shrink each face to so many pixels first; 0 = as it is.
        rows: faces on the strip.

    Raises:
        UserError: `out` holds files already, nothing usable in the source, or weights that are no FAN.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; choose a new one")
    fan, _ = load_fan(weights)
    entries = EntrySource(source) if source.is_dir() or source.suffix == ".zip" or not source.is_file() else [Entry(path=source.name, identity="", data=source.read_bytes())]
    stream, failed, count, shown = iter(entries), [], 0, []
    with bar("normalising", len(entries)) as advance:
        while chunk := list(islice(stream, _CHUNK)):
            found = [(entry, face) for entry, face in _faces(chunk, shrink_px, failed)]
            if found:
                shown += _write(fan, found, out, rows - len(shown))
                count += len(found)
            advance(len(chunk))
    if not count:
        raise UserError(f"{source} holds no usable face" + (f"; first problem: {failed[0]}" if failed else ""))
    if failed:
        log.warning("%s: %d of %d files left out, first: %s", source, len(failed), len(failed) + count, failed[0])
    write_bytes(out / STRIP, encode_png(sheet(np.concatenate(shown), [[3 * row, 3 * row + 1, 3 * row + 2] for row in range(len(shown))])))
    return {"faces": count, "left out": len(failed), "folder": str(out), "strip": str(out / STRIP)}


def _faces(entries: list[Entry], shrink_px: int, failed: list[str]) -> Iterator[tuple[Entry, np.ndarray]]:
    """Yield the usable faces, uint8 (H, H, 3); reasons of the others go to `failed`."""
    for entry in entries:
        try:
            if entry.data is None:
                raise UserError(entry.problem or "cannot be read")
            image = decode(entry.data)
            if image.shape[0] != image.shape[1]:
                raise UserError(f"the image is {image.shape[1]}x{image.shape[0]}, expected a square, aligned crop; align photos with: facefoundry ingest")
            if {"..", ""} & set(PurePosixPath(entry.path).parts) or PurePosixPath(entry.path).is_absolute():
                raise UserError("its name leads out of the folder")
        except UserError as error:
            failed.append(f"{entry.path}: {error}")
        else:
            yield entry, _resized(image, shrink_px, "area") if 0 < shrink_px < len(image) else image


def _write(fan: Fan, found: list[tuple[Entry, np.ndarray]], out: Path, wanted: int) -> list[np.ndarray]:
    """Write the normalised faces; return the first `wanted` rows of the strip, uint8 (3, 112, 112, 3) each."""
    bicubic_BHWC = np.stack([to_uint8(enlarge(to_float(face[None]), (SIDE_PX, SIDE_PX)))[0] if len(face) < SIDE_PX else _resized(face, SIDE_PX, "area") for _, face in found])
    normal_BHWC = normalise_faces(fan, bicubic_BHWC)
    for (entry, _), face in zip(found, normal_BHWC):
        # The suffix of the input is replaced, a dot elsewhere in its name is kept.
        write_bytes(out / PurePosixPath(entry.path).with_suffix(".png"), encode_png(face))
    return [np.stack((_resized(face, SIDE_PX, "nearest"), bicubic, normal)) for (_, face), bicubic, normal in list(zip(found, bicubic_BHWC, normal_BHWC))[: max(0, wanted)]]


def _resized(image_HWC: np.ndarray, side: int, kind: str) -> np.ndarray:
    """Return a uint8 image at another size; area on the way down, nearest to show pixels as they are."""
    return to_uint8(F.interpolate(to_float(image_HWC[None]), (side, side), mode=kind))[0]
