"""The options of the two recipes run, learn, and refuse what does not fit; each in a few steps on coloured patterns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_png
from facefoundry.core.training_state import load_state
from facefoundry.identity.sources import Faces
from facefoundry.recognition.checkpoint import load_network
from facefoundry.recognition.distill import DistilObjective, DistilRecipe, distil
from facefoundry.recognition.kd import relation_loss
from facefoundry.recognition.train import RecogniserObjective, RecogniserRecipe, train_recogniser

TINY = {"backbone": {"embed_dim": 16, "width": 0.125, "shrink": 2}, "augment": {"flip": 0.5}, "steps": 3, "batch": 16, "lr": 0.05, "log_every": 1}
HEAD = {"head": {"name": "arcface", "scale": 16, "margin": 0.2}}


def made_faces(identities: int = 6, each: int = 6, seed: int = 0) -> Faces:
    rng = np.random.default_rng(seed)
    image = rng.integers(40, 216, (identities, 1, 1, 1, 3)) + rng.integers(-40, 40, (identities, each, 112, 112, 3))
    paths = tuple(f"p{i}/{k}.png" for i in range(identities) for k in range(each))
    names = tuple(f"p{i}" for i in range(identities))
    return Faces(image_NHWC=image.astype(np.uint8).reshape(-1, 112, 112, 3), identity_N=np.arange(identities).repeat(each).astype(np.int32), names=names, paths=paths)


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def train(out: Path, **changes) -> Path:
    return train_recogniser(RecogniserRecipe.parse(TINY | HEAD | changes), made_faces(), out)


@pytest.mark.parametrize("head", ["softmax", "cosface", "arcface-straight-through", "adaface", "cifp"])
def test_every_head_trains(head, tmp_path):
    train(tmp_path, head={"name": head, "scale": 16}, batch=8, per_identity=2)
    assert np.isfinite([line["loss"] for line in logged(tmp_path)]).all()
    wanted = {"adaface": {"head.mean", "head.deviation"}, "cifp": {"head.threshold"}}
    held = load_state(tmp_path / "state.pt")["objective"]
    assert wanted.get(head, set()) <= set(held), "what a head goes by is part of the resume state"


def test_ddl_beside_a_head(tmp_path):
    train(tmp_path, batch=16, ddl={"pairs": 3, "hard": [{"changes": {"lowres": 1, "lowres_least": 0.2}}]})
    lines = logged(tmp_path)
    assert {"loss", "head", "ddl_kl_mated", "ddl_kl_other", "ddl_order"} <= set(lines[0])
    for line in lines:
        parts = line["head"] + 0.1 * line["ddl_kl_mated"] + 0.02 * line["ddl_kl_other"] + 0.5 * line["ddl_order"]
        assert line["loss"] == pytest.approx(parts, abs=1e-4)


def test_the_head_sees_the_general_rows_only():
    recipe = RecogniserRecipe.parse(TINY | HEAD | {"ddl": {"pairs": 3}})
    objective = RecogniserObjective(recipe, 6)
    image, label = torch.randn(16, 3, 112, 112), torch.arange(16) % 6
    loss = objective(image, label)["head"]
    changed = label.clone()
    changed[4:] = 0
    assert recipe.head_rows == 4 and objective(image, changed)["head"].item() == pytest.approx(loss.item(), rel=1e-5)
    changed[3] = 5
    assert objective(image, changed)["head"].item() != pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ddl": {"pairs": 4}}, "takes 16 of the 16 rows of a step"),
        ({"ddl": {"pairs": 2}, "accumulate": 2}, "cannot be computed in parts"),
        ({"per_identity": 2, "repeat_first": 3}, "set one of them to 1"),
    ],
)
def test_rows_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        RecogniserRecipe.parse(TINY | HEAD | changes)


@pytest.fixture
def second(tmp_path) -> Path:
    other = made_faces(3, 4, seed=9)
    for image, name in zip(other.image_NHWC, other.paths):
        path = tmp_path / "second" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))
    return tmp_path / "second"


def test_two_sources_have_the_stated_share_and_further_classes(second, tmp_path, monkeypatch):
    import facefoundry.recognition.train as module

    seen: list[torch.Tensor] = []
    real = module.margin_loss

    def spy(head, centres, raw_BD, label_B):
        seen.append(label_B)
        return real(head, centres, raw_BD, label_B)

    monkeypatch.setattr(module, "margin_loss", spy)
    path = train(tmp_path / "out", mix={"data": str(second), "share": 0.25})
    facts = load_network(path)[1]
    assert facts["identities"] == 9 and facts["faces"] == 48 and facts["first_source_faces"] == 36
    assert len(seen) == 3 and all((label >= 6).sum() == 4 and (label[:12] < 6).all() for label in seen)
    with pytest.raises(UserError, match="another recipe or other data"):
        train(tmp_path / "out", mix={"data": str(second), "share": 0.5})


def teacher_rows(dim: int = 16) -> np.ndarray:
    rows = np.random.default_rng(2).normal(size=(6, dim)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True))[made_faces().identity_N]


ALONE = {"cosine": 0, "relation": 0}


@pytest.mark.parametrize(
    ("terms", "names"),
    [
        ({"feature": 1.0, **ALONE}, {"feature"}),
        ({"distance": 1.0, "angle": 2.0, **ALONE}, {"distance", "angle"}),
        ({"ekd": {"positive": 1.0}, **ALONE}, {"ekd_positive", "ekd_negative"}),
        ({"ekd": {}, "head": {"name": "arcface", "scale": 16, "margin": 0.2}}, {"ekd_positive", "head", "accuracy", "cosine", "relation"}),
    ],
)
def test_distillation_terms_run_and_are_logged(terms, names, tmp_path):
    distil(DistilRecipe.parse(TINY | terms), made_faces(), tmp_path, teacher_ND=teacher_rows())
    lines = logged(tmp_path)
    assert names <= set(lines[0]) and np.isfinite([line["loss"] for line in lines]).all()
    state = load_state(tmp_path / "state.pt")["objective"]
    assert ("ekd.teacher_K" in state) == ("ekd" in terms), "thresholds are part of the resume state"


def test_a_teacher_of_another_length_suits_losses_between_images(tmp_path):
    distil(DistilRecipe.parse(TINY | {"cosine": 0, "relation": 1.0}), made_faces(), tmp_path, teacher_ND=teacher_rows(40))
    with pytest.raises(UserError, match=r"expected \(36, 16\)"):
        distil(DistilRecipe.parse(TINY), made_faces(), tmp_path, teacher_ND=teacher_rows(40))


def test_defaults_are_what_they_were():
    """cosine + 8 · relation, no state beside the network: the bundled student's loss."""
    recipe = DistilRecipe.parse(TINY)
    objective = DistilObjective(recipe.backbone.build(), recipe)
    image, teacher = torch.randn(5, 3, 112, 112), torch.from_numpy(teacher_rows()[:30:6])
    found = objective(image, teacher, torch.zeros(5, dtype=torch.long))
    unit = torch.nn.functional.normalize(objective.network(image))
    wanted = 1 - (unit * teacher).sum(1).mean() + 8 * relation_loss(unit, teacher)
    assert float(found["loss"]) == pytest.approx(float(wanted), rel=1e-5) and set(found) == {"loss", "cosine", "relation"}
    assert all(key.startswith("network.") for key in objective.state_dict())


def test_nothing_to_learn_is_refused():
    with pytest.raises(UserError, match="every loss has weight 0"):
        DistilRecipe.parse(TINY | ALONE)
    with pytest.raises(UserError, match="cannot be computed in parts"):
        DistilRecipe.parse(TINY | {"ekd": {}, "accumulate": 2})


class Bright:
    """A teacher that sees how bright a face is, and counts."""

    name, dim, differentiable = "bright", 16, False

    def __init__(self):
        self.seen = []

    def __call__(self, image_BCHW):
        self.seen.append(image_BCHW.clone())
        row_BD = torch.zeros(len(image_BCHW), 16)
        row_BD[:, 0], row_BD[:, 1] = image_BCHW.mean((1, 2, 3)), 0.5
        return torch.nn.functional.normalize(row_BD)


def test_a_live_teacher_sees_what_the_student_sees(tmp_path):
    recipe = DistilRecipe.parse(TINY | {"live": True, "augment": {"flip": 1.0}, "relation": 0.0})
    teacher, found = Bright(), made_faces()
    distil(recipe, found, tmp_path / "live", teacher=teacher)
    assert [len(image) for image in teacher.seen] == [16, 16, 16], "one look a step, and none at the faces as they are"
    known = torch.from_numpy(found.image_NHWC[:, :, ::-1].copy()).permute(0, 3, 1, 2) / 127.5 - 1  # mirrored
    assert all(((known - image).abs().amax((1, 2, 3)) < 1e-5).any() for image in teacher.seen[0])
    still = Bright()
    distil(recipe.model_copy(update={"live": False}), found, tmp_path / "still", teacher=still)
    assert sum(map(len, still.seen)) == len(found)
    assert logged(tmp_path / "live")[0]["cosine"] == pytest.approx(logged(tmp_path / "still")[0]["cosine"], abs=1e-4), "a mirror image is as bright"
    with pytest.raises(UserError, match="live: false"):
        distil(recipe, found, tmp_path / "rows", teacher_ND=np.eye(1, 16, dtype=np.float32).repeat(36, 0))
