"""Idempotent shards: claim, temporary file, fsync, rename, done-marker; whatever dies in between is done again.

A stage is a folder `job/<stage>/` with `claims/`, `done/` and data files. The rules that make a kill at any moment harmless:
data count only with a done-marker that names their SHA-256; the marker is written last; the content of a shard is a function
of the plan alone, so that two owners of one shard cost time and never data.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from ..core.errors import UserError
from ..core.files import sha256_file, write_json


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a job over numbered shards.

    Attributes:
        root: the dataset folder; file names in markers are relative to it.
        name: folder of the stage under `root/job`.
        lease_s: seconds of silence after which a claim may be taken over.
    """

    root: Path
    name: str
    lease_s: float = 30.0

    @property
    def folder(self) -> Path:
        return self.root / "job" / self.name

    def data(self, shard: int, suffix: str) -> Path:
        """Path of a shard's data file."""
        return self.folder / f"{shard:05d}{suffix}"

    def marker(self, shard: int) -> dict[str, Any] | None:
        """Return what the done-marker says, or None while the shard is not done (no marker, a file gone or of another size)."""
        marker = self.recorded(shard)
        if marker is None or not all(_has_size(self.root / name, facts["bytes"]) for name, facts in marker["files"].items()):
            return None
        return marker

    def recorded(self, shard: int) -> dict[str, Any] | None:
        """Return what the done-marker says, whether or not its files are still there; None without a marker."""
        return _read_json(self._done(shard))

    def complete(self, shard: int, files: Sequence[Path], facts: dict[str, Any]) -> None:
        """Write the done-marker: hashes of the files (already renamed into place) and the facts (rows, failures, seconds)."""
        hashes = {str(path.relative_to(self.root)): {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in files}
        write_json(self._done(shard), {"shard": shard, "files": hashes, **facts})

    def discard(self, shards: Sequence[int]) -> None:
        """Remove the data of shards, once a later stage holds them; the markers stay as a record."""
        for shard in shards:
            for name in (self.recorded(shard) or {"files": {}})["files"]:
                (self.root / name).unlink(missing_ok=True)

    def forget(self, shards: Sequence[int]) -> None:
        """Remove the markers of shards, so that they are made again."""
        for shard in shards:
            self._done(shard).unlink(missing_ok=True)

    def repair(self, shards: Sequence[int]) -> list[str]:
        """Take back the markers of shards whose files changed, so that they are made again; return the damaged and missing files.

        Every byte is read. A marker whose file is gone stays as a record: without its file it does not count as done.
        """
        for folder in ("claims", "done", "progress"):
            _make_folder(self.folder / folder)
        found = []
        for shard in shards:
            bad = [name for name, facts in (self.recorded(shard) or {"files": {}})["files"].items() if not _has_hash(self.root / name, facts)]
            if any((self.root / name).exists() for name in bad):
                self._done(shard).unlink(missing_ok=True)
            found += bad
        return found

    def marked(self) -> set[int]:
        """Return the shards that have a marker; one look at the folder."""
        return {int(path.stem) for path in (self.folder / "done").glob("[0-9]*.json")}

    def records(self, shards: Iterable[int]) -> list[dict[str, Any]]:
        """Return the markers of those shards that have one, whether or not their files are still there."""
        # Path objects for tens of thousands of markers would take longer than reading them.
        marked, folder = self.marked(), os.fspath(self.folder / "done")
        found = (_read_json(f"{folder}/{shard:05d}.json") for shard in shards if shard in marked)
        return [marker for marker in found if marker is not None]

    def working(self) -> int:
        """Return how many workers hold a shard now."""
        folder = self.folder / "claims"
        return sum(self._alive(claim) for claim in folder.iterdir()) if folder.is_dir() else 0

    def tell(self, shard: int, rows: int) -> None:
        """Note how many rows of a claimed shard are made, for whoever shows it; a lost note harms nothing."""
        with suppress(OSError):
            self._progress(shard).write_text(str(rows))

    def at_work(self) -> dict[str, tuple[int, int]]:
        """Return who holds a shard: {"host, process 12": (shard, rows made so far)}, from one look at the claims."""
        found = {}
        for claim in sorted((self.folder / "claims").glob("[0-9]*")):
            owner = _read_json(claim)
            if owner and self._alive(claim):
                found[f"{owner['host']}, process {owner['pid']}"] = (int(claim.name), int(_read_json(self._progress(int(claim.name))) or 0))
        return found

    @contextmanager
    def claim(self, shard: int) -> Iterator[bool]:
        """Try to own a shard for the block; yields whether it worked. A heart-beat keeps the lease while the block runs."""
        path, stop, mine = self.folder / "claims" / f"{shard:05d}", threading.Event(), False
        beat = threading.Thread(target=_heart_beat, args=(path, self.lease_s / 4, stop), daemon=True)
        try:  # before the claim is made: SIGTERM may come at any line
            mine = _create_claim(path) or (self._take_over(path) and _create_claim(path))
            if mine:
                beat.start()
            yield mine
        finally:
            stop.set()
            if beat.is_alive():
                beat.join()
            if mine:
                self._progress(shard).unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def _progress(self, shard: int) -> Path:
        return self.folder / "progress" / f"{shard:05d}"

    def _done(self, shard: int) -> Path:
        return self.folder / "done" / f"{shard:05d}.json"

    def _take_over(self, path: Path) -> bool:
        """Move a dead owner's claim aside; only one of several takers can."""
        if self._alive(path):
            return False
        aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return True
        aside.unlink(missing_ok=True)
        return True

    def _alive(self, path: Path) -> bool:
        """A claim lives while its lease runs; on this host a dead process loses it at once."""
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return False
        owner = _read_json(path)
        if path.suffix == ".tmp" or age_s > self.lease_s:
            return False
        return owner is None or owner["host"] != socket.gethostname() or _same_start(_born(owner["pid"]), owner["born"])


def _create_claim(path: Path) -> bool:
    owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}).encode()
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        os.write(handle, owner)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    finally:
        os.close(handle)
    return True


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror}; free space, then run the same command again")


def _heart_beat(path: Path, every_s: float, stop: threading.Event) -> None:
    while not stop.wait(every_s):
        try:
            os.utime(path)
        except FileNotFoundError:
            return


def _born(pid: int) -> float | None:
    """Start time of a process (pids are used again), or None if there is none or only its exit status is left."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _same_start(left_s: float | None, right_s: float | None) -> bool:
    return left_s is not None and right_s is not None and abs(left_s - right_s) < 2.0  # the clock may be corrected in between


def _read_json(path: Path | str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _has_hash(path: Path, facts: dict[str, Any]) -> bool:
    return _has_size(path, facts["bytes"]) and sha256_file(path) == facts["sha256"]


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; free space or choose another folder") from error
