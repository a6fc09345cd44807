"""Training that begins from trained weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facefoundry.core.errors import UserError
from facefoundry.core.images import to_float
from facefoundry.identity.sources import Faces
from facefoundry.recognition.backbones import BackboneConfig
from facefoundry.recognition.checkpoint import load_network, save_network
from facefoundry.recognition.start import IMAGES_MOST, begin_from, class_means
from facefoundry.recognition.train import RecogniserRecipe, train_recogniser

CONFIG = BackboneConfig(embed_dim=8, width=0.125, shrink=2)
RECIPE = {"backbone": CONFIG.model_dump(), "batch": 6, "steps": 2, "lr": 1e-9, "optimiser": "adamw", "weight_decay": 0.0}


def faces() -> Faces:
    rng = np.random.default_rng(0)
    label_N = np.array([2, 0, 1, 0, 0, 0, 0, 2, 1, 0], np.int32)
    return Faces(image_NHWC=rng.integers(0, 256, (10, 112, 112, 3), np.uint8), identity_N=label_N, names=("a", "b", "c"), paths=tuple(map(str, range(10))))


def stored(tmp_path):
    torch.manual_seed(0)
    network = CONFIG.build()
    with torch.no_grad():
        network.train()(to_float(faces().image_NHWC))
    save_network(tmp_path / "first.safetensors", network, CONFIG, facts={})
    return network, tmp_path / "first.safetensors"


def test_class_means_by_hand():
    torch.manual_seed(0)
    network, found = CONFIG.build().train(), faces()
    before = network.norm.running_mean.clone()
    means_ID = class_means(network, found.image_NHWC, found.identity_N.astype(np.int64), batch=3)
    assert network.training and torch.equal(before, network.norm.running_mean)
    network.eval()
    for identity in range(3):
        rows = np.flatnonzero(found.identity_N == identity)[:IMAGES_MOST]
        with torch.no_grad():
            wanted = F.normalize(F.normalize(network(to_float(found.image_NHWC[rows]))).mean(0), dim=0)
        assert torch.allclose(means_ID[identity], wanted, atol=1e-5)


@pytest.mark.parametrize("partial", [None, {"rate": 1.0}])
def test_a_training_at_rate_zero_gives_the_weights_back(partial, tmp_path):
    network, path = stored(tmp_path)
    out = train_recogniser(RecogniserRecipe.parse(RECIPE | {"init": str(path), "partial_fc": partial}), faces(), tmp_path / "out")
    tuned, facts = load_network(out)
    for name, tensor in network.named_parameters():
        assert torch.allclose(tuned.get_parameter(name), tensor, atol=1e-6)
    centre_ID = torch.load(tmp_path / "out" / "state.pt", weights_only=True)["objective"]["centres.weight"]
    fresh = 0.01 * 8**0.5  # what N(0, 0.01²) is long, about
    assert torch.allclose(F.normalize(centre_ID), class_means(network.eval(), faces().image_NHWC, faces().identity_N.astype(np.int64)), atol=1e-3)
    assert 0.4 * fresh < float(centre_ID.norm(dim=1).mean()) < 2 * fresh and len(facts["init_sha256"]) == 64


def test_another_network_is_refused(tmp_path):
    _, path = stored(tmp_path)
    other = CONFIG.model_copy(update={"embed_dim": 16, "width": 0.25})
    with pytest.raises(UserError, match=r"embed_dim 8 \(the recipe: 16\), width 0.125 \(the recipe: 0.25\)"):
        begin_from(path, other.build(), other)
    assert begin_from(path, (same := CONFIG.model_copy(update={"dropout": 0.0})).build(), same)
