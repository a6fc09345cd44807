"""The README's commands do what it says: each line of its shell blocks is run, made small, in its order."""

from __future__ import annotations

import re
import shlex
import sys
import zipfile
from pathlib import Path

import pytest
from facefoundry.core.images import encode_png
from facefoundry.identity.dataset import FaceDataset
from facefoundry.jobs.cli import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "demo": "--identities 3 --per-identity 4 --workers 1",
    "plan": "--set identities.count=3",
    "run": "--set identities.count=3 --set per_identity=4 --set generator.sampler.steps=4 --workers 1",
    "train recogniser": "--set epochs=1 --set batch=4",
    "train generator": "--set autoencoder.loop.steps=1 --set autoencoder.loop.batch=2 --set denoiser.loop.steps=1 --set denoiser.loop.batch=2",
    "inspect": "--draws 20",
}
"""What is laid over a verb so that it takes seconds; the README's own words stay."""

PUBLISHED = "import-weights"
"""Needs 216 million published weights; tests/generators build such a file in small."""


def commands() -> list[str]:
    """The `facefoundry` lines of the README, without their comments."""
    blocks = re.findall(r"```(?:bash|sh)?\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("facefoundry ")]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what the README takes for granted: the recipes, and photos under the names it uses."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    return tmp_path


def lay_out(desk: Path, faces: Path) -> None:
    """Photos, archives and pairs, from the faces that were minted on the way: two people do for a run."""
    dataset = FaceDataset.open(faces)
    images, names = dataset.images(range(len(dataset))), dataset.table.column("face_id").to_pylist()
    with zipfile.ZipFile(desk / "train112.zip", "w") as train, zipfile.ZipFile(desk / "lfw.zip", "w") as lfw:
        for name, image in zip(names, images):
            for archive in (train, lfw):
                archive.writestr(f"{name}.png", encode_png(image))
            path = desk / "photos" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(image))
    people = [name.split("/")[0] for name in names]
    pairs = [(a, b) for a in range(len(names)) for b in range(a)]
    (desk / "pairs.txt").write_text("".join(f"{names[a]}.png {names[b]}.png {int(people[a] == people[b])} {number % 2}\n" for number, (a, b) in enumerate(pairs)))


def run(monkeypatch, line: str) -> None:
    words = shlex.split(line)[1:]
    verb = next((key for key in SMALL if words[: len(key.split())] == key.split()), None)
    monkeypatch.setattr(sys, "argv", ["facefoundry", *words, *shlex.split(SMALL.get(verb, ""))])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, line


def test_every_command_of_the_readme_runs(desk, monkeypatch, capsys):
    lines = commands()
    assert len(lines) > 10
    for line in lines:
        if PUBLISHED in line:
            monkeypatch.setattr(sys, "argv", ["facefoundry", PUBLISHED, "--help"])
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code
            continue
        if "photos" in line:
            lay_out(desk, desk / "faces")
        run(monkeypatch, line)
    assert {"faces", "faces-uiface", "tars", "mine", "runs"} <= {path.name for path in desk.iterdir()}
