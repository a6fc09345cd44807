"""The pages of docs/methods: their code runs and gives what its comments say, their figures are those of the results, their equations are safe for GitHub."""

from __future__ import annotations

import ast
import re
import sys

import pytest
from pages import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from method_pages import PAGES, renewed, sections  # noqa: E402

pages = pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
RESULTS = [sections((ROOT / "benchmarks" / name).read_text(encoding="utf-8")) for name in ("claims/RESULTS.md", "RESULTS.md")]


@pages
def test_code_runs_and_gives_what_it_says(path):
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S):
        lines, space = block.split("\n"), {}
        for node in ast.parse(block).body:
            if not isinstance(node, ast.Expr):
                exec(ast.unparse(node), space)  # noqa: S102
                continue
            found, comment = eval(ast.unparse(node), space), lines[node.end_lineno - 1].partition("  # ")[2].strip()  # noqa: S307
            try:
                wanted = eval(comment, {"torch": space.get("torch")}) if comment else found  # noqa: S307
            except (SyntaxError, NameError):
                continue  # a remark, no value
            assert found == wanted or found == pytest.approx(wanted, abs=1e-6), comment


@pages
def test_figures_are_those_of_the_results(path):
    page = path.read_text(encoding="utf-8")
    text, problems = renewed(page, *RESULTS)
    assert problems == []
    assert text == page, "run: python benchmarks/method_pages.py"


def test_a_changed_figure_and_a_changed_verdict_are_seen():
    claim = "## X: shown\n\n| effect | baseline |\n|---|--:|\n| a row | 0.2 |\n\n- `python benchmarks/claims/x.py`\n"
    page = "**Not shown**, `python benchmarks/claims/x.py`\n\n| effect | baseline |\n|---|--:|\n| a row | 0.1 |\n| gone | 0.1 |\n"
    text, problems = renewed(page, sections(claim), [])
    assert "| a row | 0.2 |" in text and "| gone | 0.1 |" in text
    assert problems == ["no row 'gone' in the results", "the page says not shown, the claims shown"]


@pages
def test_equations_survive_markdown(path):
    """No escaped punctuation (Markdown eats the backslash), no '_' that could open emphasis, no '<', no '|' inside a table."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.S)
    for equation in re.findall(r"\$\$(.+?)\$\$", prose, flags=re.S) + re.findall(r"\$([^$\n]+)\$", re.sub(r"\$\$.+?\$\$", "", prose, flags=re.S)):
        assert not re.search(r"\\[^A-Za-z\s]|[^\w\s]_\S|[<|]", equation), equation
        assert equation.count("{") == equation.count("}"), equation
