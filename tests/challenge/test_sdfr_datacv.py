"""SDFR's ranking and model file, DataCV's distances and boards."""

from __future__ import annotations

import importlib.util
import lzma
import io
import zipfile

import numpy as np
import pytest
import torch
from facefoundry.challenge.bin_file import read_bin, write_bin
from facefoundry.challenge.datacv import board, check_dataset, read_distances, read_images, squared_distances, write_distances
from facefoundry.challenge.sdfr import borda, check_images, write_sanitizer_scores
from facefoundry.challenge.sdfr_onnx import NormalisingNetwork, export_onnx
from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_png, to_float
from torch import nn

needs_onnx = pytest.mark.skipif(not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")), reason="the extra 'onnx' is not installed")


def test_borda_by_hand():
    rows = borda({"a": [0.9, 0.8, 0.7], "b": [0.8, 0.8, 0.9], "c": [0.7, 0.9, 0.6]})
    # ranks: a 1, 2.5, 2; b 2, 2.5, 1; c 3, 1, 3; points = 3 - rank
    assert [(row.name, row.points, row.rank, row.tied) for row in rows] == [("a", 3.5, 1, True), ("b", 3.5, 1, True), ("c", 2.0, 3, False)]


def test_borda_ignores_by_how_much():
    assert borda({"a": [0.99, 0.1], "b": [0.98, 0.9]})[0].tied
    for bad in ({}, {"a": [1.0], "b": [1.0, 2.0]}, {"a": [np.nan], "b": [0.5]}):
        with pytest.raises(UserError):
            borda(bad)


def test_sdfr_limits_and_scores(tmp_path):
    assert check_images(1, 1_000_000) == [] and len(check_images(1, 1_000_001, 5)) == 2 and check_images(2, 9_000_000) == []
    path = write_sanitizer_scores(tmp_path, 1, np.array([0.25, -0.5]))
    assert path.name == "task1_sanitizer_scores.txt" and path.read_text() == "0.25\n-0.5\n"
    with pytest.raises(UserError, match="pair 1 is not finite"):
        write_sanitizer_scores(tmp_path, 2, np.array([0.1, np.nan]))


class Small(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.PReLU(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, dim))

    def forward(self, x):
        return self.layers(x)


def test_normalisation_is_inside():
    network, image = Small(8).eval(), torch.rand(2, 3, 112, 112)
    assert torch.allclose(NormalisingNetwork(network)(image), network(2 * image - 1))


@needs_onnx
def test_onnx_model_passes_the_servers_check_and_scores(tmp_path):
    from facefoundry.challenge.sdfr_onnx import model_scores, open_model

    torch.manual_seed(0)
    network = Small(512).eval()
    assert export_onnx(network, tmp_path / "m.onnx", task=1) == 512
    session = open_model(tmp_path / "m.onnx", task=1)
    assert session.get_inputs()[0].shape == ["batch_size", 3, 112, 112] and session.get_outputs()[0].shape == ["batch_size", 512]
    images = np.random.default_rng(0).integers(0, 256, (6, 112, 112, 3), dtype=np.uint8)
    write_bin(tmp_path / "s.bin", [encode_png(image) for image in images], [True] * 3)
    with torch.no_grad():
        embed = nn.functional.normalize(network(to_float(images)))
    assert np.allclose(model_scores(tmp_path / "m.onnx", read_bin(tmp_path / "s.bin"), task=1, batch=4), (embed[::2] * embed[1::2]).sum(1), atol=1e-5)
    export_onnx(Small(128).eval(), tmp_path / "n.onnx", task=2)
    with pytest.raises(UserError, match="task 1 wants 512"):
        export_onnx(Small(128).eval(), tmp_path / "o.onnx", task=1)
    with pytest.raises(UserError, match="task 1 expects one output"):
        open_model(tmp_path / "n.onnx", task=1)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot be opened"):
        open_model(tmp_path / "bad.onnx")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"facefoundry\[onnx\]"):
        export_onnx(Small(8), tmp_path / "m.onnx")


def packed(tmp_path, array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    path = tmp_path / "validation.xz"
    path.write_bytes(lzma.compress(buffer.getvalue()))
    return path


class Mean:
    name, dim, differentiable = "mean", 3, True

    def __call__(self, image_BCHW):
        return nn.functional.normalize(image_BCHW[..., :40].mean((2, 3)) + 1e-3)


def test_datacv_distances(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 1, 1), dtype=np.uint8) * np.ones((1, 1, 112, 112), np.uint8)
    images[1] = images[0]
    distance = squared_distances(Mean(), read_images(packed(tmp_path, images)), batch=3)
    first, second = (Mean()(to_float(images[k : k + 1].transpose(0, 2, 3, 1)))[0].double() for k in (4, 5))
    assert distance.shape == (4,) and distance[0] == 0 and distance[2] == pytest.approx(float(((first - second) ** 2).sum()), abs=1e-6)
    path = write_distances(tmp_path / "out.zip", distance, row=board("20K"))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["validation_20K_result.txt"]
        assert np.array_equal(np.loadtxt(io.BytesIO(archive.read("validation_20K_result.txt"))), distance)
    path = write_distances(tmp_path / "folder", distance, row=board("10K"), split="test")
    assert path.name == "test_10K_result.txt" and np.array_equal(read_distances(path), distance)


def test_datacv_refusals(tmp_path):
    with pytest.raises(UserError, match="line 2: -0.3; expected a squared distance"):
        write_distances(tmp_path, np.array([0.1, -0.3]), row=board("10K"))
    with pytest.raises(UserError, match="did you mean '10K'"):
        board("10k")
    (tmp_path / "r.txt").write_text("0.5\nx\n")
    with pytest.raises(UserError, match="line 2"):
        read_distances(tmp_path / "r.txt")
    for array in (np.zeros((3, 3, 112, 112), np.uint8), np.zeros((4, 112, 112, 3), np.uint8), np.zeros((2, 3, 112, 112), np.float32)):
        with pytest.raises(UserError, match="expected uint8"):
            read_images(packed(tmp_path, array))
    (tmp_path / "x.xz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="LZMA"):
        read_images(tmp_path / "x.xz")
    row = board("10K")
    assert check_dataset(row, identities=10_000, images=500_000) == [] and len(check_dataset(row, identities=10_001, images=500_001, real=True)) == 3
