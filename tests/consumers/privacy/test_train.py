"""Trainings of the image methods: tiny ones end to end, resumed ones, and that what is learned can be recognised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facefoundry.consumers.privacy.protected import CLIENT_FILE, PRIVACY_METHODS, SERVER_FILE, Client, Server, load_method
from facefoundry.core.errors import UserError
from facefoundry.core.weights import load_weights
from facefoundry.identity.sources import Faces

RECIPES = Path(__file__).parents[3] / "recipes"
SMALL = ["backbone.width=0.125", "backbone.embed_dim=16", "epochs=2", "batch=8", "method.side=16", "optimiser=adamw", "lr=0.01"]
MORE = {"duetface": ["method.client_width=0.125", "client_epochs=1"], "minusface": ["method.widths=[4,8]", "generator_epochs=1", "samples=1"], "partialface": ["method.samples=1"], "dctdp": []}


def people(count=4, each=6):
    """Faces that a network can learn at once: a pattern for each person, and some noise."""
    rng = np.random.default_rng(0)
    pattern = np.kron(rng.uniform(40, 215, (count, 7, 7, 3)), np.ones((1, 16, 16, 1)))
    image = np.repeat(pattern, each, 0) + rng.normal(0, 8, (count * each, 112, 112, 3))
    label = np.repeat(np.arange(count, dtype=np.int32), each)
    return Faces(image_NHWC=image.clip(0, 255).astype(np.uint8), identity_N=label, names=tuple("abcdefgh"[:count]), paths=tuple(f"{n:03d}" for n in range(len(label))))


def recipe_of(name, *changes):
    return PRIVACY_METHODS[name].Recipe.load(RECIPES / f"privacy-{name}.yaml", [*SMALL, *MORE[name], *changes])


@pytest.mark.parametrize("name", list(MORE))
def test_train_load_serve(name, tmp_path):
    faces = people()
    folder = PRIVACY_METHODS[name].train_on(recipe_of(name), faces, tmp_path)
    method = load_method(folder)
    assert method.settings.side == 16 and not method.training
    client, server = Client.load(folder / CLIENT_FILE), Server.load(folder / SERVER_FILE)
    image = torch.from_numpy(faces.image_NHWC[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert server.embed(client.request(image)).shape == (4, 16)
    facts = load_weights(folder / SERVER_FILE, kind="privacy-server")[2]
    assert facts["identities"] == 4 and facts["recipe"]["method"]["side"] == 16
    if name == "dctdp":
        assert facts["guarantee"]["epsilon_whole_face"] == pytest.approx(0.5 * 189 * 256, rel=1e-4) and len(facts["sensitivity_data_sha256"]) == 64
        assert method.client.budgets.theta.abs().max() > 0  # learned
        assert (method.client.high > method.client.low).all() and method.client.high.max() < 1025
    again = PRIVACY_METHODS[name].train_on(recipe_of(name), faces, tmp_path)  # finished: nothing is trained again
    for one, two in zip(load_method(again).state_dict().values(), method.state_dict().values()):
        assert torch.equal(one, two)


def test_slerpface_trains_features_that_enrol_and_match(tmp_path):
    faces = people(3, 4)
    cls = PRIVACY_METHODS["slerpface"]
    recipe = cls.Recipe.load(RECIPES / "privacy-slerpface.yaml", ["backbone.width=0.125", "epochs=1", "batch=6", "lr=0.01"])
    method = load_method(cls.train_on(recipe, faces, tmp_path))
    image = torch.from_numpy(faces.image_NHWC[:2]).permute(0, 3, 1, 2).float() / 127.5 - 1
    (template, key), _ = method.scheme.enrol(image)
    assert template.value_GC.shape == (49, 16)  # as published
    assert method.scheme.match(image[:1], template, key)[0] == pytest.approx(1, abs=1e-5)


def test_the_public_splits_can_be_learned(tmp_path):
    """DuetFace's 54 channels tell four patterns apart after a few steps."""
    faces = people()
    folder = PRIVACY_METHODS["duetface"].train_on(recipe_of("duetface", "epochs=8", "augment={}"), faces, tmp_path)
    method = load_method(folder)
    rows = method.recognise(method.protect(torch.from_numpy(faces.image_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1))
    nearest = (rows @ rows.T).fill_diagonal_(-2).argmax(1).numpy()
    assert (faces.identity_N[nearest] == faces.identity_N).all()  # by chance one in five


def test_a_training_step_is_repeatable_and_clients_in_it_are_not_all_alike(tmp_path):
    recipe = recipe_of("partialface", "steps=2")
    faces = people()
    cls = PRIVACY_METHODS["partialface"]
    one, two = (load_method(cls.train_on(recipe, faces, tmp_path / part)).state_dict() for part in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_epoch_of_partialface_shows_a_face_r_times(tmp_path):
    cls = PRIVACY_METHODS["partialface"]
    folder = cls.train_on(recipe_of("partialface", "epochs=1", "method.samples=5"), people(), tmp_path)
    assert load_weights(folder / SERVER_FILE, kind="privacy-server")[2]["steps"] == 5 * (24 // 8)


def test_released_partialface_trains_with_its_own_sampling(tmp_path):
    cls = PRIVACY_METHODS["partialface"]
    changes = ["method.release_compatible=true", "method.orders=3", "method.samples=3", "steps=1"]
    assert (cls.train_on(recipe_of("partialface", *changes), people(), tmp_path) / SERVER_FILE).is_file()


def test_user_mistakes(tmp_path):
    with pytest.raises(UserError, match="1 identity"):
        PRIVACY_METHODS["dctdp"].train_on(recipe_of("dctdp"), people(1), tmp_path)
    with pytest.raises(UserError, match="method.side"):
        recipe_of("duetface", "backbone.shrink=2")
    with pytest.raises(UserError, match="unknown key 'method.epsilonn'"):
        recipe_of("dctdp", "method.epsilonn=1")
    with pytest.raises(UserError, match="epsilon"):
        recipe_of("dctdp", "method.epsilon=0")
    with pytest.raises(UserError, match="side"):
        recipe_of("dctdp", "method.side=57")


def test_published_schedule_is_the_default():
    recipe = PRIVACY_METHODS["partialface"].Recipe()
    assert (recipe.backbone.name, recipe.epochs, recipe.batch, recipe.lr, recipe.optimiser, recipe.method.side) == ("ir-18", 24, 64, 0.1, "sgd", 112)
    assert [recipe.rate(step, 2400) for step in (0, 1001, 1801, 2201)] == pytest.approx([0.1, 0.01, 0.001, 0.0001])
    minus = PRIVACY_METHODS["minusface"].Recipe()
    assert (minus.lr, minus.weight_decay, minus.generator_rate, minus.alpha, minus.beta, minus.samples) == (0.01, 1e-4, 0.5, 5, 1, 3)
