"""Datasets in other formats, and back: the common part. Each format is one file, `export_<format>.py`.

A format's module has `write(faces, out)` and `read(path)`: the latter returns the entries of such a set, or None if `path` is none.
Labels are counted from 0 in the order of identities; images stay the bytes they are, unless a JPEG quality is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..core.errors import UserError, near_names
from ..core.files import write_bytes, write_json
from ..core.images import decode, encode_jpeg
from ..core.progress import bar
from ..identity.dataset import MANIFEST, FaceDataset
from ..identity.entries import Entry
from ..identity.labels import LABELS
from ..identity.records import FaceRecord
from .media_type import like

FORMATS = ("rec", "imagefolder", "webdataset", "tfrecord", "lmdb", "list")

SIDECAR = "facefoundry.json"
"""Written beside every export: what it is and where it came from (last: with it the export is whole)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One kept face on its way out.

    Attributes:
        label: 0 ... I-1.
        person: name of the identity, six digits, so that names sort like numbers.
        name: "000123/0007.png".
        image: the encoded file.
        record: the row it came from.
    """

    label: int
    person: str
    name: str
    image: bytes
    record: FaceRecord

    def facts(self) -> dict[str, Any]:
        """Return what formats with room for text say of a face."""
        kept = {"face_id": self.record.face_id, "identity": self.record.identity, "label": self.label, "seed": self.record.seed, "generator": self.record.generator, "origin": self.record.origin}
        return {key: value for key, value in kept.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Faces:
    """The kept faces of a dataset in the order of their labels; iterating reads them from disk.

    Attributes:
        dataset: the folder.
        quality: of the JPEG every image is written anew as; None = the bytes they are.
    """

    dataset: FaceDataset
    quality: int | None = None

    @cached_property
    def label_N(self) -> np.ndarray:
        """Label of every face in the order of iteration, (N,)."""
        return np.sort(np.unique(self.dataset.identity_N, return_inverse=True)[1])

    @property
    def identities(self) -> np.ndarray:
        """Identity number of each label, (I,)."""
        return np.unique(self.dataset.identity_N)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Face]:
        label = {int(identity): number for number, identity in enumerate(self.identities)}
        with bar("export", len(self)) as step:
            for record in self._records():
                image, suffix = self._file(record)
                person = f"{record.identity:06d}"
                name = f"{person}/{record.face_id.rpartition('/')[2]}{suffix}"
                yield Face(label=label[record.identity], person=person, name=name, image=image, record=record)
                step(1)

    def _records(self) -> Iterator[FaceRecord]:
        if (np.diff(self.dataset.identity_N) >= 0).all():
            return self.dataset.records()
        return iter(sorted(self.dataset.records(), key=lambda record: record.identity))  # brought in from elsewhere, mixed: all in memory

    def _file(self, record: FaceRecord) -> tuple[bytes, str]:
        data = record.image or b""
        if self.quality is not None:
            data = like(encode_jpeg(decode(data), self.quality), data)
        return data, ".jpg" if data.startswith(b"\xff\xd8") else ".png"


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The entries of a set in another format, as `identity.ingest` reads them."""

    path: Path
    count: int
    open: Callable[[], Iterator[Entry]]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        return self.open()


class Format(Protocol):
    """What a module `export_<format>` has."""

    def write(self, faces: Faces, out: Path) -> None:
        """Write the faces into the folder `out`, each file whole or not at all."""
        ...

    def read(self, path: Path) -> Entries | None:
        """Return the entries of a set of this format; None if `path` is none."""
        ...


def export(folder: Path, out: Path, to: str, *, quality: int | None = None) -> dict[str, Any]:
    """Write the kept faces of a dataset folder in another format into the new folder `out`.

    Args:
        to: a name of `FORMATS`.
        quality: write every image anew as a JPEG of this quality (lossy: colours move a little).

    Returns:
        format, images, identities.

    Raises:
        UserError: an unknown format, no dataset, or `out` is not empty.
    """
    if to == "parquet":
        raise UserError(f"{folder} is Parquet already (data/*.parquet, opened by datasets.load_dataset); copy the folder")
    if to not in FORMATS:
        raise UserError(f"unknown format '{to}'; {near_names(to, FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty; choose a new folder (nothing is mixed or overwritten)")
    faces = Faces(dataset=FaceDataset.open(folder), quality=quality)
    out.mkdir(parents=True, exist_ok=True)
    _module(to).write(faces, out)
    count_I = np.bincount(faces.label_N)
    lines = [f"{label}\t{identity:06d}\t{count}" for label, (identity, count) in enumerate(zip(faces.identities.tolist(), count_I.tolist()))]
    write_bytes(out / LABELS, "".join(f"{line}\n" for line in ("label\tidentity\timages", *lines)).encode("ascii"))
    write_json(out / SIDECAR, {"format": to, "images": len(faces), "identities": len(lines), "jpeg_quality": quality, **_provenance(folder)})
    return {"format": to, "images": len(faces), "identities": len(lines)}


def open_set(path: Path) -> Entries | None:
    """Return the entries of a set in one of the formats, found by what lies there; None: `identity.entries.EntrySource` reads it, or nobody."""
    for name in FORMATS:
        if (found := _module(name).read(path)) is not None:
            return found
    return None


def origin_of(path: Path) -> str | None:
    """Return the origin that an export of ours states, if it is the same for all rows; None for a set of another maker."""
    sidecar = (path if path.is_dir() else path.parent) / SIDECAR
    try:
        origins = json.loads(sidecar.read_bytes())["origins"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(origins[0]) if len(origins) == 1 else None


def _module(name: str) -> Format:
    return import_module(f"{__package__}.export_{name}")  # type: ignore[return-value]


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    facts = manifest.get("facts", {})
    return {key: manifest.get(key) for key in ("title", "generator", "origins")} | {key: facts[key] for key in ("fingerprint", "license_chain") if key in facts}
