"""Template pooling, TAR@FAR of long lists, and identification, against worked examples and slow references."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.challenge.identification import search, tpir_at_fpir, two_galleries
from facefoundry.challenge.ijb import ijb_figures, read_gallery, read_ijb
from facefoundry.challenge.roc import Roc
from facefoundry.challenge.templates import pool_templates, score_template_pairs, template_rows
from facefoundry.core.errors import UserError
from facefoundry.core.stats import operating_point

EXAMPLE = (np.array([[3.0, 0], [0, 4], [0, 2], [1, 0]], np.float32), np.array([1, 1, 1, 2]), np.array([10, 20, 20, 30]))
DETECTOR = np.array([1, 0.5, 1, 1])


@pytest.mark.parametrize(("norms", "weights", "expected"), [(True, DETECTOR, 0.83205), (False, DETECTOR, 0.80000), (True, None, 0.70711), (False, None, 0.70711)])
def test_worked_example_of_the_specification(norms, weights, expected):
    ids, templates = pool_templates(*EXAMPLE, weight_N=weights, keep_norms=norms)
    assert ids.tolist() == [1, 2]
    assert score_template_pairs(templates, np.array([0]), np.array([1]))[0] == pytest.approx(expected, abs=1e-5)
    if norms and weights is not None:
        assert templates[0] == pytest.approx([0.83205, 0.55470], abs=1e-5)


def slow_templates(feature, template, media, weight):
    found = {}
    for t in sorted(set(template)):
        total = 0
        for m in sorted(set(media[template == t])):
            rows = (template == t) & (media == m)
            total = total + (feature[rows] * weight[rows, None]).mean(axis=0)
        found[t] = total / np.linalg.norm(total)
    return found


def test_pooling_against_masks_and_any_order():
    rng = np.random.default_rng(0)
    feature, template, media, weight = rng.standard_normal((300, 16)), rng.integers(100, 130, 300), rng.integers(0, 5, 300), rng.random(300) + 0.1
    ids, templates = pool_templates(feature, template, media, weight_N=weight)
    expected = slow_templates(feature, template, media, weight)
    assert ids.tolist() == sorted(expected) and np.allclose(templates, [expected[t] for t in ids], atol=1e-6)
    turn = rng.permutation(300)
    assert np.allclose(pool_templates(feature[turn], template[turn], media[turn], weight_N=weight[turn])[1], templates, atol=1e-6)
    left, right = template_rows(ids, rng.choice(ids, 50)), template_rows(ids, rng.choice(ids, 50))
    assert np.allclose(score_template_pairs(templates, left, right), (templates[left] * templates[right]).sum(1), atol=1e-6)


def test_templates_that_cannot_be():
    with pytest.raises(UserError, match="template 2 has no direction"):
        pool_templates(np.array([[1.0, 0], [np.nan, 1]]), np.array([1, 2]), np.array([1, 1]))
    with pytest.raises(UserError, match="template 1 has no direction"):
        pool_templates(np.array([[1.0, 0], [-1, 0]]), np.array([1, 1]), np.array([1, 2]))
    with pytest.raises(UserError, match="names template 9"):
        template_rows(np.array([1, 2]), np.array([1, 9]))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rule", ["nearest", "conservative"])
def test_roc_equals_core_stats(seed, rule):
    rng = np.random.default_rng(seed)
    same = rng.random(4000) < (0.5 if seed % 3 else 0.02)
    score = np.where(same, 0.4, 0.0) + 0.2 * rng.standard_normal(4000)
    score = np.round(score, 2) if seed % 2 else score
    fars = (1e-6, 1e-4, 1e-3, 0.0137, 0.1, 0.25, 1.0)
    for far, point in zip(fars, Roc(score, same).points(fars, rule)):
        expected = operating_point(score, same, far, rule)
        assert (point.fmr, point.tar, point.resolved) == pytest.approx((expected.fmr, expected.tar, expected.resolved))


def test_roc_examples_of_the_specification():
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.3, 0.65, 0.5, 0.4, 0.2, 0.1, 0.05, 0])
    same = np.arange(12) < 5
    points = Roc(score, same).points((0.1, 0.05, 0.25))
    assert [(round(p.fmr, 6), p.tar) for p in points] == [(0.142857, 0.8), (0.0, 0.6), (0.142857, 0.8)]
    assert [p.tar for p in Roc(score, same).points((0.1,), "conservative")] == [0.6]


def slow_search(probe, who, gallery, owner):
    rank = []
    for q in range(len(probe)):
        score = gallery @ probe[q]
        own = max((score[g] for g in range(len(gallery)) if owner[g] == who[q] and who[q] >= 0), default=None)
        rivals = {owner[g] if owner[g] >= 0 else ("nobody", g) for g in range(len(gallery)) if own is not None and owner[g] != who[q] and score[g] >= own}
        rank.append(0 if own is None else 1 + len(rivals))
    return rank


def unit(rng, *shape):
    rows = rng.standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_search_against_loops():
    rng = np.random.default_rng(1)
    probe, gallery = unit(rng, 40, 6), unit(rng, 25, 6)
    who, owner = rng.integers(0, 12, 40), np.append(rng.integers(0, 9, 20), [-1] * 5)
    found = search(probe, who, gallery, owner)
    assert found.rank_Q.tolist() == slow_search(probe, who, gallery, owner)
    assert found.hit_rate(1) == np.mean(found.rank_Q[found.mated_Q] == 1) and found.hit_rate(100) == 1.0
    assert np.allclose(found.best_Q, (probe @ gallery.T).max(axis=1), atol=1e-6)


def test_equal_scores_count_against_the_probe():
    same = np.ones((1, 2), np.float32) / np.sqrt(2).astype(np.float32)
    assert search(same, np.array([1]), np.repeat(same, 2, 0), np.array([1, 2])).rank_Q.tolist() == [2]


def test_open_set_by_hand():
    gallery, owner = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    probe = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0], [0, 0.6, 0.5], [0.65, 0, 0], [0.3, 0, 0]], np.float32)
    found = search(probe, np.array([0, 1, 2, 7, 8]), gallery, owner)
    assert found.rank_Q.tolist() == [1, 1, 2, 0, 0]
    rates = tpir_at_fpir(found, (0.5, 1.0))
    assert rates == {0.5: pytest.approx(2 / 3), 1.0: pytest.approx(2 / 3)}  # thresholds: .65 (index max(1 - 1, 0)), .3; the third probe is beaten
    assert tpir_at_fpir(search(probe * np.array([[1], [0.9], [1], [1], [1]], np.float32), np.array([0, 1, 2, 7, 8]), gallery, owner), (0.5,))[0.5] == pytest.approx(1 / 3)
    both = two_galleries(probe, np.array([0, 1, 2, 7, 8]), [(gallery, owner), (gallery, owner)], fpirs=(0.5,))
    assert both["rank_1"] == pytest.approx(2 / 3) and both["tpir_at_fpir_0.5"] == pytest.approx(2 / 3)


@pytest.fixture
def meta(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "meta"
    folder.mkdir()
    template = np.repeat(np.arange(1, 41), 3)
    lines = [f"{k + 1}.jpg {t} {t * 10 + k % 2}" for k, t in enumerate(template)]
    (folder / "ijbc_face_tid_mid.txt").write_text("\n".join(lines) + "\n")
    (folder / "ijbc_name_5pts_score.txt").write_text("".join(f"{k + 1}.jpg " + " ".join(map(str, rng.integers(0, 99, 10))) + " 0.9\n" for k in range(120)))
    (folder / "ijbc_template_pair_label.txt").write_text("".join(f"{a} {b} {int((a - b) % 20 == 0)}\n" for a in range(1, 41) for b in range(1, a)))
    (folder / "ijbc_1N_gallery_G1.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n1,7,a.jpg\n1,7,b.jpg\n2,9,c.jpg\n")
    return folder


def test_ijb_lists_and_figures(meta):
    protocol = read_ijb(meta.parent)
    assert protocol.name == "ijbc" and protocol.landmark_N52.shape == (120, 5, 2) and protocol.same_P.sum() == 20 and len(protocol.left_P) == 780
    rng = np.random.default_rng(2)
    person = rng.standard_normal((20, 8))
    feature = person[(protocol.template_N - 1) % 20] + 0.3 * rng.standard_normal((120, 8))
    figures = ijb_figures(protocol, feature)
    assert figures["tar_at_far_0.01_nearest"] > 0.9 and "tar_at_far_1e-06_nearest" not in figures
    template, subject = read_gallery(meta / "ijbc_1N_gallery_G1.csv")
    assert template.tolist() == [1, 2] and subject.tolist() == [7, 9]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ijbc_face_tid_mid.txt", lambda text: text.replace("2.jpg 1 11", "2.jpg 1", 1), "line 2"),
        ("ijbc_name_5pts_score.txt", lambda text: text.replace("0.9", "nan", 1), "line 1"),
        ("ijbc_name_5pts_score.txt", lambda text: text[text.index("\n") + 1 :], "lists 119 images"),
        ("ijbc_template_pair_label.txt", lambda text: text.replace("3 1 0", "3 1 x", 1), "row 1|line 2|x"),
        ("ijbc_template_pair_label.txt", lambda text: "", "whole numbers"),
    ],
)
def test_damaged_ijb_lists(meta, name, change, message):
    (meta / name).write_text(change((meta / name).read_text()))
    with pytest.raises(UserError, match=message):
        read_ijb(meta)
