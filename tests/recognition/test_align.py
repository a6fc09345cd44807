"""Alignment: the transform against known ones, the warp against a pixel-wise reference, dlib on a real face."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facefoundry
from facefoundry.recognition.align import TEMPLATE_PX, DlibAligner, align_five, apply_transform, similarity_transform, warp

REAL = Path(facefoundry.__file__).resolve().parent.parent / "shared" / "data" / "faces" / "lfw_folds7_8.zip"


def similarity(degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([turn, np.array(shift)[:, None]], 1)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 2.5), (-170, 0.2), (90, 1)])
def test_a_known_similarity_is_found(degrees, scale):
    matrix = similarity(degrees, scale, (17, -4))
    assert np.allclose(similarity_transform(TEMPLATE_PX, apply_transform(matrix, TEMPLATE_PX)), matrix)


def test_a_mirrored_face_is_not_mirrored_back():
    mirrored = TEMPLATE_PX * (-1, 1)
    assert np.linalg.det(similarity_transform(mirrored, TEMPLATE_PX)[:, :2]) > 0


def test_no_other_similarity_fits_better():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(5, 2)) * 20, rng.normal(size=(5, 2)) * 20
    best = similarity_transform(source, target)
    cost = np.square(apply_transform(best, source) - target).sum()
    for change in rng.normal(size=(200, 4)) * 0.02:
        other = best + np.array([[change[0], -change[1], change[2]], [change[1], change[0], change[3]]])
        assert np.square(apply_transform(other, source) - target).sum() >= cost


def test_points_that_cannot_be_used():
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.ones((5, 2)), TEMPLATE_PX)
    with pytest.raises(ValueError, match="finite"):
        similarity_transform(TEMPLATE_PX * np.nan, TEMPLATE_PX)
    with pytest.raises(ValueError, match="shape"):
        similarity_transform(np.ones((5, 3)), TEMPLATE_PX)


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 100 * np.sin(x / 19), 127 + 100 * np.cos(y / 23), (x + y) / (height + width) * 255], 2).astype(np.uint8)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (25, 0.8), (-40, 0.3), (10, 0.12)])
def test_warp_puts_pixels_where_the_matrix_says(degrees, scale):
    picture = smooth_picture(1000, 900)
    matrix = similarity(degrees, scale, (0, 0))
    matrix[:, 2] = 56 - matrix[:, :2] @ (450, 500)
    face = warp(picture, matrix)
    inverse = np.linalg.inv(matrix[:, :2])
    for x, y in [(20, 30), (56, 56), (90, 77)]:
        source = inverse @ (np.array([x, y]) - matrix[:, 2])
        column, row = np.round(source).astype(int)
        assert np.abs(face[y, x].astype(float) - picture[row, column]).max() < 12


def test_an_unchanged_face_comes_back_unchanged_up_to_rounding():
    picture = smooth_picture(112, 112)
    face, landmark_52 = align_five(picture, TEMPLATE_PX)
    assert np.abs(face.astype(int) - picture).max() <= 1 and np.allclose(landmark_52, TEMPLATE_PX, atol=1e-4)


def test_resampling_does_not_darken():
    picture = smooth_picture(112, 112)
    half_pixel = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]])
    expected = (picture[:, 1:].astype(float) + picture[:, :-1]) / 2
    assert abs((warp(picture, half_pixel)[10:-10, 11:-10] - expected[10:-10, 10:-10]).mean()) < 0.1


def test_no_face_is_none():
    assert DlibAligner(upsample=0)(np.zeros((120, 90, 3), np.uint8)) is None
    assert DlibAligner()(np.zeros((8, 8, 3), np.uint8)) is None


@pytest.mark.skipif(not REAL.is_file(), reason=f"real faces are not there ({REAL})")
@pytest.mark.parametrize(("degrees", "scale"), [(15, 2.6), (-12, 1.7)])
def test_a_pasted_face_is_brought_back(degrees, scale):
    with zipfile.ZipFile(REAL) as archive:
        name = sorted(n for n in archive.namelist() if n.endswith("Adam_Scott_0001.jpg"))[0]
        original = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
    place = similarity(degrees, scale, (0, 0))
    place[:, 2] = np.array([210, 190]) - place[:, :2] @ (56, 60)
    photo = warp(original, place, 400)
    result = DlibAligner(upsample=0)(photo)
    assert result is not None
    face, landmark_52 = result
    assert face.shape == (112, 112, 3) and face.dtype == np.uint8
    assert np.linalg.norm(landmark_52 - TEMPLATE_PX, axis=1).mean() < 5
    # Where dlib sees the points differs a little from the data set's own (MTCNN), so the crops agree up to some pixels.
    inner = (slice(20, 100), slice(20, 92))
    assert np.corrcoef(face[inner].ravel(), original[inner].ravel())[0, 1] > 0.9
    upright = similarity(0, scale, (210 - 56 * scale, 190 - 60 * scale))
    straight_52 = apply_transform(place, apply_transform(np.linalg.inv(np.vstack([upright, [0, 0, 1]]))[:2], DlibAligner(upsample=0).landmarks(warp(original, upright, 400))))
    assert np.linalg.norm(DlibAligner(upsample=0).landmarks(photo) - straight_52, axis=1).mean() < 2 * scale
