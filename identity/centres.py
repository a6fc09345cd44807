"""Centres of real people: what the density of identities is fitted to, and what leakage is measured against.

The centre of a person's embeddings is a biometric template. Files of centres stay with whoever holds the data; none ships with the product.

Axes: N images, I identities, D embedding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..core.check import check, check_unit_rows
from ..core.errors import UserError
from ..core.files import write_atomic
from ..core.weights import load_weights, save_tensors

_KIND = "real-centres"


def class_centres(embed_ND: np.ndarray, identity_N: np.ndarray) -> np.ndarray:
    """Return the unit mean direction of each identity in the order of `np.unique`, float32 (I, D).

    Raises:
        ValueError: rows that are not unit length (NaN included), or one label missing.
    """
    check_unit_rows("embed_ND", embed_ND)
    check("identity_N", np.asarray(identity_N), str(len(embed_ND)))
    names, index_N = np.unique(identity_N, return_inverse=True)
    sum_ID = np.zeros((len(names), embed_ND.shape[1]))
    np.add.at(sum_ID, index_N, embed_ND)
    # Two opposite embeddings sum to zero: their identity has no direction, and its row stays zero.
    return (sum_ID / np.maximum(np.linalg.norm(sum_ID, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def write_centres(embed_ND: np.ndarray, identity_N: np.ndarray, out: Path | str, *, embedder: str | None = None) -> np.ndarray:
    """Write the centres of real people, (I, D), for the leakage checks of a job (`centres: real.safetensors`), and return them.

    The embeddings must come from the judge of that job: `embed_faces(load_embedder("dlib"), faces.image_NHWC)` from `recognition.embedder`,
    or the verb `facefoundry centres`. With the name of the `embedder` in the file, a job that judges in another space is refused.
    """
    centre_ID = class_centres(embed_ND, identity_N)
    about = {"people": len(centre_ID), **({"embedder": embedder} if embedder else {})}
    save_tensors(Path(out), {"centres": torch.from_numpy(centre_ID)}, kind=_KIND, config=about)
    return centre_ID


def embedder_of(path: Path | str) -> str | None:
    """Return the name of the embedder that a file of centres was made with; None where it does not say."""
    return None if Path(path).suffix == ".npy" else load_weights(Path(path), kind=_KIND)[1].get("embedder")


def read_centres(path: Path | str) -> np.ndarray:
    """Return the centres in a file of `write_centres`, or the rows of a .npy file, as unit float32 (I, D).

    Raises:
        UserError: absent, damaged, another kind of file, or rows that are NaN, infinite or zero.
    """
    path = Path(path)
    centre_ID = read_rows(path) if path.suffix == ".npy" else load_weights(path, kind=_KIND)[0]["centres"].numpy()
    return unit_rows(centre_ID, str(path))


def read_rows(path: Path) -> np.ndarray:
    """Return the array of rows, (I, D), in a .npy file that carries no code.

    Raises:
        UserError: absent, damaged, pickled, or of another shape.
    """
    try:
        row_ID = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a .npy file ({error})") from error
    if row_ID.ndim != 2 or not row_ID.size:
        raise UserError(f"{path} has shape {row_ID.shape}; expected one row of numbers for each identity")
    return row_ID


def write_rows(path: Path, row_ID: np.ndarray) -> None:
    """Write rows as a .npy file, atomically; `read_rows` reads it."""

    def put(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # by name, np.save would append a suffix
            np.save(file, row_ID)

    write_atomic(Path(path), put)


def unit_rows(row_ID: np.ndarray, source: str) -> np.ndarray:
    """Return the rows at length 1, float32.

    Raises:
        UserError: rows without a direction; `source` says whose.
    """
    length_I = np.linalg.norm(row_ID.astype(np.float64), axis=1, keepdims=True)
    bad_I = ~(np.isfinite(length_I[:, 0]) & (length_I[:, 0] > 0))
    if bad_I.any():
        raise UserError(f"{source} has {int(bad_I.sum())} rows that are NaN, infinite or zero (the first is row {int(bad_I.argmax())}); drop them")
    return (row_ID / length_I).astype(np.float32)
