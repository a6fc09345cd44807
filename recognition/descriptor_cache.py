"""Embeddings by the hash of the image, kept in a folder of npz parts.

Each part is whole or absent, so several programs may share the folder: at worst they compute a row twice.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from ..core.files import write_atomic
from ..core.progress import log

PARTS_MOST = 32
"""More parts than this are joined into one when the cache is opened."""

_BROKEN = (OSError, KeyError, ValueError, EOFError)


def image_keys(image_NHWC: np.ndarray) -> list[bytes]:
    """Return the SHA-256 of each image's pixels."""
    return [sha256(np.ascontiguousarray(image)).digest() for image in image_NHWC]


class DescriptorCache:
    """Rows by key, on disk.

    Args:
        folder: one folder for each network and preprocessing; made when the first row is stored.
        dim: length of a row.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder, self._dim = folder, dim
        self._row_of: dict[bytes, np.ndarray] | None = None

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the row stored under a key, (dim,) float32, or None."""
        return self._rows().get(key)

    def put(self, keys: list[bytes], row_ND: np.ndarray) -> None:
        """Store rows; a folder that cannot be written is reported once and costs nothing but time."""
        self._rows().update(zip(keys, row_ND))
        try:
            self._write(keys, row_ND)
        except Exception as error:  # a full or read-only disk must not stop the work: the cache is a convenience
            log.warning("the embedding cache %s cannot be written (%s); going on without", self._folder, error)

    def _rows(self) -> dict[bytes, np.ndarray]:
        if self._row_of is None:
            self._row_of = {}
            parts = sorted(self._folder.glob("part-*.npz"))
            for part in parts:
                self._read(part)
            if len(parts) > PARTS_MOST and self._row_of:
                self._join(parts)
        return self._row_of

    def _read(self, part: Path) -> None:
        try:
            with np.load(part, allow_pickle=False) as stored:
                keys, row_ND = stored["keys"], stored["rows"]
        except _BROKEN:  # joined by another program meanwhile, or damaged: its rows are computed again
            return
        if row_ND.shape == (len(keys), self._dim) and self._row_of is not None:
            self._row_of.update(zip((key.tobytes() for key in keys), row_ND))

    def _join(self, parts: list[Path]) -> None:
        rows = self._rows()
        self.put(list(rows), np.stack(list(rows.values())))
        joined = self._part(list(rows))
        if joined.is_file():
            for part in parts:
                if part != joined:
                    part.unlink(missing_ok=True)

    def _part(self, keys: list[bytes]) -> Path:
        return self._folder / f"part-{sha256(b''.join(sorted(keys))).hexdigest()[:24]}.npz"

    def _write(self, keys: list[bytes], row_ND: np.ndarray) -> None:
        key_N32 = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)

        def store(temporary: Path) -> None:
            with open(temporary, "wb") as file:
                np.savez(file, keys=key_N32, rows=row_ND.astype(np.float32))

        write_atomic(self._part(keys), store)
