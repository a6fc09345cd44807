"""Recogniser files: what goes in comes out, and nothing from outside is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from facefoundry.core.errors import UserError
from facefoundry.core.training_state import load_state
from facefoundry.recognition.backbones import BackboneConfig
from facefoundry.recognition.checkpoint import load_network, save_network
from facefoundry.recognition.embedder import load_embedder

CONFIG = BackboneConfig(embed_dim=16, width=0.125, affine=True)


class Bomb:
    """Opening a pickle of this leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.fixture
def stored(tmp_path):
    network = CONFIG.build().eval()
    save_network(tmp_path / "r.safetensors", network, CONFIG, facts={"steps": 3})
    return network, tmp_path / "r.safetensors"


def test_round_trip_with_facts(stored):
    network, path = stored
    again, facts = load_network(path)
    x = torch.rand(2, 3, 112, 112)
    assert facts == {"steps": 3} and torch.equal(network(x), again(x)) and not again.training


def test_half_storage_loads_as_float32(stored, tmp_path):
    network, path = stored
    save_network(tmp_path / "h.safetensors", network, CONFIG, facts={}, half=True)
    again, _ = load_network(tmp_path / "h.safetensors")
    x = torch.rand(2, 3, 112, 112)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.nn.functional.cosine_similarity(network(x), again(x)).min() > 0.999
    assert (tmp_path / "h.safetensors").stat().st_size < 0.7 * path.stat().st_size


def test_a_stored_recogniser_is_an_embedder_and_flip_doubles_nothing_but_the_work(stored):
    _, path = stored
    embedder = load_embedder(path)
    assert (embedder.name, embedder.dim, embedder.differentiable) == ("r", 16, True)
    x = torch.rand(2, 3, 112, 112)
    embedder.flip = True
    assert torch.allclose(embedder(x), embedder(x.flip(3)), atol=1e-5)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_payload_is_refused_unopened(tmp_path, protocol):
    trace = tmp_path / "executed"
    (tmp_path / "p.safetensors").write_bytes(pickle.dumps(Bomb(trace), protocol=protocol))
    torch.save({"weights": Bomb(trace)}, tmp_path / "z.safetensors")
    for name in ("p", "z"):
        with pytest.raises(UserError, match="pickle"):
            load_embedder(tmp_path / f"{name}.safetensors")
    assert not trace.exists()


def test_a_state_with_a_pickle_payload_is_refused_unopened(tmp_path):
    trace = tmp_path / "executed"
    torch.save({"fingerprint": "x", "step": Bomb(trace)}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="delete it to start again"):
        load_state(tmp_path / "state.pt")
    assert not trace.exists()


def test_state_round_trip_and_damage(tmp_path):
    assert load_state(tmp_path / "none.pt") is None
    torch.save({"step": 4, "w": torch.ones(2)}, tmp_path / "state.pt")
    assert load_state(tmp_path / "state.pt")["step"] == 4
    data = (tmp_path / "state.pt").read_bytes()
    for damage in (b"", data[: len(data) // 2], b"hello"):
        (tmp_path / "state.pt").write_bytes(damage)
        with pytest.raises(UserError, match="delete it"):
            load_state(tmp_path / "state.pt")


def test_damaged_foreign_and_misfit_files_are_user_errors(stored, tmp_path):
    _, path = stored
    data = path.read_bytes()
    for damage in (b"", data[:100], data[:-50], b"\xff" * 64):
        (tmp_path / "d.safetensors").write_bytes(damage)
        with pytest.raises(UserError, match="damaged"):
            load_network(tmp_path / "d.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "f.safetensors")
    with pytest.raises(UserError, match="weights of another maker"):
        load_network(tmp_path / "f.safetensors")
    save_network(tmp_path / "m.safetensors", CONFIG.build(), CONFIG.model_copy(update={"width": 0.25}), facts={})
    with pytest.raises(UserError, match="does not fit the network"):
        load_network(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="there is no file"):
        load_network(tmp_path / "absent.safetensors")


def test_unknown_embedder_lists_the_names():
    with pytest.raises(UserError, match="did you mean 'dlib'"):
        load_embedder("dlb")
