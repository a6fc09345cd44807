"""What every embedder promises; the embedders are found through the registry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import facefoundry.recognition.dlib_embedder as dlib_embedder
from facefoundry.core.images import to_float
from facefoundry.core.types import Embedder
from facefoundry.recognition.embedder import EMBEDDERS, embed_faces, load_embedder


@pytest.fixture(autouse=True)
def cache_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(dlib_embedder, "default_cache", lambda: tmp_path / "cache")


@pytest.fixture(scope="module")
def image_NHWC():
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (4, 7, 7, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, 1).repeat(16, 2))


embedders = pytest.mark.parametrize("name", list(EMBEDDERS))


@embedders
def test_unit_rows_whatever_the_batch(name, image_NHWC):
    embedder = load_embedder(name)
    assert isinstance(embedder, Embedder)
    embed_ND = embed_faces(embedder, image_NHWC)
    assert embed_ND.shape == (4, embedder.dim) and embed_ND.dtype == np.float32
    assert np.allclose(np.linalg.norm(embed_ND, axis=1), 1, atol=1e-5)
    alone_ND = np.concatenate([embedder(to_float(image_NHWC[row : row + 1])).detach().numpy() for row in range(4)])
    assert np.allclose(embed_ND, alone_ND, atol=1e-4)
    assert embed_faces(embedder, image_NHWC[:0]).shape == (0, embedder.dim)


@embedders
def test_gradients_pass_where_they_are_promised(name, image_NHWC):
    embedder = load_embedder(name)
    image_BCHW = to_float(image_NHWC[:2]).requires_grad_()
    embed_BD = embedder(image_BCHW)
    assert embed_BD.requires_grad == embedder.differentiable
    if embedder.differentiable:
        embed_BD[:, 0].sum().backward()
        assert torch.isfinite(image_BCHW.grad).all() and float(image_BCHW.grad.abs().sum()) > 0


@embedders
def test_another_size_is_refused(name):
    with pytest.raises(ValueError, match="expected"):
        load_embedder(name)(torch.zeros(1, 3, 96, 96))
