"""A folder or a zip of it, read by name; nothing is ever extracted."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from ..core.errors import UserError

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Larger files are refused before they are read (a zip entry may claim any size)."""


class Tree(Protocol):
    """Files by their relative names, with forward slashes."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            UserError: no such file, it cannot be read, or it is larger than the limit.
        """
        ...


@contextmanager
def open_tree(path: Path | str) -> Iterator[Tree]:
    """Open a folder or a zip for reading.

    Raises:
        UserError: nothing there, no zip, or the zip holds absolute paths or `../` (such an archive is refused whole).
    """
    path = Path(path)
    if path.is_dir():
        yield _FolderTree(path)
        return
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a folder or a zip file")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} cannot be read as a zip file ({error}); expected a folder or a zip file") from error
    with archive:
        for name in archive.namelist():
            if not is_safe(name):
                raise UserError(f"{path} holds the unsafe path '{name}', which is refused; zip the folder with relative paths inside it")
        yield _ZipTree(path, archive)


def is_safe(name: str) -> bool:
    """Return whether a relative name stays inside its root."""
    plain = PurePosixPath(name.replace("\\", "/"))
    return not plain.is_absolute() and ".." not in plain.parts and ":" not in name.split("/")[0]


class _FolderTree:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        return sorted(path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        file = self._root / name
        if not is_safe(name):
            raise UserError(f"the path '{name}' leads out of {self._root}, which is refused")
        try:
            _refuse_huge(file, file.stat().st_size)
            return file.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror or error}") from error


class _ZipTree:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive

    def names(self) -> list[str]:
        return sorted(name for name in self._archive.namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        try:
            _refuse_huge(f"{self._path}:{name}", self._archive.getinfo(name).file_size)
            return self._archive.read(name)
        except KeyError as error:
            raise UserError(f"{self._path} holds no file '{name}'") from error
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"cannot read '{name}' in {self._path}: {error}") from error


def _refuse_huge(name: object, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UserError(f"{name} has {size} bytes, more than the limit of {MAX_FILE_BYTES}")
