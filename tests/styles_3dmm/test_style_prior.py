"""The style prior: parameters of simulated people come back, switches and guards do what they say, one seed gives one style."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.weights import save_tensors
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.style import StyleLayout
from facefoundry.styles_3dmm.style_prior import GROUPS, StylePrior, _opponent, fit_style_prior

LAYOUT = StyleLayout.of(tiny())
P = len(LAYOUT)
SHAPE, TEX, EXPR, YAW = LAYOUT.slices["shape"], LAYOUT.slices["tex"], LAYOUT.slices["expr"], LAYOUT.column("yaw_deg")
SCALE = LAYOUT.column("scale_px_per_mm")
UNIT = np.where(np.arange(P) == SCALE, 0.02, 1.0)
"""Of the simulated columns; small for the scale, which may not become negative."""


def law(seed: int = 0) -> dict[str, np.ndarray]:
    """A true law: mean, root of the between covariance (rank 5), log-variances with a spread, a correlation within the groups."""
    rng = np.random.default_rng(seed)
    group = np.empty(P, int)
    for number, blocks in enumerate(GROUPS):
        for block in blocks:
            group[LAYOUT.slices[block]] = number
    mixed = rng.normal(size=(P, P)) * 0.35 + np.eye(P)
    covariance = mixed @ mixed.T * (group[:, None] == group)
    deviation = np.sqrt(np.diag(covariance))
    return {
        "mean": np.where(np.arange(P) == SCALE, 30.0, rng.normal(size=P)),
        "root": rng.normal(size=(P, 5)) * 0.5,
        "log": rng.uniform(-3, -1, P),
        "log_spread": rng.uniform(0.2, 0.9, P),
        "within": covariance / deviation[:, None] / deviation,
    }


def simulate(true: dict[str, np.ndarray], subjects: int, images: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    code = []
    for _ in range(subjects):
        mean = true["mean"] + true["root"] @ rng.normal(size=true["root"].shape[1])
        spread = np.exp((true["log"] + true["log_spread"] * rng.normal(size=P)) / 2)
        code.append(mean + spread * (rng.normal(size=(images, P)) @ np.linalg.cholesky(true["within"]).T))
    # The law is one of rotated colours.
    return _opponent(np.concatenate(code) * UNIT, LAYOUT, back=True).astype(np.float32), np.repeat(np.arange(subjects), images)


TRUE = law()
CODE, PERSON = simulate(TRUE, 900, 12)
PRIOR = fit_style_prior(CODE, PERSON, LAYOUT)


def test_mean_and_between_covariance_come_back():
    scale = PRIOR.scale_P / UNIT
    assert PRIOR.centre_P / UNIT + scale * PRIOR.mean_P == pytest.approx(TRUE["mean"], abs=0.15)
    found = scale[:, None] * PRIOR.between_PR @ PRIOR.between_PR.T * scale
    true = TRUE["root"] @ TRUE["root"].T
    assert np.linalg.norm(found - true) < 0.12 * np.linalg.norm(true)


def test_sampling_noise_is_taken_from_the_between_covariance():
    """People who do not differ: the means of their few pictures do, by v / n."""
    code, person = simulate({**TRUE, "root": np.zeros((P, 1))}, 600, 8)
    prior = fit_style_prior(code, person, LAYOUT)
    means = np.stack([_opponent(code[person == i].astype(float), LAYOUT).mean(0) for i in range(600)]) / np.where(prior.scale_P > 0, prior.scale_P, 1)
    # Clipping at 0 keeps the positive half of an estimate around 0.
    assert np.square(prior.between_PR).sum() < 0.3 * means.var(0).sum()


def test_spread_law_comes_back_without_its_sampling_noise():
    scale = PRIOR.scale_P / UNIT
    assert PRIOR.log_variance_P + 2 * np.log(scale) == pytest.approx(TRUE["log"], abs=0.15)
    found = PRIOR.log_variance_spread_P
    assert np.abs(found - TRUE["log_spread"]).mean() < 0.06
    # Left in, the noise of 12 pictures would make the smallest spread √(0.2² + 2/11) = 0.47.
    assert found.min() < 0.35


def test_within_correlation_comes_back_shrunk_and_in_blocks():
    off = ~np.eye(P, dtype=bool)
    assert np.abs(PRIOR.within_PP - 0.9 * TRUE["within"])[off].max() < 0.06
    assert (np.diag(PRIOR.within_PP) == 1).all()
    light, pose = LAYOUT.slices["light"], LAYOUT.slices["pose"]
    assert (PRIOR.within_PP[light, pose] == 0).all()
    assert np.abs(PRIOR.within_PP[light, LAYOUT.slices["cam"]]).max() > 0.05
    assert np.linalg.eigvalsh(PRIOR.within_PP).min() > 0.05


def test_virtual_people_vary_as_the_real_ones():
    rng = np.random.default_rng(3)
    drawn = np.stack([PRIOR.sample_subject(rng).sample_image(rng, 8) for _ in range(500)])
    within, between = drawn.var(1, ddof=1).mean(0), drawn.mean(1).var(0)
    real = CODE.reshape(900, 12, P)
    free = np.ones(P, bool)
    free[SHAPE], free[TEX] = False, False  # guarded: see below
    assert (within / real.var(1, ddof=1).mean(0))[free] == pytest.approx(1.0, abs=0.3)
    assert (between / real.mean(1).var(0))[free].mean() == pytest.approx(1.0, abs=0.1)
    # People differ in how much they vary, too.
    assert np.log(drawn[:, :, EXPR].var(1, ddof=1)).std(0).mean() > 1.1 * np.sqrt(2 / 7)


def test_who_it_is_hardly_varies_and_comes_from_the_reference():
    rng, reference = np.random.default_rng(4), CODE[0].copy()
    codes = PRIOR.sample_subject(rng, reference).sample_image(rng, 400)
    assert codes[:, SHAPE].mean(0) == pytest.approx(reference[SHAPE], abs=0.1)
    free = PRIOR.sample_subject(np.random.default_rng(4), reference)
    wanted = 0.25 * free.spread_P[SHAPE] * PRIOR.scale_P[SHAPE]
    assert codes[:, SHAPE].std(0) == pytest.approx(wanted, rel=0.15)
    wanted_pose = free.spread_P[YAW] * PRIOR.scale_P[YAW]
    assert codes[:, YAW].std() == pytest.approx(wanted_pose, rel=0.15)


def test_subject_agnostic_makes_all_people_alike_but_keeps_the_variety():
    def means(agnostic: bool) -> tuple[np.ndarray, float]:
        rng = np.random.default_rng(5)
        drawn = np.stack([PRIOR.sample_subject(rng, subject_agnostic=agnostic).sample_image(rng, 40)[:, EXPR] for _ in range(150)])
        return drawn.mean(1).var(0).mean() / drawn.var((0, 1)).mean(), drawn.var((0, 1)).mean()

    (specific, variety), (agnostic, same_variety) = means(False), means(True)
    assert specific > 5 * agnostic
    assert agnostic == pytest.approx(1 / 40, rel=0.4)  # what 40 independent pictures leave
    assert same_variety == pytest.approx(variety, rel=0.2)


def test_shared_spread_gives_every_subject_the_same():
    rng = np.random.default_rng(6)
    own = np.stack([PRIOR.sample_subject(rng).spread_P for _ in range(30)])
    shared = np.stack([PRIOR.sample_subject(rng, shared_spread=True).spread_P for _ in range(30)])
    assert (shared == shared[0]).all()
    assert shared[0] == pytest.approx(np.exp(PRIOR.log_variance_P / 2))
    assert own.std(0).min() > 0.01


def test_no_draw_beyond_the_quantile():
    """Mahalanobis distance against a solve with the covariance itself."""
    from scipy.stats import chi2

    rng = np.random.default_rng(7)
    subject = PRIOR.sample_subject(rng)
    spread = subject.spread_P.copy()
    spread[SHAPE] *= 0.25
    spread[TEX] *= 0.25
    codes = subject.sample_image(rng, 5000)
    inside = [c for c in range(P) if c not in range(TEX.start, TEX.stop)]  # skin tones are clipped
    away = (_opponent(codes.astype(np.float64), LAYOUT) - PRIOR.centre_P) / PRIOR.scale_P - subject.mean_P
    covariance = spread[:, None] * PRIOR.within_PP * spread
    distance = np.einsum("np,np->n", away[:, inside], np.linalg.solve(covariance[np.ix_(inside, inside)], away[:, inside].T).T)
    assert distance.max() <= chi2.ppf(0.999, P) * 1.001
    assert distance.max() > chi2.ppf(0.98, len(inside))


def test_faces_seen_from_behind_are_drawn_again():
    rng = np.random.default_rng(8)
    scale = PRIOR.scale_P.copy()
    scale[YAW] *= 60.0
    wide = replace(PRIOR, scale_P=scale, centre_P=np.where(np.arange(P) == YAW, 0.0, PRIOR.centre_P))
    yaw = np.concatenate([wide.sample_subject(rng).sample_image(rng, 50)[:, YAW] for _ in range(20)])
    assert np.abs(yaw).max() <= 90 and (np.abs(yaw) == 90).mean() < 0.2 and np.abs(yaw).max() > 60
    never = replace(wide, centre_P=np.where(np.arange(P) == YAW, 1e4, PRIOR.centre_P))
    assert (never.sample_subject(rng).sample_image(rng, 3)[:, YAW] == 90).all()  # bounded, not for ever


def test_colours_are_rotated_and_back():
    code = np.random.default_rng(0).normal(size=(5, P))
    turned = _opponent(code, LAYOUT)
    assert _opponent(turned, LAYOUT, back=True) == pytest.approx(code)
    light = LAYOUT.slices["light"]
    assert turned[:, light.start] == pytest.approx(code[:, light.start : light.start + 3].sum(1) / np.sqrt(3))
    assert (turned[:, SHAPE] == code[:, SHAPE]).all()
    grey = code.copy()
    grey[:, light] = np.repeat(code[:, light][:, ::3], 3, axis=1)
    assert _opponent(grey, LAYOUT)[:, light].reshape(5, 9, 3)[:, :, 1:] == pytest.approx(0.0)


def test_one_seed_one_style():
    codes = [PRIOR.sample_subject(np.random.default_rng(9), CODE[1]).sample_image(np.random.default_rng(10), 3) for _ in range(2)]
    assert (codes[0] == codes[1]).all() and codes[0].dtype == np.float32
    assert (codes[0] != PRIOR.sample_subject(np.random.default_rng(9), CODE[1]).sample_image(np.random.default_rng(11), 3)).any()


def test_columns_that_never_vary_stay_put():
    code = CODE.copy()
    code[:, EXPR.start] = 0.25
    prior = fit_style_prior(code, PERSON, LAYOUT)
    rng = np.random.default_rng(12)
    drawn = prior.sample_subject(rng).sample_image(rng, 20)
    assert np.isfinite(drawn).all() and drawn[:, EXPR.start] == pytest.approx(0.25)


def test_small_file_and_back(tmp_path):
    path = tmp_path / "prior.safetensors"
    PRIOR.save(path)
    assert path.stat().st_size < 1_000_000
    again = StylePrior.load(path)
    assert again.layout == LAYOUT and again.facts["subjects"] == 900
    draw = [prior.sample_subject(np.random.default_rng(0)).sample_image(np.random.default_rng(1), 2) for prior in (PRIOR, again)]
    assert draw[1] == pytest.approx(draw[0], abs=1e-3)
    save_tensors(path, {"mean_P": torch.zeros(3)}, kind="style-prior", config={"layout": LAYOUT.to_json()})
    with pytest.raises(UserError, match="does not fit its layout"):
        StylePrior.load(path)


def test_too_few_people_or_pictures():
    with pytest.raises(UserError, match="1 of 900 people have at least 8"):
        keep = (PERSON == 0) | ((np.arange(len(PERSON)) % 12) < 5)
        fit_style_prior(CODE[keep], PERSON[keep], LAYOUT)
    broken = CODE.copy()
    broken[::12] = np.nan  # one picture of everybody has no fit
    assert fit_style_prior(broken, PERSON, LAYOUT).facts["images"] == 900 * 11
