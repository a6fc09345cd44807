"""The verbs of the tokenizer: train, faces → tokens → faces, columns of a dataset, mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from facefoundry.consumers.tokenizer.autoregressive import sample_faces
from facefoundry.consumers.tokenizer.glotok import GloTokConfig, load_glotok, save_glotok
from facefoundry.core.errors import UserError
from facefoundry.core.files import sha256_file
from facefoundry.core.images import decode, to_float, to_uint8
from facefoundry.core.weights import load_weights
from facefoundry.identity.dataset import FaceDataset, verify_dataset
from facefoundry.identity.ingest import ingest
from facefoundry.jobs.cli import main
from facefoundry.jobs.tokenizer import decode_tokens, encode_faces, read_tokens
from facefoundry.jobs.tokenizer_sample import Drawing, load_run, sample_dataset

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


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """What `tokenizer train` leaves, of two steps."""
    from facefoundry.consumers.tokenizer.train import TokenizerRecipe
    from facefoundry.identity.sources import load_faces
    from facefoundry.jobs.tokenizer import train_on

    out = tmp_path_factory.mktemp("run")
    train_on(TokenizerRecipe.load(RECIPE, [*SMALL, "weights.gan=0", "weights.perceptual=0"]), load_faces(folder / "faces"), out)
    return out


def test_sample_writes_a_dataset(monkeypatch, capsys, run, tmp_path):
    code, out, err = call(monkeypatch, capsys, "tokenizer", "sample", "--weights", run, "--people", 2, "--per", 3, "--seed", 5, "--out", tmp_path / "drawn", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert (made["people"], made["faces"], made["classes of the model"]) == (2, 6, 2) and Image.open(made["picture"]).size == (3 * 116 + 4, 2 * 116 + 4)
    assert verify_dataset(tmp_path / "drawn") == []
    records = list(FaceDataset.open(tmp_path / "drawn").records())
    assert [record.face_id for record in records] == [f"{who:06d}/{image:04d}" for who in range(2) for image in range(3)]
    assert {record.origin for record in records} == {"generated:glotok-tokens"} and [record.source for record in records[::3]] == ["class ann", "class bob"]
    card = (tmp_path / "drawn" / "README.md").read_text()
    assert "not new people" in card and "accidental" not in card


def test_a_drawn_face_is_its_class_and_seed_alone(run, tmp_path):
    """Others beside it change nothing, and each is what the model draws for (class, seed), decoded."""
    sample_dataset(run, tmp_path / "many", people=2, per=4, drawing=Drawing(seed=3))
    few = sample_dataset(run / "glotok.safetensors", tmp_path / "few", people=2, per=2, drawing=Drawing(seed=3))
    assert few["faces"] == 4
    many = {record.face_id: record for record in FaceDataset.open(tmp_path / "many").records()}
    for record in FaceDataset.open(tmp_path / "few").records():
        assert (record.seed, record.image) == (many[record.face_id].seed, many[record.face_id].image)
    assert len({record.image for record in many.values()}) == 8
    trained, one = load_run(run), many["000001/0002"]
    wanted = to_uint8(sample_faces(trained.model, trained.tokenizer, [1], [one.seed]))[0]
    assert np.abs(decode(one.image).astype(int) - wanted).max() <= 1
    sample_dataset(run, tmp_path / "other", people=2, per=2, drawing=Drawing(seed=4))
    assert next(FaceDataset.open(tmp_path / "other").records()).image != many["000000/0000"].image


def test_mistakes_of_sample(monkeypatch, capsys, run, folder, tmp_path):
    code, _, err = call(monkeypatch, capsys, "tokenizer", "sample", "--weights", run, "--people", 3, "--out", tmp_path / "drawn")
    assert code == 2 and "the model knows 2 people" in err and not (tmp_path / "drawn").exists()
    with pytest.raises(UserError, match="has no model over the tokens"):
        load_run(folder)
    shutil.copytree(run / "model", tmp_path / "mixed" / "model")
    shutil.copy(folder / "glotok.safetensors", tmp_path / "mixed")
    with pytest.raises(UserError, match="another tokenizer"):
        load_run(tmp_path / "mixed")
    with pytest.raises(UserError, match="not an empty folder"):
        sample_dataset(run, run, people=1, per=1)
    with pytest.raises(UserError, match="temperature"):
        sample_dataset(run, tmp_path / "cold", people=1, per=1, drawing=Drawing(temperature=0))


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


RECIPE_OVER_TOKENS = """
name: over-glotok
autoencoder: {{weights: {weights}, loop: {{steps: 1}}}}
denoiser:
  network: {{channels: 16, width: 16, multipliers: [1], attention: [true], blocks: 1, head_dim: 8, groups: 4, identity_dim: 128, context_dim: 8, tokens: 4}}
  loop: {{steps: 3, batch: 2, optimiser: adamw, lr: 1.0e-3, log_every: 1}}
"""


def test_glotok_as_first_stage_by_the_verbs_alone(folder, tmp_path):
    """`train generator` over a tokenizer, then a job's preview with both files, in a process that has imported nothing of the tokenizer's."""
    (tmp_path / "recipe.yaml").write_text(RECIPE_OVER_TOKENS.format(weights=folder / "glotok.safetensors"))
    job = Path(__file__).parents[2] / "recipes" / "demo-job.yaml"
    train = ["train", "generator", tmp_path / "recipe.yaml", "--data", folder / "faces", "--out", tmp_path / "run", "--embedder", "mobilefacenet-small"]
    settings = {"denoiser": tmp_path / "run" / "denoiser" / "denoiser.safetensors", "autoencoder": folder / "glotok.safetensors", "sampler.steps": 2}
    preview = ["preview", job, "-n", 2, "--per-identity", 2, "--out", tmp_path / "seen.png", "--set", "judge=mobilefacenet-small", *(word for key, value in settings.items() for word in ("--set", f"generator.{key}={value}"))]
    for words in (train, preview):
        program = f"import sys; sys.argv = ['facefoundry', *{[str(word) for word in words]!r}]; from facefoundry.jobs.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "denoiser" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert load_weights(tmp_path / "run" / "denoiser" / "denoiser.safetensors", kind="denoiser")[2]["autoencoder_sha256"] == sha256_file(folder / "glotok.safetensors")
    assert Image.open(tmp_path / "seen.png").size == (2 * 116 + 4, 116 + 4)
