"""The measuring and submitting verbs by the real command line, on a handful of made-up faces."""

from __future__ import annotations

import json
import lzma
import re
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import facefoundry
import numpy as np
import pytest
from facefoundry.challenge.bin_file import write_bin
from facefoundry.core.images import encode_png
from facefoundry.jobs.cli import main

RACES = ("African", "Asian", "Caucasian", "Indian")
FRCSYN = Path(facefoundry.__file__).resolve().parent.parent / "shared" / "data" / "frcsyn"
NET = "mobilefacenet-small"


def face(person: int, shot: int, side: int = 112) -> np.ndarray:
    colours = np.random.default_rng(person).integers(40, 216, (8, 8, 3)) + np.random.default_rng((person, shot)).integers(-30, 31, (8, 8, 3))
    return np.kron(colours, np.ones((side // 8, side // 8, 1))).astype(np.uint8)


def put(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image))


@pytest.fixture
def command(capsys, monkeypatch):
    """`facefoundry words ...` in this process: (exit code, output, errors)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["facefoundry", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def people(tmp_path) -> tuple[Path, Path]:
    """8 people x 3 images, and all their mated pairs and as many others in two folds."""
    lines = []
    for person in range(8):
        for shot in range(3):
            put(tmp_path / "faces" / f"P{person}" / f"{shot}.png", face(person, shot))
            lines.append(f"P{person}/{shot}.png P{person}/{(shot + 1) % 3}.png 1 {person % 2}")
            lines.append(f"P{person}/{shot}.png P{(person + 1) % 8}/{shot}.png 0 {person % 2}")
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "faces", tmp_path / "pairs.txt"


@pytest.fixture
def entry(tmp_path, people):
    """The words of `submit frcsyn write` for a tiny BUPT list; `images` may be damaged before."""
    lines = []
    for number, race in enumerate(RACES):
        for subject in range(2):
            for shot in range(3):
                put(tmp_path / "images" / "bupt" / race / f"m.{subject}" / f"{shot}.png", face(20 + 2 * number + subject, shot))
        lines += [f"{race}/m.0/0.png;{race}/m.{other}/{shot}.png" for other in (0, 1) for shot in (1, 2)]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "bupt_comparison.txt").write_text("".join(f"{line}\r\n" for line in lines))
    return ("submit", "frcsyn", "write", NET, "--baseline", NET, "--lists", tmp_path / "lists", "--images", tmp_path / "images", "--calibration", people[0], "--out", tmp_path / "entry.zip", "--no-official", "--edition", 2)


def test_score_with_a_report(command, people, tmp_path):
    faces, pairs = people
    (tmp_path / "groups.csv").write_text("person,group\n" + "".join(f"P{k},{'even' if k % 2 == 0 else 'odd'}\n" for k in range(8)))
    code, out, _ = command("score", NET, "--pairs", pairs, "--images", faces, "--out", tmp_path / "result", "--groups", tmp_path / "groups.csv", "--json")
    assert code == 0 and json.loads(out)["report"].endswith("result.html") and "val_at_far_0.001" in json.loads(out)
    values = json.loads((tmp_path / "result" / "result.json").read_text())
    page = (tmp_path / "result" / "result.html").read_text()
    assert {path.name for path in (tmp_path / "result").iterdir()} == {"result.html", "result.json", "result.csv", "result.tex", "scores.csv"}
    assert [row["group"] for row in values["groups"]] == ["across groups", "even", "odd"] and values["trials"]["people"] == 8
    assert page.count("data:image/jpeg;base64,") == 48 and "<svg" in page and not re.search(r"(src|href|url)\W{1,2}https?:", page)
    assert (tmp_path / "result" / "scores.csv").read_text().count("\n") == 49


def test_score_a_bin(command, people, tmp_path):
    write_bin(tmp_path / "set.bin", [encode_png(face(k // 4 if same else k // 2, k)) for k, same in zip(range(80), np.repeat([True, True, False, False], 20))], [True, False] * 20)
    code, out, _ = command("score", NET, "--pairs", tmp_path / "set.bin", "--out", tmp_path / "result", "--json")
    assert code == 0 and json.loads(out)["pairs"] == 40 and (tmp_path / "result" / "result.html").is_file()
    code, out, _ = command("benchmark", "bins", NET, tmp_path / "set.bin", tmp_path / "set.bin", "--json")
    assert code == 0 and json.loads(out)["mean"] == json.loads(out)["sets"]["set"]["accuracy"]
    code, _, err = command("score", NET, "--pairs", tmp_path / "set.bin", "--images", people[0])
    assert code == 2 and "leave --images out" in err
    code, _, err = command("score", NET, "--pairs", people[1])
    assert code == 2 and "--images" in err


def test_score_marks_what_is_missing(command, people, tmp_path):
    faces, pairs = people
    (faces / "P0" / "0.png").unlink()
    put(faces / "P1" / "0.png", face(1, 0, 160))
    words = ("score", NET, "--pairs", pairs, "--images", faces, "--out", tmp_path / "result")
    code, _, err = command(*words)
    assert code == 2 and "lacks 1 of 24 images" in err and not (tmp_path / "result").exists()
    code, out, _ = command(*words, "--mark", "--json")
    assert code == 0 and json.loads(out)["marked_images"] == 2
    page = (tmp_path / "result" / "result.html").read_text()
    assert "P0/0.png" in page and "160x160" in page and "FTA" in page


def test_submit_frcsyn_whole_line(command, entry, tmp_path):
    code, out, _ = command(*entry, "--subtask", "1.1")
    assert code == 0 and "proposed" in out
    assert zipfile.ZipFile(tmp_path / "entry.zip").namelist() == ["1.1/bupt/baseline.txt", "1.1/bupt/proposed.txt"]
    assert command(*entry, "--subtask", "1.2")[0] == 0  # the first sub-task stays
    names = zipfile.ZipFile(tmp_path / "entry.zip").namelist()
    assert names == [f"{name}/bupt/{system}.txt" for name in ("1.1", "1.2") for system in ("baseline", "proposed")]
    common = ("--lists", tmp_path / "lists", "--edition", 2, "--no-official")
    code, out, _ = command("submit", "frcsyn", "check", tmp_path / "entry.zip", *common, "--json")
    assert code == 0 and json.loads(out)["ok"]
    code, out, _ = command("submit", "frcsyn", "score", tmp_path / "entry.zip", *common, "--ddof", 1, "--json")
    found = json.loads(out)
    assert code == 0 and list(found) == ["1.1", "1.2"] and found["1.1"]["ddof"] == 1 and "of 7" in found["1.1"]["place"] and "4 races" in found["1.1"]["groups"]
    (tmp_path / "gender.csv").write_text("subject,gender\nm.0,f\nm.1,m\n")
    code, out, _ = command("submit", "frcsyn", "report", tmp_path / "entry.zip", *common, "--subtask", "1.1", "--gender", tmp_path / "gender.csv", "--images", tmp_path / "images", "--out", tmp_path / "result")
    values = json.loads((tmp_path / "result" / "result.json").read_text())
    assert code == 0 and values["challenge"]["published"]["of"] == 7 and values["challenge"]["groups"].startswith("8 groups")
    page = (tmp_path / "result" / "result.html").read_text()
    assert "SRCN_AIVL" in page and "this result" in page and "ddof 0" in page and "data:image/jpeg" in page
    code, _, err = command(*entry, "--subtask", "1.4")
    assert code == 2 and "unknown sub-task '1.4'" in err


def test_every_line_comes_and_failures_are_marked(command, entry, tmp_path):
    (tmp_path / "images" / "bupt" / "Asian" / "m.0" / "1.png").unlink()
    (tmp_path / "images" / "bupt" / "Indian" / "m.1" / "2.png").write_bytes(b"damaged")
    put(tmp_path / "images" / "bupt" / "African" / "m.0" / "2.png", face(3, 3, 160))
    code, out, _ = command(*entry, "--subtask", "1.1")
    lines = zipfile.ZipFile(tmp_path / "entry.zip").read("1.1/bupt/proposed.txt").decode().splitlines()
    assert code == 0 and len(lines) == 16 and lines[4] == "-1.00000000,0" == lines[15] and "entry.zip.marked.csv" in out
    marked = (tmp_path / "entry.zip.marked.csv").read_text()
    assert "1.1/bupt/proposed.txt,5,Asian/m.0/1.png" in marked and "1.1/bupt/baseline.txt,2,African/m.0/2.png" in marked and "centre crop" in marked
    assert command("submit", "frcsyn", "check", tmp_path / "entry.zip", "--lists", tmp_path / "lists", "--edition", 2, "--no-official")[0] == 0
    for path in (tmp_path / "images").rglob("*.png"):
        path.unlink()
    code, _, err = command(*entry, "--subtask", "1.1")
    assert code == 2 and "not one of the 20 images of bupt" in err


def test_training_data_is_checked_by_its_manifest(command, entry, tmp_path):
    (tmp_path / "set").mkdir()
    manifest = {"title": "minted", "generator": "uiface", "rows": {"data": 600_000}, "identities": 9, "origins": ["generated"], "facts": {}}
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = command(*entry, "--subtask", "1.1", "--training", tmp_path / "set")
    assert code == 2 and "600000 synthetic images, sub-task 1.1 allows 500000" in err and not (tmp_path / "entry.zip").exists()
    assert command(*entry, "--subtask", "1.2", "--training", tmp_path / "set")[0] == 0
    code, _, err = command(*entry, "--subtask", "1.2", "--training", tmp_path)
    assert code == 2 and "provenance" in err


def test_mini_benchmark_whole_line(command, people, tmp_path):
    faces, pairs = people
    code, out, _ = command("benchmark", "mini", faces, "--pairs", pairs, "--out", tmp_path / "mini", "--no-pose", "--json")
    assert code == 0 and "proxy" in json.loads(out)["pose_by"]
    common = ("--lists", tmp_path / "mini" / "lists", "--edition", 0)
    write = ("submit", "frcsyn", "write", NET, "--baseline", NET, *common, "--subtask", "2.1", "--images", tmp_path / "mini" / "images", "--calibration", faces, "--out", tmp_path / "entry")
    assert command(*write)[0] == 0
    assert command("submit", "frcsyn", "check", tmp_path / "entry", *common)[0] == 0
    code, out, _ = command("submit", "frcsyn", "score", tmp_path / "entry", *common, "--json")
    assert code == 0 and list(json.loads(out)["2.1"]["proposed"]["accuracy"]) == ["lfw", "lfw-lowres", "lfw-occluded", "lfw-pose"]
    code, _, _ = command("submit", "frcsyn", "report", tmp_path / "entry", *common, "--subtask", "2.1", "--images", tmp_path / "mini" / "images", "--out", tmp_path / "result")
    assert code == 0 and "lfw-occluded" in (tmp_path / "result" / "result.html").read_text()


def test_leaderboard(command, tmp_path):
    code, out, _ = command("leaderboard", "1.1", "--value", 94.2)
    assert code == 0 and "Place 3 of 7" in out and "ADMIS" in out
    assert json.loads(command("leaderboard", "2.2", "--edition", 1, "--json")[1])["subtask"] == "2.2"
    code, _, err = command("leaderboard", "2.2", "--submission", tmp_path)
    assert code == 2 and "--lists" in err


@pytest.mark.skipif(not FRCSYN.is_dir(), reason="the organisers' files are not in ../shared/data/frcsyn")
def test_the_organisers_example_takes_the_last_place(command):
    words = ("--submission", FRCSYN / "submission_example_1st_edition.zip", "--lists", FRCSYN / "comparison_files_1st_edition.zip")
    found = json.loads(command("leaderboard", "1.1", "--edition", 1, *words, "--json")[1])
    assert found["rank"] == found["of"] == 6 and 45 < found["value"] < 52


def test_submit_datacv_and_sdfr_rank(command, tmp_path):
    images = np.stack([face(k // 2, k).transpose(2, 0, 1) for k in range(6)])
    buffer = BytesIO()
    np.save(buffer, images)
    (tmp_path / "validation.xz").write_bytes(lzma.compress(buffer.getvalue()))
    words = ("submit", "datacv", NET, "--test", tmp_path / "validation.xz", "--out", tmp_path / "out.zip")
    assert command(*words, "--board", "10K")[0] == 0
    lines = zipfile.ZipFile(tmp_path / "out.zip").read("validation_10K_result.txt").decode().split()
    assert len(lines) == 3 and all(0 <= float(line) < 1.5 for line in lines)
    code, _, err = command(*words, "--board", "30K")
    assert code == 2 and "unknown DataCV board '30K'" in err
    (tmp_path / "models.csv").write_text("model,lfw,cfp\na,0.9,0.8\nb,0.8,0.7\n")
    assert [row["name"] for row in json.loads(command("submit", "sdfr", "rank", tmp_path / "models.csv", "--json")[1])] == ["a", "b"]
    (tmp_path / "models.csv").write_text("model,lfw,cfp\na,0.9,x\n")
    code, _, err = command("submit", "sdfr", "rank", tmp_path / "models.csv")
    assert code == 2 and "line 2" in err


def test_score_the_pairs_of_a_dataset_folder(command, people, tmp_path):
    faces, _ = people
    assert command("ingest", faces, "--out", tmp_path / "set", "--no-align")[0] == 0
    code, out, _ = command("score", NET, "--pairs", tmp_path / "set", "--out", tmp_path / "result", "--json")
    assert code == 0 and json.loads(out)["pairs"] == 48 and "data:image/jpeg;base64," in (tmp_path / "result" / "result.html").read_text()
    code, _, err = command("score", NET, "--pairs", tmp_path / "set", "--images", faces)
    assert code == 2 and "holds its own images; leave --images out" in err
