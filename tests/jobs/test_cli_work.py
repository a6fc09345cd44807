"""The verbs that read and learn, by the real command line on a handful of faces: ingest, train, score, submit; and their refusals."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import facefoundry
import numpy as np
import pytest
import torch
from facefoundry.core.images import encode_jpeg, encode_png
from facefoundry.jobs.cli import main
from PIL import Image
from safetensors.torch import save_file

PEOPLE, SHOTS = ("ada", "bo", "cy"), 4
FRCSYN = Path(facefoundry.__file__).resolve().parent.parent / "shared" / "data" / "frcsyn"

RECOGNISER = """
backbone: {name: mobilefacenet, embed_dim: 128, width: 0.25, shrink: 2}
head: {name: softmax, scale: 24}
steps: 2
batch: 6
optimiser: adamw
lr: 0.001
"""

GENERATOR = """
name: tiny
autoencoder:
  network: {patch: 14, channels: 4, width: 16, blocks: 1}
  loop: {steps: 2, batch: 4, optimiser: adamw, lr: 1.0e-3}
denoiser:
  network: {channels: 4, width: 16, multipliers: [1, 2], attention: [false, true], blocks: 1, head_dim: 8, groups: 4, identity_dim: 128, context_dim: 16, tokens: 4}
  loop: {steps: 2, batch: 4, optimiser: adamw, lr: 3.0e-4, ema: true}
"""


def face(person: int, shot: int) -> np.ndarray:
    """A person's pattern of blocks with the shot's noise, uint8 (112, 112, 3)."""
    pattern = np.random.default_rng(person).integers(40, 216, (14, 14, 3)) + np.random.default_rng((person, shot)).integers(-30, 31, (14, 14, 3))
    return np.kron(pattern, np.ones((8, 8, 1))).astype(np.uint8)


def write_faces(root: Path) -> Path:
    """3 people × 4 shots as PNG and JPEG."""
    for number, name in enumerate(PEOPLE):
        (root / name).mkdir(parents=True)
        for shot in range(SHOTS):
            image = face(number, shot)
            path = root / name / (f"{shot}.png" if shot % 2 else f"{shot}.jpg")
            path.write_bytes(encode_png(image) if shot % 2 else encode_jpeg(image, 95))
    return root


def pair_list(path: Path) -> Path:
    """All mated pairs and as many others, in two folds; return `path`."""
    files = [[f"{name}/{shot}.{'png' if shot % 2 else 'jpg'}" for shot in range(SHOTS)] for name in PEOPLE]
    mated = [(mine[i], mine[j], 1) for mine in files for i in range(SHOTS) for j in range(i)]
    others = [(files[a][i], files[b][j], 0) for a in range(3) for b in range(a) for i in range(SHOTS) for j in range(i)]
    path.write_text("".join(f"{first} {second} {same} {row % 2}\n" for row, (first, second, same) in enumerate(mated + others)))
    return path


def command(capsys, *words: object) -> tuple[int, str, str]:
    """Run `facefoundry words ...` in this process; return the exit code and what it wrote."""
    argv, sys.argv = sys.argv, ["facefoundry", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = argv
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return ended.value.code or 0, out, err


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "people")


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory, faces) -> Path:
    """A checkpoint with 128 dimensions, trained for two steps by the command line."""
    folder = tmp_path_factory.mktemp("recogniser")
    (folder / "recipe.yaml").write_text(RECOGNISER)
    argv, sys.argv = sys.argv, ["facefoundry", "train", "recogniser", str(folder / "recipe.yaml"), "--data", str(faces), "--out", str(folder / "run")]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = argv
    assert not ended.value.code
    return folder / "run" / "recogniser.safetensors"


def test_ingest_train_and_score(capsys, tmp_path, faces):
    source = tmp_path / "people"
    shutil.copytree(faces, source)
    (source / "ada" / "cut.jpg").write_bytes(encode_jpeg(face(0, 8), 95)[:900])
    Image.fromarray(np.dstack((face(1, 8), np.full((112, 112), 255, np.uint8)))).save(source / "bo" / "alpha.png")
    Image.fromarray(face(2, 8)[:, :, 0]).save(source / "cy" / "grey.png")

    code, out, _ = command(capsys, "ingest", source, "--out", tmp_path / "set", "--json")
    facts = json.loads(out)
    assert code == 0 and (facts["kept"], facts["rejected"], facts["identities"], facts["rejected_unreadable"]) == (14, 1, 3, 1)
    code, out, _ = command(capsys, "verify", tmp_path / "set", "--json")
    assert code == 0 and json.loads(out)["rows"] == 15
    code, _, err = command(capsys, "ingest", source, "--out", tmp_path / "set")
    assert code == 2 and "is there already and not empty" in err

    (tmp_path / "recipe.yaml").write_text(RECOGNISER)
    train = ("train", "recogniser", tmp_path / "recipe.yaml", "--data", tmp_path / "set", "--out", tmp_path / "run")
    code, out, _ = command(capsys, *train)
    checkpoint = tmp_path / "run" / "recogniser.safetensors"
    assert code == 0 and checkpoint.is_file() and f"facefoundry score {checkpoint} --pairs" in out
    before = checkpoint.read_bytes()
    assert command(capsys, *train)[0] == 0 and checkpoint.read_bytes() == before  # a finished run is found finished
    code, _, err = command(capsys, *train, "--set", "lr=0.002")
    assert code == 2 and "lr: 0.001 there, 0.002 now" in err

    pairs = pair_list(tmp_path / "pairs.txt")
    code, out, _ = command(capsys, "score", checkpoint, "--pairs", pairs, "--images", source, "--json")
    figures = json.loads(out)
    assert code == 0 and figures["pairs"] == 36 and figures["embedder"] == "recogniser" and len(figures["accuracy_folds"]) == 2
    assert 0 <= figures["eer"] <= 1 and figures["auc"] > 0.5
    code, out, _ = command(capsys, "score", checkpoint, "--pairs", pairs, "--images", source, "--no-flip")
    assert code == 0 and "accuracy" in out


def test_ingest_refuses_a_zip_that_climbs_out(capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("ada/0.png", encode_png(face(0, 0)))
        archive.writestr("../ada/1.png", encode_png(face(0, 1)))
    code, out, err = command(capsys, "ingest", tmp_path / "evil.zip", "--out", tmp_path / "set")
    assert (code, out) == (2, "") and "unsafe path '../ada/1.png'" in err
    assert not (tmp_path / "set").exists() and not (tmp_path.parent / "ada").exists()


def test_ingest_of_a_source_without_faces(capsys, tmp_path):
    code, _, err = command(capsys, "ingest", tmp_path / "nowhere", "--out", tmp_path / "set")
    assert code == 2 and "does not exist" in err
    (tmp_path / "text" / "ada").mkdir(parents=True)
    (tmp_path / "text" / "ada" / "a.png").write_text("no image")
    code, _, err = command(capsys, "ingest", tmp_path / "text", "--out", tmp_path / "set")
    assert code == 2 and "no face could be kept" in err


def test_train_generator(capsys, tmp_path, faces, recogniser):
    (tmp_path / "recipe.yaml").write_text(GENERATOR)
    train = ("train", "generator", tmp_path / "recipe.yaml", "--data", faces, "--out", tmp_path / "run", "--embedder", recogniser)
    code, out, _ = command(capsys, *train)
    made = [tmp_path / "run" / part / f"{part}.safetensors" for part in ("autoencoder", "denoiser")]
    assert code == 0 and all(path.is_file() for path in made) and str(made[1]) in out
    before = [path.read_bytes() for path in made]
    assert command(capsys, *train)[0] == 0 and [path.read_bytes() for path in made] == before
    for change in ("denoiser.loop.lr=1.0e-4", "autoencoder.loop.lr=1.0e-4", "autoencoder.network.blocks=2"):  # another training's folder
        code, _, err = command(capsys, *train, "--set", change)
        assert code == 2 and "another recipe or other data" in err, change
    assert [path.read_bytes() for path in made] == before


def test_train_generator_with_an_embedder_of_another_size(capsys, tmp_path, faces, recogniser):
    (tmp_path / "recipe.yaml").write_text(GENERATOR)
    words = ("train", "generator", tmp_path / "recipe.yaml", "--data", faces, "--out", tmp_path / "run", "--embedder", recogniser)
    code, _, err = command(capsys, *words, "--set", "denoiser.network.identity_dim=512")
    assert code == 2 and "128" in err and "identity_dim" in err and not (tmp_path / "run").exists()
    code, _, err = command(capsys, *words[:-1], "dilb")
    assert code == 2 and "did you mean 'dlib'" in err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("autoencoder.network.patch=9", "divides 112"),
        ("denoiser.network.channels=5", "makes 4 latent channels, the denoiser takes 5"),
        ("denoiser.network.attention=[true]", "2 multipliers and 1 attention entries"),
        ("denoiser.network={channels: 4, width: 16, multipliers: [1, 1, 1, 1, 1], attention: [false, false, false, false, true]}", "8x8, which 5 levels cannot halve 4 times"),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_training(capsys, tmp_path, faces, recogniser, change, said):
    (tmp_path / "recipe.yaml").write_text(GENERATOR)
    words = ("train", "generator", tmp_path / "recipe.yaml", "--data", faces, "--out", tmp_path / "run", "--embedder", recogniser)
    code, _, err = command(capsys, *words, "--set", change)
    assert code == 2 and said in err and not (tmp_path / "run").exists()


def test_train_into_a_file_and_with_batches_of_one(capsys, tmp_path, faces):
    (tmp_path / "recipe.yaml").write_text(RECOGNISER)
    train = ("train", "recogniser", tmp_path / "recipe.yaml", "--data", faces, "--out")
    code, _, err = command(capsys, *train, tmp_path / "recipe.yaml")
    assert code == 2 and "cannot write to the folder" in err and (tmp_path / "recipe.yaml").read_text() == RECOGNISER
    code, _, err = command(capsys, *train, tmp_path / "run", "--set", "batch=1")
    assert code == 2 and "'batch' is 1" in err


@pytest.mark.parametrize("header", ['{"kind": "recogniser"}', "{bad", "3"])
def test_score_refuses_a_checkpoint_with_a_damaged_header(capsys, tmp_path, faces, header):
    save_file({"w": torch.zeros(2)}, str(tmp_path / "model.safetensors"), metadata={"facefoundry": header})
    code, _, err = command(capsys, "score", tmp_path / "model.safetensors", "--pairs", pair_list(tmp_path / "pairs.txt"), "--images", faces)
    assert code == 2 and "header" in err


@pytest.mark.parametrize("text", ["steps: 2\nbatch: 0\n", "stepz: 2\n", "steps: [\n", "- 1\n"])
def test_a_recipe_with_a_mistake(capsys, tmp_path, faces, text):
    (tmp_path / "recipe.yaml").write_text(text)
    code, out, err = command(capsys, "train", "recogniser", tmp_path / "recipe.yaml", "--data", faces, "--out", tmp_path / "run")
    assert (code, out) == (2, "") and "recipe.yaml" in err and not (tmp_path / "run").exists()


def test_a_set_that_is_no_yaml(capsys, tmp_path, faces):
    (tmp_path / "recipe.yaml").write_text(RECOGNISER)
    code, _, err = command(capsys, "train", "recogniser", tmp_path / "recipe.yaml", "--data", faces, "--out", tmp_path / "run", "--set", "lr=[")
    assert code == 2 and "lr=[" in err


@pytest.mark.parametrize("save", ["torch", "torch-legacy", "pickle"])
def test_score_refuses_a_pickle(capsys, tmp_path, faces, save):
    class Payload:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    path = tmp_path / "model.pt"
    if save == "pickle":
        path.write_bytes(pickle.dumps(Payload()))
    else:
        torch.save({"weight": torch.zeros(2), "payload": Payload()}, path, _use_new_zipfile_serialization=save == "torch")
    code, out, err = command(capsys, "score", path, "--pairs", pair_list(tmp_path / "pairs.txt"), "--images", faces)
    assert (code, out) == (2, "") and "is a pickle (torch.save) file" in err and "safetensors" in err


def test_score_with_a_missing_image_and_a_broken_list(capsys, tmp_path, faces, recogniser):
    pairs = pair_list(tmp_path / "pairs.txt")
    with open(pairs, "a") as file:
        file.write("ada/0.jpg dee/0.jpg 0 0\n")
    code, _, err = command(capsys, "score", recogniser, "--pairs", pairs, "--images", faces)
    assert code == 2 and "lacks 1 of" in err and "dee/0.jpg" in err
    pairs.write_text("ada/0.jpg ada/1.png yes 0\n")
    code, _, err = command(capsys, "score", recogniser, "--pairs", pairs, "--images", faces)
    assert code == 2 and "line 1" in err
    pairs.write_text("ada/0.jpg ada/1.png 1 0\nada/1.png ada/2.jpg 1 1\n")  # no non-mated pair: no rate can be computed
    assert command(capsys, "score", recogniser, "--pairs", pairs, "--images", faces)[0] == 2
    pairs.write_text("ada/0.jpg ada/1.png 1 0\nada/1.png bo/0.jpg 0 0\n")  # one fold: nothing to choose a threshold on
    assert command(capsys, "score", recogniser, "--pairs", pairs, "--images", faces)[0] == 2


@pytest.mark.skipif(not FRCSYN.is_dir(), reason="the organisers' files are not in ../shared/data/frcsyn")
def test_submit_frcsyn_on_the_organisers_example(capsys):
    words = (FRCSYN / "submission_example_1st_edition.zip", "--lists", FRCSYN / "comparison_files_1st_edition.zip", "--json")
    code, out, _ = command(capsys, "submit", "frcsyn", "check", *words)
    assert code == 0 and json.loads(out)["ok"]
    code, out, _ = command(capsys, "submit", "frcsyn", "score", *words)
    assert code == 0 and len(json.loads(out)) == 4


def test_run_into_another_jobs_folder(capsys, tmp_path):
    from procedural import job_file

    job = job_file(tmp_path)
    words = ("run", job, "--out", tmp_path / "out", "--workers", 1)
    assert command(capsys, *words)[0] == 0
    code, _, err = command(capsys, *words, "--set", "seed=4")
    assert code == 2 and str(tmp_path / "out") in err.replace("\n", "")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    code, _, err = command(capsys, "run", job, "--out", tmp_path / "foreign", "--workers", 1)
    assert code == 2 and (tmp_path / "foreign" / "notes.txt").read_text() == "mine"
