"""The gallery of styles: everybody in the same styles below their renders, or each in their own with the render beside the face."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode_file
from facefoundry.generators.morphface import MorphFaceConfig
from facefoundry.generators.uiface import UIFaceConfig
from facefoundry.jobs import gallery
from facefoundry.jobs.spec import bundled_job, load_job


@pytest.fixture
def spec():
    """The bundled demo's job with anchors as the tiny generator takes them."""
    return load_job(bundled_job("demo-morphface-job.yaml"), [f"identities={{source: uniform, count: 4, dim: {MorphFaceConfig.tiny().anchor_dim}}}", "engine.device=cpu"])


@pytest.fixture
def tiny(monkeypatch):
    made = MorphFaceConfig.tiny()
    monkeypatch.setattr(gallery, "build_generator", lambda settings, device: made)
    return made


def tiles(path, columns: int) -> tuple[int, int]:
    """Height of the picture in its tiles' width, and its width in px."""
    picture = decode_file(path)
    assert np.ptp(picture) > 50
    return round(picture.shape[0] / (picture.shape[1] / columns)), picture.shape[1]


def test_the_same_styles_for_everybody_with_a_row_of_renders(spec, tiny, tmp_path):
    found = gallery.gallery_of_styles(spec, tmp_path / "s.png", identities=2, styles=5)
    assert (found["identities"], found["styles"]) == (2, 5) and tiles(tmp_path / "s.png", 5)[0] == 3
    assert len(found["pose_deg"]) == 2 and all(len(row) == 5 for row in found["pose_deg"])
    again = gallery.gallery_of_styles(spec, tmp_path / "t.png", identities=2, styles=5)
    assert again["pose_deg"] == found["pose_deg"] and np.array_equal(decode_file(tmp_path / "s.png"), decode_file(tmp_path / "t.png"))


def test_own_styles_with_the_render_beside_each_face(spec, tiny, tmp_path):
    found = gallery.gallery_of_styles(spec, tmp_path / "s.png", identities=3, styles=2, own=True)
    assert tiles(tmp_path / "s.png", 4)[0] == 3 and found["pose_deg"][0] != found["pose_deg"][1]


def test_a_generator_without_styles_is_refused(spec, monkeypatch, tmp_path):
    monkeypatch.setattr(gallery, "build_generator", lambda settings, device: UIFaceConfig.tiny())
    with pytest.raises(UserError, match="takes no styles"):
        gallery.gallery_of_styles(spec, tmp_path / "s.png", identities=2, styles=2)
