"""An object store as the place where the workers of a job meet: every one has its own local folder, what is finished goes to the store.

Claims are objects that only one writer can create (a conditional write); a claim counts as dead when it did not change for a lease, by the
watcher's own clock, so that no two clocks are compared. Markers are written after the data they name, as on a disk.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..core.errors import UserError
from ..core.files import sha256_file, write_bytes
from ..core.progress import log
from .shards import Stage

LINK = Path("job") / "store.json"
"""In a job's folder: which store it belongs to. Not part of the dataset."""

SHARED = ("job/plan.json", "job/job.yaml", "job/anchors.npy", "job/anchors.json")


@dataclass(frozen=True)
class Store:
    """A folder of an object store by its URL ("s3://bucket/faces"), through fsspec."""

    url: str

    def put(self, name: str, data: bytes) -> None:
        """Write an object, in the place of what is there."""
        with _told(self.url):
            self._files.pipe_file(self._at(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object if there is none of that name; return whether there was none."""
        with _told(self.url):
            try:
                self._files.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                return False
        return True

    def get(self, name: str) -> bytes | None:
        """Return an object, or None."""
        with _told(self.url):
            try:
                return self._files.cat_file(self._at(name))
            except FileNotFoundError:
                return None

    def upload(self, path: Path, name: str) -> None:
        """Write a file."""
        with _told(self.url):
            self._files.put_file(str(path), self._at(name))

    def remove(self, name: str) -> None:
        """Remove an object if it is there."""
        with _told(self.url):
            try:
                self._files.rm_file(self._at(name))
            except FileNotFoundError:
                return

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder, without it."""
        with _told(self.url):
            try:
                return [str(path).rsplit("/", 1)[-1] for path in self._files.ls(self._at(folder), detail=False)]
            except FileNotFoundError:
                return []

    @property
    def _files(self) -> Any:
        return _file_system(self.url)[0]

    def _at(self, name: str) -> str:
        return f"{_file_system(self.url)[1].rstrip('/')}/{name}"


@functools.cache
def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UserError(f"engine.store '{url}' cannot be opened ({error}); for s3:// install 'facefoundry[s3]', for others the fsspec package of that store") from error
    return files, root


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"the store {url} cannot be used ({error}); check its address, rights and credentials, then run the same command again") from error


@dataclass(frozen=True, kw_only=True)
class StoreStage(Stage):
    """A stage whose claims, markers and finished data lie in a store; its local folder holds what this worker made or needed."""

    store: Store
    seen: dict[int, tuple[bytes, float]] = field(default_factory=dict, compare=False)  # claim → its content, when it was first seen so

    def data(self, shard: int, suffix: str) -> Path:
        """Path of a shard's data file; what another worker finished is brought here first."""
        path = super().data(shard, suffix)
        facts = (self.recorded(shard) or {"files": {}})["files"].get(self._name(path))
        if facts is not None and not (path.is_file() and path.stat().st_size == facts["bytes"]):
            self._bring(shard, path, facts)
        return path

    def marker(self, shard: int) -> dict[str, Any] | None:
        return self.recorded(shard)

    def recorded(self, shard: int) -> dict[str, Any] | None:
        found = super().recorded(shard)
        if found is None and (data := self.store.get(self._object(f"done/{shard:05d}.json"))) is not None:
            write_bytes(self._done(shard), data)
            found = json.loads(data)
        return found

    def complete(self, shard: int, files: Sequence[Path], facts: dict[str, Any]) -> None:
        for path in files:
            self.store.upload(path, self._name(path))
        super().complete(shard, files, facts)
        self.store.put(self._object(f"done/{shard:05d}.json"), self._done(shard).read_bytes())

    def discard(self, shards: Sequence[int]) -> None:
        for shard in shards:
            for name in (self.recorded(shard) or {"files": {}})["files"]:
                self.store.remove(name)
        super().discard(shards)

    def forget(self, shards: Sequence[int]) -> None:
        for shard in shards:
            self.store.remove(self._object(f"done/{shard:05d}.json"))
        super().forget(shards)

    def repair(self, shards: Sequence[int]) -> list[str]:
        """Take back local markers that the store does not know: their data never arrived. Data are checked when they are brought."""
        for folder in ("claims", "done"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        lost = [shard for shard in shards if super(StoreStage, self).recorded(shard) and shard not in self.marked()]
        super().forget(lost)
        return []

    def records(self, shards: Iterable[int]) -> list[dict[str, Any]]:
        marked = self.marked()
        return [marker for shard in shards if shard in marked and (marker := self.recorded(shard)) is not None]

    def marked(self) -> set[int]:
        return {int(name[:5]) for name in self.store.names(self._object("done")) if name.endswith(".json")}

    def working(self) -> int:
        return len(self.store.names(self._object("claims")))

    @contextmanager
    def claim(self, shard: int) -> Iterator[bool]:
        name, owner, stop = self._object(f"claims/{shard:05d}"), uuid4().hex, threading.Event()
        beat = threading.Thread(target=self._heart_beat, args=(name, owner, stop), daemon=True)
        mine = False
        try:
            mine = self.store.create(name, f"{owner} 0".encode()) or (self._is_dead(shard, name) and self.store.create(name, f"{owner} 0".encode()))
            if mine:
                beat.start()
            yield mine
        finally:
            stop.set()
            if beat.is_alive():
                beat.join()
            if mine:
                self.store.remove(name)

    def _is_dead(self, shard: int, name: str) -> bool:
        """Whether a claim stood still for a lease; it is removed then."""
        content, now_s = self.store.get(name), time.monotonic()
        if content is None:
            return True
        if self.seen.get(shard, (None, 0.0))[0] != content:
            self.seen[shard] = (content, now_s)
        if now_s - self.seen[shard][1] <= self.lease_s:
            return False
        self.store.remove(name)
        return True

    def _heart_beat(self, name: str, owner: str, stop: threading.Event) -> None:
        beat = 0
        while not stop.wait(self.lease_s / 4):
            beat += 1
            try:
                self.store.put(name, f"{owner} {beat}".encode())
            except UserError as error:  # a missed beat is no harm: at worst the shard is made twice
                log.debug("heart-beat of %s: %s", name, error)

    def _bring(self, shard: int, path: Path, facts: dict[str, Any]) -> None:
        data = self.store.get(self._name(path))
        if data is not None:
            write_bytes(path, data)
            if sha256_file(path) == facts["sha256"]:
                return
            path.unlink()
        self.forget([shard])
        raise UserError(f"{self.store.url}/{self._name(path)} is damaged or missing; its marker was taken back: run the same command again, and the shard is made again")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _object(self, name: str) -> str:
        return f"job/{self.name}/{name}"


def store_of(folder: Path) -> Store | None:
    """Return the store a job's folder belongs to, or None."""
    path = folder / LINK
    return Store(json.loads(path.read_bytes())["url"]) if path.is_file() else None


def join(folder: Path, url: str) -> None:
    """Bind a folder to a store, and bring the plan that is there already."""
    held = store_of(folder)
    if held is not None and held.url != url:
        raise UserError(f"{folder} belongs to the store {held.url}, asked was {url}; choose another --out")
    store = Store(url)
    for name in SHARED if store.get(SHARED[0]) is not None else ():
        data = store.get(name)
        if data is not None and not (folder / name).is_file():
            write_bytes(folder / name, data)
    write_bytes(folder / LINK, json.dumps({"url": url}).encode())


def share_plan(folder: Path) -> None:
    """Put the plan into the store unless another worker was faster, whose plan then counts here too; the plan itself comes last."""
    store = store_of(folder)
    if store is None:
        return
    for name in (*SHARED[1:], SHARED[0]):
        if not store.create(name, (folder / name).read_bytes()):
            write_bytes(folder / name, store.get(name) or b"")


def bring_finished(folder: Path) -> None:
    """Bring the files of a job that is published already, so that a fresh folder has nothing to do."""
    store = store_of(folder)
    marker = store.get("job/publish/done/00000.json") if store else None
    if store is None or marker is None:
        return
    for name in json.loads(marker)["files"]:
        path = folder / name
        if not path.is_file() and (data := store.get(name)) is not None:
            write_bytes(path, data)
    write_bytes(folder / "job" / "publish" / "done" / "00000.json", marker)


def put_finished(folder: Path) -> None:
    """Put the published dataset and its report into the store, the marker last."""
    store = store_of(folder)
    if store is None:
        return
    marker = folder / "job" / "publish" / "done" / "00000.json"
    names = [*json.loads(marker.read_bytes())["files"], *(path.name for path in folder.glob("report.*"))]
    for name in names:
        store.upload(folder / name, name)
    store.put("job/publish/done/00000.json", marker.read_bytes())
