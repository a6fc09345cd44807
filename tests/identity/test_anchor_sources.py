"""Every source of anchors: its law, its order, and that what is taken keeps its distance."""

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.files import bundled
from facefoundry.identity import anchors
from facefoundry.identity.anchor_sources import Gallery, gaussian, mixture, uniform, uniform_within
from facefoundry.identity.anchors import AnchorPrior, draw_from, prior_source
from facefoundry.identity.mixture import fit_mixture


@pytest.fixture(scope="module")
def prior(unit_faces):
    return AnchorPrior.fit(*unit_faces)


@pytest.fixture(scope="module")
def sources(prior):
    rows = np.random.default_rng(0).standard_normal((90, 16))
    return {"mixture": mixture(prior), "gaussian": gaussian(prior), "uniform": uniform(16), "uniform_within": uniform_within(prior), "gallery": Gallery(rows, "rows")}


NAMES = ("mixture", "gaussian", "uniform", "uniform_within", "gallery")


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, sources):
    source = sources[name]
    first, again, other = (next(source.blocks(seed, 20)) for seed in (1, 1, 2))
    assert first.shape == (20, source.dim) and first.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert source.gallery(1, 30).shape in ((30, source.dim), (0, source.dim))


def slow(source, count, seed, max_cosine, real_ID, leak_cosine, block):
    taken, drawn, leaked = [], 0, 0
    for block_BD in source.blocks(seed, block):
        for one in block_BD:
            if any((one.astype(np.float64) * real).sum() >= leak_cosine for real in real_ID):
                leaked += 1
            elif len(taken) < count and all((one.astype(np.float64) * other).sum() < max_cosine for other in taken):
                taken.append(one)
        drawn += len(block_BD)
        if len(taken) == count:
            return np.stack(taken), drawn, leaked
    raise AssertionError("too few")


@pytest.mark.parametrize("block", [8, 64])
@pytest.mark.parametrize("name", NAMES)
def test_draws_equal_the_slow_loop_and_count_what_is_dropped(name, block, sources, prior, monkeypatch):
    monkeypatch.setattr(anchors, "_BLOCK", block)
    real_ID = prior.real_ID[:40]
    sample = draw_from(sources[name], 25, 4, max_cosine=0.6, real_ID=real_ID, leak_cosine=0.55)
    expected, drawn, leaked = slow(sources[name], 25, 4, 0.6, real_ID, 0.55, block)
    np.testing.assert_array_equal(sample.anchor_ID, expected)
    assert (sample.drawn, sample.leaked) == (drawn, leaked) and sample.leaked > 0


def test_gaussian_is_the_fit_with_one_component_without_its_points():
    point_NR = np.random.default_rng(0).standard_normal((500, 5)) @ np.random.default_rng(1).standard_normal((5, 5)) + np.repeat([0, 3], 250)[:, None]
    many, one = (fit_mixture(point_NR, components=k, shrink=0.3, rng=np.random.default_rng(2)) for k in (4, 1))
    single = many.single()
    np.testing.assert_allclose(single.mean_KR, one.mean_KR, atol=1e-9)
    np.testing.assert_allclose(single.factor_KRR, one.factor_KRR, atol=1e-6)
    np.testing.assert_allclose(single.factor_KRR[0] @ single.factor_KRR[0].T, np.cov(point_NR.T, ddof=0), atol=1e-6)


def test_uniform_is_uniform_and_within_the_axes():
    prior = AnchorPrior.load(bundled("anchor-prior.safetensors"))
    rows = uniform(24).draw(np.random.default_rng(0), 4000)
    assert np.abs(rows.mean(axis=0)).max() < 0.02 and np.abs(rows.T @ rows / 4000 - np.eye(24) / 24).max() < 0.006
    within = uniform_within(prior).draw(np.random.default_rng(0), 500)
    assert within.shape == (500, 128) and np.abs(within - within @ prior.axis_RD.T @ prior.axis_RD).max() < 1e-5
    with pytest.raises(UserError, match="expected 2 or more"):
        uniform(1)


def test_a_gallery_gives_every_row_once():
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    taken = np.concatenate(list(Gallery(rows, "g").blocks(3, 16)))
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(taken[np.lexsort(taken.T)], expected[np.lexsort(expected.T)], atol=1e-6)
    rows[3] = 0
    with pytest.raises(UserError, match="the first is row 3"):
        Gallery(rows, "g.npy")


def test_giving_up_says_how_many_fit_and_is_quick(monkeypatch):
    monkeypatch.setattr(anchors, "_BLOCK", 64)
    with pytest.raises(UserError, match=r"only \d+ of 5000 identities fit.*the last 4096 candidates gave \d+ more: the space is nearly full.*raise max_cosine") as caught:
        draw_from(uniform(4), 5000, 0, max_cosine=0.5)
    drawn = int(str(caught.value).split(" candidates ")[0].split()[-1])
    assert drawn < anchors._GIVE_UP * 5000 / 10
    with pytest.raises(UserError, match=r"the source holds 30"):
        draw_from(Gallery(np.random.default_rng(0).standard_normal((30, 3)), "g"), 25, 0, max_cosine=0.1)


def test_other_widths_are_refused(prior):
    with pytest.raises(UserError, match="real centres have 16 numbers, the anchors 8"):
        draw_from(uniform(8), 5, 0, real_ID=prior.real_ID)


def test_a_prior_without_centres_is_drawn_from_its_pool():
    prior = AnchorPrior.load(bundled("anchor-prior.safetensors"))
    assert prior_source(prior).size == 8000 and prior.gaussian().pool is None
