"""Small made-up faces, encoded, and folders of them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _picture(seed: int, size: tuple[int, int] = (112, 112), mode: str = "RGB", kind: str = "PNG") -> bytes:
    """An encoded picture with its own smooth content (smooth: JPEG keeps it)."""
    grid = np.add.outer(np.arange(size[1]), np.arange(size[0]))[:, :, None] + 40 * np.arange(3) + 17 * seed
    buffer = io.BytesIO()
    Image.fromarray((grid % 256).astype(np.uint8)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def people() -> dict[str, bytes]:
    """Three people with 2, 3 and 1 faces: file → bytes."""
    return {f"{name}/{k}.png": _picture(10 * p + k) for p, (name, count) in enumerate((("ann", 2), ("bob", 3), ("cid", 1))) for k in range(count)}


def _make_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def _make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def picture():
    """picture(seed, size, mode, kind) → encoded bytes."""
    return _picture


@pytest.fixture
def make_folder():
    """make_folder(root, {name: bytes}) → root."""
    return _make_folder


@pytest.fixture
def make_zip():
    """make_zip(path, {name: bytes}) → path."""
    return _make_zip


@pytest.fixture(scope="session")
def unit_faces() -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of 200 made-up people, 1 to 4 faces each: float32 (N, 16), labels (N,)."""
    rng = np.random.default_rng(7)
    identity_N = np.repeat(np.arange(200) * 3 + 5, rng.integers(1, 5, 200))
    centre_ID = rng.standard_normal((200, 16))
    embed_ND = np.repeat(centre_ID, np.unique(identity_N, return_counts=True)[1], axis=0) + 0.4 * rng.standard_normal((len(identity_N), 16))
    order = rng.permutation(len(identity_N))
    return (embed_ND / np.linalg.norm(embed_ND, axis=1, keepdims=True)).astype(np.float32)[order], identity_N[order]
