"""The verbs: scores as CSV, column and picture; training and judging from named sources; mistakes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from facefoundry.consumers.aigi.artifact import ArtifactConfig
from facefoundry.consumers.aigi.detector import Detector, DetectorConfig, save_detector
from facefoundry.consumers.aigi.reader import ReaderConfig
from facefoundry.consumers.aigi.semantic import SemanticConfig
from facefoundry.consumers.aigi.tranx import TranXConfig
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode_file, encode_png
from facefoundry.identity.dataset import FaceDataset, verify_dataset
from facefoundry.identity.ingest import ingest
from facefoundry.jobs.aigi import detect_faces, heat_sheet, overlay
from facefoundry.jobs.cli import app
from typer.testing import CliRunner

TINY = DetectorConfig(
    artifact=ArtifactConfig(widths=(8, 8), grid=4), semantic=SemanticConfig(name="patches", patch=28, width=8, layers=1, heads=2),
    tranx=TranXConfig(inner=8, heads=2, layers=1), reader=ReaderConfig(dim=8, layers=1, heads=2),
)  # fmt: skip


@pytest.fixture
def faces(tmp_path):
    rng = np.random.default_rng(0)
    for person in ("ann", "b,ob"):
        for number in range(3):
            path = tmp_path / "faces" / person / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)))
    return tmp_path / "faces"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    save_detector(tmp_path / "model.safetensors", Detector(TINY), facts={"real": {"r": 1}, "fake": {"f": 1}})
    return str(tmp_path / "model.safetensors")


def test_detect_writes_scores_picture_and_report(faces, model, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["aigi", "detect", str(faces), "--out", str(out), "--model", model, "--pictures", "4", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [row["identity"] for row in rows] == ["ann"] * 3 + ["b,ob"] * 3 and report["images"] == 6
    score = np.array([float(row["aigi_fake"]) for row in rows])
    assert ((score > 0) & (score < 1)).all() and report["called fake"] == (score >= 0.5).sum()
    assert decode_file(out / "heat.png").shape == (1 * 116 + 4, 8 * 116 + 4, 3)
    assert json.loads((out / "report.json").read_text())["trained on"] == {"real": {"r": 1}, "fake": {"f": 1}}
    assert "dataset" not in report  # a folder has no columns


def test_score_is_written_back_as_a_column(faces, model, tmp_path):
    ingest(faces, tmp_path / "set")
    report = detect_faces(tmp_path / "set", model, tmp_path / "out", column="aigi_fake", threshold=0.5, pictures=0)
    scored = tmp_path / "out" / "dataset"
    assert report["dataset"] == str(scored) and verify_dataset(scored) == []
    by_path = {row["path"]: float(row["aigi_fake"]) for row in csv.DictReader((tmp_path / "out" / "scores.csv").open())}
    records = list(FaceDataset.open(scored).records())
    assert {record.face_id for record in records} == set(by_path)
    for record in records:
        assert record.scores["aigi_fake"] == pytest.approx(by_path[record.face_id], abs=1e-5)
    assert [record.image for record in records] == [record.image for record in FaceDataset.open(tmp_path / "set").records()]
    with pytest.raises(UserError, match="choose another --column"):
        detect_faces(scored, model, tmp_path / "again", column="aigi_fake", threshold=0.5, pictures=0)
    second = detect_faces(scored, model, tmp_path / "third", column="other", threshold=0.5, pictures=0)
    assert {"aigi_fake", "other"} == set(next(FaceDataset.open(second["dataset"]).records()).scores)


def test_train_and_evaluate_from_named_sources(faces, tmp_path):
    rng = np.random.default_rng(1)
    for number in range(6):
        path = tmp_path / "mint" / f"p{number}" / "0.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode_png(rng.integers(100, 140, (112, 112, 3), dtype=np.uint8)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"detector": TINY.model_dump(mode="json"), "expert": {"steps": 2, "batch": 4}, "adapter": {"steps": 2, "batch": 4}}))
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["aigi", "train", str(recipe), "--real", f"album={faces}", "--fake", str(tmp_path / "mint"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["aigi", "evaluate", "--real", f"album={faces}", "--fake", str(tmp_path / "mint"), "--model", str(out / "aigi.safetensors"), "--json"])
    found = json.loads(done.stdout)
    assert found["metadata_accuracy"] == 0.5
    assert set(found["conditions"]["as they are"]["sources"]) == {"album", "mint"} and "JPEG 50" in found["conditions"]


def test_mistakes(faces, tmp_path, model):
    done = CliRunner().invoke(app, ["aigi", "evaluate", "--real", "=x", "--fake", str(faces), "--model", model])
    assert isinstance(done.exception, UserError) and "NAME=FOLDER" in str(done.exception)
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="pickle"):
        detect_faces(faces, str(wrong), tmp_path / "x", column="c", threshold=0.5, pictures=0)


def test_heat_is_where_it_is_hot():
    grey = np.full((112, 112, 3), 128, np.uint8)
    heat = np.zeros((14, 14))
    heat[2, 10] = 1.0
    shown = overlay(grey, heat).astype(int)
    redness = shown[..., 0] - shown[..., 2]
    row, column = np.unravel_index(redness.argmax(), redness.shape)
    assert row // 8 == 2 and column // 8 == 10 and redness.min() < 0
    assert heat_sheet(np.stack([grey] * 5), np.stack([heat] * 5), np.ones(5)).shape == (2 * 116 + 4, 8 * 116 + 4, 3)
