"""SDD-FIQA against scipy, the worked examples, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr, wasserstein_distance

from facefoundry.core.errors import UserError
from facefoundry.quality import sdd_fiqa as module
from facefoundry.quality.sdd_fiqa import normalise_labels, sdd_fiqa
from facefoundry.quality.wasserstein import wasserstein_1d


def faces(people=40, shots=8, seed=0, dim=32):
    """Unit rows whose distance from the identity's centre varies from image to image."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.2, 2.0, (people, shots, 1))
    rows = (rng.standard_normal((people, 1, dim)) + noise * rng.standard_normal((people, shots, dim))).reshape(-1, dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), np.repeat(np.arange(people), shots)


def slow_exact(embed, identity, signed=False, probe=None):
    """W1 by scipy, one image at a time."""
    result = np.full(len(embed), np.nan)
    for i in range(len(embed)):
        cos = embed.astype(np.float64) @ (embed if probe is None else probe)[i].astype(np.float64)
        positive = cos[(identity == identity[i]) & (np.arange(len(embed)) != i)]
        negative = cos[identity != identity[i]]
        if positive.size:
            result[i] = 0 if signed and positive.mean() < negative.mean() else wasserstein_distance(positive, negative)
    return result


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [([0.9, 0.8, 0.7], [0.1, 0, -0.1], 0.8), ([0.9, 0.8], [0.1, 0, -0.1], 0.85), ([0.5, 0.1], [0.3, 0.3], 0.2), ([0.6], [0, 0.2, 0.4], 0.4)],
)
def test_worked_example_7_1(first, second, distance):
    assert wasserstein_1d(first, second) == pytest.approx(distance, abs=1e-6)
    assert wasserstein_1d(second, first) == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize(
    ("rounds", "each_then_mean", "mean_then_once"),
    [([[0.2, 0.5, 0.8], [0.3, 0.5, 0.6]], [0, 58.333, 100], [0, 55.556, 100]), ([[0.2, 0.5, 0.8], [0.55, 0.5, 0.9]], [6.25, 25, 100], [0, 26.3158, 100])],
)
def test_worked_example_7_2(rounds, each_then_mean, mean_then_once):
    rounds = np.array(rounds)
    assert normalise_labels(rounds.mean(axis=0)) == pytest.approx(mean_then_once, abs=1e-3)
    assert np.mean([normalise_labels(one) for one in rounds], axis=0) == pytest.approx(each_then_mean, abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_wasserstein_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    first, second = (np.round(rng.normal(size=rng.integers(1, 40)), seed % 4).astype(np.float32) for _ in range(2))
    assert wasserstein_1d(first, second) == pytest.approx(wasserstein_distance(first, second), abs=1e-5)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("mode", ["exact", "pool"])
def test_exact_equals_the_slow_reference(mode, signed):
    embed, identity = faces(12, 5)
    identity[0], identity[3] = 7, 99  # a wrong label, an identity with one image
    shuffle = np.random.default_rng(1).permutation(len(embed))
    embed, identity = embed[shuffle], identity[shuffle]
    got = sdd_fiqa(embed, identity, mode=mode, pool=10**6, signed=signed, raw=True)
    assert np.allclose(got, slow_exact(embed, identity, signed), atol=2e-6, equal_nan=True)
    assert np.isnan(got).sum() == 1


def test_published_equals_exact_where_everything_is_drawn():
    embed, identity = faces(6, 4)
    published = sdd_fiqa(embed, identity, mode="published", draws=24, rounds=3, raw=True)  # 3 positives, 20 negatives: fewer than 24 each
    assert np.allclose(published, slow_exact(embed, identity), atol=2e-6)


def test_published_draws_are_right_in_the_mean():
    embed, identity = faces(20, 8)
    # The mean of positives minus negatives is unbiased under drawing; W1 equals it where the two do not overlap.
    embed[:, 0] += 0.0
    separate = np.eye(20, 32, dtype=np.float32)[identity] + 0.05 * embed
    separate /= np.linalg.norm(separate, axis=1, keepdims=True)
    many = sdd_fiqa(separate, identity, draws=4, rounds=2000, raw=True)
    assert np.abs(many - slow_exact(separate, identity)).max() < 2e-3


def test_published_ranks_like_exact():
    embed, identity = faces(120, 12, dim=64)
    exact = sdd_fiqa(embed, identity, mode="exact")
    assert spearmanr(sdd_fiqa(embed, identity), exact).statistic > 0.97
    assert spearmanr(sdd_fiqa(embed, identity, mode="pool"), exact).statistic > 0.99


@pytest.mark.parametrize("mode", ["published", "exact", "pool"])
def test_range_seed_and_invariance(mode):
    embed, identity = faces()
    label = sdd_fiqa(embed, identity, mode=mode, pool=64)
    assert label.dtype == np.float32 and label.min() == 0 and label.max() == 100
    assert np.array_equal(label, sdd_fiqa(embed, identity, mode=mode, pool=64))
    renamed = 1000 - identity * 3
    assert np.allclose(sdd_fiqa(embed, renamed, mode="exact"), sdd_fiqa(embed, identity, mode="exact"), atol=1e-3)
    if mode != "exact":
        assert not np.array_equal(label, sdd_fiqa(embed, identity, mode=mode, pool=64, seed=1))


def test_permuting_the_images_permutes_the_labels():
    embed, identity = faces()
    shuffle = np.random.default_rng(0).permutation(len(embed))
    exact = sdd_fiqa(embed, identity, mode="exact")
    assert np.allclose(sdd_fiqa(embed[shuffle], identity[shuffle], mode="exact"), exact[shuffle], atol=1e-3)


def test_affine_map_of_cosines_changes_nothing():
    values = np.random.default_rng(0).uniform(0, 1, (30, 2, 8))
    plain = np.array([wasserstein_1d(*pair) for pair in values])
    mapped = np.array([wasserstein_1d(*(0.4 * pair + 0.3)) for pair in values])
    assert np.allclose(normalise_labels(plain), normalise_labels(mapped), atol=1e-3)


def test_an_image_is_not_its_own_positive():
    embed, identity = faces(5, 2)
    for mode in ("published", "exact", "pool"):
        got = sdd_fiqa(embed, identity, mode=mode, raw=True)
        assert np.allclose(got, slow_exact(embed, identity), atol=2e-6)


def test_signed_guard_catches_wrong_labels():
    embed, identity = faces(20, 8)
    embed[0] = -embed[1:8].mean(axis=0) / np.linalg.norm(embed[1:8].mean(axis=0))  # the opposite of its identity
    assert sdd_fiqa(embed, identity, mode="exact", raw=True)[0] > 0.1
    assert sdd_fiqa(embed, identity, mode="exact", signed=True, raw=True)[0] == 0
    assert sdd_fiqa(embed, identity, signed=True, raw=True)[0] == 0


def test_labels_without_spread_or_without_any():
    assert normalise_labels(np.array([0.3, 0.3, np.nan])).tolist()[:2] == [100, 100]
    assert np.isnan(normalise_labels(np.array([np.nan, np.nan]))).all()
    embed, _ = faces(3, 1)
    assert np.isnan(sdd_fiqa(embed, np.arange(3))).all()


def test_per_round_is_the_mean_of_normalised_rounds():
    embed, identity = faces()
    first = sdd_fiqa(embed, identity, draws=4, rounds=1, raw=True).astype(np.float64)
    second = 2 * sdd_fiqa(embed, identity, draws=4, rounds=2, raw=True).astype(np.float64) - first  # the first round of two is the only one of one
    wanted = (normalise_labels(first) + normalise_labels(second)) / 2
    got = sdd_fiqa(embed, identity, mode="per_round", draws=4, rounds=2)
    assert got == pytest.approx(wanted, abs=2e-3) and got.dtype == np.float32
    assert not np.allclose(got, sdd_fiqa(embed, identity, draws=4, rounds=2), atol=0.1)
    with pytest.raises(UserError, match="no raw distance"):
        sdd_fiqa(embed, identity, mode="per_round", raw=True)


@pytest.mark.parametrize("mode", ["published", "exact", "pool"])
def test_probes_meet_the_others_and_never_their_original(mode):
    embed, identity = faces(6, 4)
    probe, _ = faces(6, 4, seed=1)
    got = sdd_fiqa(embed, identity, mode=mode, probe_ND=probe, raw=True)
    assert np.allclose(got, slow_exact(embed, identity, probe=probe), atol=2e-6)
    assert np.array_equal(sdd_fiqa(embed, identity, mode=mode, probe_ND=embed.copy(), raw=True), sdd_fiqa(embed, identity, mode=mode, raw=True))
    with pytest.raises(UserError, match="one probe for each image"):
        sdd_fiqa(embed, identity, probe_ND=probe[:-1])


@pytest.mark.parametrize("rows", [1, 7, 16, 64])
def test_blocks_change_nothing_and_bound_the_memory(rows, monkeypatch):
    embed, identity = faces(30, 5)
    identity[3:20] = 500  # larger than a small block
    identity = np.random.default_rng(0).permutation(identity)
    whole = sdd_fiqa(embed, identity, mode="pool", pool=40, raw=True)
    sizes, gathered = [], module._gathered
    monkeypatch.setattr(module, "_gathered", lambda embed_ND, chosen: sizes.append(len(chosen)) or gathered(embed_ND, chosen))
    monkeypatch.setattr(module, "_BLOCK_ROWS", rows)
    assert np.allclose(sdd_fiqa(embed, identity, mode="pool", pool=40, raw=True), whole, atol=1e-6)
    assert sizes[0] == 40 and max(sizes[1:]) <= max(rows, 17) and sum(sizes[1:]) == len(embed)


def test_a_float16_memory_map_gives_the_labels_of_its_values(tmp_path):
    embed, identity = faces(30, 8, dim=64)
    np.save(tmp_path / "rows.npy", embed.astype(np.float16))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert np.array_equal(sdd_fiqa(mapped, identity, mode="pool", pool=100, raw=True), sdd_fiqa(embed.astype(np.float16).astype(np.float32), identity, mode="pool", pool=100, raw=True))
    assert np.allclose(sdd_fiqa(mapped, identity, raw=True), sdd_fiqa(embed, identity, raw=True), atol=2e-3)


def test_tails_cut_outliers():
    values = np.r_[np.linspace(0.4, 0.6, 1000), -5.0, 9.0]
    assert np.ptp(normalise_labels(values)[:1000]) < 2
    cut = normalise_labels(values, tail=0.01)
    assert np.ptp(cut[:1000]) > 95 and cut.min() == 0 and cut.max() == 100


def test_empty_sample_and_nan_have_no_distance():
    for first in ([], [0.1, np.nan]):
        with pytest.raises(UserError, match="at least one in each and no NaN"):
            wasserstein_1d(first, [0.3])


def test_bad_input():
    embed, identity = faces(4, 3)
    with pytest.raises(UserError, match="at least two identities"):
        sdd_fiqa(embed, np.zeros(12, int))
    with pytest.raises(UserError, match="unknown mode 'fast'"):
        sdd_fiqa(embed, identity, mode="fast")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="draws 0"):
        sdd_fiqa(embed, identity, draws=0)
    with pytest.raises(UserError, match="one identity for each image"):
        sdd_fiqa(embed, identity[:-1])
    with pytest.raises(UserError, match="row 0: 2"):
        sdd_fiqa(2 * embed, identity)
    with pytest.raises(UserError, match="enlarge `pool`"):
        sdd_fiqa(embed, identity, mode="pool", pool=1)
    embed[5, 2] = np.nan
    with pytest.raises(UserError, match="row 5: nan"):
        sdd_fiqa(embed, identity)
