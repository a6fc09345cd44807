"""AFA's two stages and standard adversarial training: who learns what, resuming, recipes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.identity.sources import Faces
from facefoundry.recognition.afa import DualNetwork
from facefoundry.recognition.afa_train import AdversarialObjective, AfaRecipe, FuseObjective, train_afa
from facefoundry.recognition.attacks import LEVEL
from facefoundry.recognition.checkpoint import load_network

LOOP = {"steps": 2, "batch": 4, "optimiser": "adamw", "lr": 0.01, "log_every": 1}
TINY = {
    "backbone": {"embed_dim": 16, "width": 0.125, "shrink": 2}, "dual": {"hidden": 8}, "head": {"name": "softmax", "scale": 16},
    "attack": {"strength": 8, "steps": 1, "reach": 1.5}, "base": LOOP, "fuse": LOOP,
}  # fmt: skip
LABEL = torch.tensor([0, 1, 2, 0, 1, 2])


def recipe(**changes) -> AfaRecipe:
    return AfaRecipe.parse(TINY | changes)


def faces(identities: int = 3, each: int = 4) -> Faces:
    rng = np.random.default_rng(0)
    image = rng.integers(40, 216, (identities, 1, 1, 1, 3)) + rng.integers(-40, 40, (identities, each, 112, 112, 3))
    return Faces(
        image_NHWC=image.astype(np.uint8).reshape(-1, 112, 112, 3), identity_N=np.arange(identities).repeat(each).astype(np.int32),
        names=tuple(f"p{i}" for i in range(identities)), paths=tuple(f"p{i}/{k}.png" for i in range(identities) for k in range(each)),
    )  # fmt: skip


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(6, 3, 112, 112, generator=torch.Generator().manual_seed(3)) * 1.6 - 0.8


def statistics(network: DualNetwork, branch: str) -> list[torch.Tensor]:
    return [getattr(norm, branch).running_mean.clone() for norm in network.norms()]


def moved(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, after))


def test_stage_1_keeps_the_branches_apart(image):
    """Each branch sees its own faces once: its statistics are those of one forward pass of a copy."""
    torch.manual_seed(0)
    objective = AdversarialObjective(DualNetwork.tiny(), recipe(), 3, 16).train()
    copy = DualNetwork.tiny().train()
    copy.load_state_dict(objective.network.state_dict())
    before = statistics(objective.network, "attacked")
    torch.manual_seed(1)
    objective(image, LABEL)["loss"].backward()
    copy(image, 0.0)
    clean = statistics(objective.network, "clean")
    assert not moved(clean, statistics(copy, "clean")) and moved(before, statistics(objective.network, "attacked"))
    assert not moved(statistics(copy, "attacked"), before)
    assert all(parameter.grad is None for parameter in objective.network.predictor.parameters())
    for norm in objective.network.norms():
        assert norm.clean.weight is None or norm.clean.weight.grad is not None and norm.attacked.weight.grad is not None
        assert norm.share == 0.0


def test_the_attack_in_training_moves_nothing_and_keeps_to_its_ball(image):
    objective = AdversarialObjective(DualNetwork.tiny(), recipe(), 3, 16).train()
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    attacked = objective.attacked(image, LABEL)
    assert (attacked - image).abs().max() <= 8 * LEVEL + 1e-6 and not attacked.requires_grad
    assert objective.network.training
    assert all(torch.equal(before[key], value) for key, value in objective.state_dict().items())
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_stage_2_teaches_the_predictor_and_nothing_else(image):
    base = AdversarialObjective(DualNetwork.tiny(), recipe(), 3, 16)
    for norm in base.network.norms():
        norm.attacked.running_mean.normal_(std=0.5)
    objective = FuseObjective(base.network, base.centres, recipe(align=0.5)).train()
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    found = objective(image, LABEL)
    found["loss"].backward()
    learnt = {name for name, parameter in objective.named_parameters() if parameter.grad is not None}
    assert learnt == {f"network.predictor.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert all(float(objective.get_parameter(name).grad.abs().sum()) > 0 for name in learnt)
    assert all(torch.equal(before[key], value) for key, value in objective.state_dict().items())
    assert float(found["loss"]) == pytest.approx(float(0.5 * found["clean"] + 0.5 * found["attacked"] + 0.5 * found["align"]), rel=1e-5)


def test_without_dual_and_clean_it_is_training_on_attacked_faces_alone(image):
    objective = AdversarialObjective(recipe(dual=None).backbone.build(), recipe(dual=None, clean=0), 3, 16)
    assert set(objective(image, LABEL)) == {"loss", "attacked", "attacked_accuracy"}


def test_both_stages_run_resume_and_store_an_embedder(tmp_path):
    path = train_afa(recipe(), faces(), tmp_path / "a")
    network, facts = load_network(path)
    assert isinstance(network, DualNetwork) and facts["steps"] == [2, 2] and facts["identities"] == 3
    first = path.read_bytes()
    assert train_afa(recipe(), faces(), tmp_path / "a").read_bytes() == first  # finished: nothing is trained again
    assert train_afa(recipe(), faces(), tmp_path / "b").read_bytes() == first  # and a run is a function of recipe and data
    with pytest.raises(UserError, match="another recipe or other data"):
        train_afa(recipe(attack={"strength": 4, "steps": 2}), faces(), tmp_path / "a")


def test_a_trained_recogniser_is_gone_on_from(tmp_path):
    plain = train_afa(recipe(dual=None), faces(), tmp_path / "plain")
    assert not isinstance(load_network(plain)[0], DualNetwork) and load_network(plain)[1]["steps"] == [2]
    dual = train_afa(recipe(init=str(plain), base=LOOP | {"lr": 1e-9}), faces(), tmp_path / "dual")
    body, start = load_network(dual)[0].body, load_network(plain)[0]
    assert torch.allclose(body.project.weight, start.project.weight, atol=1e-5)
    with pytest.raises(UserError, match="dual: null"):
        train_afa(recipe(init=str(dual), dual=None), faces(), tmp_path / "back")


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="1 identity"):
        train_afa(recipe(), faces(1, 12), tmp_path)
    with pytest.raises(UserError, match="unknown key 'atack'"):
        recipe(atack={})
    with pytest.raises(UserError, match="attack.strength"):
        recipe(attack={"strength": 0})
