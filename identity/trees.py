"""A folder or a zip of it, read by name; nothing is ever extracted."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
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
            UserError: no such file, it cannot be read, it is larger than the limit, or the name leads out of the tree.
        """
        ...


@contextmanager
def open_tree(path: Path | str) -> Iterator[Tree]:
    """Open a folder or a zip for reading.

    Raises:
        UserError: nothing there, no zip, or the zip holds absolute paths, `../` or symbolic links (such an archive is refused whole).
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
        for info in archive.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UserError(f"{path} holds a symbolic link ('{info.filename}'), which is refused; zip the files themselves")
            if not _is_inside(info.filename):
                raise UserError(f"{path} holds the unsafe path '{info.filename}', which is refused; zip the folder with relative paths inside it")
        yield _ZipTree(path, archive)


def _is_inside(name: str) -> bool:
    """Return whether a relative name stays inside its root, on Windows too."""
    path = PureWindowsPath(name)  # both slashes part names, and C: is a drive
    return not (path.drive or path.root or ".." in path.parts)


class _FolderTree:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        return sorted(_walk(self._root))

    def read(self, name: str) -> bytes:
        if not _is_inside(name):
            raise UserError(f"the path '{name}' leads out of {self._root}, which is refused")
        # Messages name the folder without its place on this machine: ingest writes them into data sets.
        try:
            _refuse_huge(name, (self._root / name).stat().st_size)
            return (self._root / name).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read '{name}' in {self._root.name}: {error.strerror or error}") from error


class _ZipTree:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive

    def names(self) -> list[str]:
        return sorted({name for name in self._archive.namelist() if not name.endswith("/")})

    def read(self, name: str) -> bytes:
        try:
            _refuse_huge(name, self._archive.getinfo(name).file_size)
            return self._archive.read(name)
        except KeyError as error:
            raise UserError(f"there is no file '{name}' in {self._path.name}") from error
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"cannot read '{name}' in {self._path.name}: {error}") from error


def _refuse_huge(name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UserError(f"'{name}' has {size} bytes, more than the limit of {MAX_FILE_BYTES}")


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
