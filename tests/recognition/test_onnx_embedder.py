"""Recognisers as ONNX: equal to torch, read as their note says, packs found by the shape of their models."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from facefoundry.core.errors import UserError
from facefoundry.core.types import Embedder
from facefoundry.recognition.backbones import BACKBONES, BackboneConfig
from facefoundry.recognition.embedder import TorchEmbedder, embed_faces, load_embedder
from facefoundry.recognition.onnx_embedder import OnnxEmbedder, OnnxPreprocessing, export_recogniser, note_of, prepared
from torch import nn

pytestmark = pytest.mark.skipif(not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")), reason="the extra 'onnx' is not installed")


class Seen(nn.Module):
    """Gives back what it is shown, pooled to 4 × 4: preprocessing made visible."""

    def forward(self, x):
        return nn.functional.avg_pool2d(x, x.shape[-1] // 4).flatten(1)


def faces() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return nn.functional.interpolate(torch.rand(3, 3, 7, 7, generator=generator), 112, mode="bilinear") * 2 - 1


@pytest.mark.parametrize("name", [name for name in BACKBONES if not name.endswith(("100", "200"))])
def test_every_network_survives_the_export(name, tmp_path):
    torch.manual_seed(0)
    network = BackboneConfig(name=name, embed_dim=8, width=0.125, shrink=2).build()
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 112, 112))  # statistics that are not 0 and 1
    path = tmp_path / "model.onnx"
    assert export_recogniser(network, path) == 8 and note_of(path).is_file()
    ours, theirs = TorchEmbedder(network, name="torch", device=torch.device("cpu")), load_embedder(f"onnx:{path}")
    assert isinstance(theirs, Embedder) and not theirs.differentiable and theirs.dim == 8 and theirs.name == "onnx:model"
    raw_BD = ours.raw(faces())
    assert torch.allclose(theirs.raw(faces()), raw_BD, atol=1e-4 * float(raw_BD.abs().max())) and torch.allclose(theirs(faces()), ours(faces()), atol=1e-4)


def written(network: nn.Module, path, example=None):
    from facefoundry.core.onnx_files import write_onnx

    write_onnx(network, torch.rand(2, 3, 112, 112) if example is None else example, path)
    return path


def test_pixels_are_what_the_note_says(tmp_path):
    path = written(Seen(), tmp_path / "seen.onnx")
    pixel_BCHW = (faces() + 1) * 127.5
    for note, wanted in (
        ("{mean: 0, std: 255, channels: rgb}", pixel_BCHW / 255),
        ("{mean: [10, 20, 30], std: [1, 2, 4], channels: bgr}", (pixel_BCHW.flip(1) - torch.tensor([10.0, 20, 30])[:, None, None]) / torch.tensor([1.0, 2, 4])[:, None, None]),
    ):
        path.with_suffix(".yaml").write_text(note)
        assert torch.allclose(OnnxEmbedder(path).raw(faces()), Seen()(wanted), atol=1e-3)
    flipped = OnnxEmbedder(path, OnnxPreprocessing(mean=0, std=255, channels="rgb"), flip=True, name="x")
    assert flipped.name == "x" and torch.allclose(flipped.raw(faces()), Seen()((pixel_BCHW + pixel_BCHW.flip(3)) / 255), atol=1e-4)


def test_other_sizes_and_layouts(tmp_path):
    path = written(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), tmp_path / "wide.onnx", torch.rand(2, 3, 160, 160))
    found = OnnxEmbedder(path, OnnxPreprocessing(mean=0, std=255, channels="rgb", size=160)).raw(faces())
    assert torch.allclose(found, (faces().mean((2, 3)) + 1) / 2, atol=1e-3)
    turned = prepared(faces(), OnnxPreprocessing(mean=127.5, std=127.5, channels="rgb", layout="nhwc"))
    assert turned.shape == (3, 112, 112, 3) and torch.allclose(turned.permute(0, 3, 1, 2), faces(), atol=1e-5)


def test_a_model_of_one_image_at_a_time(tmp_path):
    path = tmp_path / "one.onnx"
    torch.onnx.export(Seen(), (torch.rand(2, 3, 112, 112),), str(path), dynamo=False, opset_version=17)
    embedder = OnnxEmbedder(path, OnnxPreprocessing(mean=0, std=255, channels="rgb"))  # two images, always
    assert torch.allclose(embedder.raw(faces()), Seen()((faces() + 1) / 2), atol=1e-4)
    image_NHWC = np.zeros((5, 112, 112, 3), np.uint8)
    image_NHWC[:] = np.arange(5)[:, None, None, None] * 20 + 10
    assert embed_faces(embedder, image_NHWC).shape == (5, 48) and embed_faces(embedder, image_NHWC[:0]).shape == (0, 48)


def pack(folder, network):
    folder.mkdir()
    written(network, folder / "w600k_r50.onnx")
    written(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), folder / "genderage.onnx", torch.rand(2, 3, 96, 96))
    return folder


def test_an_insightface_pack(tmp_path):
    embedder = load_embedder(f"insightface:{pack(tmp_path / 'buffalo_x', Seen())}")
    assert embedder.name == "insightface:buffalo_x" and torch.allclose(embedder.raw(faces()), Seen()(faces()), atol=1e-4)


class Normalising(nn.Module):
    """An old pack's model: the scaling of pixels is inside."""

    def forward(self, x):
        return Seen()((x - 127.5) * 0.0078125)


def test_a_pack_that_normalises_itself(tmp_path):
    embedder = load_embedder(f"insightface:{pack(tmp_path / 'old', Normalising())}")
    assert torch.allclose(embedder.raw(faces()), Seen()(faces() * 127.5 * 0.0078125), atol=1e-4)


def test_mistakes(tmp_path, monkeypatch):
    path = written(Seen(), tmp_path / "seen.onnx")
    with pytest.raises(UserError, match="does not say what its pixels mean: write seen.yaml"):
        load_embedder(f"onnx:{path}")
    path.with_suffix(".yaml").write_text("{mean: 0, std: 1, chanels: rgb}")
    with pytest.raises(UserError, match="did you mean 'channels'"):
        load_embedder(f"onnx:{path}")
    with pytest.raises(UserError, match="there is no file"):
        load_embedder("onnx:nowhere.onnx")
    with pytest.raises(UserError, match="there is no folder"):
        load_embedder("insightface:/nowhere")
    folder = pack(tmp_path / "two", Seen())
    written(Seen(), folder / "another.onnx")
    with pytest.raises(UserError, match="2 recognition models among 3"):
        load_embedder(f"insightface:{folder}")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot be opened"):
        OnnxEmbedder(tmp_path / "bad.onnx", OnnxPreprocessing(mean=0, std=1, channels="rgb"))
    with pytest.raises(UserError, match="ends in .onnx"):
        export_recogniser(Seen(), tmp_path / "x.bin")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"facefoundry\[onnx\]"):
        OnnxEmbedder(path, OnnxPreprocessing(mean=0, std=1, channels="rgb"))


def test_a_wrong_export_is_noticed(tmp_path, monkeypatch):
    from facefoundry.core import onnx_files

    export = onnx_files._export
    monkeypatch.setattr(onnx_files, "_export", lambda network, *rest: export(nn.Sequential(network, nn.Softplus()), *rest))
    with pytest.raises(UserError, match="gives other embeddings"):
        written(Seen(), tmp_path / "seen.onnx")
