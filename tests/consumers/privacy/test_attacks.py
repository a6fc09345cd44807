"""The attacks: the gate catches what is unprotected and lets a true loss of information pass; each attack finds what is there to be found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.consumers.privacy.attacks.embedding_map import MapSettings, read, train_reader
from facefoundry.consumers.privacy.attacks.guessing import guess, recover_by_guessing
from facefoundry.consumers.privacy.attacks.hill_climbing import ClimbSettings, climb
from facefoundry.consumers.privacy.attacks.linear_recovery import DctSystem, fitted_linear, least_squares, linear_gate, recover_from_dct
from facefoundry.consumers.privacy.attacks.reidentification import judge_threshold, reidentify
from facefoundry.consumers.privacy.attacks.template_inversion import undo_with_key
from facefoundry.consumers.privacy.attacks.unet_recovery import UnetSettings, recover, shown, train_recovery
from facefoundry.consumers.privacy.front_end import forward_dct
from facefoundry.consumers.privacy.slerp import SlerpConfig, draw_kept, protect_rows
from facefoundry.consumers.privacy.slerp_template import Key
from facefoundry.consumers.privacy.slerpface import Rows
from facefoundry.core.errors import UserError
from facefoundry.core.types import FaceBatch


def pictures(count: int, side: int = 16, seed: int = 0, rank: int = 40) -> torch.Tensor:
    """Smooth pictures that vary in `rank` directions, RGB in [0, 1]."""
    rng = torch.Generator().manual_seed(seed)
    basis = torch.nn.functional.interpolate(torch.randn(rank, 3, 4, 4, generator=torch.Generator().manual_seed(99)), size=(side, side), mode="bicubic")
    return (0.5 + 0.06 * torch.einsum("nr,rchw->nchw", torch.randn(count, rank, generator=rng), basis)).clamp(0, 1)


def as_bytes(image: torch.Tensor) -> np.ndarray:
    grown = torch.nn.functional.interpolate(image, size=(112, 112), mode="bilinear")
    return (grown.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)


# --- the gate ---------------------------------------------------------------------------------------------------------------------------------------


def gate_of(transform, count: int = 300):
    own, victims = pictures(count), pictures(8, seed=1)
    found = fitted_linear(transform(own), own, transform(victims))
    return linear_gate(found, victims, own.mean(0))


def test_unprotected_toy_fails_the_gate():
    scramble = torch.randn(768, 768, generator=torch.Generator().manual_seed(3))
    found = gate_of(lambda image: image.flatten(1) @ scramble)
    assert not found.passed and found.psnr_db > found.guess_db + 15 and found.ssim > 0.9


def test_projection_to_few_dimensions_passes():
    narrow = torch.randn(768, 4, generator=torch.Generator().manual_seed(3))
    found = gate_of(lambda image: image.flatten(1) @ narrow)
    assert found.passed and found.psnr_db > found.guess_db - 1  # it finds something, and knows when there is nothing more


@pytest.mark.parametrize("numbers", [200, 600])  # fewer and more than the attacker's faces
def test_noise_alone_is_neither_better_nor_worse_than_the_mean_face(numbers):
    rng = torch.Generator().manual_seed(0)
    found = gate_of(lambda image: torch.rand(len(image), numbers, generator=rng))
    assert found.passed and found.psnr_db == pytest.approx(found.guess_db, abs=0.3)


def test_fitted_map_refuses_what_does_not_fit():
    with pytest.raises(UserError, match="expected one each"):
        fitted_linear(torch.zeros(4, 5), torch.zeros(3, 3, 2, 2), torch.zeros(1, 5))


def test_least_squares_against_the_direct_solve():
    rng = torch.Generator().manual_seed(0)
    a, y, start = torch.randn(20, 12, generator=rng).double(), torch.randn(3, 20, generator=rng).double(), torch.zeros(3, 12).double()
    found = least_squares(lambda x: x @ (a.T @ a), y @ a, start, steps=60)
    assert torch.allclose(found, torch.linalg.lstsq(a, y.T).solution.T, atol=1e-8)


def test_what_is_not_seen_keeps_its_first_value():
    a = torch.diag(torch.tensor([1.0, 2.0, 0.0])).double()
    found = least_squares(lambda x: x @ (a.T @ a), torch.tensor([[1.0, 2.0, 0.0]]).double() @ a, torch.tensor([[0.0, 0.0, 7.0]]).double())
    assert found.tolist() == [pytest.approx([1.0, 1.0, 7.0])]


def test_dct_system_is_the_front_end_and_its_transpose():
    code = (1, 8, 9, 56, 7)
    system, image = DctSystem(code, 16), pictures(2)
    from facefoundry.consumers.privacy.front_end import to_ycc

    plane = to_ycc(image.double() * 2 - 1)
    sent = forward_dct(image * 2 - 1, torch.tensor([code])).unflatten(1, (3, len(code)))
    assert (system.forward(plane[:, 0]) - sent[:, 0]).abs().max() < 1e-2
    channel = torch.randn(2, len(code), 16, 16, generator=torch.Generator().manual_seed(0)).double()
    assert (system.forward(plane[:, 1]) * channel).sum() == pytest.approx(float((plane[:, 1] * system.backward(channel)).sum()), rel=1e-9)
    assert torch.allclose(system.normal(plane[:, 2]), system.backward(system.forward(plane[:, 2])), atol=1e-6)


def test_ac_channels_give_the_face_away():
    image, mean = pictures(3), pictures(100, seed=5).mean(0)
    code = tuple(range(1, 64))
    found, residual = recover_from_dct(forward_dct(image * 2 - 1, torch.tensor([code])), code, mean, steps=150)
    # Only a constant a plane is lost with DC: the recovery is the face up to a shift of each colour.
    shift = (found - image).mean((2, 3), keepdim=True)
    assert residual.max() < 1e-3 and ((found - shift) - image).square().mean().sqrt() < 0.01
    assert not linear_gate((found - shift).clamp(0, 1), image, mean).passed


def test_secret_order_is_found_by_its_residual():
    image, mean = pictures(4), pictures(100, seed=5).mean(0)
    codes = [(1, 8, 9, 2), (9, 1, 2, 8), (16, 3, 1, 8), (8, 2, 9, 1)]
    truth = [2, 0, 3, 1]
    sent = torch.cat([forward_dct(image[n : n + 1] * 2 - 1, torch.tensor([codes[rank]])) for n, rank in enumerate(truth)])
    _, taken = recover_by_guessing(sent, codes, mean, steps=30)
    assert taken.tolist() == truth
    with pytest.raises(UserError, match="nothing to guess"):
        guess([], lambda x: x)


# --- learned attacks --------------------------------------------------------------------------------------------------------------------------------


def test_unet_learns_to_undo_a_permutation_of_channels(tmp_path):
    own, victims = as_bytes(pictures(64)), as_bytes(pictures(6, seed=1))

    def observe(image_NHWC, seed):
        return 300 * shown(image_NHWC, 16).flip(1)

    settings = UnetSettings(steps=60, width=8, levels=2, lr=3e-3)
    found = recover(train_recovery(observe, own, settings, tmp_path), observe(victims, 0))
    mean = shown(own, 16).mean(0)
    assert (found - shown(victims, 16)).square().mean() < 0.5 * (mean - shown(victims, 16)).square().mean()


def test_embedding_is_read_out_of_vectors_and_maps(tmp_path):
    own, victims = as_bytes(pictures(256)), as_bytes(pictures(32, seed=1))
    matrix = torch.randn(48, 16, generator=torch.Generator().manual_seed(0))

    def embed(image_NHWC):
        raw = shown(image_NHWC, 4).flatten(1) - 0.5
        return torch.nn.functional.normalize(raw @ matrix).numpy()

    def vectors(image_NHWC, seed):
        return shown(image_NHWC, 4).flatten(1)

    found = read(train_reader(vectors, own, embed(own), MapSettings(steps=150, batch=64), tmp_path / "v"), vectors(victims, 0))
    assert (found * embed(victims)).sum(1).mean() > 0.8
    shape = train_reader(lambda image, seed: shown(image, 16), own[:8], embed(own[:8]), MapSettings(steps=2, batch=4, width=0.125), tmp_path / "m")
    assert read(shape, shown(victims, 16)).shape == (32, 16)


# --- templates --------------------------------------------------------------------------------------------------------------------------------------


def enrolled(beta: float) -> tuple[np.ndarray, Rows, SlerpConfig]:
    config = SlerpConfig(beta=beta)
    feature = np.random.default_rng(0).standard_normal((30, 8, 16))
    feature /= np.linalg.norm(feature, axis=2, keepdims=True)
    even = np.full((30, 8), 1 / 8)
    key = np.stack([Key.new().directions(8, 16) for _ in range(30)])
    kept = draw_kept(even, 16, config)
    return feature, Rows(template_BGC=protect_rows(feature, even, key, kept, config), kept_BGC=kept, key_BGC=key), config


def cosines(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    found, true = found.reshape(len(found), -1), true.reshape(len(true), -1)
    return (found * true).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)


@pytest.mark.usefixtures("repeatable")
def test_leaked_key_gives_the_feature_back():
    feature, rows, config = enrolled(0.0)
    assert cosines(undo_with_key(rows, config), feature).min() > 0.9999  # no drops: exact, up to float32 storage
    feature, rows, config = enrolled(0.5)
    found = cosines(undo_with_key(rows, config), feature)
    assert 0.45 < found.mean() < 0.9  # what is left of the protection is what was dropped


# --- climbing and judging ---------------------------------------------------------------------------------------------------------------------------


class Painter:
    """A generator whose faces carry their anchor in their pixels, and the embedder that reads it."""

    name, anchor_dim, dim, differentiable = "painter", 16, 16, False

    def generate(self, anchor_BD, seeds):
        image = torch.zeros(len(seeds), 3, 112, 112)
        image[:, 0, 0, :16] = torch.as_tensor(anchor_BD, dtype=torch.float32)
        return FaceBatch(image_BCHW=image, seeds=tuple(seeds), passes_B=(1.0,) * len(seeds))

    def read(self, image_NHWC):
        row = image_NHWC[:, 0, :16, 0].astype(float) / 127.5 - 1
        return row / np.linalg.norm(row, axis=1, keepdims=True)


def test_climbing_finds_the_target():
    painter, rng = Painter(), np.random.default_rng(0)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    target, gallery = unit(rng.standard_normal((3, 16))), unit(rng.standard_normal((40, 16))).astype(np.float32)
    image = ((painter.generate(gallery, range(40)).image_BCHW.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8)
    won = climb(lambda faces, t: (painter.read(faces) * target[t]).sum(1), 3, image, gallery, painter, ClimbSettings(rounds=4, each=6))
    assert won.queries == 40 + 24 and (np.diff(won.score_RT, axis=0) >= 0).all()
    assert won.score_RT[-1].min() > 0.9 and won.score_RT[-1].min() > won.score_RT[0].max() - 0.2
    assert np.allclose((painter.read(won.image_THWC) * target).sum(1), won.score_RT[-1])
    with pytest.raises(UserError, match="2 or more"):
        climb(lambda f, t: t, 1, image[:1], gallery[:1], painter, ClimbSettings())
    with pytest.raises(UserError, match="not finite"):
        climb(lambda f, t: np.full(len(f), np.nan), 1, image, gallery, painter, ClimbSettings())


def test_reidentification_by_hand():
    unit = np.eye(6, dtype=np.float32)
    reference = np.stack([unit[0], (unit[0] + unit[1]) / np.sqrt(2), unit[2], unit[2], unit[4]])
    identity = np.array([0, 0, 1, 1, 2])
    found = reidentify(np.stack([unit[0], unit[5], unit[4]]).astype(np.float32), np.array([0, 2, 4]), reference.astype(np.float32), identity, threshold=0.6)
    assert found.same_photo == pytest.approx(2 / 3)  # the second is nobody
    assert found.other_photo == 0.5  # the third person has one photo only and does not count
    assert found.rank1 == 0.5 and found.faces == 3 and found.chance == 0.0
    assert found.cosine == pytest.approx(2 / 3)


def test_threshold_needs_enough_pairs():
    rows = np.eye(12, dtype=np.float32)
    with pytest.raises(UserError, match="66 pairs of different people cannot"):
        judge_threshold(rows, np.arange(12))
