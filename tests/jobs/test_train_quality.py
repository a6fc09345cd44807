"""`facefoundry train quality`: from a folder of faces to a score of single images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import facefoundry
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from facefoundry.core.files import bundled
from facefoundry.identity.sources import Faces
from facefoundry.jobs.cli_train import train_app
from facefoundry.jobs.quality import first_images
from facefoundry.quality.degrade import DAMAGES
from facefoundry.quality.model import load_quality
from facefoundry.recognition.embedder import load_embedder

FACES = Path(facefoundry.__file__).resolve().parent.parent / "shared" / "data" / "faces" / "lfw_folds7_8.zip"


@pytest.fixture
def faces(tmp_path):
    rng = np.random.default_rng(0)
    for person in range(5):
        base = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for shot in range(1 if person == 4 else 3):  # the last has one image: no label
            Image.fromarray(np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)).save(folder / f"{shot}.png")
    return tmp_path / "faces"


def test_train_quality(faces, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("quality_of: mobilefacenet-small\nsteps: 4\nbatch: 8\n")
    done = CliRunner().invoke(train_app, ["quality", str(recipe), "--data", str(faces), "--out", str(tmp_path / "run"), "--set", "hidden=8"])
    assert done.exit_code == 0, done.output
    model = load_quality(tmp_path / "run" / "quality.safetensors", load_embedder)
    assert model.quality_of == "mobilefacenet-small" and model.facts["faces"] == 12 and model.facts["labelled_rows"] == 24
    score = model(np.asarray(Image.open(faces / "p4" / "0.png"))[None])
    assert score.shape == (1,) and 0 < score[0] < 100


def test_first_images_of_each_person():
    person = np.array([2, 0, 0, 2, 2, 1, 0])
    image = np.arange(7, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    faces = Faces(image_NHWC=image, identity_N=person, names=("a", "b", "c"), paths=tuple("abcdefg"))
    kept, who = first_images(faces, 2, least=2)
    assert kept[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and who.tolist() == [2, 0, 0, 2]
    assert len(first_images(faces, 9)[0]) == 7


def test_the_bundled_score_prefers_faces_to_their_damaged_copies():
    model, face_NHWC = load_quality("quality-small", load_embedder), real_faces(8)
    whole_N = model(face_NHWC)
    assert bundled("quality-small.safetensors").stat().st_size < 150_000
    assert whole_N.mean() > 50
    for kind in DAMAGES:
        damaged = np.stack([DAMAGES[kind](face, 0.5, np.random.default_rng(row)) for row, face in enumerate(face_NHWC)])
        assert (model(damaged) < whole_N).mean() >= 0.75, kind


def real_faces(count):
    if not FACES.is_file():
        pytest.skip(f"needs {FACES} (real faces are not in the repository)")
    with zipfile.ZipFile(FACES) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:count]
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names])
