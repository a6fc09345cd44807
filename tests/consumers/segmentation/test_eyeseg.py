"""Posterior, loss, uncertainty and weights of EyeSeg."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.consumers.segmentation.eyeseg import EyeParts, EyeSeg, class_loss, edges, eyeseg_loss, generalised_dice, load_eyeseg, posterior, save_eyeseg
from facefoundry.consumers.segmentation.network import LOG_KAPPA_MOST, EyeSegNet, PlainSegNet, bounded
from facefoundry.consumers.segmentation.vmf import log_normaliser, mean_length
from facefoundry.core.errors import UserError
from facefoundry.core.training import fresh

WIDTHS = (8, 8, 8, 8)


@pytest.fixture(scope="module")
def network():
    return fresh(lambda: EyeSegNet(WIDTHS), 0, "test").eval()


def test_posterior_of_the_specification():
    cosine = torch.tensor([0.9, 0.3, 0.2, 0.1]).view(1, 4, 1, 1)
    found = posterior(cosine, torch.tensor([2.0]).view(1, 1, 1))
    np.testing.assert_allclose(found.flatten(), [0.5715, 0.1721, 0.1409, 0.1154], atol=5e-5)
    parts = EyeParts(probability_BKHW=found, kappa_BHW=torch.full((1, 1, 1), 2.0), uncertainty_BHW=torch.full((1, 1, 1), 0.5))
    assert parts.gini_BHW.item() == pytest.approx(0.6106, abs=1e-4)  # the specification squares rounded numbers
    np.testing.assert_allclose(posterior(cosine, torch.full((1, 1, 1), 1e-6)).flatten(), 0.25, atol=1e-6)
    assert posterior(cosine, torch.full((1, 1, 1), 33.66))[0, 0].item() > 1 - 1e-8


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    cosine = torch.rand(2, 4, 4, 5, generator=rng, dtype=torch.float64) * 2 - 1
    return cosine, torch.rand(2, 4, 5, generator=rng, dtype=torch.float64) * 20 + 0.1, torch.randint(0, 4, (2, 4, 5), generator=rng)


def test_loss_against_a_loop():
    cosine, kappa, label = batch()
    found = eyeseg_loss(cosine, kappa, label, 8, stride=1)
    density, entropy, weights, hit, mass, area = 0.0, 0.0, 0.0, np.zeros(4), np.zeros(4), np.zeros(4)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                k, own = int(label[b, y, x]), float(cosine[b, label[b, y, x], y, x])
                density += -float(log_normaliser(kappa[b, y, x][None], 8)) - float(kappa[b, y, x]) * own
                p = np.exp(float(kappa[b, y, x]) * cosine[b, :, y, x].numpy())
                p /= p.sum()
                around = label[b, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                weight = 21.0 if len(around.unique()) > 1 else 1.0
                entropy, weights = entropy - weight * np.log(p[k]), weights + weight
                hit[k], area[k], mass = hit[k] + p[k], area[k] + 1, mass + p
    dice = 1 - 2 * (hit / area**2).sum() / ((mass + area) / area**2).sum()
    assert found["density"].item() == pytest.approx(density / 40)
    assert found["cross_entropy"].item() == pytest.approx(entropy / weights)
    assert found["dice"].item() == pytest.approx(dice)
    assert found["loss"].item() == pytest.approx(density / 40 + entropy / weights + dice)


def test_stride_takes_every_such_pixel():
    cosine, kappa, label = batch()
    every = eyeseg_loss(cosine[:, :, ::2, ::2], kappa[:, ::2, ::2], label[:, ::2, ::2], 8, stride=1)["density"]
    assert eyeseg_loss(cosine, kappa, label, 8, stride=2)["density"].item() == pytest.approx(every.item())


def test_loss_gradient():
    cosine, kappa, label = batch(1)
    assert torch.autograd.gradcheck(lambda c, k: eyeseg_loss(c, k, label, 8)["loss"], (cosine.requires_grad_(), kappa.requires_grad_()))


def test_loss_without_the_normaliser_would_run_away():
    """At a fixed cosine κ settles where A_d(κ) is the cosine, instead of growing for ever."""
    log_kappa = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    for _ in range(40):
        kappa = log_kappa.exp()
        (slope,) = torch.autograd.grad((-log_normaliser(kappa, 8) - 0.9 * kappa).sum(), log_kappa)
        log_kappa = (log_kappa - 0.2 * slope).detach().requires_grad_()
    assert log_kappa.exp().item() == pytest.approx(33.6627, rel=1e-3)


def test_dice_is_zero_for_the_truth_and_weighs_small_classes():
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[0, 3, 3] = 3
    truth = torch.nn.functional.one_hot(label, 4).permute(0, 3, 1, 2).double()
    assert generalised_dice(truth, label).item() == pytest.approx(0.0)
    without = truth.clone()
    without[:, :, 3, 3] = torch.tensor([1.0, 0, 0, 0])
    assert generalised_dice(without, label).item() > 0.4  # one pixel of sixty-four, but all of its class


def test_edges():
    label = torch.zeros(1, 5, 5, dtype=torch.int64)
    label[0, :, 3:] = 2
    assert edges(label)[0, 2].tolist() == [0, 0, 1, 1, 0]
    assert edges(torch.ones(1, 4, 4, dtype=torch.int64)).sum() == 0


def test_plain_loss_is_of_scores_alone():
    cosine, kappa, label = batch(2)
    logit = cosine * kappa[:, None]
    method = eyeseg_loss(cosine, kappa, label, 8)
    assert class_loss(logit, label)["loss"].item() == pytest.approx((method["loss"] - method["density"]).item())


def test_score_is_the_mean_over_the_eye():
    probability = torch.zeros(2, 4, 1, 3)
    probability[:, 0] = 1.0
    probability[0, :, 0, 1], probability[0, :, 0, 2] = torch.tensor([0, 1.0, 0, 0]), torch.tensor([0, 0, 0, 1.0])
    unsure = torch.tensor([[[0.9, 0.2, 0.4]], [[0.9, 0.6, 0.3]]])
    parts = EyeParts(probability_BKHW=probability, kappa_BHW=unsure, uncertainty_BHW=unsure)
    np.testing.assert_allclose(parts.score_B, [0.3, 0.6])  # the second shows no eye: all of it
    assert parts.label_BHW.tolist() == [[[0, 1, 3]], [[0, 0, 0]]] and parts.label_BHW.dtype == torch.uint8


def test_network_gives_unit_directions_and_positive_concentrations(network):
    image = torch.rand(2, 1, 32, 48) * 2 - 1
    mu, kappa = network(image)
    assert mu.shape == (2, 8, 32, 48) and kappa.shape == (2, 32, 48)
    torch.testing.assert_close(mu.norm(dim=1), torch.ones(2, 32, 48))
    assert (kappa > 0).all()
    cosine = network.cosines(mu)
    assert cosine.shape == (2, 4, 32, 48) and cosine.abs().max() <= 1 + 1e-5
    reference = torch.einsum("bdhw,kd->bkhw", mu, network.prototype_KD / network.prototype_KD.norm(dim=1, keepdim=True))
    torch.testing.assert_close(cosine, reference)
    assert PlainSegNet(WIDTHS).eval()(image).shape == (2, 4, 32, 48)
    with pytest.raises(ValueError, match="multiples of 16"):
        network(torch.zeros(1, 1, 30, 48))


def test_brightness_and_contrast_do_not_matter(network):
    image = torch.rand(1, 1, 32, 48) * 2 - 1
    np.testing.assert_allclose(network(image)[0].detach(), network(image * 0.6 + 0.2)[0].detach(), atol=0.06)


def test_detached_concentration_moves_the_trunk_not_at_all():
    network = fresh(lambda: EyeSegNet(WIDTHS), 0, "test")
    network(torch.rand(1, 1, 32, 32), detach_concentration=True)[1].sum().backward()
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in network.trunk.parameters())
    assert all(parameter.grad.any() for parameter in network.concentration[-1].parameters())
    network(torch.rand(1, 1, 32, 32))[1].sum().backward()
    assert any(parameter.grad.any() for parameter in network.trunk.parameters())


def test_a_pixel_that_is_too_sure_finds_back():
    """Far past the bound κ stays under it, and a wrong pixel still pulls it down."""
    raw = torch.tensor([-30.0, 0.0, 5.0, 9.0, 14.0], dtype=torch.float64, requires_grad=True)
    log_kappa = bounded(raw)
    assert (log_kappa <= LOG_KAPPA_MOST).all() and (log_kappa.diff() > 0).all()
    torch.testing.assert_close(log_kappa[:2], raw[:2], atol=3e-3, rtol=0)
    kappa = log_kappa.exp()
    (-log_normaliser(kappa, 8) - 0.3 * kappa).sum().backward()  # cosine .3: far from its class
    assert (raw.grad[2:] > 0.01).all()


def test_prototypes_stand_equally_far_apart_and_stay_there():
    """Every two of K at the cosine -1/(K - 1): learned ones fall together, and κ then says nothing."""
    network = fresh(lambda: EyeSegNet(WIDTHS), 0, "test")
    torch.testing.assert_close(network.prototype_KD @ network.prototype_KD.T, torch.full((4, 4), -1 / 3).fill_diagonal_(1.0))
    assert "prototype_KD" not in dict(network.named_parameters()) and network.prototype_KD.shape == (4, 8)
    with pytest.raises(ValueError, match="dim is 3 for 4 classes"):
        EyeSegNet(WIDTHS, dim=3)


def test_fewer_than_a_million_parameters():
    assert sum(parameter.numel() for parameter in EyeSegNet().parameters()) < 1_000_000


def test_segmenter_answers_at_the_pictures_size(network):
    see = EyeSeg(network, (32, 48))
    picture = np.random.default_rng(0).integers(0, 256, (2, 50, 60), dtype=np.uint8)
    parts = see(picture)
    assert parts.probability_BKHW.shape == (2, 4, 50, 60) and parts.label_BHW.shape == (2, 50, 60)
    torch.testing.assert_close(parts.probability_BKHW.sum(1), torch.ones(2, 50, 60))
    assert ((parts.uncertainty_BHW > 0) & (parts.uncertainty_BHW < 1)).all()
    np.testing.assert_allclose(parts.score_B, torch.cat([see(one[None]).score_B for one in picture]), rtol=1e-4)  # a picture's answer is its own
    own = see(picture[:, :32, :48])
    np.testing.assert_allclose(own.uncertainty_BHW, 1 - mean_length(own.kappa_BHW.double(), 8), rtol=1e-4)  # no resampling: u is the function of κ
    with pytest.raises(ValueError, match="grey_BHW"):
        see(picture[0])
    with pytest.raises(ValueError, match="expected uint8"):
        see(picture / 255.0)


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_weights_come_back(network, tmp_path, dtype):
    path = tmp_path / "one.safetensors"
    save_eyeseg(path, network, widths=WIDTHS, size_px=(32, 48), facts={"steps": 0}, dtype=dtype)
    picture = np.random.default_rng(1).integers(0, 256, (1, 32, 48), dtype=np.uint8)
    found, expected = load_eyeseg(str(path)), EyeSeg(network, (32, 48))
    assert found.size_px == (32, 48)
    np.testing.assert_allclose(found(picture).probability_BKHW, expected(picture).probability_BKHW, atol=0 if dtype is None else 0.03)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        load_eyeseg(str(tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match="expected 'eyeseg'"):
        load_eyeseg("quality-small")
