"""The mathematics of SlerpFace: worked examples of consumers.md §5, its edges, and what the release does otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.consumers.privacy.slerp import SlerpConfig, draw_kept, match_rows, plain_scores, protect_rows, slerp, unslerp
from facefoundry.core.errors import UserError

pytestmark = pytest.mark.usefixtures("repeatable")
PUBLISHED = SlerpConfig()


def one(*numbers: float) -> np.ndarray:
    return np.array(numbers, float)[None, None]


def rows(count: int, groups: int = 49, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    feature, key = rng.standard_normal((2, count, groups, width))
    return feature, rng.dirichlet(np.full(groups, 20.0), count), key / np.linalg.norm(key, axis=2, keepdims=True)


@pytest.mark.parametrize(
    "feature, key, expected",
    [((1, 0), (0, 1), (0.156434, 0.987688)), ((0.6, 0.8, 0), (0, 0, 1), (0.093861, 0.125148, 0.987688)), ((1, 0, 0), (0.6, 0.8, 0), (0.671500, 0.741005, 0))],
)
def test_worked_rotations(feature, key, expected):
    found = slerp(one(*feature), one(*key), np.array([[0.9]]))[0, 0]
    assert found == pytest.approx(expected, abs=2e-6) and np.linalg.norm(found) == pytest.approx(1)
    angle = np.arccos(found @ np.array(feature))
    assert angle == pytest.approx(0.9 * np.arccos(np.dot(feature, key)))  # linear interpolation gives another angle


def test_rotation_against_the_textbook_formula():
    feature, weight, key = rows(3)
    unit, share = feature / np.linalg.norm(feature, axis=2, keepdims=True), 0.9 - weight
    theta = np.arccos((unit * key).sum(2))
    slow = (np.sin((1 - share) * theta)[..., None] * unit + np.sin(share * theta)[..., None] * key) / np.sin(theta)[..., None]
    assert np.abs(slerp(feature, key, share) - slow).max() < 1e-12


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_key_parallel_to_the_feature_stays_finite(sign):
    key = one(0.6, 0.8, 0.0)
    found = slerp(sign * 3 * key, key, np.array([[0.9]]))[0, 0]
    assert np.isfinite(found).all() and np.linalg.norm(found) == pytest.approx(1)
    assert np.arccos(np.clip(found @ key[0, 0], -1, 1)) == pytest.approx(0.0 if sign > 0 else 0.1 * np.pi, abs=1e-7)


def test_nearly_parallel_is_continuous():
    key = one(1.0, 0.0, 0.0)
    near = [slerp(one(1.0, e, 0.0), key, np.array([[0.9]]))[0, 0] for e in (1e-4, 1e-8, 1e-11)]
    assert all(np.abs(x - key[0, 0]).max() < 2e-5 for x in near)


def test_without_drops_the_key_undoes_everything():
    feature, weight, key = rows(5)
    share = PUBLISHED.alpha - weight
    back = unslerp(slerp(feature, key, share), key, share)
    assert np.abs(back - feature / np.linalg.norm(feature, axis=2, keepdims=True)).max() < 1e-10


def test_score_compression():
    for cosine, expected in [(1, 1), (0.8, 0.99511), (0.6, 0.99021), (0.4, 0.98532), (0.2, 0.98042), (0, 0.97553)]:
        first, second, key = one(1, 0, 0), one(cosine, np.sqrt(1 - cosine**2), 0), one(0, 0, 1)
        turned = [slerp(x, key, np.array([[0.9]]))[0, 0] for x in (first, second)]
        assert turned[0] @ turned[1] == pytest.approx(expected, abs=1e-5)


def test_drops_are_without_replacement_and_as_many_as_said():
    feature, weight, _ = rows(40)
    kept = draw_kept(weight, 16, PUBLISHED)
    dropped = (~kept).sum(2)
    order = weight.argsort(1)
    assert (np.take_along_axis(dropped, order, 1)[:, :24] == 12).all() and (np.take_along_axis(dropped, order, 1)[:, 24:] == 4).all()
    assert (~kept).mean() == pytest.approx(388 / 784)  # 49.5 %
    assert PUBLISHED.drops(16) == (12, 4)
    places = (~kept).mean((0, 1))
    assert np.abs(places - 388 / 784).max() < 0.06  # no place is spared
    assert not np.array_equal(kept, draw_kept(weight, 16, PUBLISHED))


def test_release_compatible_drops_fewer():
    _, weight, _ = rows(200)
    kept = draw_kept(weight, 16, SlerpConfig(release_compatible=True))
    expected = (24 * 16 * (1 - (15 / 16) ** 12) + 25 * 16 * (1 - (15 / 16) ** 4)) / 784
    assert (~kept).mean() == pytest.approx(expected, abs=0.005) and expected == pytest.approx(0.379, abs=0.002)


def test_large_beta_never_drops_a_whole_group():
    _, weight, _ = rows(20)
    assert draw_kept(weight, 16, SlerpConfig(beta=0.95)).any(2).all()
    with pytest.raises(ValueError, match="whole group"):
        SlerpConfig(beta=0.8, release_compatible=True)


def test_stored_lengths_are_the_weights_and_a_template_matches_itself():
    feature, weight, key = rows(6)
    kept = draw_kept(weight, 16, PUBLISHED)
    template = protect_rows(feature, weight, key, kept, PUBLISHED)
    assert np.linalg.norm(template, axis=2) == pytest.approx(weight, abs=1e-6)
    assert match_rows(template, kept, feature, weight, key, PUBLISHED) == pytest.approx(np.ones(6), abs=1e-6)
    assert (template[~kept] == 0).all()


def test_different_keys_look_like_strangers():
    feature, _, _ = rows(1)
    even = np.full((400, 49), 1 / 49)
    feature = np.repeat(feature, 400, 0)
    keys = rows(400, seed=5)[2], rows(400, seed=6)[2]
    everything = np.ones((400, 49, 16), bool)
    first, second = (protect_rows(feature, even, key, everything, PUBLISHED).reshape(400, -1) for key in keys)
    cosine = (first * second).sum(1) * 49
    # Rotated to the keys by .88 of the way: what stays in common is small, and the spread that of 49 groups of 16 numbers.
    assert abs(cosine.mean()) < 0.06 and cosine.std() == pytest.approx(0.036, abs=0.01)


def test_matching_keeps_the_order_of_people():
    rng = np.random.default_rng(3)
    people = rng.standard_normal((60, 8, 16))
    first, second = people + 0.3 * rng.standard_normal(people.shape), people + 0.3 * rng.standard_normal(people.shape)
    even = np.full((60, 8), 1 / 8)
    key = rows(60, 8)[2]
    kept = draw_kept(even, 16, PUBLISHED)
    template = protect_rows(first, even, key, kept, PUBLISHED)
    own = match_rows(template, kept, second, even, key, PUBLISHED)
    other = match_rows(template, kept, np.roll(second, 1, 0), even, key, PUBLISHED)
    assert (own > other).mean() > 0.95
    assert (plain_scores(first, even, second) > plain_scores(first, even, np.roll(second, 1, 0))).all()


def test_bad_rows():
    feature, weight, key = rows(2, 4)
    kept = np.ones(feature.shape, bool)
    feature[1, 2] = 0.0
    with pytest.raises(UserError, match="row 1, group 2 has length 0"):
        protect_rows(feature, weight, key, kept, PUBLISHED)
    with pytest.raises(UserError, match="do not sum to 1"):
        protect_rows(np.ones_like(feature), weight * 2, key, kept, PUBLISHED)
    with pytest.raises(UserError, match="alpha"):
        protect_rows(np.ones_like(feature), np.array([[0.95, 0.05, 0, 0]] * 2), key, kept, PUBLISHED)
