"""Seeds, guards, registry, files and weights."""

import os
import pickle

import numpy as np
import pytest
import torch

from facefoundry.core.check import check, check_unit_rows
from facefoundry.core.errors import UserError
from facefoundry.core.files import sha256_file, write_atomic, write_bytes
from facefoundry.core.registry import Registry
from facefoundry.core.seeds import derive_seed, noise
from facefoundry.core.weights import load_into, load_weights, save_weights


def test_a_seed_is_the_hash_of_its_parts():
    from hashlib import blake2b

    expected = int.from_bytes(blake2b(b"7|12|3|noise", digest_size=8).digest(), "little") % 2**63
    assert derive_seed(7, 12, 3, "noise") == expected


def test_noise_rows_depend_on_their_own_seed_alone():
    assert torch.equal(noise([1, 2, 3], (4, 2))[1], noise([2], (4, 2))[0])


def test_check_tells_what_came_and_what_was_expected():
    assert check("x", np.zeros((2, 3, 5, 5)), "B 3 S S") == {"B": 2, "S": 5}
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 5, 4\), expected \(B 3 S S\)"):
        check("x", np.zeros((2, 3, 5, 4)), "B 3 S S")
    with pytest.raises(ValueError, match=r"values in \[nan, nan\]"):
        check("x", torch.tensor([float("nan")]), "N", lo=0, hi=1)


def test_unit_rows_name_the_first_bad_row():
    rows = np.eye(3, dtype=np.float32)
    rows[1] *= 2
    with pytest.raises(ValueError, match="1 of 3 rows are not unit length .row 1: 2"):
        check_unit_rows("embed", rows)


def test_registry_knows_near_names_and_refuses_a_second_claim():
    table = Registry("thing", "facefoundry.core")
    table.register("uiface")(type("A", (), {}))
    with pytest.raises(ValueError, match="registered twice"):
        table.register("uiface")(type("B", (), {}))
    with pytest.raises(UserError, match="unknown thing 'uifce'; did you mean 'uiface'"):
        table["uifce"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.json"
    write_bytes(path, b"old")

    def full_disk(temporary):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device; free space"):
        write_atomic(path, full_disk)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.json"]


def test_weights_come_back_with_their_settings_and_equal_weights_are_equal_files(tmp_path):
    layer = torch.nn.Linear(3, 2)
    for name in ("a", "b"):
        save_weights(tmp_path / name, layer, kind="layer", config={"width": 3, "depth": 1}, facts={"steps": 5})
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")
    tensors, config, facts = load_weights(tmp_path / "a", kind="layer")
    assert torch.equal(tensors["weight"], layer.weight) and config == {"width": 3, "depth": 1} and facts == {"steps": 5}
    with pytest.raises(UserError, match="holds 'layer', expected 'denoiser'"):
        load_weights(tmp_path / "a", kind="denoiser")
    with pytest.raises(UserError, match="does not fit the network"):
        load_into(torch.nn.Linear(4, 2), tensors, tmp_path / "a")


def test_a_pickled_checkpoint_is_not_loaded(tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/executed",))

    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UserError, match="pickle"):
        load_weights(tmp_path / "evil.safetensors", kind="denoiser")
    assert not (tmp_path / "executed").exists()


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path):
    """safetensors begins with the header's length: 0x0380 bytes are stored as 80 03 00 ..., the first bytes of a pickle."""
    from facefoundry.core.weights import save_tensors

    path, found = tmp_path / "w.safetensors", set()
    for length in range(600, 1000, 8):
        save_tensors(path, {"x": torch.ones(1)}, kind="t", config={}, facts={"text": "y" * length})
        found.add(path.read_bytes()[:2])
        assert load_weights(path, kind="t")[0]["x"].item() == 1
    assert b"\x80\x03" in found
