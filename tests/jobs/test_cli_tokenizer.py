"""The verbs of the tokenizer: train, faces → tokens → faces, columns of a dataset, mistakes."""

import json
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from facefoundry.consumers.tokenizer.glotok import GloTokConfig, load_glotok, save_glotok
from facefoundry.core.errors import UserError
from facefoundry.core.images import to_float, to_uint8
from facefoundry.core.weights import load_weights
from facefoundry.identity.dataset import FaceDataset, verify_dataset
from facefoundry.identity.ingest import ingest
from facefoundry.jobs.cli import main
from facefoundry.jobs.tokenizer import decode_tokens, encode_faces, read_tokens

RECIPE = Path(__file__).parents[2] / "recipes" / "glotok-small.yaml"
SMALL = ("tokenizer.fold=8", "tokenizer.widths=[16, 16]", "tokenizer.groups=4", "tokenizer.semantic=12", "tokenizer.visual=20", "weights.histogram_rows=8", "loop.batch=2", "loop.steps=2", "model.loop.batch=2", "model.loop.steps=1", "model.network.width=32", "model.network.layers=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Faces of two people, and a tokenizer."""
    root = tmp_path_factory.mktemp("tokenizer")
    rng = np.random.default_rng(0)
    for who in ("ann", "bob"):
        (root / "faces" / who).mkdir(parents=True)
        for number in range(3):
            small = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
            Image.fromarray(small).resize((112, 112)).save(root / "faces" / who / f"{number}.png")
    save_glotok(root / "glotok.safetensors", GloTokConfig.tiny(), facts={})
    return root


def call(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["facefoundry", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, *capsys.readouterr()


def test_train(monkeypatch, capsys, folder, tmp_path):
    settings = [word for value in SMALL for word in ("--set", value)]
    code, out, err = call(monkeypatch, capsys, "tokenizer", "train", RECIPE, "--data", folder / "faces", "--out", tmp_path / "run", *settings)
    assert code == 0, err
    assert "facefoundry tokenizer encode" in out
    assert load_glotok(tmp_path / "run" / "glotok.safetensors")[1]["steps"] == 2
    assert load_weights(tmp_path / "run" / "model" / "tokens.safetensors", kind="token-model")[2]["classes"] == ["ann", "bob"]


def test_faces_to_tokens_and_back(monkeypatch, capsys, folder, tmp_path):
    weights = folder / "glotok.safetensors"
    code, out, err = call(monkeypatch, capsys, "tokenizer", "encode", folder / "faces", "--weights", weights, "--out", tmp_path / "tokens", "--rows", 4, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["images"] == 6 and report["psnr_db"] > 0 and report["features"] == "mobilefacenet-small" and 0 < report["usage"]["visual"]["perplexity"] <= 20
    assert "dataset" not in report and json.loads((tmp_path / "tokens" / "report.json").read_text())["rfid"] == pytest.approx(report["rfid"])
    with np.load(tmp_path / "tokens" / "tokens.npz") as held:
        assert held["token_sem"].shape == (6, 7, 7) and held["token_sem"].dtype == np.uint16 and held["path"].tolist()[0] == "ann/0.png"
    assert Image.open(tmp_path / "tokens" / "strip.png").size == (4 * 116 + 4, 2 * 116 + 4)
    code, out, _ = call(monkeypatch, capsys, "tokenizer", "decode", tmp_path / "tokens", "--weights", weights, "--out", tmp_path / "back", "--json")
    assert code == 0 and json.loads(out)["faces"] == 6
    tokenizer, _ = load_glotok(weights)
    face = np.asarray(Image.open(folder / "faces" / "bob" / "1.png"))[None]
    with torch.no_grad():
        wanted = to_uint8(tokenizer.decode(tokenizer.encode(to_float(face))))[0]
    assert np.abs(np.asarray(Image.open(tmp_path / "back" / "bob" / "1.png")).astype(int) - wanted).max() <= 1


def test_columns_of_a_dataset(folder, tmp_path):
    ingest(folder / "faces", tmp_path / "set")
    report = encode_faces(tmp_path / "set", str(folder / "glotok.safetensors"), tmp_path / "tokens")
    made = Path(report["dataset"])
    assert verify_dataset(made) == []
    assert len(FaceDataset.open(made)) == 6 and len(list(FaceDataset.open(made).records())) == 6  # our readers go on
    rows = datasets.load_dataset(str(made), split="train", cache_dir=str(tmp_path / "cache"))
    assert np.shape(rows[0]["token_sem"]) == (7, 7) and rows.features["token_vis"].feature.feature.dtype == "uint16"
    by_npz, by_column = read_tokens(tmp_path / "tokens"), read_tokens(made)
    assert by_npz.tokenizer == by_column.tokenizer == report["tokenizer_sha256"]
    assert list(by_npz.names) == list(by_column.names) and np.array_equal(by_npz.token_N2HW, by_column.token_N2HW)
    assert decode_tokens(made, str(folder / "glotok.safetensors"), tmp_path / "back")["faces"] == 6
    with pytest.raises(UserError, match="has the column token_sem already"):
        encode_faces(made, str(folder / "glotok.safetensors"), tmp_path / "again")
    with pytest.raises(UserError, match="a dataset without the column token_sem"):
        read_tokens(tmp_path / "set")


def test_mistakes(folder, tmp_path):
    weights = str(folder / "glotok.safetensors")
    encode_faces(folder / "faces", weights, tmp_path / "tokens")
    with pytest.raises(UserError, match="not an empty folder"):
        encode_faces(folder / "faces", weights, tmp_path / "tokens")
    other = GloTokConfig.tiny()
    with torch.no_grad():
        other.decoder.conv_out.bias += 1
    save_glotok(tmp_path / "other.safetensors", other, facts={})
    with pytest.raises(UserError, match="made by another tokenizer"):
        decode_tokens(tmp_path / "tokens", str(tmp_path / "other.safetensors"), tmp_path / "back")
    for place in (tmp_path / "none.npz", folder / "faces" / "ann" / "0.png"):
        with pytest.raises(UserError, match="holds no tokens that can be read"):
            decode_tokens(place, weights, tmp_path / "back")
    with np.load(tmp_path / "tokens" / "tokens.npz") as held:
        arrays = dict(held)
    np.savez(tmp_path / "out.npz", **{**arrays, "path": np.array(["../../evil.png", *arrays["path"][1:]])})
    with pytest.raises(UserError, match="leads out of the output folder"):
        decode_tokens(tmp_path / "out.npz", weights, tmp_path / "back")
    assert not (tmp_path.parent / "evil.png").exists()


def test_a_denoiser_over_the_tokenizer(folder, tmp_path):
    """`autoencoder.weights` trains UIFace's denoiser on its latents; the generator then draws through it."""
    from facefoundry.generators.train import GeneratorRecipe, train_generator
    from facefoundry.generators.uiface import UIFaceConfig, UIFaceSampler
    from facefoundry.identity.sources import load_faces
    from facefoundry.jobs.steps import build_generator

    network = {"channels": 16, "width": 16, "multipliers": [1], "attention": [True], "blocks": 1, "head_dim": 8, "groups": 4, "identity_dim": 8, "context_dim": 8, "tokens": 4}
    loop = {"steps": 1, "batch": 2, "optimiser": "adamw", "lr": 1e-3}
    values = {"name": "x", "autoencoder": {"weights": str(folder / "glotok.safetensors"), "loop": loop}, "denoiser": {"network": network, "loop": loop}}
    embed_ND = np.eye(8, dtype=np.float32)[:6]
    paths = train_generator(GeneratorRecipe.parse(values), load_faces(folder / "faces").image_NHWC, embed_ND, tmp_path / "run")
    assert paths["autoencoder"] == folder / "glotok.safetensors"
    config = UIFaceConfig(denoiser=str(paths["denoiser"]), autoencoder=str(paths["autoencoder"]), sampler=UIFaceSampler(steps=2), precision="fp32")
    assert build_generator(config, torch.device("cpu")).generate(embed_ND[:2], [1, 2]).image_BCHW.shape == (2, 3, 112, 112)
    network["channels"] = 4
    with pytest.raises(UserError, match=r"set denoiser\.network\.channels to 16"):
        train_generator(GeneratorRecipe.parse(values), load_faces(folder / "faces").image_NHWC, embed_ND, tmp_path / "other")
