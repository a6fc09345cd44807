"""Bring the figures copied into docs/methods/ up to those of RESULTS.md. Run after a claim or a benchmark was run again: `python benchmarks/method_pages.py`.

A table row of a page is known by its first cell: it becomes the row of that name in the claims' sections whose script the page names, or in benchmarks/RESULTS.md.
Verdicts (**Shown**, **Not shown**) and figures in sentences are a person's to change: where a verdict differs, and where a row is gone, the script says so and exits with 1.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGES = HERE.parent / "docs" / "methods"


def sections(text: str) -> list[str]:
    """The parts of a file of results, each with its heading."""
    return re.split(r"^(?=## )", text, flags=re.M)[1:]


def named(lines: list[str]) -> dict[str, str]:
    """Table rows with figures by their first cell."""
    return {line.split(" | ")[0]: line for line in lines if line.startswith("| ") and re.search(r"\d", line.partition(" | ")[2])}


def renewed(page: str, claims: list[str], figures: list[str]) -> tuple[str, list[str]]:
    """Return a page with its rows up to date, and what a person has to look at.

    Args:
        claims, figures: sections of the claims' results and of the benchmarks'.
    """
    own = [part for part in claims if any(f"`python {script}`" in part for script in re.findall(r"benchmarks/claims/\w+\.py|(?<=`)\w+\.py(?=`)", page) for script in (f"benchmarks/claims/{script.rpartition('/')[2]}",))]
    source = named([line for part in (*figures, *own) for line in part.splitlines()])
    lines, problems, after_header = page.splitlines(), [], False
    for place, line in enumerate(lines):
        if line.startswith(("| effect |", "| --- |")):
            after_header = True
        elif not line.startswith("|"):
            after_header = False
        elif after_header and line.startswith("| "):
            name = line.split(" | ")[0]
            lines[place] = source.get(name, line)
            problems += [] if name in source else [f"no row '{name[2:]}' in the results"]
    verdicts = [part.splitlines()[0].rpartition(": ")[2] for part in own]
    said = [word.lower() for word in re.findall(r"\*\*(Shown|Not shown|not shown)\*\*", page)]
    if said and sorted(said) != sorted(verdicts):
        problems.append(f"the page says {', '.join(said)}, the claims {', '.join(verdicts)}")
    return "\n".join(lines) + "\n", problems


def main() -> int:
    """Renew all pages; 1 where a person has to look."""
    claims, figures = (sections((HERE / name).read_text(encoding="utf-8")) for name in ("claims/RESULTS.md", "RESULTS.md"))
    looks = 0
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        text, problems = renewed(page, claims, figures)
        if text != page:
            path.write_text(text, encoding="utf-8")
            logging.info("%s: rows renewed", path.name)
        for problem in problems:
            logging.warning("%s: %s", path.name, problem)
        looks += len(problems)
    return 1 if looks else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
