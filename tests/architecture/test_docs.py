"""The documentation holds: links and anchors, commands, paths and imports it shows; and the site builds without a warning."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pages import ROOT, SHELL, Page, commands, markdown_files, mistake, parse, read

PAGES = markdown_files()
SITE = ROOT / "docs" / "site"
FOLDERS = ("recipes", "weights", "benchmarks", "docs", "tests", "core", "identity", "styles_3dmm", "recognition", "generators", "quality", "challenge", "consumers", "jobs")
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
pages = pytest.mark.parametrize("path", PAGES, ids=NAMES)


def broken(path: Path, page: Page) -> list[str]:
    """The links of a page at `path` that lead nowhere in the repository; links to other sites are not looked at."""
    wrong = []
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.exists() or not target.is_relative_to(ROOT):
            wrong.append(f"{link}: there is no {target}")
        elif parts.fragment and target.suffix == ".md":
            anchors = page.anchors if target == path else read(target).anchors
            if unquote(parts.fragment) not in anchors:
                wrong.append(f"{link}: no such heading; there are {', '.join(sorted(anchors))}")
    return wrong


def shown_paths(page: Page) -> set[str]:
    """Paths of the repository in the code of a page, as far as words tell: `recipes/demo-job.yaml`."""
    words = {word.strip("\"'`(),;:[]{}") for text in page.inline + [text for _, text in page.fences] for word in text.split()}
    return {word.rstrip(".") for word in words if word.partition("/")[0] in FOLDERS and word.partition("/")[2] and not set(word) & set("<>=|$…{}")}


def stands(word: str) -> bool:
    """Whether a file, a folder, a pattern's file or a family of files (`weights/uiface-small`) of that name is there."""
    return (ROOT / word).exists() or any(ROOT.glob(word if "*" in word else word.rstrip("/") + ".*"))


@pages
def test_links_and_anchors(path):
    assert broken(path, read(path)) == []


@pages
def test_commands_exist(path):
    page = read(path)
    for language, text in page.fences:
        for words in commands(text) if language in SHELL else ():
            assert mistake(words, whole=True) is None, f"facefoundry {' '.join(words)}"
    for text in page.inline:
        for words in commands(text) if text.startswith("facefoundry ") else ():
            assert mistake(words, whole=False) is None, f"facefoundry {' '.join(words)}"


@pages
def test_paths_exist(path):
    """Not looked for: what benchmarks write when they are run, and the code a page of `howto-add-...` tells the reader to write."""
    shown = {word for word in shown_paths(read(path)) if "results_" not in word}
    if path.name.startswith("howto-add"):
        shown = {word for word in shown if word.startswith(("recipes/", "weights/"))}
    assert [word for word in sorted(shown) if not stands(word)] == []


@pages
def test_python_imports_exist(path):
    for language, text in read(path).fences:
        for node in ast.walk(ast.parse(text)) if language in ("python", "py") and "facefoundry" in text else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("facefoundry"):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], node.module


def test_the_pages_are_all_there():
    assert {"README.md", "docs/jobs.md", "docs/limits.md", "benchmarks/RESULTS.md", "benchmarks/claims/RESULTS.md", "weights/uiface-small.md"} <= set(NAMES)
    assert sum(len(list(commands(text))) for path in PAGES for language, text in read(path).fences if language in SHELL) > 60


def test_the_checker_finds_mistakes():
    page = parse("# A b\n\n## A b\n\n[x](docs/none.md) [y](#a-b-1) [z](#nowhere) ![p](docs/none.png) <a href='gone.md'>g</a> [w](https://example.org/x)\n")
    assert page.anchors == {"a-b", "a-b-1"}
    assert {line.partition(":")[0] for line in broken(ROOT / "README.md", page)} == {"docs/none.md", "docs/none.png", "#nowhere", "gone.md"}
    text = "facefoundry run a.yaml \\\n    --out b   # it's a comment\nX=1 facefoundry status b | grep facefoundry\nsrun -n 2 .venv/bin/facefoundry doctor && ls facefoundry\nfacefoundry's own words\n"
    assert list(commands(text)) == [["run", "a.yaml", "--out", "b"], ["status", "b"], ["doctor"]]
    assert list(commands("$ facefoundry plan a.yaml\nfacefoundry made it\n")) == [["plan", "a.yaml"]]
    assert not stands("recipes/none.yaml") and stands("weights/uiface-small") and stands("recipes/privacy-*.yaml")
    assert shown_paths(parse("`recipes/none.yaml`, `runs/x.yaml`\n\n```\nrun recipes/a.yaml\n```\n")) == {"recipes/none.yaml", "recipes/a.yaml"}


@pytest.mark.parametrize("line, said", [
    ("run a.yaml --out b --set x=1 --set y=2", None),
    ("--quiet train generator r.yaml --data d --out o", None),
    ("train generator --help", None),
    ("rum a.yaml", "rum"),
    ("train gan r.yaml", "gan"),
    ("run a.yaml --output b", "--output"),
    ("run --out b", "Missing"),
    ("status a b", "unexpected"),
    ("demo --generator gan", "gan"),
    ("demo --identities many", "integer"),
])  # fmt: skip
def test_commands_are_read_by_the_real_command_line(line, said):
    found = mistake(line.split(), whole=True)
    assert found is None if said is None else said in found


def build(source: Path, out: Path, *more: str, conf: Path = SITE) -> subprocess.CompletedProcess[str]:
    """Run Sphinx in a process of its own: it leaves much behind in the one it runs in."""
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--conf-dir", str(conf), "--fail-on-warning", "--keep-going", "--quiet", *more, str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SITE)})


class _Fetched(HTMLParser):
    """What a browser fetches for a page, and how much mathematics is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.equations = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [given.get("src" if tag in ("script", "img") else "href") or ""] if tag in ("script", "img", "link") else []
        self.equations += tag == "math"


def test_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    """All pages but the API's, which need every package imported: 2 s in place of 34 of one core. `make docs` builds them all."""
    done = build(ROOT, tmp_path, "--tag", "pages")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("README", "docs/jobs", "docs/limits", "benchmarks/RESULTS", "benchmarks/claims/RESULTS", "weights/uiface-small"):
        assert (tmp_path / f"{name}.html").exists()
    assert "README.html" in (tmp_path / "index.html").read_text()
    for page in tmp_path.rglob("*.html"):
        fetched = _Fetched()
        fetched.feed(page.read_text(encoding="utf-8"))
        assert [address for address in fetched.addresses if urlsplit(address).netloc] == [], page


def test_equations_become_mathml_and_unknown_commands_are_told(tmp_path):
    pages = {
        "index": "```{toctree}\nbad\n```\n\n" + r"$\hat\epsilon_\theta$ and $$\frac{a}{b} = \sum_{i=1}^n \lVert x_i \rVert^2 + \arg\min_x x$$",
        "bad": r"$\nosuchcommand{x}$",
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.md").write_text(f"# Page\n\n{text}\n")
    (tmp_path / "conf.py").write_text("extensions = ['myst_parser', 'mathml']\nmyst_enable_extensions = ['dollarmath']\nhtml_math_renderer = 'mathml'\n")
    done = build(tmp_path, tmp_path / "site", conf=tmp_path)
    assert done.returncode != 0 and done.stderr.count("WARNING") == 1 and "nosuchcommand" in done.stderr
    page = _Fetched()
    page.feed((tmp_path / "site" / "index.html").read_text(encoding="utf-8"))
    assert page.equations == 2


def test_docstrings_become_rest():
    spec = importlib.util.spec_from_file_location("docstrings", SITE / "docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.plain_to_rest("`UserError`s of a_b, `x | y` and |z|*") == r"``UserError``\ s of a_b, ``x | y`` and \|z\|\*"
    assert module.plain_to_rest("a lone ` sign_") == r"a lone  sign\_"
    assert module.module_to_rest("What.\n\n    a_file   b\nAxes: N.") == "What.\n\n\n::\n\n    a_file   b\n\nAxes: N."


def test_api_pages_name_every_registry_and_only_modules_that_are_there():
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted((SITE / "api").glob("*.rst")))
    named = [line.split("::")[1].strip() for line in text.splitlines() if line.startswith(".. automodule::")]
    assert len(named) > 80 and len(set(named)) == len(named)
    assert [name for name in named if not (ROOT / Path(*name.split(".")[1:]).with_suffix(".py")).exists()] == []
    listed = {line.split("::")[1].strip() for line in text.splitlines() if line.startswith(".. registry::")}
    for path in sorted(path for floor in FOLDERS[5:] for path in (ROOT / floor).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "Registry":
                assert f"facefoundry.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}.{ast.unparse(node.target)}" in listed
