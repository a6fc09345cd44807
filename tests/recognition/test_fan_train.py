"""FAN's training from a recipe: files, resuming, unpaired faces, mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from facefoundry.core.errors import UserError
from facefoundry.identity.sources import Faces
from facefoundry.recognition.backbones import BackboneConfig
from facefoundry.recognition.checkpoint import load_network, save_network
from facefoundry.recognition.embedder import load_embedder
from facefoundry.recognition.fan import load_fan
from facefoundry.recognition.fan_train import FanRecipe, train_fan

BACKBONE = BackboneConfig(embed_dim=16, width=0.125, shrink=2)
LOOP = {"steps": 2, "batch": 6, "optimiser": "adamw", "lr": 0.01, "log_every": 1}


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    save_network(tmp_path / "start.safetensors", BACKBONE.build(), BACKBONE, facts={})
    return tmp_path / "start.safetensors"


def recipe(encoder, adapt: dict | None = None, **changes) -> FanRecipe:
    networks = {"context_dim": 8, "width": 0.125, "critic": 2}
    return FanRecipe.parse({"encoder": str(encoder), "networks": networks, "disentangle": LOOP, "adapt": LOOP | {"unpaired_rows": 2} | (adapt or {})} | changes)


def faces(identities: int = 3, each: int = 4) -> Faces:
    image = np.random.default_rng(0).integers(0, 256, (identities * each, 112, 112, 3), np.uint8)
    return Faces(
        image_NHWC=image, identity_N=np.arange(identities).repeat(each).astype(np.int32), names=tuple(f"p{i}" for i in range(identities)),
        paths=tuple(f"p{i}/{k}.png" for i in range(identities) for k in range(each)),
    )  # fmt: skip


def test_both_stages_run_resume_and_store_what_others_read(encoder, tmp_path):
    paths = train_fan(recipe(encoder), faces(), tmp_path / "a")
    fan, facts = load_fan(paths["fan"])
    assert facts["steps"] == {"disentangle": 2, "adapt": 2} and load_embedder(paths["recogniser"]).dim == 16
    stored, start = load_network(paths["recogniser"])[0], load_network(encoder)[0]
    assert torch.allclose(stored.project.weight, fan.encoder.project.weight, atol=1e-2)
    assert not torch.equal(stored.project.weight, start.project.weight)
    before = paths["fan"].read_bytes()
    assert train_fan(recipe(encoder), faces(), tmp_path / "a")["fan"].read_bytes() == before
    with pytest.raises(UserError, match="another recipe or other data"):
        train_fan(recipe(encoder, {"lr": 0.02}), faces(), tmp_path / "a")


def test_without_pictures_the_first_stage_is_skipped(encoder, tmp_path):
    paths = train_fan(recipe(encoder, {"rec": 0, "identity": 0, "gan": 0}), faces(), tmp_path / "a")
    assert set(paths) == {"recogniser"} and not (tmp_path / "a" / "disentangle").exists()
    logged = json.loads((tmp_path / "a" / "adapt" / "log.jsonl").read_text().splitlines()[-1])
    assert {"feature", "margin", "feature_gan", "feature_critic"} <= set(logged)


def test_unpaired_faces_of_their_own(encoder, tmp_path):
    folder = tmp_path / "low" / "somebody"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((112, 112, 3), 60 * number, np.uint8)).save(folder / f"{number}.png")
    train_fan(recipe(encoder, {"rec": 0, "identity": 0, "gan": 0, "steps": 1}, unpaired=str(tmp_path / "low")), faces(), tmp_path / "a")
    with pytest.raises(UserError, match="does not exist"):
        train_fan(recipe(encoder, {"rec": 0, "identity": 0, "gan": 0}, unpaired=str(tmp_path / "none")), faces(), tmp_path / "b")


def test_mistakes(encoder, tmp_path):
    with pytest.raises(UserError, match="1 identity"):
        train_fan(recipe(encoder), faces(1, 12), tmp_path)
    with pytest.raises(UserError, match="fewer than 2 paired rows"):
        train_fan(recipe(encoder, {"unpaired_rows": 5}), faces(), tmp_path)
    with pytest.raises(UserError, match="did you mean 'scales'"):
        recipe(encoder, scale={})
    with pytest.raises(UserError, match="unknown key 'adapt.featur'"):
        recipe(encoder, {"featur": 1})
