"""Any file to a head: the format by the name, landmarks by a file or carried over from the bundled head, regions told from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from foreign_files import eos_file, known, landmark_lines, same_shape

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.camera import Camera
from facefoundry.styles_3dmm.face_labels import inside, label_face
from facefoundry.styles_3dmm.head_file import default_head, save_head
from facefoundry.styles_3dmm.head_formats import read_head
from facefoundry.styles_3dmm.landmark_transfer import _similarity, carry_landmarks, read_landmarks
from facefoundry.styles_3dmm.morphable import PARTS, tiny
from facefoundry.styles_3dmm.render import render


def test_formats_are_told_by_the_name(tmp_path):
    (tmp_path / "m.bin").write_bytes(eos_file(3, landmarks=False))
    (tmp_path / "l.txt").write_text(landmark_lines())
    same_shape(read_head(tmp_path / "m.bin", tmp_path / "l.txt"))
    save_head(tmp_path / "m.safetensors", tiny())
    assert read_head(tmp_path / "m.safetensors").name == "tiny"
    with pytest.raises(UserError, match="leave --landmarks out"):
        read_head(tmp_path / "m.safetensors", tmp_path / "l.txt")
    with pytest.raises(UserError, match=r"no format of a head ends in '\.png'.*\.pkl"):
        read_head(tmp_path / "m.png")
    with pytest.raises(UserError, match="has no generic_neutral_mesh.obj"):
        read_head(tmp_path)


def test_landmark_files(tmp_path):
    path = tmp_path / "l.txt"
    path.write_text(landmark_lines())
    assert read_landmarks(path) == known()
    path.write_text(" 9 = 33  # chin\n#61 none\n18 = 225\n")
    assert read_landmarks(path) == {8: 33, 17: 225}
    path.write_text(", ".join(map(str, range(68))))
    assert read_landmarks(path) == {point: point for point in range(68)}
    for text, message in (("1 2 3", "holds 3 words"), ("69 = 4", "the point 69"), ("0 = 4", "points 1 to 68"), ("a " * 68, "68 words")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_landmarks(path)


@pytest.mark.parametrize("pinned", [(), (30,), (8, 30, 36, 45, 48, 54)])
def test_landmarks_are_carried_over_to_another_face(pinned):
    """The bundled head with another identity, turned a little, shifted and 6 % larger stands for another model: inner landmarks within 4 mm on average."""
    head = default_head()
    code = np.zeros((1, 64))
    code[0, :8] = np.random.default_rng(1).normal(size=8)
    angle = np.radians(6.0)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    other = 1.06 * head.vertices(code, np.zeros((1, 52)))[0].astype(np.float64) @ turn.T + (3.0, 40.0, -12.0)
    found = carry_landmarks(other, {point: int(head.landmark_68[point]) for point in pinned})
    off = np.linalg.norm(other[found] - other[head.landmark_68], axis=1)
    assert off[list(pinned)] == pytest.approx(0)
    assert off[17:].mean() < 4.0 and off[:17].mean() < 9.0, off


def test_similarity_is_found_back():
    rng = np.random.default_rng(0)
    body, weight = rng.normal(size=(20, 3)), rng.uniform(size=20)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    found, shift = _similarity(body, 1.7 * body @ turn.T + 5.0, weight)
    assert found == pytest.approx(1.7 * turn) and shift == pytest.approx(5.0)


def test_regions_told_from_landmarks_are_those_of_the_bundled_head():
    head = default_head()
    told = label_face(head.mean_V3.astype(np.float64), head.triangle_T3, head.landmark_68, head.eye_V, head.eye_centre_23)
    camera = Camera.weak(np.ones(1), np.array([[100.0, 120.0]]))
    true, found = (render(replace(head, part_T=part), head.mean_V3[None], camera, np.zeros((1, 3)), size_px=300, layers=()).parts[0] for part in (head.part_T, told))
    for name, least in (("lips", 0.7), ("hair", 0.95), ("iris", 0.95), ("pupil", 0.95), ("sclera", 0.95), ("brows", 0.4), ("skin", 0.95)):
        own, other = (picture == 1 + PARTS.index(name) for picture in (true, found))
        assert (own & other).sum() / (own | other).sum() > least, name


def test_inside_a_polygon():
    """Against the angles a point sees: they sum to a turn inside and to nothing outside."""
    rng = np.random.default_rng(0)
    polygon = np.array([[0, 0], [4, 0], [4, 3], [2, 1], [0, 3]], float)
    point = rng.uniform(-1, 5, (200, 2))
    for row, found in zip(point, inside(point, polygon)):
        way = polygon - row
        angle = np.arctan2(*way.T[::-1])
        step = (np.roll(angle, -1) - angle + np.pi) % (2 * np.pi) - np.pi
        assert found == (abs(step.sum()) > np.pi)
