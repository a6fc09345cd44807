"""A head in one file: what is written is read, what is damaged is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.weights import load_weights, save_tensors
from facefoundry.styles_3dmm.head_file import KIND, check_head, default_head, load_head, save_head, with_components
from facefoundry.styles_3dmm.morphable import tiny

ARRAYS = ("mean_V3", "identity_KV3", "expression_EV3", "triangle_T3", "part_T", "uv_V2", "landmark_68", "eye_V", "eye_centre_23")


def test_round_trip_is_exact(tmp_path):
    head = replace(tiny(), expression_names=("a", "b", "c", "d"))
    save_head(tmp_path / "h.safetensors", head, facts={"people": 3})
    found = load_head(tmp_path / "h.safetensors")
    for name in ARRAYS:
        assert (getattr(found, name) == getattr(head, name)).all() and getattr(found, name).dtype == getattr(head, name).dtype, name
    assert (found.name, found.licence, found.expression_names) == (head.name, head.licence, head.expression_names)
    assert load_weights(tmp_path / "h.safetensors", kind=KIND)[2] == {"people": 3}


def test_small_form_errs_by_less_than_it_says(tmp_path):
    head = tiny()
    save_head(tmp_path / "h.safetensors", head, exact=3)
    found = load_head(tmp_path / "h.safetensors")
    for small, whole in ((found.identity_KV3, head.identity_KV3), (found.expression_EV3, head.expression_EV3)):
        assert small.shape == whole.shape
        assert (np.abs(small - whole).max((1, 2)) <= 0.004 * np.abs(whole).max((1, 2))).all()
    assert (tmp_path / "h.safetensors").stat().st_size < 0.6 * sum(getattr(head, name).nbytes for name in ARRAYS)


def test_the_bundled_head_is_read_once_and_says_its_licence():
    assert default_head() is default_head()
    assert "CC0" in default_head().licence


def test_fewer_components():
    fewer = with_components(tiny(), 2)
    assert len(fewer.identity_KV3) == 2 and check_head(fewer, "fewer") is fewer


@pytest.mark.parametrize("name", ["mean_V3", "triangle_T3", "identity_exact", "expression"])
def test_a_missing_part_is_refused(tmp_path, name):
    save_head(tmp_path / "h.safetensors", tiny())
    tensors, config, _ = load_weights(tmp_path / "h.safetensors", kind=KIND)
    del tensors[name]
    save_tensors(tmp_path / "h.safetensors", tensors, kind=KIND, config=config)
    with pytest.raises(UserError, match="does not hold a whole head"):
        load_head(tmp_path / "h.safetensors")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"triangle_T3": np.full((4, 3), 99_999, np.int32), "part_T": np.zeros(4, np.uint8)}, "triangles name vertices outside"),
        ({"landmark_68": np.full(68, -1, np.int32)}, "landmarks name vertices outside"),
        ({"landmark_68": np.zeros(5, np.int32)}, r"landmark_68 has shape \(5,\), expected \(68,\)"),
        ({"part_T": np.zeros(7, np.uint8)}, "part_T has shape"),
        ({"uv_V2": np.zeros((3, 2), np.float32)}, "uv_V2 has shape"),
    ],
)
def test_parts_that_do_not_fit_are_named(tmp_path, changed, message):
    save_head(tmp_path / "h.safetensors", replace(tiny(), **changed))
    with pytest.raises(UserError, match=message):
        load_head(tmp_path / "h.safetensors")


def test_a_cut_file_and_another_kind_are_refused(tmp_path):
    path = tmp_path / "h.safetensors"
    save_head(path, tiny())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="damaged"):
        load_head(path)
    save_tensors(path, {"a": torch.zeros(1)}, kind="uiface", config={})
    with pytest.raises(UserError, match="holds 'uiface'"):
        load_head(path)
