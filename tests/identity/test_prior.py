"""The density of real identities: recovered from data made by a known one, stored and read back."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from facefoundry.core.errors import UserError
from facefoundry.core.files import bundled
from facefoundry.core.weights import save_tensors
from facefoundry.identity.centres import write_centres
from facefoundry.identity.mixture import fit_mixture
from facefoundry.identity.prior import AnchorPrior, fit_prior, write_centre


def test_log_density_equals_scipy():
    point_NR = np.random.default_rng(0).standard_normal((200, 3)) * [1, 2, 3]
    mixture = fit_mixture(point_NR, components=2, shrink=0.3, rng=np.random.default_rng(1))
    parts = [
        weight * multivariate_normal(mean, factor @ factor.T).pdf(point_NR)
        for weight, mean, factor in zip(mixture.weight_K, mixture.mean_KR, mixture.factor_KRR)
    ]
    np.testing.assert_allclose(mixture.log_density(point_NR), np.log(sum(parts)), rtol=1e-9)


def test_two_humps_are_found():
    rng = np.random.default_rng(0)
    point_NR = rng.standard_normal((3000, 2)) * 0.3 + np.where(rng.random(3000) < 0.25, -2.0, 2.0)[:, None] * [1, 0]
    mixture = fit_mixture(point_NR, components=2, shrink=0.0, rng=rng)
    order = np.argsort(mixture.mean_KR[:, 0])
    np.testing.assert_allclose(mixture.mean_KR[order], [[-2, 0], [2, 0]], atol=0.05)
    np.testing.assert_allclose(mixture.weight_K[order], [0.25, 0.75], atol=0.03)
    drawn_NR = mixture.draw(rng, 20000)
    np.testing.assert_allclose(np.cov(drawn_NR.T), np.cov(point_NR.T), atol=0.1)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="too few"):
        fit_mixture(np.zeros((5, 3)), components=1, shrink=0.0, rng=np.random.default_rng(0))


def test_nan_rows_are_refused(unit_faces):
    embed_ND, identity_N = unit_faces
    broken_ND = embed_ND.copy()
    broken_ND[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        AnchorPrior.fit(broken_ND, identity_N)


def test_prior_survives_the_file(tmp_path, unit_faces):
    prior = fit_prior(*unit_faces, tmp_path / "p.safetensors")
    again = AnchorPrior.load(tmp_path / "p.safetensors")
    rows = [p.draw(np.random.default_rng(0), 50) for p in (prior, again)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows[1], axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose((prior.real_ID * again.real_ID).sum(1), 1.0, atol=1e-6)
    (tmp_path / "p.safetensors").write_bytes(b"pickle")
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        AnchorPrior.load(tmp_path / "p.safetensors")


def test_other_and_incomplete_files_are_user_errors(tmp_path, unit_faces):
    write_centres(*unit_faces, tmp_path / "c.safetensors")
    with pytest.raises(UserError, match="holds 'real-centres', expected 'anchor-prior'"):
        AnchorPrior.load(tmp_path / "c.safetensors")
    save_tensors(tmp_path / "p.safetensors", {"mean": torch.zeros(3)}, kind="anchor-prior", config={})
    with pytest.raises(UserError, match="'axes' is missing"):
        AnchorPrior.load(tmp_path / "p.safetensors")


def test_axes_without_variance_are_left_out(unit_faces):
    embed_ND, identity_N = unit_faces
    padded_ND = np.concatenate([embed_ND, np.zeros((len(embed_ND), 3), np.float32)], axis=1)
    prior = AnchorPrior.fit(padded_ND, identity_N)
    assert prior.axis_RD.shape == (embed_ND.shape[1], padded_ND.shape[1])
    assert np.abs(prior.draw(np.random.default_rng(0), 20)[:, -3:]).max() < 1e-6


def test_centre_is_the_mean(tmp_path):
    raw_ND = np.random.default_rng(0).random((100, 8)).astype(np.float32)
    np.testing.assert_allclose(write_centre(raw_ND, tmp_path / "c.safetensors"), raw_ND.mean(0), atol=1e-6)
    with pytest.raises(ValueError, match="NaN"):
        write_centre(np.full((3, 2), np.nan), tmp_path / "d.safetensors")


def test_bundled_prior_draws_like_real_people():
    """Measured on train112: pair cosines of class centres have mean 0.012, s.d. 0.182; drawn directions must have the same."""
    drawn_ND = AnchorPrior.load(bundled("anchor-prior.safetensors")).draw(np.random.default_rng(0), 1500)
    pair_P = (drawn_ND @ drawn_ND.T)[np.triu_indices(len(drawn_ND), 1)]
    assert abs(pair_P.mean() - 0.012) < 0.01 and abs(pair_P.std() - 0.182) < 0.01
