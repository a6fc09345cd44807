"""LMDB as the trainer of HSFace and DataCV reads it: one file, keys "0", "1", ..., each a msgpack of (encoded image, label).

`__len__`, `__keys__` and `__classnum__` are msgpack, too. Needs the packages lmdb and msgpack.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import UserError, missing_extra
from ..core.files import write_atomic
from ..identity.entries import Entry
from ..identity.labels import people_of, person
from .export import Entries, Faces

NAME = "train.lmdb"

_PER_TRANSACTION = 5_000
_FIRST_MAP = 1 << 26


def write(faces: Faces, out: Path) -> None:
    """Write `train.lmdb`; the file is as large as its images (the map grows with them)."""
    lmdb, msgpack = _libraries()
    write_atomic(out / NAME, partial(_write, faces, lmdb, msgpack))


def read(path: Path) -> Entries | None:
    """Open a .lmdb file, the folder that holds one, or an environment folder (data.mdb)."""
    place = _place(path)
    if place is None:
        return None
    lmdb, msgpack = _libraries()
    with _open(lmdb, place) as environment, environment.begin() as transaction:
        size = transaction.get(b"__len__")
        count = msgpack.unpackb(size) if size else environment.stat()["entries"]
    return Entries(path=path, count=int(count), open=partial(_entries, place, lmdb, msgpack))


def _write(faces: Faces, lmdb: Any, msgpack: Any, temporary: Path) -> None:
    environment = lmdb.open(str(temporary), subdir=False, map_size=_FIRST_MAP, lock=False, sync=False, meminit=False)
    try:
        batch: list[tuple[bytes, bytes]] = []
        for number, face in enumerate(faces):
            batch.append((str(number).encode(), msgpack.packb((face.image, face.label))))
            if len(batch) == _PER_TRANSACTION:
                _put(environment, batch)
                batch = []
        keys = [str(number).encode() for number in range(len(faces))]
        about = {"__keys__": keys, "__len__": len(keys), "__classnum__": len(faces.identities)}
        _put(environment, [*batch, *((name.encode(), msgpack.packb(value)) for name, value in about.items())])
        environment.sync(True)
    except lmdb.Error as error:
        raise UserError(f"cannot write the LMDB file: {error}; free space or choose another folder") from error
    finally:
        environment.close()


def _put(environment: Any, batch: list[tuple[bytes, bytes]]) -> None:
    """Store a batch; the map is made larger first where it might not do (a page of 4 kB for each value's end)."""
    need = sum(len(key) + len(value) + 8192 for key, value in batch)
    info, page = environment.info(), environment.stat()["psize"]
    if (info["last_pgno"] + 1) * page + need > info["map_size"]:
        environment.set_mapsize(2 * info["map_size"] + need)
    with environment.begin(write=True) as transaction:
        for key, value in batch:
            transaction.put(key, value)


def _place(path: Path) -> Path | None:
    if path.is_dir():
        if (path / "data.mdb").is_file():
            return path
        found = sorted(path.glob("*.lmdb"))
        return found[0] if len(found) == 1 else None
    return path if path.suffix in (".lmdb", ".mdb") and path.is_file() else None


def _open(lmdb: Any, path: Path) -> Any:
    try:
        return lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise UserError(f"{path} cannot be read as LMDB ({error}); copy or make it again") from error


def _entries(path: Path, lmdb: Any, msgpack: Any) -> Iterator[Entry]:
    names = people_of(path)
    with _open(lmdb, path) as environment, environment.begin(buffers=False) as transaction:
        listed = transaction.get(b"__keys__")
        keys = msgpack.unpackb(listed) if listed else [key for key in transaction.cursor().iternext(values=False) if not key.startswith(b"__")]
        for key in keys:
            key = key if isinstance(key, bytes) else str(key).encode()
            value = transaction.get(key)
            try:
                image, label = msgpack.unpackb(value)  # never a pickle: that could run code
                identity = person(names, int(label))
            except Exception as error:  # msgpack has a class of its own for every kind of damage
                raise UserError(f"{path}, key {key!r}: expected a msgpack of (image, label) ({type(error).__name__}); sets stored as pickles are refused") from error
            yield Entry(path=f"{path.name}#{key.decode('ascii', 'replace')}", identity=identity, data=bytes(image))


def _libraries() -> tuple[Any, Any]:
    try:
        import lmdb
        import msgpack
    except ImportError as error:
        raise missing_extra(error.name or "lmdb", "lmdb", "LMDB") from error
    return lmdb, msgpack
