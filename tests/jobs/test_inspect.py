"""`facefoundry inspect`: every kind of source, the page, and what is said where there is nothing to measure."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_jpeg, encode_png, to_float
from facefoundry.jobs.cli import app
from facefoundry.jobs.inspect_looks import LooksTools
from facefoundry.jobs.inspect_report import inspect_dataset
from facefoundry.jobs.run import run_job
from facefoundry.jobs.spec import load_job
from facefoundry.quality.inspect import InspectSettings
from facefoundry.quality.scan import drawn_rows, fetch, scan
from procedural import BlocksEmbedder, job_file
from typer.testing import CliRunner

QUICK = InspectSettings(threshold=0.5, draws=10, duplicate_bits=2, duplicate_cosine=0.98)  # blocks of colour look more alike than faces


def face(person, shot):
    """A person's pattern of blocks with the shot's noise, uint8 (112, 112, 3)."""
    pattern = np.random.default_rng(person).integers(40, 216, (14, 14, 3)) + np.random.default_rng((person, shot)).integers(-30, 31, (14, 14, 3))
    return np.kron(pattern, np.ones((8, 8, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """5 people × 4 shots; bo's last shot is ada's first again as JPEG; one file is no image."""
    root = tmp_path_factory.mktemp("faces") / "set"
    for person, name in enumerate(("ada", "bo", "cy", "di", "<b>eve")):
        (root / name).mkdir(parents=True)
        for shot in range(4):
            (root / name / f"{shot}.png").write_bytes(encode_png(face(person, shot)))
    (root / "bo" / "3.png").write_bytes(encode_jpeg(face(0, 0), 92))
    (root / "cy" / "broken.png").write_bytes(b"no image")
    return root


class Maps:
    """Two poolings of the image as feature maps."""

    name = "pooling"

    def maps(self, image_BCHW):
        return [torch.nn.functional.avg_pool2d(image_BCHW, side) for side in (8, 16)]


class Pose:
    """Yaw from the first pixel, the rest unknown."""

    names = ("roll_deg", "yaw_deg", "pitch_deg")

    def __call__(self, image_NHWC):
        return np.column_stack([np.zeros(len(image_NHWC)), image_NHWC[:, 0, 0, 0] / 4.0, np.full(len(image_NHWC), np.nan)]).astype(np.float32)


TOOLS = LooksTools(network=Maps(), attributes=Pose(), images=12, per_identity=4)


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("inspection")
    real = scan(folder, BlocksEmbedder()).embed_ND[[2, 9]]
    return inspect_dataset(folder, out, BlocksEmbedder(), QUICK, looks=TOOLS, real_RD=real, reference=folder), out


def test_scan_equals_one_image_at_a_time(folder, monkeypatch):
    monkeypatch.setattr("facefoundry.quality.scan.BATCH", 3)
    read = scan(folder, BlocksEmbedder())
    assert len(read.names) == 20 and read.failed[0][0] == "cy/broken.png"
    row = read.names.index("di/2.png")
    assert read.identities[row] == "di"
    assert read.embed_ND[row] == pytest.approx(BlocksEmbedder()(to_float(face(3, 2)[None]))[0].numpy(), abs=1e-6)
    assert np.array_equal(fetch(folder, ["di/2.png", "ada/0.png", "di/2.png"]), np.stack([face(3, 2), face(0, 0), face(3, 2)]))
    with pytest.raises(UserError):
        fetch(folder, ["di/77.png"])


def test_values(result):
    values, out = result
    assert (values["images"], values["identities"], values["failed"], values["duplicates"]) == (20, 5, 1, 1)
    assert {"auc", "consistency", "unique_greedy", "vendi", "perceptual", "style_dispersion"} <= values["figures"].keys()
    assert values["figures"]["consistency"]["low"] <= values["figures"]["consistency"]["value"] <= values["figures"]["consistency"]["high"]
    assert values["leakage"]["people"] == 2 and values["leakage"]["image_hit"] > 0
    assert values["feature_images"] == 12 and values["attributes"]["yaw_deg"]["known"] == 12 and values["attributes"]["pitch_deg"]["known"] == 0
    against = values["reference"]
    assert against["fid"] == pytest.approx(0, abs=1e-6) and against["recall"] == against["d_intra"] == 1 and against["dispersion_ratio"] == pytest.approx(1)
    written = json.loads((out / "report.json").read_text())
    assert len(written["identities_table"]) == 5 and written["figures"]["auc"] == values["figures"]["auc"]


def test_page_is_one_file_without_network(result):
    page = (result[1] / "report.html").read_text()
    plain = re.sub(r"https?://(www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)", "", page)
    assert "http://" not in plain and "https://" not in plain and "<link" not in page and "src=\"http" not in page
    assert "<script src" not in page and "&lt;b&gt;eve" in page and "<b>eve" not in page
    assert page.count("data:image/jpeg;base64,") > 40 and "width=device-width" in page
    for words in ("Most confusable", "Most diverse", "Duplicates", "bo/3", "DET", "strangers, by chance", "not LPIPS", "Head pose"):
        assert words in page, words
    assert "{{" not in page and not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", page).split("<script>")[0])


@pytest.mark.parametrize("kind", ["zip", "dataset"])
def test_zip_and_dataset_folder(kind, folder, tmp_path):
    if kind == "zip":
        source = shutil.make_archive(str(tmp_path / "set"), "zip", folder)
        expected = (20, 5)
    else:
        job = job_file(tmp_path / "job", filters="[{name: sdd_fiqa, lowest_share: 0.2}]")
        source = run_job(load_job(job), tmp_path / "made", workers=1).folder
        expected = (20, 6)
    values = inspect_dataset(tmp_path / source, tmp_path / "out", BlocksEmbedder(), QUICK, looks=TOOLS)
    assert (values["images"], values["identities"]) == expected
    assert (values["dropped"] or {}).get("reasons") == ({"sdd_fiqa": 4} if kind == "dataset" else None)


@pytest.mark.parametrize(("people", "shots"), [(1, 3), (3, 1), (1, 1)])
def test_little_to_measure(people, shots, tmp_path):
    for person in range(people):
        (tmp_path / "set" / f"p{person}").mkdir(parents=True)
        for shot in range(shots):
            (tmp_path / "set" / f"p{person}" / f"{shot}.png").write_bytes(encode_png(face(person, shot)))
    values = inspect_dataset(tmp_path / "set", tmp_path / "out", BlocksEmbedder(), QUICK, looks=TOOLS)
    assert "auc" not in values["figures"] and "Nothing to compare" in (tmp_path / "out" / "report.html").read_text()


def test_embeddings_that_are_not_finite_are_left_out(folder):
    class Failing(BlocksEmbedder):
        def __call__(self, image_BCHW):
            found = super().__call__(image_BCHW)
            found[0] = float("nan")
            return found

    read = scan(folder, Failing())
    assert len(read.names) == 19 and ("<b>eve/0.png", "its embedding is not finite") in read.failed and np.isfinite(read.embed_ND).all()


def test_drawn_rows_are_whole_identities():
    index = np.repeat(np.arange(10), 5)
    groups = drawn_rows(index, images=12, per_identity=4, seed=3)
    assert [len(group) for group in groups] == [4, 4, 4] and all(len(set(index[group].tolist())) == 1 for group in groups)
    assert [group.tolist() for group in groups] == [group.tolist() for group in drawn_rows(index, images=12, per_identity=4, seed=3)]


def test_command_line(folder, tmp_path):
    def command(*words):
        return CliRunner().invoke(app, ["inspect", *map(str, words)])

    done = command(folder, "--out", tmp_path / "x", "--embedder", "blocks", "--match", 0.5, "--looks", 12, "--no-pose", "--draws", 10, "--json")
    values = json.loads((tmp_path / "x" / "report.json").read_text())
    assert done.exit_code == 0 and values["feature_network"] == "mobilefacenet-small" and (tmp_path / "x" / "report.html").is_file()
    assert command(folder, "--out", tmp_path / "y", "--embedder", "blocks", "--looks", 0, "--draws", 10).exit_code == 0
    assert "does not exist" in str(command(tmp_path / "nowhere", "--out", tmp_path / "z", "--embedder", "blocks").exception)
    assert "--looks 0" in str(command(folder, "--out", tmp_path / "z", "--looks", 0, "--reference", folder).exception)
