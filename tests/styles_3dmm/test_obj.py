"""Reading .obj files: groups, polygons, texture coordinates, numbers from the end; bad lines are named."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.obj import read_obj, read_vertices

TEXT = """# a square and a triangle
mtllib none.mtl
v 0 0 0
v 1 0 0 0.5
v 1 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
vn 0 0 1
g square
f 1/1/1 2/2/1 3/3/1 4/4/1
g other part
usemtl red
f -1 -2 -3
f 1//1 2//1 3//1
"""


def test_worked_example(tmp_path):
    (tmp_path / "a.obj").write_text(TEXT)
    mesh = read_obj(tmp_path / "a.obj")
    assert mesh.vertex_V3.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.polygons == {"square": [[0, 1, 2, 3]], "other part": [[3, 2, 1], [0, 1, 2]]}
    assert mesh.uv_polygons == {"square": [[0, 1, 2, 3]], "other part": [[], []]}
    assert mesh.triangles(["square"]).tolist() == [[0, 1, 2], [0, 2, 3]]
    assert len(mesh.triangles()) == 4
    assert mesh.uv_of_vertices() == pytest.approx(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))


def test_points_alone_are_a_mesh_without_triangles(tmp_path):
    (tmp_path / "a.obj").write_text("v 1 2 3\n")
    mesh = read_obj(tmp_path / "a.obj")
    assert mesh.triangles().shape == (0, 3) and mesh.uv_U2.shape == (0, 2) and mesh.uv_of_vertices().tolist() == [[0, 0]]


def test_vertices_alone_are_those_of_the_whole(tmp_path):
    (tmp_path / "a.obj").write_text(TEXT.replace(" 0.5", ""))
    assert (read_vertices(tmp_path / "a.obj") == read_obj(tmp_path / "a.obj").vertex_V3).all()
    (tmp_path / "a.obj").write_text("v 1 2 3\nv 1 2\n")
    with pytest.raises(UserError, match="three numbers a line"):
        read_vertices(tmp_path / "a.obj")


@pytest.mark.parametrize("line", ["v 1 two 3", "f 1 2 9", "f 0 1 2", "vt x y", "v 1 2", "f 1/7 2/1 3/1"])
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "a.obj").write_text(TEXT + line + "\n")
    with pytest.raises(UserError, match="line 18"):
        read_obj(tmp_path / "a.obj")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.obj"):
        read_obj(tmp_path / "none.obj")
