"""Verbs of other packages: named in the help, imported when called, their mistakes short."""

from __future__ import annotations

import subprocess
import sys

import pytest
from offered import install

VERB = """
import sys
from facefoundry.core.errors import UserError

def count(number: int, wrong: bool = False) -> None:
    \"\"\"Count to a number.\"\"\"
    if wrong:
        raise UserError("that is wrong; do it right")
    sys.stdout.write(" ".join(map(str, range(number))) + "\\n")
"""
GROUP = """
import sys
import typer

app = typer.Typer(help="A group.")

@app.command()
def one() -> None:
    sys.stdout.write("one\\n")

@app.command()
def two() -> None:
    sys.stdout.write("two\\n")
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the real command line in a process of its own, with two packages installed beside it."""
    install(tmp_path, "counting", {"facefoundry.verbs": {"count": "counting:count", "plan": "counting:plan", "lost": "no_such_module:verb"}}, counting=VERB)
    install(tmp_path, "grouping", {"facefoundry.verbs": {"many": "grouping:app"}}, grouping=GROUP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(*words: str) -> subprocess.CompletedProcess:
        program = "import sys; from facefoundry.jobs.cli import main\ntry: main()\nfinally: sys.stderr.write('LOADED ' + ' '.join(n for n in ('counting', 'grouping') if n in sys.modules))"
        return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)

    return run


def test_verbs_of_other_packages(call):
    told = call("--help")
    assert told.returncode == 0 and "From the package counting." in told.stdout and "From the package grouping." in told.stdout
    assert told.stdout.count(" plan ") == 1 and told.stderr.rstrip().endswith("LOADED")  # `plan` stays ours; nothing is imported
    assert "lambda" not in told.stdout and all(f" {name} " in told.stdout for name in ("count", "lost", "many"))
    done = call("count", "3")
    assert (done.returncode, done.stdout) == (0, "0 1 2\n") and done.stderr.rstrip().endswith("LOADED counting")
    assert call("many", "two").stdout == "two\n"


def test_doctor_says_who_brings_what(tmp_path, monkeypatch):
    from facefoundry.jobs.plugins import offered

    install(tmp_path, "counting", {"facefoundry.verbs": {"count": "counting:count"}, "facefoundry.filters": {"odd": "counting:Odd"}, "console_scripts": {"count": "counting:count"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {key: name for key, name in offered().items() if name == "counting"} == {"verbs: count": "counting", "filters: odd": "counting"}


def test_mistakes_of_their_users_and_of_their_authors(call):
    done = call("count", "3", "--wrong")
    assert done.returncode == 2 and "that is wrong; do it right" in done.stderr and "Traceback" not in done.stderr
    done = call("lost")
    assert done.returncode == 2 and "the verb 'lost' of the package counting cannot be loaded" in done.stderr and "Traceback" not in done.stderr
