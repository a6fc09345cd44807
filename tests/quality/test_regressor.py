"""The regressor: Huber by hand, labels of damaged copies, calibration, the file, the model's doors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.weights import save_tensors
from facefoundry.quality.features import FaceRows, Features
from facefoundry.quality.model import load_quality
from facefoundry.quality.regressor import QualityNet, QualityObjective, QualityRecipe, calibrate, quality_labels, train_quality

RNG = np.random.default_rng(0)


def rows(count=400, columns=12):
    """Rows whose quality is a bent function of two columns."""
    row = RNG.normal(size=(count, columns)).astype(np.float32) * 5 + 3
    score = 50 + 20 * np.tanh((row[:, 0] - 3) / 5) + 10 * np.abs((row[:, 1] - 3) / 5)
    return row, score.astype(np.float32)


class Fixed(torch.nn.Module):
    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, row):
        return self.values


@pytest.mark.parametrize(("gap", "loss"), [(0.4, 0.08), (1.0, 0.5), (7.0, 6.5)])
def test_worked_example_7_3(gap, loss):
    assert float(QualityObjective(Fixed([50.0 + gap]), 1.0)(torch.zeros(1, 1), torch.tensor([50.0]))["loss"]) == pytest.approx(loss, abs=1e-5)


def test_the_slope_far_out_is_one_whatever_the_bend():
    for bend in (1.0, 5.0):
        near, far = (float(QualityObjective(Fixed([x]), bend)(torch.zeros(1, 1), torch.tensor([0.0]))["loss"]) for x in (20.0, 21.0))
        assert far - near == pytest.approx(1.0, abs=1e-5)


def test_learns_what_can_be_learned_and_repeats_to_the_byte(tmp_path):
    row, label = rows()
    label[:7] = np.nan
    recipe = QualityRecipe(steps=150, batch=64, optimiser="adamw", lr=0.02, dropout=0.0, checkpoint_every=100)
    path = train_quality(recipe, row, label, tmp_path / "a")
    score = load_quality(path)(row)
    assert np.corrcoef(score[7:], label[7:])[0, 1] > 0.9
    assert score.dtype == np.float32 and 0 < score.min() and score.max() < 100
    assert 45 < np.median(score) < 55  # percentiles of the training rows
    again = train_quality(recipe, row, label, tmp_path / "b")
    assert path.read_bytes() == again.read_bytes()
    assert np.array_equal(load_quality(path)(row[:3]), load_quality(again)(row[:3]))


def test_calibration_rises_strictly_and_names_percentiles():
    point = np.sort(RNG.normal(60, 5, 10_000))
    knots = np.percentile(point, np.arange(1, 100))
    score = calibrate(point, knots)
    assert score[::1000] == pytest.approx(np.arange(0, 100, 10), abs=1.0)
    out = calibrate(np.array([0.0, 20.0, 30.0, 40.0]), knots)
    assert (np.diff(out) > 0).all() and 0 < out[0] and out[-1] < 1
    assert (np.diff(calibrate(np.array([75.0, 80.0, 90.0]), knots)) > 0).all()


def faces(people=20, shots=6, dim=32, spread=0.4):
    rows = RNG.normal(size=(people, 1, dim)) + spread * RNG.normal(size=(people, shots, dim))
    rows = rows.reshape(-1, dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), np.repeat(np.arange(people), shots)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_damaged_copies_get_lower_labels_on_the_same_scale():
    embed, identity = faces()
    damaged = unit(embed + 0.3 * RNG.normal(size=embed.shape))
    label = quality_labels(QualityRecipe(), embed, identity, damaged=(damaged,))
    assert label.shape == (240,) and np.nanmin(label) == 0 and np.nanmax(label) == 100
    assert np.median(label[:120]) > np.median(label[120:]) + 10
    # A copy equal to its original gets its original's label: it is compared with the others, not with itself.
    same = quality_labels(QualityRecipe(), embed, identity, damaged=(embed.copy(),))
    assert np.allclose(same[:120], same[120:])


def test_single_images_have_no_label():
    embed, identity = faces()
    identity = identity.copy()
    identity[0] = 99
    assert np.isnan(quality_labels(QualityRecipe(copies=0), embed, identity)[0])


class Eyes:
    """A recogniser with a torch network: pixels, then two layers."""

    name, device = "eyes", torch.device("cpu")

    def __init__(self):
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(torch.nn.AvgPool2d(28), torch.nn.Flatten(), torch.nn.Linear(48, 10), torch.nn.Linear(10, 6), torch.nn.BatchNorm1d(6)).eval()


def test_features_are_the_last_linear_layers_input():
    image = RNG.integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    eyes = Eyes()
    read = Features(eyes)
    got = read(image, batch=2)
    x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1
    with torch.no_grad():
        assert np.allclose(got.penultimate_NF, eyes.network[:3](x).numpy(), atol=1e-5)
        assert np.allclose(got.raw_ND, eyes.network(x).numpy(), atol=1e-5)
        assert np.allclose(read.head(torch.from_numpy(got.penultimate_NF)).numpy(), got.raw_ND, atol=1e-5)
    assert got.row_NK.shape == (5, 14) and got.row_NK.dtype == np.float32
    assert not eyes.network[3]._forward_pre_hooks  # nothing is left behind on the recogniser


def test_features_of_an_embedder_without_a_network():
    class Blind:
        name = "dlib"

    with pytest.raises(UserError, match="'dlib' shows no torch network"):
        Features(Blind())


def test_model_doors(tmp_path):
    row, label = rows(64, 14)
    path = train_quality(QualityRecipe(steps=2, batch=32, quality_of="eyes"), row, label, tmp_path)
    image = RNG.integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    model = load_quality(path, lambda name: Eyes())
    float_BCHW = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1
    assert model(image) == pytest.approx(model(float_BCHW), abs=1e-3)
    assert model(image) == pytest.approx(model(Features(Eyes())(image).row_NK), abs=1e-4)
    with pytest.raises(UserError, match="rows of 6 numbers"):
        model(np.zeros((2, 6), np.float32))
    with pytest.raises(UserError, match="expected .N 112 112 3."):
        model(image[:, :50])
    with pytest.raises(UserError, match="load_quality.name, load_embedder."):
        load_quality(path)(image)


def test_bad_input(tmp_path):
    row, label = rows(20)
    with pytest.raises(UserError, match="unknown quality model 'qualty'"):
        load_quality("qualty")
    with pytest.raises(UserError, match="0 of 20 rows have a label"):
        train_quality(QualityRecipe(), row, np.full(20, np.nan), tmp_path)
    with pytest.raises(UserError, match="one label for each"):
        train_quality(QualityRecipe(), row, label[:3], tmp_path)
    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, kind="recogniser", config={})
    with pytest.raises(UserError, match="holds 'recogniser', expected 'quality'"):
        load_quality(tmp_path / "other.safetensors")
    assert QualityNet(4, 2)(torch.full((1, 4), 1e9)).isfinite().all()


def test_rows_of_a_blank_image_are_finite():
    rows = FaceRows(penultimate_NF=np.zeros((1, 3)), raw_ND=np.zeros((1, 2)), sharpness_NS=np.zeros((1, 3)))
    assert np.isfinite(rows.row_NK).all() and np.isfinite(rows.unit_ND).all()
