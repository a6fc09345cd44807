"""Small models for the tests of the loaders: a tiny head written as each format has it, with nothing licensed in it."""

from __future__ import annotations

import struct

import numpy as np

from facefoundry.styles_3dmm.morphable import MorphableHead, tiny

K, E = 3, 2


def theirs() -> MorphableHead:
    """A head whose arrays the files hold: millimetres, but in a file's axes (y up) and few components."""
    return tiny(rings=12)


def places() -> np.ndarray:
    """Vertices in a file's axes, mm, (V, 3)."""
    return theirs().mean_V3.astype(np.float64) * (1, -1, 1) + (0, 30, 5)


def shapes() -> np.ndarray:
    """What a standard deviation of each component moves, (K, V, 3), file's axes."""
    return theirs().identity_KV3[:K].astype(np.float64) * (1, -1, 1)


def moods() -> np.ndarray:
    return theirs().expression_EV3[:E].astype(np.float64) * (1, -1, 1)


def triangles() -> np.ndarray:
    """Wound for y up."""
    return theirs().triangle_T3[:, [0, 2, 1]]


def known() -> dict[int, int]:
    return dict(enumerate(theirs().landmark_68.tolist()))


def landmark_lines() -> str:
    """As eos' mapping files."""
    return "# a remark\n[landmark_mappings]\n" + "".join(f" {point + 1} = {vertex}  # what\n" for point, vertex in known().items())


def same_shape(head: MorphableHead, tolerance: float = 1e-2) -> None:
    """The loaded head is the tiny one, moved so that its origin lies between its eyes."""
    own = theirs()
    shift = head.mean_V3[0] - own.mean_V3[0]
    assert np.abs(head.mean_V3 - own.mean_V3 - shift).max() < tolerance
    assert np.abs(head.eye_centre_23.sum(0)).max() < 1e-3
    assert np.abs(np.abs(head.identity_KV3) - np.abs(own.identity_KV3[:K])).max() < tolerance
    corner = head.mean_V3[head.triangle_T3].astype(np.float64)
    out = np.einsum("ti,ti->t", corner.mean(1) - head.mean_V3.mean(0), np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]))
    assert (out > 0).mean() > 0.95


# --- eos' binary archive -------------------------------------------------------------------------------------------------------


def matrix(array: np.ndarray) -> bytes:
    array = np.atleast_2d(array.T).T
    return struct.pack("<ii", *array.shape) + array.astype("<f4").tobytes(order="F")


def pca(mean: np.ndarray, basis: np.ndarray, variance: np.ndarray, triangle: np.ndarray) -> bytes:
    return matrix(mean) + matrix(basis) + matrix(variance) + struct.pack("<Q", len(triangle)) + triangle.astype("<i4").tobytes()


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def unit_columns(moved_KV3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit columns and standard deviations of a basis."""
    flat = moved_KV3.reshape(len(moved_KV3), -1)
    deviation = np.linalg.norm(flat, axis=1)
    return (flat / deviation[:, None]).T, deviation


def eos_file(version: int = 3, blendshapes: bool = True, landmarks: bool = True, uv: np.ndarray | None = None) -> bytes:
    basis, deviation = unit_columns(shapes())
    data = struct.pack("<I", version) + pca(places().ravel(), basis, deviation**2, triangles()) + pca(np.zeros(0), np.zeros((0, 0)), np.zeros(0), triangles())
    if version >= 2 and blendshapes:
        data += b"\0" + struct.pack("<i", 1) + struct.pack("<Q", E) + b"".join(text(f"mood{e}") + matrix(moods()[e].ravel()) for e in range(E))
    elif version >= 2:
        column, length = unit_columns(moods())
        data += b"\0" + struct.pack("<i", 0) + pca(np.full(places().size, 2.0), column, length**2, triangles())
    if version >= 3 and landmarks:
        data += b"\0" + struct.pack("<Q", 69) + b"".join(text(str(point + 1)) + struct.pack("<i", vertex) for point, vertex in known().items()) + text("nose.tip") + struct.pack("<i", 5)
    elif version >= 3:
        data += b"\1"
    uv = np.zeros((0, 2)) if uv is None else uv
    data += struct.pack("<Q", len(uv)) + uv.astype("<f8").tobytes()
    return data + (struct.pack("<Q", 0) if version >= 4 else b"")
