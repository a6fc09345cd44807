"""The whole inspection by embeddings, perceptual distance, coverage, leakage: against loops, and sets with little in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.quality.coverage import coverage
from facefoundry.quality.inspect import InspectSettings, inspect_embeddings, summary
from facefoundry.quality.intervals import mean_interval
from facefoundry.quality.leakage import leakage
from facefoundry.quality.metrics import dataset_figures
from facefoundry.quality.perceptual import mean_pair_distance, perceptual_distances, pooled

QUICK = InspectSettings(threshold=0.3, draws=20)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def faces(people=12, shots=5, seed=0, dim=16):
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(people), shots)
    return unit(rng.standard_normal((people, dim))[index] + 0.7 * rng.standard_normal((len(index), dim))), index


def test_figures_are_those_of_the_data_set_report():
    embed, index = faces()
    names = np.array([f"p{k:02d}" for k in index])
    found = inspect_embeddings(embed, names, QUICK, hash_N=np.arange(len(embed), dtype=np.uint64) << np.uint64(20))
    exact = dataset_figures(embed, index, threshold=0.3)
    assert found.labels_I.tolist() == sorted(set(names.tolist()))
    for mine, theirs in {"consistency": "consistency", "dispersion": "dispersion", "unique_greedy": "unique_identities", "nearest_centre_mean": "nearest_centre_mean"}.items():
        assert found.figures[mine].value == pytest.approx(getattr(exact, theirs), abs=1e-6), mine
    assert found.figures["auc"].value == pytest.approx(exact.auc, abs=0.005) and found.figures["fdr"].value == pytest.approx(exact.fdr, rel=1e-4)
    assert found.separation.close == exact.close_identities
    cos = embed @ embed.T
    own = [np.mean([cos[i, j] for i in np.flatnonzero(index == p) for j in np.flatnonzero(index == p) if i < j]) for p in range(12)]
    assert found.table["mated_mean"] == pytest.approx(own, abs=1e-6)
    assert found.figures["identity_cosine"].value == pytest.approx(np.mean(own), abs=1e-6)
    assert np.isfinite(found.quality_N).all() and found.profile["q05"] < found.profile["q50"]
    assert json.loads(json.dumps(summary(found)))["identities"] == 12


def test_the_same_set_in_another_order_has_the_same_figures():
    embed, index = faces()
    order = np.random.default_rng(1).permutation(len(embed))
    first, second = inspect_embeddings(embed, index, QUICK), inspect_embeddings(embed[order], index[order], QUICK)
    for name in first.figures:
        assert first.figures[name].value == pytest.approx(second.figures[name].value, abs=1e-6), name


@pytest.mark.parametrize(("images", "identities"), [(1, 1), (5, 1), (5, 5), (6, 2)])
def test_sets_with_little_in_them(images, identities):
    embed = faces(6, 1)[0][:images]
    found = inspect_embeddings(embed, np.arange(images) % identities, QUICK, hash_N=np.arange(images, dtype=np.uint64), real_RD=np.eye(16, dtype=np.float32))
    assert len(found.labels_I) == identities
    assert ("auc" in found.figures) == (images == 6) and ("nearest_centre_max" in found.figures) == (identities > 1)
    assert all(np.isfinite(figure.value) for figure in found.figures.values())


def test_nan_is_refused_with_its_row():
    embed, index = faces()
    embed[7] = np.nan
    with pytest.raises(UserError, match="row 7"):
        inspect_embeddings(embed, index, QUICK)


def test_mean_interval():
    values = np.random.default_rng(0).standard_normal(400)
    found = mean_interval(values)
    assert found.value == pytest.approx(values.mean()) and (found.high - found.low) == pytest.approx(3.92 / 20, rel=0.2)
    assert mean_interval(np.array([1.0, np.nan, 3.0])).value == 2
    lone = mean_interval(np.array([2.0]))
    assert lone.value == 2 and np.isnan(lone.low) and np.isnan(mean_interval(np.array([np.nan])).value)


def test_leakage_counts_comparisons_images_and_centres():
    embed, index = faces()
    centre = unit(np.stack([embed[index == p].mean(axis=0) for p in range(12)]))
    real = unit(np.random.default_rng(5).standard_normal((9, 16)))
    real[4] = embed[17]
    found = leakage(embed, centre, real, threshold=0.5)
    cos = np.array([[float(e @ r) for r in real] for e in embed])
    assert found.image_rate == pytest.approx((cos >= 0.5).mean()) and found.image_hit == pytest.approx((cos.max(1) >= 0.5).mean())
    assert found.nearest_N[17] == 4 and found.cosine_N[17] == pytest.approx(1)
    assert found.centre_rate == pytest.approx(np.mean([[float(c @ r) >= 0.5 for r in real] for c in centre]))
    between = np.array([float(real[i] @ real[j]) for i in range(9) for j in range(i)])
    assert found.real_fmr == pytest.approx((between >= 0.5).mean(), abs=0.03) and found.chance_hit == pytest.approx(1 - (1 - found.real_fmr) ** 9)
    by_rate = leakage(embed, centre, real, fmr=0.1)
    assert (between >= by_rate.threshold).mean() <= 0.1
    with pytest.raises(UserError, match="give the threshold"):
        leakage(embed, centre, real[:1])
    with pytest.raises(UserError, match="9 dimensions|have 5 dimensions"):
        leakage(embed, centre, np.eye(5, dtype=np.float32), threshold=0.5)


def test_perceptual_distance_equals_the_loop():
    rng = np.random.default_rng(0)
    maps = [torch.tensor(rng.standard_normal((4, 3, 5, 5)), dtype=torch.float32), torch.tensor(rng.standard_normal((4, 6, 2, 2)), dtype=torch.float32)]
    maps[0][2, :, 0, 0] = 0  # a position without activation
    found = perceptual_distances(maps)

    def slow(i, j):
        layers = []
        for layer in maps:
            a, b = layer[i].numpy(), layer[j].numpy()
            total = 0.0
            for y in range(a.shape[1]):
                for x in range(a.shape[2]):
                    u, v = a[:, y, x], b[:, y, x]
                    u, v = u / max(np.linalg.norm(u), 1e-12), v / max(np.linalg.norm(v), 1e-12)
                    total += ((u - v) ** 2).sum()
            layers.append(total / (a.shape[1] * a.shape[2]))
        return np.mean(layers)

    for i in range(4):
        for j in range(4):
            assert found[i, j] == pytest.approx(slow(i, j), abs=1e-5)
    assert mean_pair_distance(maps) == pytest.approx(np.mean([slow(i, j) for i in range(4) for j in range(i)]), abs=1e-5)
    assert np.isnan(mean_pair_distance([layer[:1] for layer in maps]))
    assert pooled(maps) == pytest.approx(maps[1].mean((2, 3)).numpy(), abs=1e-6)


def test_coverage():
    even = coverage(np.linspace(-89, 89, 120), np.repeat(np.arange(12), 10), 12, low=-90, high=90)
    assert even.entropy == pytest.approx(1, abs=1e-3) and even.covered == 1 and even.known == 120
    assert even.sd_within < even.sd
    index = np.array([0, 0, 1, 1, 2])
    value = np.array([0.0, 10.0, 20.0, 20.0, np.nan])
    found = coverage(value, index, 3, low=0, high=30, bins=3)
    assert (found.known, found.sd_within, found.counts) == (4, 2.5, (1, 1, 2))
    assert coverage(np.array([5.0] * 5), index, 3, low=0, high=30, bins=3).entropy == 0
    nothing = coverage(np.full(5, np.nan), index, 3, low=0, high=1)
    assert nothing.known == 0 and np.isnan(nothing.mean)
    assert coverage(np.array([900.0] * 5), index, 3, low=0, high=30, bins=3).counts == (0, 0, 5)  # beyond the range: the outer bin
