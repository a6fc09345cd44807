"""The verbs eyeseg train and predict."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from facefoundry.consumers.segmentation.eyeseg import load_eyeseg, save_eyeseg
from facefoundry.consumers.segmentation.network import EyeSegNet
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode_file, decode_labels
from facefoundry.core.training import fresh
from facefoundry.identity.dataset import FaceDataset, verify_dataset
from facefoundry.jobs.cli import main
from facefoundry.jobs.eye_sheet import HEAT_MOST, heat, overlay
from facefoundry.jobs.eyes import EYE_BOXES, SeenEye, columns_of
from facefoundry.jobs.scored import write_columns
from facefoundry.styles_3dmm.eyes import render_eyes
from PIL import Image

WIDTHS, SIZE_PX = (8, 8, 8, 8), (32, 48)


def call(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["facefoundry", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "eyeseg.safetensors"
    save_eyeseg(path, fresh(lambda: EyeSegNet(WIDTHS), 0, "test"), widths=WIDTHS, size_px=SIZE_PX, facts={})
    return path


@pytest.fixture
def eyes(tmp_path):
    """Three pictures of two sizes in two folders, and a text."""
    for number, (folder, size_px) in enumerate((("a", (32, 48)), ("a", (32, 48)), ("b", (40, 40)))):
        (tmp_path / "eyes" / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(render_eyes([number], size_px=size_px).image_BHWC[0]).save(tmp_path / "eyes" / folder / f"{number}.png")
    (tmp_path / "eyes" / "notes.txt").write_text("no picture")
    return tmp_path / "eyes"


def test_train_then_predict(tmp_path, monkeypatch, capsys, eyes):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("size_px: [32, 48]\nwidths: [8, 8, 8, 8]\nrendered: {count: 8}\nloop: {optimiser: adamw, lr: 0.002, batch: 4, steps: 9}\n")
    code, out, err = call(monkeypatch, capsys, "eyeseg", "train", recipe, "--out", tmp_path / "run", "--set", "loop.steps=2", "--json")
    assert code == 0, err
    weights = json.loads(out)["segmenter"]
    code, out, err = call(monkeypatch, capsys, "eyeseg", "predict", eyes, "--model", weights, "--out", tmp_path / "seen", "--json")
    assert code == 0, err
    assert json.loads(out)["eyes"] == 3


def test_files_hold_what_the_segmenter_says(tmp_path, monkeypatch, capsys, eyes, model):
    out_folder = tmp_path / "seen"
    code, out, err = call(monkeypatch, capsys, "eyeseg", "predict", eyes, "--model", model, "--out", out_folder, "--pictures", "2", "--json")
    assert code == 0, err
    report = json.loads(out)
    with open(out_folder / "eyes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["a/0.png", "a/1.png", "b/2.png"] and report["left out"] == 0
    see = load_eyeseg(str(model))
    for row in rows:
        picture = np.asarray(Image.fromarray(decode_file(eyes / row["picture"])).convert("L"))
        mask = decode_labels((out_folder / "masks" / row["picture"]).read_bytes())
        assert mask.shape == picture.shape
        parts = see(picture[None])
        assert (mask == parts.label_BHW[0].numpy()).mean() > 0.99
        assert float(row["uncertainty"]) == pytest.approx(parts.score_B.item(), abs=2e-3)
    assert decode_file(out_folder / "overlay.png").shape == (128, 980, 3)
    assert json.loads((out_folder / "report.json").read_text())["eyes"] == 3


def test_single_file_and_aligned_face(tmp_path, monkeypatch, capsys, eyes, model):
    code, out, _ = call(monkeypatch, capsys, "eyeseg", "predict", eyes / "b" / "2.png", "--model", model, "--out", tmp_path / "one", "--pictures", "0", "--json")
    assert code == 0 and json.loads(out)["eyes"] == 1 and "picture" not in json.loads(out)
    face = np.zeros((112, 112, 3), np.uint8)
    for x, y in EYE_BOXES.values():
        face[round(y) - 3 : round(y) + 3, round(x) - 8 : round(x) + 8] = 200
    Image.fromarray(face).save(tmp_path / "face.png")
    code, out, _ = call(monkeypatch, capsys, "eyeseg", "predict", tmp_path / "face.png", "--faces", "--model", model, "--out", tmp_path / "two", "--json")
    assert code == 0 and json.loads(out)["eyes"] == 2
    assert sorted(path.name for path in (tmp_path / "two" / "masks").iterdir()) == ["face_left.png", "face_right.png"]
    code, _, err = call(monkeypatch, capsys, "eyeseg", "predict", eyes, "--faces", "--model", model, "--out", tmp_path / "none")
    assert code == 2 and "no aligned 112x112 face" in err


def test_a_dataset_gets_columns(tmp_path, monkeypatch, capsys, model):
    rng = np.random.default_rng(0)
    for person in range(2):
        for number in range(2):
            path = tmp_path / "faces" / f"p{person}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (112, 112, 3), np.uint8)).save(path)
    assert call(monkeypatch, capsys, "ingest", tmp_path / "faces", "--out", tmp_path / "set", "--json")[0] == 0
    code, out, err = call(monkeypatch, capsys, "eyeseg", "predict", tmp_path / "set", "--model", model, "--out", tmp_path / "seen", "--json")
    assert code == 0, err
    assert json.loads(out)["eyes"] == 8
    made = tmp_path / "seen" / "dataset"
    assert verify_dataset(made) == []
    scores = [{item["name"]: item["value"] for item in row} for row in FaceDataset.open(made).table.column("scores").to_pylist()]
    with open(tmp_path / "seen" / "eyes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = FaceDataset.open(made).table.column("face_id").to_pylist()
    for name, score in zip(names, scores):
        assert score["eye_uncertainty"] == pytest.approx(np.mean([float(row["uncertainty"]) for row in rows if row["picture"] == name]), abs=1e-4)


def test_columns_weigh_the_eyes():
    nothing = {"grey_HW": None, "label_HW": None, "unsure_HW": None}
    both = [SeenEye(name="f", side=side, uncertainty=unsure, gaze_2=np.array(gaze), **nothing) for side, unsure, gaze in (("left", 0.1, (10.0, 0.0)), ("right", 0.3, (20.0, 0.0)))]
    closed = SeenEye(name="g", side="left", uncertainty=0.5, gaze_2=None, **nothing)
    found = columns_of([*both, closed])
    assert found["eye_uncertainty"] == pytest.approx({"f": 0.2, "g": 0.5})
    assert found["eye_yaw_deg"].keys() == {"f"} and found["eye_yaw_deg"]["f"] == pytest.approx(12.5, abs=0.05)


def test_what_is_no_picture_is_told(tmp_path, monkeypatch, capsys, eyes, model):
    (eyes / "a" / "broken.png").write_bytes(b"not a png")
    code, out, _ = call(monkeypatch, capsys, "eyeseg", "predict", eyes, "--model", model, "--out", tmp_path / "seen", "--json")
    assert code == 0 and json.loads(out)["left out"] == 1
    assert json.loads((tmp_path / "seen" / "report.json").read_text())["left out"][0][0] == "a/broken.png"
    code, _, err = call(monkeypatch, capsys, "eyeseg", "predict", eyes / "notes.txt", "--model", model, "--out", tmp_path / "no")
    assert code == 2 and "Traceback" not in err


def test_picture_parts():
    grey, label = np.full((2, 2), 100, np.uint8), np.array([[0, 1], [2, 3]], np.uint8)
    tinted = overlay(grey, label)
    assert tinted[0, 0].tolist() == [100, 100, 100] and len({tuple(cell) for cell in tinted.reshape(-1, 3).tolist()}) == 4
    warm = heat(np.array([[0.0, HEAT_MOST / 9, HEAT_MOST, 1.0]]))
    assert warm.sum(2)[0].tolist() == sorted(warm.sum(2)[0].tolist()) and (warm[0, 2] == warm[0, 3]).all()


def test_a_taken_column_is_refused(tmp_path, monkeypatch, capsys):
    Image.fromarray(np.zeros((112, 112, 3), np.uint8)).save(_folder(tmp_path / "faces" / "p") / "0.png")
    assert call(monkeypatch, capsys, "ingest", tmp_path / "faces", "--out", tmp_path / "set", "--json")[0] == 0
    name = FaceDataset.open(tmp_path / "set").table.column("face_id")[0].as_py()
    write_columns(tmp_path / "set", tmp_path / "one", {"u": {name: 0.5}, "v": {}}, {})
    with pytest.raises(UserError, match="the score 'u' already"):
        write_columns(tmp_path / "one", tmp_path / "two", {"w": {name: 1.0}, "u": {name: 0.5}}, {})


def _folder(path):
    path.mkdir(parents=True)
    return path
