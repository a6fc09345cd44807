from __future__ import annotations

import pytest
import torch
from facefoundry.core.errors import UserError
from facefoundry.core.quantise import SCALE, quantise_rows, widen
from facefoundry.core.weights import load_weights, save_tensors, save_weights


def test_error_is_half_a_scale_of_the_own_row() -> None:
    weight = torch.randn(8, 64, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, 8).view(-1, 1, 1, 1)
    again = widen(quantise_rows({"w": weight}))["w"]
    largest = weight.abs().amax((1, 2, 3))
    assert ((weight - again).abs().amax((1, 2, 3)) <= largest / 127 / 2 * 1.0001).all()
    assert torch.equal(again.abs().amax((1, 2, 3)), largest) or torch.allclose(again.abs().amax((1, 2, 3)), largest, rtol=1e-6)


def test_small_and_whole_tensors_are_left_alone() -> None:
    tensors = {"bias": torch.randn(5000), "small": torch.randn(4, 4), "count": torch.arange(5000).view(50, 100)}
    stored = quantise_rows(tensors)
    assert stored.keys() == tensors.keys() and all(torch.equal(stored[name], tensors[name]) for name in tensors)


def test_a_row_of_zeros_stays_zero() -> None:
    weight = torch.zeros(2, 4096)
    weight[1] = 1
    again = widen(quantise_rows({"w": weight}))["w"]
    assert torch.equal(again, weight)


def test_weights_file_is_a_quarter_and_loads_as_float32(tmp_path) -> None:
    layer = torch.nn.Linear(512, 256)
    save_weights(tmp_path / "a.safetensors", layer, kind="x", config={})
    save_weights(tmp_path / "b.safetensors", layer, kind="x", config={}, dtype="int8")
    assert (tmp_path / "b.safetensors").stat().st_size < 0.27 * (tmp_path / "a.safetensors").stat().st_size
    tensors, _, _ = load_weights(tmp_path / "b.safetensors", kind="x")
    assert tensors.keys() == layer.state_dict().keys() and tensors["weight"].dtype == torch.float32
    assert (tensors["weight"] - layer.weight).abs().max() <= layer.weight.abs().max() / 254 * 1.0001


@pytest.mark.parametrize("scale", [torch.ones(3), torch.ones(2, 2)])
def test_a_scale_that_fits_no_matrix_is_a_damaged_file(tmp_path, scale) -> None:
    save_tensors(tmp_path / "a.safetensors", {"w": torch.zeros(2, 4, dtype=torch.int8), "w" + SCALE: scale}, kind="x", config={})
    with pytest.raises(UserError, match="damaged"):
        load_weights(tmp_path / "a.safetensors", kind="x")
