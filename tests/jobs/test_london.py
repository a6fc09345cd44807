"""The photographs of the albedo: what is in the zip, and zips that are none."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from facefoundry.core.errors import UserError
from facefoundry.jobs.london import _box, landmarks, photographs, read


def archive(path, names):
    with zipfile.ZipFile(path, "w") as file:
        for number, name in enumerate(names):
            buffer = io.BytesIO()
            Image.new("RGB", (40, 30), (number * 40, 10, 200)).save(buffer, "PNG")
            file.writestr(name, buffer.getvalue())
    return path


def test_neutral_frontal_photographs_are_read_in_order(tmp_path):
    path = archive(tmp_path / "l.zip", ["neutral_front/002.jpg", "smiling_front/001.jpg", "neutral_front/001.jpg", "neutral_front/001.tem"])
    assert photographs(path) == ["neutral_front/001.jpg", "neutral_front/002.jpg"]
    first, second = read(path, photographs(path))
    assert first.shape == (30, 40, 3) and first.dtype == np.uint8 and (first[0, 0] == (80, 10, 200)).all() and (second[0, 0] == (0, 10, 200)).all()


def test_photographs_without_a_face_are_left_out(tmp_path, monkeypatch):
    """With a stand-in for dlib, which sees a face in the second picture only, and says where its box is."""
    five = np.array([[10.0, 10], [30, 10], [20, 15], [12, 24], [28, 24]])

    class Aligner:
        def __init__(self, *, upsample: int) -> None:
            assert upsample == 0

        def landmarks(self, image):
            return five if image[0, 0, 0] == 40 else None

    monkeypatch.setattr("facefoundry.recognition.align.DlibAligner", Aligner)
    monkeypatch.setattr("facefoundry.recognition.align.predict_68", lambda image, box: np.full((68, 2), box[0]))
    path = archive(tmp_path / "l.zip", ["neutral_front/001.jpg", "neutral_front/002.jpg", "neutral_front/003.jpg"])
    names, point = landmarks(path, photographs(path))
    assert names == ["neutral_front/002.jpg"] and point.shape == (1, 68, 2) and (point == _box(five)[0]).all()
    assert landmarks(path, names[:0])[1].shape == (0, 68, 2)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "no.zip").write_text("no zip")
    with pytest.raises(UserError, match=r"expected london\.zip"):
        photographs(tmp_path / "no.zip")
    with pytest.raises(UserError, match=r"cannot open .*none"):
        photographs(tmp_path / "none.zip")
    with pytest.raises(UserError, match=r"has no neutral_front"):
        photographs(archive(tmp_path / "l.zip", ["a.jpg"]))


def test_box_holds_the_face():
    left, top, right, bottom = _box(np.array([[100.0, 100], [160, 100], [130, 130], [110, 160], [150, 160]]))
    assert left < 100 < 160 < right and top < 100 and bottom > 190 and right - left == bottom - top
