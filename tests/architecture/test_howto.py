"""The pages `docs/howto-add-a-*.md`, followed to the letter: their files are written down, their commands run in their order."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from facefoundry.generators.registry import GENERATORS
from facefoundry.jobs.cli import main
from facefoundry.quality.filters import FILTERS
from facefoundry.recognition.heads import HEADS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("howto-add-a-*.md"))
SMALL = {"run": "--workers 1 --set identities.count=4 --set per_identity=4", "train": "--set steps=2", "yaw": "--steps 4"}
"""What is laid over a verb so that it takes a second or two; the page's own words stay."""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder to follow a page in; what its modules register is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    for registry in (GENERATORS, FILTERS, HEADS):
        list(registry)
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def files(page: str) -> dict[str, str]:
    """Name → text of every block of a page that has a title."""
    return dict(re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', page, re.DOTALL | re.MULTILINE))


def commands(page: str) -> list[tuple[str, int]]:
    """The lines that a page says to type, each with the exit code it names, else 0."""
    blocks = re.findall(r"^```console[^\n]*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [(line.split("  #")[0], int(line[-1]) if "# exit code" in line else 0) for line in lines]


def follow(line: str, desk: Path, monkeypatch) -> int:
    """Do what a line says, in this process but for pip; return its exit code."""
    program, *words = shlex.split(line)
    if line == "export PYTHONPATH=.":
        monkeypatch.syspath_prepend(str(desk))
        return 0
    if line == "pip install -e .":  # into a folder of the test's
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(desk / "site"), "."], capture_output=True, text=True)
        monkeypatch.syspath_prepend(str(desk / "site"))
        assert done.returncode == 0, done.stderr
        return 0
    if line.startswith("python -m pytest -q "):
        tests = vars(importlib.import_module(Path(words[-1]).stem))
        ran = [test() for name, test in tests.items() if name.startswith("test_")]
        return 0 if ran else 5
    assert program == "facefoundry", f"a page says to type what this test does not know: {line}"
    monkeypatch.setattr(sys, "argv", ["facefoundry", *words, *(shlex.split(SMALL.get(words[0], "")) if "--help" not in words else [])])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_does_what_it_says(path, desk, monkeypatch, capsys):
    page = path.read_text(encoding="utf-8")
    for name, text in files(page).items():
        (desk / name).write_text(text)
    typed = commands(page)
    assert len(files(page)) >= 3 and len(typed) >= 3
    for line, code in typed:
        assert follow(line, desk, monkeypatch) == code, (line, capsys.readouterr())
        told = capsys.readouterr()
        if code:  # a mistake is shown as it is told
            assert " ".join(told.err.split()) in " ".join(page.split())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_entry_points_of_a_page_are_read_by_a_registry(path):
    groups = {registry.group for registry in (GENERATORS, FILTERS, HEADS)} | {"facefoundry.verbs"}
    page = path.read_text(encoding="utf-8")
    points = re.findall(r'\[project.entry-points."([\w.]+)"\]\n(\w+) = "(\w+):(\w+)"', page)
    assert points
    for group, _, module, name in points:
        assert group in groups and f'title="{module}.py"' in page and re.search(rf"^(class|def) {name}\b", page, re.MULTILINE)
