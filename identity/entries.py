"""Where face images come from: folder per identity, zip of that, ImageFolder, Parquet, .rec; read one at a time, never extracted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..core.errors import UserError
from .metadata import METADATA_NAMES, identity_by_file
from .parquet import iter_parquet, parquet_rows, parquet_shards
from .rec_entries import iter_rec, rec_count, rec_file
from .trees import Tree, open_tree

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
    """A source opened for reading; `len` is the number of entries, iteration yields them in path order (Parquet: row order; .rec:
    the keys' order, and `len` counts the records that are no images, too).

    Raises:
        UserError: the path does not exist, is no zip, or the zip has `../`, absolute or symbolic-link entries.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise UserError(f"{self.path} does not exist; expected a folder per identity, a zip of that, a .rec file, or a dataset folder")
        self._shards = parquet_shards(self.path)
        self._records = None if self._shards else rec_file(self.path)
        self._files: tuple[str, ...] = ()
        if not self._shards and self._records is None:
            with open_tree(self.path) as tree:
                self._files = tuple(tree.names())
        if not self._shards and not self._files and self._records is None:
            raise UserError(f"{self.path} holds no files; expected one folder of images for each identity")

    def __len__(self) -> int:
        if self._records is not None:
            return rec_count(self._records)
        return parquet_rows(self._shards) if self._shards else len(self._files)

    def __iter__(self) -> Iterator[Entry]:
        if self._records is not None:
            for name, identity, image in iter_rec(self._records):
                yield Entry(path=name, identity=identity, data=image)
            return
        if self._shards:
            for name, identity, data, problem in iter_parquet(self.path, self._shards):
                yield Entry(path=name, identity=identity, data=data, problem=problem)
            return
        identity_of = {name: identity for name, identity in zip(self._files, identity_names(self._files))}
        with open_tree(self.path) as tree:
            known = identity_by_file(self._files, tree.read)
            for name in sorted({*self._files, *known}):
                if PurePosixPath(name).name in METADATA_NAMES:
                    continue
                data, problem = _try_read(tree, name)
                yield Entry(path=name, identity=known.get(name) or identity_of.get(name, ""), data=data, problem=problem)


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


def _try_read(tree: Tree, name: str) -> tuple[bytes | None, str | None]:
    try:
        return tree.read(name), None
    except UserError as error:
        return None, str(error)
