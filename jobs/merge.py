"""Several datasets become one: people are numbered anew, equal images found, near people counted, and every row says where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import UserError
from ..core.files import write_atomic
from ..core.progress import bar
from ..identity.dataset import MANIFEST, FaceDataset, finalise, verify_dataset
from ..identity.records import FaceRecord
from ..identity.separation import Rows, reaching
from ..identity.shards import ShardWriter

_JOINED = ("leakage", "license_chain", "training_data", "embedder", "demographics")
"""What the card says of each set by itself."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One of the sets: folder, manifest, and the new number of each of its identities."""

    folder: Path
    manifest: dict[str, Any]
    number: dict[int, int]

    @property
    def title(self) -> str:
        return str(self.manifest["title"])


@dataclass(kw_only=True)
class _Books:
    """Images seen so far, faces of nobody, and what was set aside."""

    owner: dict[bytes, str] = field(default_factory=dict)
    unknown: int = 0
    duplicates: int = 0
    close: int = 0


def merge(folders: Sequence[Path], out: Path, *, title: str, max_cosine: float = 0.45, drop_close: bool = False) -> dict[str, Any]:
    """Write the rows of several dataset folders, in their order, as one dataset in `out`.

    Identity numbers and face ids are new; `source` becomes "number of the set:old face id" and `metadata/identities.parquet` names set and old number. Of
    equal image files the first is kept. Images stay the bytes they are.

    Args:
        max_cosine: from which the anchors of two people of different sets are too near (where all sets hold anchors of one width).
        drop_close: set the later of two such people aside; otherwise they are only counted.

    Raises:
        UserError: fewer than two sets, a damaged one, or `out` is not empty.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} dataset to merge; name two or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty; choose a new folder (nothing is mixed or overwritten)")
    sources = _open(folders)
    close = _close_people(sources, max_cosine)
    refused = close if drop_close and close else frozenset[int]()
    books, writer = _Books(close=len(close or ())), ShardWriter(out)
    with bar("merge", sum(sum(source.manifest["rows"].values()) for source in sources)) as step:
        for place, source in enumerate(sources):
            for part in ("data", "rejected"):
                for record in FaceDataset.open(source.folder, part).records():
                    writer.add(_moved(record, place, source, books, refused))
                    step(1)
    writer.close()
    _write_identities(out, sources)
    manifest = finalise(out, title=title, generator=_joined(source.manifest["generator"] for source in sources), facts=_facts(sources, books, compared=close is not None))
    return {"sets": len(sources), **manifest["rows"], "identities": manifest["identities"], "duplicates": books.duplicates, "close_people": None if close is None else books.close}


def _open(folders: Sequence[Path]) -> list[_Source]:
    sources, first = [], 0
    for folder in folders:
        problems = verify_dataset(folder)
        if problems:
            raise UserError(f"{folder} is damaged ({problems[0]}); restore it, or run its job again")
        known = sorted({identity for part in ("data", "rejected") for identity in FaceDataset.open(folder, part).identity_N.tolist() if identity >= 0})
        sources.append(_Source(folder=folder, manifest=json.loads((folder / MANIFEST).read_bytes()), number={identity: first + rank for rank, identity in enumerate(known)}))
        first += len(known)
    return sources


def _moved(record: FaceRecord, place: int, source: _Source, books: _Books, refused: frozenset[int]) -> FaceRecord:
    """Return a row under its new name, set aside if an equal image or a near person came before it."""
    number = source.number.get(record.identity, -1)
    index = record.face_id.rpartition("/")[2]
    if number < 0:
        books.unknown += 1
    name = f"{number:06d}/{index}" if number >= 0 else f"unknown/{books.unknown - 1:06d}"
    dropped = record.dropped
    if dropped is None:
        digest = hashlib.sha256(record.image or b"").digest()
        if digest in books.owner:
            dropped = f"duplicate: the same file as {books.owner[digest]}"
            books.duplicates += 1
        elif number in refused:
            dropped = "close_identity: its anchor is too near to a person of an earlier set"
        else:
            books.owner[digest] = name
    return replace(record, face_id=name, identity=number, source=f"{place}:{record.face_id}", dropped=dropped)


def _close_people(sources: Sequence[_Source], limit: float) -> frozenset[int] | None:
    """Return the new numbers of people whose anchor reaches the limit to a person of an earlier set; None where anchors cannot be compared."""
    anchors = [_anchors(source) for source in sources]
    known = [pair for pair in anchors if pair is not None]
    if len(known) < len(anchors) or len({rows.shape[1] for _, rows in known}) > 1:
        return None
    held, found = Rows(known[0][1], capacity=sum(len(rows) for _, rows in known)), []
    for numbers, rows in known[1:]:
        found += numbers[reaching(Rows(rows), held, limit)].tolist()
        held.add(rows)
    return frozenset(found)


def _anchors(source: _Source) -> tuple[np.ndarray, np.ndarray] | None:
    """Return new numbers and unit anchors of the people with kept rows; None if one has none."""
    table = FaceDataset.open(source.folder).table.select(["identity", "anchor"])
    identity_N = table.column("identity").to_numpy()
    _, first = np.unique(identity_N, return_index=True)
    rows = table.column("anchor").take(pa.array(first)).to_pylist()
    if any(row is None for row in rows) or len({len(row) for row in rows}) != 1:
        return None
    anchor_ID = np.array(rows, np.float32)
    return np.array([source.number[identity] for identity in identity_N[first].tolist()]), anchor_ID / np.linalg.norm(anchor_ID, axis=1, keepdims=True)


def _write_identities(out: Path, sources: Sequence[_Source]) -> None:
    rows = [(number, place, source.title, old) for place, source in enumerate(sources) for old, number in source.number.items()]
    columns = dict(zip(("identity", "set", "set_title", "identity_in_set"), zip(*rows)))
    types = {"identity": pa.int32(), "set": pa.int32(), "set_title": pa.string(), "identity_in_set": pa.int32()}
    table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    write_atomic(out / "metadata" / "identities.parquet", lambda temporary: pq.write_table(table, temporary))


def _facts(sources: Sequence[_Source], books: _Books, *, compared: bool) -> dict[str, Any]:
    facts = {name: _joined(source.manifest.get("facts", {}).get(name, "not stated") for source in sources) for name in _JOINED if any(name in source.manifest.get("facts", {}) for source in sources)}
    sets = _joined(f"{source.title} ({str(source.manifest.get('facts', {}).get('fingerprint', 'no fingerprint'))[:12]})" for source in sources)
    near = books.close if compared else "not measured: not every set holds anchors of one space"
    return {**facts, "merged_from": sets, "equal_files_set_aside": books.duplicates, "people_near_one_of_an_earlier_set": near}


def _joined(words: Any) -> str:
    """Return the different texts in their order, as one; texts of several lines become paragraphs."""
    texts = list(dict.fromkeys(map(str, words)))
    return ("\n\n" if any("\n" in text for text in texts) else "; ").join(texts)
