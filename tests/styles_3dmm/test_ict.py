"""A folder as ICT-FaceKit has it, with a tiny head in it: materials are parts, shells are left out, shapes are differences from the neutral mesh."""

from __future__ import annotations

import json

import numpy as np
import pytest
from foreign_files import E, K, known, moods, places, same_shape, shapes, theirs, triangles

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.foreign import adopt
from facefoundry.styles_3dmm.head_formats import read_head
from facefoundry.styles_3dmm.ict import read_ict
from facefoundry.styles_3dmm.morphable import PARTS

UNITS = ("browDown_L", "jawOpen")
SHELL = 4
"""Vertices of a glassy shell that stand before the rest in the file, so that numbers shift when it is left out."""


def mesh(moved: np.ndarray | float = 0.0) -> str:
    point = np.concatenate([np.zeros((SHELL, 3)), (places() + moved) / 10])  # centimetres
    lines = ["# made by a test", *(f"v {x} {y} {z}" for x, y, z in point), "vt 0 0"]
    part = theirs().part_T
    eye, rest = np.isin(part, [PARTS.index("sclera"), PARTS.index("iris")]), part == PARTS.index("skin")
    right = places()[triangles()][:, :, 0].mean(1) > 0
    for name, chosen in (("Face", rest), ("ScleraLeft", eye & right), ("ScleraRight", eye & ~right)):
        lines += [f"usemtl M_{name}", *("f " + " ".join(f"{v + SHELL + 1}/1" for v in corner) for corner in triangles()[chosen])]
    lines += ["usemtl M_EyeLashes", "f 1/1 2/1 3/1 4/1"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path):
    inner = tmp_path / "FaceXModel"
    inner.mkdir()
    (inner / "generic_neutral_mesh.obj").write_text(mesh())
    for k in range(K):
        (inner / f"identity{k:03d}.obj").write_text(mesh(shapes()[k]))
    for name, moved in zip(UNITS, moods()):
        (inner / f"{name}.obj").write_text(mesh(moved))
    landmark = [vertex + SHELL for vertex in known().values()]
    (inner / "vertex_indices.json").write_text(json.dumps({"expressions": UNITS, "idx_to_landmark_verts": landmark}))
    return inner


def test_the_folder_is_read(folder):
    head = read_head(folder.parent)
    same_shape(head)
    assert head.expression_names == ("browDownLeft", "jawOpen") and len(head.expression_EV3) == E
    assert head.expression_EV3 == pytest.approx(theirs().expression_EV3[:E], abs=1e-3)
    assert (head.landmark_68 == theirs().landmark_68).all() and len(head.mean_V3) == len(places())
    assert head.licence.startswith("MIT")


def test_eyeballs_are_those_of_the_materials(folder):
    head, own = adopt(read_ict(folder), "ict"), theirs()
    right = (head.eye_V == 1).nonzero()[0]
    assert len(right) and (own.mean_V3[right, 0] > 0).all() and head.eye_centre_23[0, 0] > 0
    eye = np.isin(head.part_T, [PARTS.index(name) for name in ("sclera", "iris", "pupil")])
    assert (eye == (head.eye_V[head.triangle_T3] > 0).all(1)).mean() > 0.97


def test_missing_and_damaged_files_are_named(folder):
    (folder / "jawOpen.obj").write_text(mesh()[:3000])
    with pytest.raises(UserError, match=r"jawOpen\.obj"):
        read_ict(folder)
    (folder / "jawOpen.obj").unlink()
    with pytest.raises(UserError, match=r"jawOpen\.obj"):
        read_ict(folder)
    (folder / "vertex_indices.json").write_text('{"expressions": []')
    with pytest.raises(UserError, match="is not JSON"):
        read_ict(folder)
    (folder / "vertex_indices.json").write_text('{"expressions": []}')
    with pytest.raises(UserError, match="no 'idx_to_landmark_verts'"):
        read_ict(folder)
    (folder / "vertex_indices.json").write_text('{"expressions": [], "idx_to_landmark_verts": [1, 2]}')
    with pytest.raises(UserError, match="names 2 landmarks"):
        read_ict(folder)
    for path in folder.glob("identity*.obj"):
        path.unlink()
    with pytest.raises(UserError, match="no identity000.obj"):
        read_ict(folder)
    (folder / "vertex_indices.json").unlink()
    with pytest.raises(UserError, match=r"cannot read .*vertex_indices\.json"):
        read_ict(folder)
