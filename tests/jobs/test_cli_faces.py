"""The verbs normalise and attack, and the training verbs behind them."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from facefoundry.core.images import decode_file
from facefoundry.jobs.cli import main
from facefoundry.recognition.backbones import BackboneConfig
from facefoundry.recognition.checkpoint import save_network
from facefoundry.recognition.fan import Fan, save_fan


def call(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["facefoundry", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


@pytest.fixture
def people(tmp_path):
    """Three people with four faces of 112 px each."""
    rng = np.random.default_rng(0)
    for person in range(3):
        (tmp_path / "people" / f"p{person}").mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize((112, 112)).save(tmp_path / "people" / f"p{person}" / f"{number}.png")
    return tmp_path / "people"


@pytest.fixture
def fan(tmp_path):
    torch.manual_seed(0)
    save_fan(tmp_path / "fan.safetensors", Fan.tiny(), facts={})
    return tmp_path / "fan.safetensors"


@pytest.fixture
def recogniser(tmp_path):
    config = BackboneConfig(embed_dim=16, width=0.125, shrink=2)
    torch.manual_seed(0)
    save_network(tmp_path / "r.safetensors", config.build(), config, facts={})
    return tmp_path / "r.safetensors"


def test_normalise_small_crops(monkeypatch, capsys, tmp_path, fan):
    small = tmp_path / "small"
    (small / "cam.1").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (20, 20)), ("b.v2.png", (112, 112)), ("wide.png", (30, 20)), ("big.png", (300, 300))):
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(small / "cam.1" / name)
    (small / "cam.1" / "broken.png").write_bytes(b"no image")
    code, out, err = call(monkeypatch, capsys, "normalise", small, "--weights", fan, "--out", tmp_path / "out", "--rows", 2, "--json")
    assert code == 0 and json.loads(out)["faces"] == 3 and json.loads(out)["left out"] == 2
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["cam.1/a.png", "cam.1/b.v2.png", "cam.1/big.png", "strip.png"]
    assert decode_file(tmp_path / "out" / "cam.1" / "a.png").shape == (112, 112, 3)
    assert decode_file(tmp_path / "out" / "strip.png").shape == (2 * 116 + 4, 3 * 116 + 4, 3)


def test_the_strip_shows_input_bicubic_normalised(monkeypatch, capsys, tmp_path, fan, people):
    code, out, _ = call(monkeypatch, capsys, "normalise", people, "--weights", fan, "--out", tmp_path / "out", "--shrink", 14)
    assert code == 0 and "strip.png" in out
    strip = decode_file(tmp_path / "out" / "strip.png")
    pixels, bicubic, normal = (strip[4:116, 4 + 116 * column : 116 + 116 * column] for column in range(3))
    assert np.array_equal(pixels[:8, :8], np.broadcast_to(pixels[0, 0], (8, 8, 3)))  # one of 14 pixels, eightfold
    assert not np.array_equal(bicubic, pixels)
    assert np.array_equal(normal, decode_file(tmp_path / "out" / "p0" / "0.png"))


def test_normalise_mistakes(monkeypatch, capsys, tmp_path, fan, people, recogniser):
    assert "holds 'recogniser', expected 'fan'" in call(monkeypatch, capsys, "normalise", people, "--weights", recogniser, "--out", tmp_path / "x")[2]
    assert "choose a new one" in call(monkeypatch, capsys, "normalise", people, "--weights", fan, "--out", people)[2]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("text")
    assert call(monkeypatch, capsys, "normalise", tmp_path / "none", "--weights", fan, "--out", tmp_path / "y")[0] == 2
    one = tmp_path / "one.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(one)
    assert call(monkeypatch, capsys, "normalise", one, "--weights", fan, "--out", tmp_path / "z")[0] == 0 and (tmp_path / "z" / "one.png").is_file()


def test_attack_prints_a_row_for_each_strength(monkeypatch, capsys, tmp_path, people, recogniser):
    pytest.importorskip("torchattacks")
    pairs = tmp_path / "pairs.txt"
    rows = [f"p{i}/0.png p{j}/{1 + fold}.png {int(i == j)} {fold}" for fold in (0, 1) for i in range(2) for j in range(2)]
    pairs.write_text("\n".join(rows) + "\n")
    words = ("attack", "--data", people, "--weights", recogniser, "--strengths", "8,0", "--steps", 1, "--probes", 4, "--pairs", pairs)
    code, out, _ = call(monkeypatch, capsys, *words, "--json")
    found = json.loads(out)
    assert code == 0 and [row["strength"] for row in found["rows"]] == [0, 8] and (found["probes"], found["pairs"], found["attack"]) == (4, 4, "pgd")
    assert all(0 <= row[name] <= 1 for row in found["rows"] for name in ("identification", "verification"))
    assert "fusing weight of clean faces" not in found
    code, out, _ = call(monkeypatch, capsys, *words)
    assert code == 0 and "strength 8" in out and "identification" in out and "%" in out


def test_attack_mistakes(monkeypatch, capsys, people, recogniser, tmp_path):
    for words, message in (
        (("--strengths", "0,a"), "expected numbers with commas"), (("--strengths", "-1"), "from 0 to 255"), (("--attack", "pgdd"), "did you mean 'pgd'"),
        (("--weights", "dlib"), "passes no gradients"), (("--attack", "apgd", "--pairs", tmp_path / "p.txt"), "cannot attack pairs"),
    ):  # fmt: skip
        code, _, err = call(monkeypatch, capsys, "attack", "--data", people, "--weights", recogniser, *words)
        assert code == 2 and message in err, words


def test_recipes_train_from_the_command_line(monkeypatch, capsys, tmp_path, people, recogniser):
    loop = "{steps: 1, batch: 4, optimiser: adamw}"
    (tmp_path / "afa.yaml").write_text(f"init: {recogniser}\nattack: {{steps: 1}}\ndual: {{hidden: 4}}\nbase: {loop}\nfuse: {loop}\n")
    code, out, _ = call(monkeypatch, capsys, "train", "afa", tmp_path / "afa.yaml", "--data", people, "--out", tmp_path / "afa")
    assert code == 0 and "facefoundry attack --weights" in out
    (tmp_path / "fan.yaml").write_text(f"encoder: {recogniser}\nscales: {{least: 0.1}}\nnetworks: {{width: 0.1, critic: 2}}\ndisentangle: {loop}\nadapt: {{steps: 1, batch: 4, unpaired_rows: 1}}\n")
    code, out, _ = call(monkeypatch, capsys, "train", "fan", tmp_path / "fan.yaml", "--data", people, "--out", tmp_path / "fan", "--set", "adapt.batch=5")
    assert code == 0 and "facefoundry normalise" in out and (tmp_path / "fan" / "fan.safetensors").is_file()
    (tmp_path / "bad.yaml").write_text("scales: {}\nencodr: x\n")
    code, _, err = call(monkeypatch, capsys, "train", "fan", tmp_path / "bad.yaml", "--data", people, "--out", tmp_path / "bad")
    assert code == 2 and "line 2: unknown key 'encodr'; did you mean 'encoder'" in err
