"""IJB end to end on made-up loose crops: aligned by the lists' points, pooled, scored; and the norms an embedder must give."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_png
from facefoundry.jobs.ijb import score_ijb
from facefoundry.recognition.align import TEMPLATE_PX
from facefoundry.recognition.embedder import load_embedder


@pytest.fixture
def root(tmp_path):
    """12 people x 2 templates x 2 images, each a photo of 200 px whose five points stand where the face was put."""
    rng = np.random.default_rng(0)
    (tmp_path / "meta").mkdir()
    (tmp_path / "loose_crop").mkdir()
    media, points = [], []
    for template in range(24):
        for shot in range(2):
            number = 2 * template + shot
            face = np.random.default_rng(template % 12).integers(0, 256, (8, 8, 3)).repeat(14, 0).repeat(14, 1)
            photo, (x, y) = np.full((200, 200, 3), 90, np.uint8), rng.integers(0, 80, 2)
            photo[y : y + 112, x : x + 112] = np.clip(face + rng.integers(-20, 21, face.shape), 0, 255)
            (tmp_path / "loose_crop" / f"{number}.jpg").write_bytes(encode_png(photo))
            media.append(f"{number}.jpg {template} {number // 2}")
            points.append(f"{number}.jpg " + " ".join(f"{value:.3f}" for value in (TEMPLATE_PX + (x, y)).ravel()) + " 0.99")
    (tmp_path / "meta" / "ijbb_face_tid_mid.txt").write_text("\n".join(media) + "\n")
    (tmp_path / "meta" / "ijbb_name_5pts_score.txt").write_text("\n".join(points) + "\n")
    (tmp_path / "meta" / "ijbb_template_pair_label.txt").write_text("".join(f"{a} {b} {int(a % 12 == b % 12)}\n" for a in range(12) for b in range(12, 24)))
    for name, rows in {"gallery_G1": range(6), "gallery_G2": range(6, 12), "probe_mixed": range(12, 24)}.items():
        (tmp_path / "meta" / f"ijbb_1N_{name}.csv").write_text("TEMPLATE_ID,SUBJECT_ID\n" + "".join(f"{t},{t % 12}\n" for t in rows))
    return tmp_path


def test_whole_protocol(root):
    figures = score_ijb(load_embedder("mobilefacenet-small"), root)
    assert figures["tar_at_far_0.1_nearest"] == 1.0 and figures["rank_1"] == 1.0 and "tpir_at_fpir_0.1" in figures
    (root / "loose_crop" / "7.jpg").unlink()
    with pytest.raises(UserError, match="7.jpg"):
        score_ijb(load_embedder("mobilefacenet-small"), root)


def test_norms_need_raw_features(root):
    class Unit:
        name, dim, differentiable = "unit", 128, False

    with pytest.raises(UserError, match="--no-norms"):
        score_ijb(Unit(), root)
