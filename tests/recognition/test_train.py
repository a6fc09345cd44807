"""The training loop: learns, resumes exactly after a kill, stops on NaN, refuses what does not fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from facefoundry.core.config import Config
from facefoundry.core.errors import UserError
from facefoundry.identity.sources import Faces
from facefoundry.core.training_state import load_state
from facefoundry.recognition.checkpoint import load_network
from facefoundry.recognition.distill import DistilRecipe, distil, load_teacher_rows
from facefoundry.recognition.kd import relation_loss
from facefoundry.core.training import LoopConfig, decay_groups
from facefoundry.recognition.train import RecogniserObjective, RecogniserRecipe, train_recogniser

TINY = {
    "backbone": {"embed_dim": 16, "width": 0.125},
    "head": {"name": "curricularface", "scale": 16, "margin": 0.2},
    "augment": {"shift": 0.02},
    "steps": 8, "batch": 8, "lr": 0.05, "log_every": 1, "checkpoint_every": 2,
}


def made_faces(identities: int = 4, each: int = 6) -> Faces:
    """Coloured patterns, one colour for each identity."""
    rng = np.random.default_rng(0)
    colour = rng.integers(40, 216, (identities, 1, 1, 1, 3))
    image = colour + rng.integers(-40, 40, (identities, each, 112, 112, 3))
    return Faces(
        image_NHWC=image.astype(np.uint8).reshape(-1, 112, 112, 3),
        identity_N=np.arange(identities).repeat(each).astype(np.int32),
        names=tuple(f"p{i}" for i in range(identities)),
        paths=tuple(f"p{i}/{k}.png" for i in range(identities) for k in range(each)),
    )


def recipe(**changes) -> RecogniserRecipe:
    return RecogniserRecipe.parse(TINY | changes)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_network(path)[0].state_dict()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return train_recogniser(recipe(), made_faces(), tmp_path_factory.mktemp("whole"))


def test_logs_checkpoint_and_facts(whole):
    lines = [json.loads(line) for line in (whole.parent / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(8))
    assert {"loss", "accuracy", "target_cosine", "lr", "gradient_norm"} <= set(lines[0])
    assert list((whole.parent / "tensorboard").rglob("events*"))
    assert load_network(whole)[1]["identities"] == 4


def test_the_global_generator_plays_no_part(whole, tmp_path):
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = train_recogniser(recipe(log_every=3), made_faces(), tmp_path)
    assert same(weights(whole), weights(again)) and torch.equal(state, torch.get_rng_state())


def test_another_seed_is_another_network(whole, tmp_path):
    assert not same(weights(whole), weights(train_recogniser(recipe(seed=1), made_faces(), tmp_path)))


KILLED = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("t", sys.argv[1])
t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)
t.train_recogniser(t.recipe(steps=400), t.made_faces(), Path(sys.argv[2]))
"""


def test_killed_and_resumed_is_bit_for_bit_the_undisturbed_run(tmp_path, monkeypatch):
    """A real kill -9 in the middle; then both the killed and a fresh run go to the same step."""
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, __file__, str(out)], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (out / "state.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = load_state(out / "state.pt")["step"]
    assert 0 < stopped < 400
    (out / "log.jsonl").open("a").write('{"step": 9')  # a line cut by the kill

    torch.set_num_threads(1)
    short = recipe(steps=400)
    monkeypatch.setattr(LoopConfig, "total_steps", lambda self, batches: 400)
    end_at(monkeypatch, stopped + 3)
    for folder in (out, tmp_path / "undisturbed"):
        with pytest.raises(Stopped):
            train_recogniser(short, made_faces(), folder)
    resumed, undisturbed = (load_state(folder / "probe.pt") for folder in (out, tmp_path / "undisturbed"))
    assert same(resumed["objective"], undisturbed["objective"])
    moments = zip(resumed["optimiser"]["state"].values(), undisturbed["optimiser"]["state"].values())
    assert all(torch.equal(a["momentum_buffer"], b["momentum_buffer"]) for a, b in moments)
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


class Stopped(Exception):
    pass


def end_at(monkeypatch, last: int) -> None:
    """Make every run keep its state at step `last` in probe.pt and stop there."""
    import facefoundry.core.training as loop

    real = loop._step

    def probe(objective, optimiser, batches, config, accelerator, place):
        if place[0] == last:
            folder = Path(accelerator.project_dir)
            loop.Keeper(folder, {}, accelerator.unwrap_model(objective), optimiser, None).save(last)
            (folder / "state.pt").rename(folder / "probe.pt")
            raise Stopped
        return real(objective, optimiser, batches, config, accelerator, place)

    monkeypatch.setattr(loop, "_step", probe)


def test_nan_stops_the_run_and_names_the_step(tmp_path):
    with pytest.raises(UserError, match=r"stopped at step \d+ of 8.*lower 'lr'"):
        train_recogniser(recipe(lr=1e30, warmup=0, clip=0, head={"name": "softmax"}), made_faces(), tmp_path)


def test_another_recipe_or_other_data_is_not_mixed_in(whole):
    for changed, faces in ((recipe(lr=0.01), made_faces()), (recipe(), made_faces(5))):
        with pytest.raises(UserError, match="another recipe or other data"):
            train_recogniser(changed, faces, whole.parent)
    assert train_recogniser(recipe(), made_faces(), whole.parent) == whole


def test_one_identity_is_refused(tmp_path):
    with pytest.raises(UserError, match="1 identity"):
        train_recogniser(recipe(), made_faces(1, 12), tmp_path)


def test_normalisation_is_not_decayed_unless_asked():
    objective = RecogniserObjective(recipe(backbone={"name": "ir-18", "embed_dim": 16, "width": 0.125}), 4)
    decayed, spared = decay_groups(objective, recipe())
    convolutions = sum(isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) for m in objective.modules())
    assert len(decayed["params"]) == convolutions + 1 and spared["weight_decay"] == 0
    assert all(p.ndim == 1 for p in spared["params"])
    everything, nothing = decay_groups(objective, recipe(decay_norms=True))
    assert not nothing["params"] and len(everything["params"]) == len(list(objective.parameters()))


def test_schedules():
    cosine, poly = recipe(warmup=0.1, lr=1.0), recipe(warmup=0.0, lr=1.0, schedule="poly")
    assert cosine.rate(0, 100) < cosine.rate(9, 100) <= 1.0 and cosine.rate(99, 100) < 0.01
    assert poly.rate(0, 100) == 1.0 and poly.rate(50, 100) == pytest.approx(0.5)
    steps = recipe(warmup=0.0, lr=1.0, schedule="step", milestones=[0.5, 0.75])
    assert [steps.rate(s, 100) for s in (0, 50, 75)] == pytest.approx([1.0, 0.1, 0.01])


def test_recipes_parse():
    folder = Path(sys.modules["facefoundry"].__file__).parent / "recipes"
    for path, kind in [(path, RecogniserRecipe) for path in folder.glob("recogniser-*.yaml")] + [(folder / "distil-mobilefacenet.yaml", DistilRecipe)]:
        settings: Config = kind.load(path)
        settings.backbone.build()


def unit_rows(count: int, dim: int = 16) -> np.ndarray:
    rows = np.random.default_rng(2).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


DISTIL = DistilRecipe.parse({key: value for key, value in TINY.items() if key != "head"} | {"optimiser": "adamw", "lr": 0.01, "steps": 6})


def test_a_student_comes_nearer_to_its_teacher(tmp_path):
    faces = made_faces()
    teacher_ND = unit_rows(4)[faces.identity_N]
    path = distil(DISTIL.model_copy(update={"steps": 25}), faces, tmp_path, teacher_ND=teacher_ND)
    cosine = [json.loads(line)["cosine"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean(cosine[-3:]) > np.mean(cosine[:3]) + 0.2 and load_network(path)[1]["teacher"] == "dlib"


def test_teacher_rows_must_fit(tmp_path):
    faces = made_faces()
    with pytest.raises(UserError, match=r"expected \(24, 16\)"):
        distil(DISTIL, faces, tmp_path, teacher_ND=unit_rows(23))
    with pytest.raises(ValueError, match="not unit length"):
        distil(DISTIL, faces, tmp_path, teacher_ND=unit_rows(24) * np.nan)
    with pytest.raises(UserError, match="unknown embedder 'nobody'"):
        distil(DISTIL.model_copy(update={"teacher": "nobody"}), faces, tmp_path)


def test_teacher_file_is_matched_by_path(tmp_path):
    faces, rows = made_faces(), unit_rows(24)
    order = np.random.default_rng(1).permutation(24)
    np.savez(tmp_path / "t.npz", files=np.array(faces.paths)[order], embed=rows[order])
    assert np.array_equal(load_teacher_rows(tmp_path / "t.npz", faces), rows)
    np.savez(tmp_path / "u.npz", files=np.array(faces.paths)[1:], embed=rows[1:])
    with pytest.raises(UserError, match="no row for 1 of 24 faces, e.g. p0/0.png"):
        load_teacher_rows(tmp_path / "u.npz", faces)
    (tmp_path / "v.npz").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot read teacher rows"):
        load_teacher_rows(tmp_path / "v.npz", faces)


def test_relation_loss_against_the_double_loop():
    left, right = torch.from_numpy(unit_rows(5)), torch.from_numpy(unit_rows(5)[::-1].copy())
    gaps = [float((left[i] @ left[j] - right[i] @ right[j]) ** 2) for i in range(5) for j in range(5) if i != j]
    assert float(relation_loss(left, right)) == pytest.approx(np.mean(gaps), rel=1e-5)
    assert float(relation_loss(left, left)) == 0
