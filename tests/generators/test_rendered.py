"""Rendered faces: people that follow their anchors, labels that are those of the picture, records that carry them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facefoundry.core.images import decode_labels, encode_labels
from facefoundry.core.template import TEMPLATE_PX
from facefoundry.generators import rendered_people as draw
from facefoundry.generators.rendered import RenderedConfig
from facefoundry.identity.records import from_table, to_table
from facefoundry.jobs.make_images import _known
from facefoundry.styles_3dmm.accessories import LABELS


def unit_rows(count: int, dim: int = 128, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def generator():
    return RenderedConfig().build(torch.device("cpu"))


@pytest.fixture(scope="module")
def batch(generator):
    return generator.generate(np.repeat(unit_rows(3), 6, 0), list(range(18)))


def test_labels_belong_to_the_picture(batch):
    assert batch.parts.shape == (18, 112, 112) and batch.parts.dtype == np.uint8 and batch.parts.max() < len(LABELS)
    for part in batch.parts:
        assert 0.2 < (part > 0).mean() < 0.95 and (part == LABELS.index("skin")).mean() > 0.1
    # Noise apart, the mask's inside differs from its outside: backgrounds are other pictures than heads.
    image, inside = batch.image_BCHW.permute(0, 2, 3, 1).numpy(), batch.parts > 0
    assert np.mean([np.abs(image[k][inside[k]].mean(0) - image[k][~inside[k]].mean(0)).max() for k in range(18)]) > 0.1


def test_landmarks_are_the_templates_within_the_jitter(batch):
    """Frontal faces lie on the template up to their own shape; the aligner's jitter is small."""
    frontal = np.array([np.abs(style.pose_deg[:2]).max() < 15 for style in batch.styles])
    assert frontal.sum() >= 3
    apart = np.linalg.norm(batch.landmarks_px[frontal] - TEMPLATE_PX, axis=2)
    assert apart.mean() < 4.0 and apart.max() < 14.0
    assert batch.landmarks_px.shape == (18, 5, 2) and batch.landmarks_px.dtype == np.float32


def test_an_eye_is_where_its_landmark_says(batch):
    """Exactness: around the eye landmarks of uncovered open eyes there are eye labels, and nowhere far from them."""
    eye = [LABELS.index(name) for name in ("sclera", "iris", "pupil")]
    for part, points in zip(batch.parts, batch.landmarks_px):
        y, x = np.nonzero(np.isin(part, eye))
        if len(y):
            assert np.min(np.hypot(x[:, None] - points[:2, 0], y[:, None] - points[:2, 1]), axis=1).max() < 11.0


def test_the_same_anchor_is_the_same_person(batch):
    shapes = np.array([style.shape for style in batch.styles])
    assert np.array_equal(shapes[0], shapes[5]) and not np.allclose(shapes[0], shapes[6])
    poses = np.array([style.pose_deg for style in batch.styles])
    assert len(np.unique(poses[:, 0])) == 18 and len(np.array(batch.styles[0].light)) == 27


def test_people_are_standard_normal_and_near_anchors_are_alike():
    person = draw.people(unit_rows(1500), 20, 1.0)
    assert np.abs(person.shape_BK.mean(0)).max() < 0.15 and np.abs(person.shape_BK.std(0) - 1).max() < 0.12
    for values in person.traits.values():
        assert 0.42 < values.mean() < 0.58 and values.min() < 0.1 < 0.9 < values.max()
    anchor = unit_rows(2)
    near = anchor[0] + 0.05 * anchor[1]
    rows = draw.people(np.stack([anchor[0], near / np.linalg.norm(near), anchor[1]]), 20, 1.0).shape_BK
    assert np.linalg.norm(rows[0] - rows[1]) < 0.15 * np.linalg.norm(rows[0] - rows[2])


def test_a_row_does_not_know_its_neighbours(generator):
    anchor, seeds = unit_rows(4, seed=3), [4, 5, 6, 7]
    whole = generator.generate(anchor, seeds)
    alone = [generator.generate(anchor[k : k + 1], [seeds[k]]) for k in range(4)]
    assert torch.equal(whole.image_BCHW, torch.cat([one.image_BCHW for one in alone]))
    assert np.array_equal(whole.parts, np.concatenate([one.parts for one in alone])) and whole.styles[2] == alone[2].styles[0]


def test_skin_spans_dark_and_light():
    tone = draw.skin_tone(draw.people(unit_rows(400), 4, 1.0))
    assert tone.min(0)[0] < 0.35 and tone.max(0)[0] > 0.88 and (tone[:, 0] > tone[:, 2]).all()


def test_expressions_are_face_units_and_lids_follow_the_gaze(generator):
    head, names = generator.head, generator.head.expression_names
    drawn = np.stack([draw.expression(np.random.default_rng(k), head, np.array([0.0, -20.0])) for k in range(200)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert drawn[:, names.index("eyeLookDownLeft")].min() > 0.7 and drawn[:, names.index("eyeLookUpLeft")].mean() < 0.1
    assert np.corrcoef(drawn[:, names.index("mouthSmileLeft")], drawn[:, names.index("mouthSmileRight")])[0, 1] > 0.9


def test_blur_keeps_brightness():
    rows = draw.blur_matrix(1.3, 40)
    assert np.allclose(rows.sum(1), 1, atol=1e-6) and np.argmax(rows[20]) == 20 and np.isclose((rows[20] * (np.arange(40) - 20) ** 2).sum(), 1.69, atol=0.02)


def test_what_the_generator_knows_goes_into_the_record(batch):
    from facefoundry.core.images import encode_png
    from facefoundry.identity.records import FaceRecord

    known = _known(batch, 7)
    record = FaceRecord(face_id="000000/0000", identity=0, image=encode_png(np.zeros((112, 112, 3), np.uint8)), **known)
    back = from_table(to_table([record]))[0]
    assert np.array_equal(decode_labels(back.parts), batch.parts[7])
    assert np.allclose(back.landmarks_px, batch.landmarks_px[7]) and np.allclose(back.style.pose_deg, batch.styles[7].pose_deg, atol=1e-4)
    assert decode_labels(encode_labels(batch.parts[0])).dtype == np.uint8


def test_bad_anchors_are_refused(generator):
    with pytest.raises(ValueError, match="anchor_BD"):
        generator.generate(unit_rows(2, 64), [1, 2])
    with pytest.raises(ValueError, match="unit"):
        generator.generate(2 * unit_rows(1), [1])
    assert generator.generate(unit_rows(1)[:0], []).image_BCHW.shape == (0, 3, 112, 112)


def test_learned_skin_changes_the_skin_and_nothing_else(generator, batch):
    """The same people in the same poses: labels and landmarks stay, skin has other detail, and a person's is theirs in every picture."""
    learned = RenderedConfig(skin="albedo-small").build(torch.device("cpu"))
    anchors = np.repeat(unit_rows(3), 6, 0)
    other = learned.generate(anchors, list(range(18)))
    assert np.array_equal(other.parts, batch.parts) and np.array_equal(other.landmarks_px, batch.landmarks_px)
    apart = (other.image_BCHW - batch.image_BCHW).abs().mean(1).numpy()
    skin, hair = (batch.parts == LABELS.index(name) for name in ("skin", "hair"))
    assert apart[skin].mean() > 0.01 > 0.004 > apart[hair].mean()
    person = draw.people(anchors[[0, 1, 6]], 64, 1.0)
    first, again, somebody = draw.skin_code(person, learned.skin)
    assert np.array_equal(first, again) and not np.allclose(first, somebody)
