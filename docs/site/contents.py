"""The order of the pages, appended to the front page where GitHub does not show it, and index.html, which leads to that page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Heading of the side bar -> pages, or patterns of pages, without suffix. A pattern takes what an earlier line has not named.
SECTIONS = {
    "Start": ("docs/tour", "docs/gallery", "docs/limits"),
    "How to": ("docs/howto-gpu*", "docs/howto-slurm*", "docs/howto-add*", "docs/howto-*"),
    "Guides": ("docs/jobs", "docs/generators", "docs/styles", "docs/consumers", "docs/privacy", "docs/challenges", "docs/publishing", "docs/published-weights"),
    "Methods": ("docs/methods/index", "docs/methods/*"),
    "Figures": ("benchmarks/RESULTS", "benchmarks/claims/RESULTS", "docs/training-log"),
    "Cards of the weights": ("weights/*",),
    "API": tuple(f"docs/site/api/{floor}" for floor in ("core", "identity", "styles_3dmm", "recognition", "generators", "quality", "challenge", "consumers", "jobs")),
    "More": ("docs/*",),
}


def toctrees(found: set[str], root: str) -> str:
    """Return MyST toctrees of the pages `found`, each page once, in the order of SECTIONS."""
    left, text = found - {root}, ""
    for caption, patterns in SECTIONS.items():
        names = []
        for pattern in patterns:
            names += sorted(name for name in left if Path(name).match(pattern) and name.count("/") == pattern.count("/"))
            left -= set(names)
        if names:
            text += "\n\n```{toctree}\n:hidden:\n:maxdepth: 1\n:caption: " + caption + "\n\n" + "\n".join("/" + name for name in names) + "\n```\n"
    return text


def append(app: Sphinx, docname: str, source: list[str]) -> None:
    """Lay the toctrees under the front page."""
    if docname == app.config.root_doc:
        source[0] += toctrees(set(app.env.found_docs), docname)


def reread(app: Sphinx, env: object, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Read the front page again when a page came or went."""
    return [app.config.root_doc] if added or removed else []


def lead_to_front(app: Sphinx, error: Exception | None) -> None:
    """Write index.html: the front page is README.html, so that links from other pages to README.md hold."""
    if error is None and app.builder.name == "html":
        page = f'<!doctype html><meta charset="utf-8"><title>FaceFoundry</title><meta http-equiv="refresh" content="0; url={app.config.root_doc}.html">'
        (Path(app.outdir) / "index.html").write_text(page + f'<a href="{app.config.root_doc}.html">FaceFoundry</a>\n', encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the three."""
    app.connect("source-read", append)
    app.connect("env-get-outdated", reread)
    app.connect("build-finished", lead_to_front)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
