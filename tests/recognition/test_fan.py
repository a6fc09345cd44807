"""FAN's network and objectives: a contract on tiny(), and which loss reaches which network."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facefoundry.core.errors import UserError
from facefoundry.core.types import Embedder
from facefoundry.recognition.embedder import TorchEmbedder
from facefoundry.recognition.fan import Fan, load_fan, normalise_faces, save_fan
from facefoundry.recognition.fan_networks import FanNetworkConfig, FeatureCritic
from facefoundry.recognition.fan_objectives import AdaptConfig, AdaptObjective, DisentangleConfig, DisentangleObjective
from facefoundry.recognition.heads import ClassCentres, HeadConfig
from facefoundry.recognition.scale_augment import ScaleConfig

LABEL = torch.tensor([0, 1, 2, 0])
NO_PICTURES = {"rec": 0, "identity": 0, "gan": 0}


@pytest.fixture
def fan() -> Fan:
    torch.manual_seed(0)
    return Fan.tiny()


@pytest.fixture
def image() -> torch.Tensor:
    coarse = torch.rand(6, 3, 14, 14, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return F.interpolate(coarse, (112, 112), mode="nearest")


def adapting(fan: Fan, *, shrink_unpaired: bool = True, scales: dict | None = None, **changes) -> AdaptObjective:
    torch.manual_seed(1)
    config = AdaptConfig.parse({"batch": 6, "unpaired_rows": 2} | changes)
    fixed = deepcopy(fan.encoder)
    return AdaptObjective(fan, fixed, config, ScaleConfig.parse(scales or {}), ClassCentres(3, 16), HeadConfig(name="softmax", scale=16), shrink_unpaired=shrink_unpaired).train()


def learners(objective: torch.nn.Module) -> set[str]:
    """Networks whose weights got a gradient other than 0."""
    touched = {name for name, weight in objective.named_parameters() if weight.grad is not None and float(weight.grad.abs().sum()) > 0}
    names = ("fixed", "network.encoder", "network.context", "network.decoder", "image_critic", "feature_critic", "classifier", "centres")
    return {name for name in names if any(one.startswith(name) for one in touched)}


def test_contract(fan, image):
    fan.eval()
    picture = fan.normalise(image)
    assert picture.shape == (6, 3, 112, 112) and picture.abs().max() <= 1 and picture.std() > 0
    assert torch.allclose(torch.cat([fan.normalise(image[:2]), fan.normalise(image[2:])]), picture, atol=1e-5)
    embedder = TorchEmbedder(fan, name="fan", device=torch.device("cpu"))
    assert isinstance(embedder, Embedder) and embedder.dim == 16
    assert torch.allclose(embedder(image), F.normalize(fan.encoder(image)), atol=1e-6)
    with pytest.raises(ValueError, match="expected"):
        fan.normalise(torch.zeros(1, 3, 20, 20))


def test_sizes_of_the_default_networks():
    config = FanNetworkConfig()
    fan = Fan.tiny()
    assert [x.shape[2] for x in _maps(fan.decoder)] == [7, 14, 28, 56, 112]
    assert FeatureCritic(16)(torch.zeros(2, 16)).shape == (2, 1)


def _maps(decoder) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    hooks = [module.register_forward_hook(lambda _, __, out: seen.append(out)) for module in (*decoder.blocks, decoder.last)]
    decoder(torch.ones(1, 16), torch.zeros(1, 8))
    for hook in hooks:
        hook.remove()
    return seen


def test_the_decoder_reads_the_direction_of_the_identity_not_its_length(fan):
    identity, context = torch.randn(2, 16), torch.randn(2, 8)
    assert torch.allclose(fan.decoder(identity, context), fan.decoder(7 * identity, context), atol=1e-5)
    assert (fan.decoder(identity, context) - fan.decoder(-identity, context)).abs().max() > 1e-4


def test_file_round_trip_and_normalising_an_array(fan, image, tmp_path):
    fan.half().float().eval()
    save_fan(tmp_path / "fan.safetensors", fan, facts={"steps": 3})
    again, facts = load_fan(tmp_path / "fan.safetensors")
    assert facts == {"steps": 3} and torch.allclose(again.normalise(image), fan.normalise(image), atol=1e-5)
    face = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
    assert np.array_equal(normalise_faces(again, face, batch=2)[3:], normalise_faces(again, face[3:])) and normalise_faces(again, face[:0]).shape == (0, 112, 112, 3)
    (tmp_path / "bad.safetensors").write_bytes((tmp_path / "fan.safetensors").read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged"):
        load_fan(tmp_path / "bad.safetensors")


def test_stage_1_who_learns_what(fan, image):
    objective = DisentangleObjective(fan, deepcopy(fan.encoder), DisentangleConfig(), 3).train()
    statistics = [module.running_mean.clone() for module in objective.fixed.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    found = objective(image[:4], LABEL)
    found["loss"].backward()
    assert learners(objective) == {"network.context", "network.decoder", "image_critic", "classifier"}
    after = [module.running_mean for module in objective.fixed.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(torch.equal(a, b) for a, b in zip(statistics, after))
    parts = {"rec": 10, "identity": 1, "gan": 0.1, "critic": 1, "classifier": 1, "uniform": 1}
    assert float(found["loss"]) == pytest.approx(sum(weight * float(found[name]) for name, weight in parts.items()), rel=1e-5)


def test_stage_1_the_classifier_does_not_teach_the_context_to_tell_identities(fan, image):
    """Without the uniform term and pictures, the context encoder learns nothing at all; with it, the classifier's weights still learn from their own loss alone."""
    objective = DisentangleObjective(fan, deepcopy(fan.encoder), DisentangleConfig.parse(NO_PICTURES | {"uniform": 0}), 3).train()
    objective(image[:4], LABEL)["loss"].backward()
    assert learners(objective) == {"classifier"}
    alone = objective.classifier.weight.grad.clone()
    objective.zero_grad()
    objective._uniform = 1.0
    objective(image[:4], LABEL)["loss"].backward()
    assert learners(objective) == {"classifier", "network.context"} and torch.allclose(objective.classifier.weight.grad, alone, atol=1e-7)


def test_stage_2_who_learns_what(fan, image):
    objective = adapting(fan)
    assert objective.network is fan
    objective(image, torch.tensor([0, 1, 2, 0, -1, -1]))["loss"].backward()
    assert learners(objective) == {"network.encoder", "network.context", "network.decoder", "image_critic", "feature_critic"}
    assert not objective.fixed.training and all(not weight.requires_grad for weight in objective.fixed.parameters())


@pytest.mark.parametrize("joint", [False, True])
def test_pictures_reach_the_identity_encoder_only_where_joint(fan, image, joint):
    objective = adapting(fan, feature=0, feature_gan=0, margin=0, joint=joint)
    objective(image, torch.tensor([0, 1, 2, 0, -1, -1]))["loss"].backward()
    assert ("network.encoder" in learners(objective)) == joint and {"network.context", "network.decoder"} <= learners(objective)


def test_without_pictures_only_the_encoder_and_its_critic_learn(fan, image):
    objective = adapting(fan, **NO_PICTURES)
    found = objective(image, torch.tensor([0, 1, 2, 0, -1, -1]))
    found["loss"].backward()
    assert learners(objective) == {"network.encoder", "feature_critic"} and "rec" not in found
    assert not any(weight.requires_grad for weight in fan.decoder.parameters())


def test_the_unpaired_rows_reach_the_feature_game_alone(fan, image):
    """The paired losses do not change with them, batch statistics aside (evaluation mode)."""
    label = torch.tensor([0, 1, 2, 0, -1, -1])
    objective = adapting(fan, scales={"keep": 1.0}, **NO_PICTURES).eval()
    first, second = objective(image, label), objective(torch.cat((image[:4], -image[4:])), label)
    assert float(first["feature"]) == pytest.approx(float(second["feature"])) and float(first["margin"]) == pytest.approx(float(second["margin"]), rel=1e-5)
    assert float(first["feature_gan"]) != pytest.approx(float(second["feature_gan"]), rel=1e-6)


def test_invariant_an_equal_encoder_on_whole_faces_has_no_feature_loss(fan, image):
    objective = adapting(fan, scales={"keep": 1.0}, **NO_PICTURES).eval()
    assert float(objective(image, torch.tensor([0, 1, 2, 0, -1, -1]))["feature"]) < 1e-9


def test_the_feature_loss_is_twice_one_minus_the_cosine(fan, image):
    objective = adapting(fan, scales={"keep": 0.0, "fixed": [0.125]}, unpaired_rows=0, **NO_PICTURES).eval()
    found = objective(image[:4], LABEL)
    low = objective._scales(image[:4])
    cosine = F.cosine_similarity(fan.encoder(low), objective.fixed(image[:4]))
    assert float(found["feature"]) == pytest.approx(float((2 - 2 * cosine).mean()), rel=1e-4) and objective.feature_critic is None


def test_real_low_resolution_faces_are_left_as_they_are(fan, image):
    objective = adapting(fan, shrink_unpaired=False, scales={"keep": 0.0, "fixed": [0.125]})
    low = objective._low(image, 4)
    assert torch.equal(low[4:], image[4:]) and not torch.equal(low[:4], image[:4])
    assert not torch.equal(adapting(Fan.tiny(), scales={"keep": 0.0, "fixed": [0.0625]})._low(image, 4)[4:], image[4:])
