"""Aligned faces in memory: what trainers and measurements read.

Axes: N images, H W C height, width, channels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.images import decode
from ..core.progress import bar, log
from .entries import Entry, EntrySource

SIDE = 112
"""Height and width of an aligned face in pixels."""

_CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """Aligned faces of known people.

    Attributes:
        image_NHWC: uint8 RGB, (N, 112, 112, 3).
        identity_N: int32 index into `names`, (N,).
        names: the identities' names, sorted; each has at least one image.
        paths: name of each image inside the source; rows are sorted by it.
        failed: (path, reason) of every file that was left out.
    """

    image_NHWC: np.ndarray
    identity_N: np.ndarray
    names: tuple[str, ...]
    paths: tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


def load_faces(path: Path | str) -> Faces:
    """Load aligned 112×112 faces from a folder per identity, a zip of that, a dataset folder (Parquet), or a .rec set (its file, or the folder that holds it alone).

    Files that cannot be used are left out, listed in `failed` and counted in one warning.

    Raises:
        UserError: nothing at `path`, an unsafe zip, or no usable face at all.
    """
    source = EntrySource(Path(path))
    image_NHWC = np.empty((len(source), SIDE, SIDE, 3), np.uint8)
    paths: list[str] = []
    owners: list[str] = []
    failed: list[tuple[str, str]] = []
    with bar(f"reading {source.path.name}", len(source)) as step:
        for entry, face in decode_entries(source):
            if isinstance(face, str):
                failed.append((entry.path, face))
            else:
                image_NHWC[len(paths)] = face
                paths.append(entry.path)
                owners.append(entry.identity)
            step(1)
    if not paths:
        reason = f"; first problem: {failed[0][0]}: {failed[0][1]}" if failed else ""
        raise UserError(f"{source.path} holds no usable 112x112 face of a named identity{reason}")
    if failed:
        log.warning("%s: %d of %d files left out, first: %s: %s", source.path, len(failed), len(paths) + len(failed), *failed[0])
    return _sorted_faces(image_NHWC[: len(paths)], owners, paths, tuple(failed))


def decode_entries(entries: Iterator[Entry] | EntrySource) -> Iterator[tuple[Entry, np.ndarray | str]]:
    """Yield each entry with its aligned face, uint8 (112, 112, 3), or the reason it is none; a few threads decode."""
    stream = iter(entries)
    with ThreadPoolExecutor(max_workers=min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)) as pool:
        while chunk := list(islice(stream, _CHUNK)):
            yield from zip(chunk, pool.map(_aligned_face, chunk))


def _aligned_face(entry: Entry) -> np.ndarray | str:
    if entry.data is None:
        return entry.problem or "cannot be read"
    if not entry.identity:
        return "not in the folder of an identity"
    try:
        face = decode(entry.data)
    except UserError as error:
        return str(error)
    if face.shape != (SIDE, SIDE, 3):
        return f"the image is {face.shape[1]}x{face.shape[0]}, expected an aligned {SIDE}x{SIDE} face; align it with: facefoundry ingest"
    return face


def _sorted_faces(image_NHWC: np.ndarray, owners: list[str], paths: list[str], failed: tuple[tuple[str, str], ...]) -> Faces:
    order = sorted(range(len(paths)), key=paths.__getitem__)
    if order != list(range(len(paths))):
        image_NHWC = image_NHWC[order]
    names, identity_N = np.unique(np.array([owners[row] for row in order]), return_inverse=True)
    return Faces(
        image_NHWC=image_NHWC,
        identity_N=identity_N.astype(np.int32),
        names=tuple(str(name) for name in names),
        paths=tuple(paths[row] for row in order),
        failed=failed,
    )
