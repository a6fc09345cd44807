"""Few-step sampling: the boundary condition, jumps against DDIM by hand, fresh noise from the image's seed, the file and its refusals."""

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.weights import read_safetensors, save_weights
from facefoundry.generators.lcm import LCM, LCMConfig, StudentConfig, few_steps, jump, load_student, save_student, step_times
from facefoundry.generators.low_rank import attach
from facefoundry.generators.prediction import target
from facefoundry.generators.schedule import alpha_bars, ddim_update
from facefoundry.generators.uiface import UIFaceConfig

KINDS = ("epsilon", "v", "flow")
STUDENT = StudentConfig(base="", times=(960, 800, 640, 480, 360, 240, 160, 80), segments=4, rank=0)


def unit_rows(count: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [5, 400, 980])
def test_a_jump_to_where_one_stands_moves_nothing(kind, t):
    latent, said = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    alpha = float(alpha_bars()[t])
    assert torch.allclose(jump(kind, said.double(), latent.double(), alpha, alpha), latent.double(), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jump_with_the_true_noise_is_a_ddim_step_and_ends_on_the_clean_latent(kind):
    clean, noise, t = torch.randn(2, 4, 8, 8).double(), torch.randn(2, 4, 8, 8).double(), torch.tensor([600, 600])
    now, then = (float(alpha_bars()[k]) for k in (600, 200))
    latent = now**0.5 * clean + (1 - now) ** 0.5 * noise
    said = target(kind, clean, noise, t)
    assert torch.allclose(jump(kind, said, latent, now, then), ddim_update(latent, noise, now, then), atol=1e-8)
    assert torch.allclose(jump(kind, said, latent, now, 1.0), clean, atol=1e-8)
    other = torch.randn(2, 4, 8, 8).double()
    assert torch.allclose(jump(kind, said, latent, now, then, other), then**0.5 * clean + (1 - then) ** 0.5 * other, atol=1e-8)


@pytest.mark.parametrize("steps, kind, times", [(4, "kept", (960, 640, 360, 160)), (8, "kept", STUDENT.times), (2, "fresh", (960, 360)), (1, "fresh", (960,))])
def test_times_of_the_passes(steps, kind, times):
    assert step_times(STUDENT, steps, kind) == times


@pytest.mark.parametrize("steps, kind, allowed", [(2, "kept", "4, 8"), (5, "kept", "4, 8"), (3, "fresh", "1, 2, 4, 8")])
def test_passes_the_student_never_learnt_are_refused(steps, kind, allowed):
    with pytest.raises(UserError, match=f"trained for {allowed};"):
        step_times(STUDENT, steps, kind)


def test_every_pass_is_one_call_at_its_time():
    calls = []

    class Network(torch.nn.Module):
        config = UIFaceConfig.tiny().network.config

        def forward(self, latent, t_B, context):
            calls.append(t_B.tolist())
            return torch.zeros_like(latent)

    few_steps(Network(), torch.randn(2, 4, 8, 8), torch.zeros(2, 8), (960, 640, 160), lambda step: None)
    assert calls == [[960, 960], [640, 640], [160, 160]]
    assert LCMConfig.tiny().generate(unit_rows(2, 8), [1, 2]).passes_B == (4, 4)


def test_fresh_noise_belongs_to_the_image():
    random = UIFaceConfig.tiny()
    fresh = LCM(random.network, random.autoencoder, STUDENT, LCMConfig(noise="fresh", precision="fp32"), torch.device("cpu"))
    anchor = unit_rows(3, 8)
    whole = fresh.generate(anchor, [7, 8, 9]).image_BCHW
    assert torch.allclose(whole[2:], fresh.generate(anchor[2:], [9]).image_BCHW, atol=1e-4)
    kept = LCM(random.network, random.autoencoder, STUDENT, LCMConfig(precision="fp32"), torch.device("cpu"))
    assert (kept.generate(anchor, [7, 8, 9]).image_BCHW - whole).abs().max() > 1e-3


@pytest.fixture
def stored(tmp_path):
    """(path of a base, path of a student with factors on it, the student's network before it was written)."""
    network = UIFaceConfig.tiny().network.float()
    base = tmp_path / "base.safetensors"
    save_weights(base, network, kind="denoiser", config=network.config.model_dump(mode="json"))
    attach(network, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.copy_((parameter + 0.05).half().float())
    config = STUDENT.model_copy(update={"base": str(base), "rank": 2})
    return base, save_student(tmp_path / "student.safetensors", network, config, facts={}), network


def test_a_student_comes_back_merged(stored):
    base, path, network = stored
    loaded, config = load_student(path)
    latent, t, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 8)
    assert torch.allclose(loaded(latent, t, context), network(latent, t, context), atol=1e-4)
    assert config.times == STUDENT.times and path.stat().st_size < 0.5 * base.stat().st_size


def test_factors_stored_as_int8_rows_come_back_nearly_the_same(stored, tmp_path, monkeypatch):
    base, path, network = stored
    monkeypatch.setattr("facefoundry.core.quantise._SMALLEST", 16)
    small = save_student(tmp_path / "small.safetensors", network, STUDENT.model_copy(update={"base": str(base), "rank": 2}), facts={})
    held = dict(read_safetensors(small)[1])
    assert held["stem.low_rank.down"].dtype == torch.int8 and held["conv_out.bias"].dtype == torch.float16
    again, before = load_student(small)[0].state_dict(), load_student(path)[0].state_dict()
    assert all(torch.allclose(again[name], before[name], atol=0.02) for name in before) and any(not torch.equal(again[name], before[name]) for name in before)


def test_another_base_is_refused(stored):
    base, path, network = stored
    other = UIFaceConfig.tiny().network
    with torch.no_grad():
        other.stem.bias.add_(1)
    save_weights(base, other, kind="denoiser", config=other.config.model_dump(mode="json"))
    with pytest.raises(UserError, match="trained on another '.*base.safetensors' .*distil a student of this one"):
        load_student(path)
    base.unlink()
    with pytest.raises(UserError, match="no weights file at"):
        load_student(path)


def test_a_denoiser_is_no_student(stored):
    with pytest.raises(UserError, match="holds 'denoiser', expected 'denoiser-few-step'"):
        load_student(stored[0])


def test_a_whole_student_needs_no_base(tmp_path):
    network = UIFaceConfig.tiny().network
    loaded, _ = load_student(save_student(tmp_path / "whole.safetensors", network, STUDENT, facts={}))
    assert torch.allclose(loaded.stem.weight, network.stem.weight, atol=1e-2)
