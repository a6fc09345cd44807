"""Eyes to learn from, batches, and a training that learns and resumes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from facefoundry.consumers.segmentation.eye_data import eyes_in, grey, rendered_eyes
from facefoundry.consumers.segmentation.eyeseg import load_eyeseg
from facefoundry.consumers.segmentation.metrics import segmentation_scores
from facefoundry.consumers.segmentation.network import PlainSegNet
from facefoundry.consumers.segmentation.train import EyeAugment, EyeBatches, EyeSegRecipe, PlainObjective, augmented, train_eyeseg, train_on
from facefoundry.core.config import Config
from facefoundry.core.errors import UserError
from facefoundry.core.seeds import numpy_rng
from facefoundry.core.training import fresh
from PIL import Image

LOOP = {"optimiser": "adamw", "lr": 5e-3, "batch": 8, "steps": 4, "checkpoint_every": 2, "log_every": 1}
TINY = EyeSegRecipe(size_px=(32, 48), widths=(8, 8, 8, 8), rendered={"count": 12}, loop=LOOP)


@pytest.fixture(scope="module")
def eyes():
    return rendered_eyes(12, 0, size_px=(32, 48))


@pytest.fixture
def photos(tmp_path):
    """Six pictures of another shape with masks; the one called b0 is bright."""
    for part in ("images", "masks"):
        (tmp_path / "photos" / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        name = f"{'ab'[number % 2]}{number}"
        label = np.zeros((30, 30), np.uint8)
        label[10:20, 5:25], label[12:18, 12:18], label[14:16, 14:16] = 1, 2, 3
        Image.fromarray(rng.integers(0, 60, (30, 30, 3), dtype=np.uint8) + 50 * label[..., None]).save(tmp_path / "photos" / "images" / f"{name}.png")
        Image.fromarray(label).save(tmp_path / "photos" / "masks" / f"{name}.png")
    return tmp_path / "photos"


def test_rendered_eyes_depend_on_seed_and_number(eyes):
    again = rendered_eyes(3, 0, size_px=(32, 48))
    np.testing.assert_array_equal(again.grey_NHW, eyes.grey_NHW[:3])
    assert not np.array_equal(rendered_eyes(3, 1, size_px=(32, 48)).grey_NHW, again.grey_NHW)
    assert eyes.label_NHW.max() <= 3 and np.isfinite(eyes.gaze_N2).all()


def test_grey_is_the_luminance():
    assert grey(np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]]], np.uint8)).tolist() == [[[76, 150, 29, 9]]]


def test_photographs(photos):
    found = eyes_in(photos, size_px=(32, 48))
    assert len(found) == 6 and found.names[0] == "photos/a0.png" and np.isnan(found.gaze_N2).all()
    assert found.grey_NHW.shape == found.label_NHW.shape == (6, 32, 48)
    assert (found.label_NHW[:, :, :8] == 0).all() and set(np.unique(found.label_NHW)) == {0, 1, 2, 3}  # 32 of 48 columns, in the middle
    means = [found.grey_NHW[found.label_NHW == k].mean() for k in range(4)]
    assert means == sorted(means)  # picture and mask lie over each other
    assert found.without(["a?", "b1"]).names == ("photos/b3.png", "photos/b5.png")
    assert found.like(["b?"]).tolist() == [False] * 3 + [True] * 3
    assert found.without([]) is found


def test_photographs_that_do_not_fit(photos, tmp_path):
    with pytest.raises(UserError, match="holds no pictures"):
        eyes_in(tmp_path, size_px=(32, 48))
    mask = photos / "masks" / "a0.png"
    Image.fromarray(np.full((30, 30), 4, np.uint8)).save(mask)
    with pytest.raises(UserError, match="value 4"):
        eyes_in(photos, size_px=(32, 48))
    Image.fromarray(np.zeros((30, 29), np.uint8)).save(mask)
    with pytest.raises(UserError, match="30x29, its picture 30x30"):
        eyes_in(photos, size_px=(32, 48))
    mask.unlink()
    with pytest.raises(UserError, match="is missing"):
        eyes_in(photos, size_px=(32, 48))


def test_augmentation_moves_picture_and_label_together():
    label = np.zeros((20, 32, 48), np.uint8)
    label[:, 8:20, 10:30] = 2
    image, moved = augmented((label * 60).astype(np.uint8), label, EyeAugment(gain=0.0, gamma=0.0), numpy_rng(0))
    np.testing.assert_allclose(image, moved * 60 / 127.5 - 1, atol=1e-6)
    assert len({one.tobytes() for one in moved}) > 15
    still, same = augmented(label * 60, label, EyeAugment(flip=0, shift=0, zoom=0, gain=0, gamma=0), numpy_rng(0))
    np.testing.assert_array_equal(same, label)
    mirrored = augmented(label * 60, label, EyeAugment(flip=1, shift=0, zoom=0, gain=0, gamma=0), numpy_rng(0))[1]
    np.testing.assert_array_equal(mirrored, label[:, :, ::-1])
    lit = augmented(label * 60, label, EyeAugment(flip=0, shift=0, zoom=0), numpy_rng(0))
    np.testing.assert_array_equal(lit[1], label)
    assert len({float(one.max()) for one in lit[0]}) > 15


def test_batches_share_the_step_between_sets_and_processes(eyes):
    marked = replace(eyes, label_NHW=np.full_like(eyes.label_NHW, 3))
    batches = EyeBatches([(eyes, 0.75), (marked, 0.25)], TINY)
    image, label, free = batches(0, 0, 1)
    assert image.shape == (8, 1, 32, 48) and image.dtype == torch.float32
    assert [bool((one == 3).all()) for one in label] == [False] * 6 + [True] * 2
    assert not free.any() and batches(1, 0, 1)[2].all()  # 6 % of 4 steps is the first one
    halves = [batches(2, rank, 2) for rank in range(2)]
    whole = batches(2, 0, 1)
    torch.testing.assert_close(torch.stack([half[0] for half in halves], 1).flatten(0, 1), whole[0])
    with pytest.raises(UserError, match="fewer than the 8"):
        EyeBatches([(eyes.rows(np.arange(5)), 1.0)], TINY)


def test_nothing_to_learn_from(tmp_path):
    with pytest.raises(UserError, match="no eyes to learn from"):
        train_eyeseg(TINY.model_copy(update={"rendered": TINY.rendered.model_copy(update={"count": 0})}), tmp_path)


def test_training_resumes_to_the_same_bits(photos, tmp_path, monkeypatch):
    recipe = TINY.model_copy(update={"leave_out": ("b?",), "photos_share": 0.25})
    whole = train_eyeseg(recipe, tmp_path / "whole", photos).read_bytes()
    calls = 0
    draw = EyeBatches.__call__

    def killed(self, step, rank, world):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return draw(self, step, rank, world)

    monkeypatch.setattr(EyeBatches, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        train_eyeseg(recipe, tmp_path / "cut", photos)
    monkeypatch.setattr(EyeBatches, "__call__", draw)
    assert train_eyeseg(recipe, tmp_path / "cut", photos).read_bytes() == whole
    with pytest.raises(UserError):
        train_eyeseg(recipe.model_copy(update={"dim": 4}), tmp_path / "cut", photos)


@pytest.mark.parametrize("plain", [False, True], ids=["eyeseg", "softmax"])
def test_it_learns(eyes, tmp_path, plain):
    recipe = TINY.model_copy(update={"loop": TINY.loop.model_copy(update={"steps": 150, "checkpoint_every": 200})})
    if plain:
        network = fresh(lambda: PlainSegNet(recipe.widths), 0, "test")
        train_on(recipe, PlainObjective(network), [(eyes, 1.0)], tmp_path)
        predicted = network(torch.from_numpy(eyes.grey_NHW.astype(np.float32))[:, None] / 127.5 - 1).argmax(1).numpy()
    else:
        predicted = load_eyeseg(str(train_eyeseg(recipe, tmp_path)))(eyes.grey_NHW).label_BHW.numpy()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"] - 0.3
    assert segmentation_scores(predicted, eyes.label_NHW)["iou"][0] > 0.75 and segmentation_scores(predicted, eyes.label_NHW)["iou"][2] > 0.2


def test_recipe_refuses_unknown_keys(tmp_path):
    (tmp_path / "r.yaml").write_text("size_px: [32, 48]\nwidth: 3\n")
    assert issubclass(EyeSegRecipe, Config)
    with pytest.raises(UserError, match="line 2: unknown key 'width'"):
        EyeSegRecipe.load(tmp_path / "r.yaml")
