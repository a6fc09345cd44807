"""Where face images come from: folder per identity, zip of that, ImageFolder, Parquet; read one at a time, never extracted."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..core.errors import UserError
from .metadata import METADATA_NAMES, identity_by_file
from .parquet import iter_parquet, parquet_rows, parquet_shards

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Larger files are not read (a zip entry may claim any size)."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"})
_SPLITS = frozenset({"train", "test", "validation", "val", "valid", "dev", "eval"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One input file or row.

    Attributes:
        path: its name inside the source, with forward slashes.
        identity: name of the identity; empty where the source tells none.
        data: the encoded image; None when it could not be read.
        problem: why it could not be read, or None.
    """

    path: str
    identity: str
    data: bytes | None
    problem: str | None = None


class EntrySource:
    """A source opened for reading; `len` is the number of entries, iteration yields them in path order (Parquet: row order).

    Raises:
        UserError: the path does not exist, is no zip, or the zip has `../`, absolute or symbolic-link entries.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise UserError(f"{self.path} does not exist; expected a folder per identity, a zip of that, or a dataset folder")
        self._shards = parquet_shards(self.path)
        self._files = () if self._shards else self._list_files()
        if not self._shards and not self._files:
            raise UserError(f"{self.path} holds no files; expected one folder of images for each identity")

    def __len__(self) -> int:
        return parquet_rows(self._shards) if self._shards else len(self._files)

    def __iter__(self) -> Iterator[Entry]:
        if self._shards:
            for name, identity, data, problem in iter_parquet(self.path, self._shards):
                yield Entry(path=name, identity=identity, data=data, problem=problem)
            return
        identity_of = {name: identity for name, identity in zip(self._files, identity_names(self._files))}
        with self._opened() as archive:
            known = identity_by_file(self._files, lambda name: self._read(archive, name))
            for name in sorted({*self._files, *known}):
                if PurePosixPath(name).name in METADATA_NAMES:
                    continue
                data, problem = self._try_read(archive, name)
                yield Entry(path=name, identity=known.get(name) or identity_of.get(name, ""), data=data, problem=problem)

    def _opened(self) -> AbstractContextManager[zipfile.ZipFile | None]:
        return zipfile.ZipFile(self.path) if self.path.is_file() else nullcontext()

    def _list_files(self) -> tuple[str, ...]:
        if self.path.is_dir():
            return tuple(sorted(_walk(self.path)))
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(sorted({_safe_name(self.path, info) for info in archive.infolist() if not info.is_dir()}))
        except zipfile.BadZipFile as error:
            raise UserError(f"{self.path} is not a zip file that can be read ({error}); expected a folder, a zip or a Parquet set") from error

    def _try_read(self, archive: zipfile.ZipFile | None, name: str) -> tuple[bytes | None, str | None]:
        try:
            return self._read(archive, name), None
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
            return None, f"cannot be read ({getattr(error, 'strerror', None) or error})"

    def _read(self, archive: zipfile.ZipFile | None, name: str) -> bytes:
        size = (self.path / name).stat().st_size if archive is None else archive.getinfo(name).file_size
        if size > MAX_FILE_BYTES:
            raise OSError(f"{size} bytes, more than the limit of {MAX_FILE_BYTES}")
        return (self.path / name).read_bytes() if archive is None else archive.read(name)


def identity_names(files: Sequence[str]) -> list[str]:
    """Return the identity of each file: its first folder below the common root; "" for a file outside such folders.

    The root is what all images share (`train112/<person>/x.jpg`), or a split (`train/<person>/x.jpg`).
    """
    images = [PurePosixPath(name).parts for name in files if _is_image(name)]
    root: tuple[str, ...] = ()
    while images and min(len(parts) for parts in images) >= len(root) + 3 and len({parts[len(root)] for parts in images}) == 1:
        root = (*root, images[0][len(root)])
    names = []
    for name in files:
        parts = PurePosixPath(name).parts
        below = parts[len(root):] if parts[: len(root)] == root else ()
        if len(below) >= 3 and _only_splits(images, len(root)):
            below = below[1:]
        names.append(below[0] if len(below) >= 2 else "")
    return names


def _only_splits(images: Sequence[tuple[str, ...]], depth: int) -> bool:
    return all(len(parts) >= depth + 3 and parts[depth].lower() in _SPLITS for parts in images)


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    # macOS archives carry a shadow "__MACOSX/.../._x.jpg" for every file: no images, and no part of the common root.
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("._") and "__MACOSX" not in path.parts


def _walk(root: Path) -> Iterator[str]:
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back into the tree
            subfolders.clear()
            continue
        seen.add(real)
        for file in files:
            yield (Path(folder) / file).relative_to(root).as_posix()


def _safe_name(archive: Path, info: zipfile.ZipInfo) -> str:
    name = info.filename
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{archive} holds a symbolic link ('{name}'), which is refused; zip the files themselves")
    if name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":") or ".." in name.replace("\\", "/").split("/"):
        raise UserError(f"{archive} holds the unsafe path '{name}', which is refused; zip the folder with relative paths inside it")
    return name
