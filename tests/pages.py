"""What the Markdown pages of the repository hold, read by a parser: headings, links, code; and the commands in the code, read by the real command line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import facefoundry
import typer
from facefoundry.jobs.cli import app
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

ROOT = Path(facefoundry.__file__).resolve().parent
LEFT_OUT = {"build", "dist", "runs", "demo", "__pycache__"}  # as in .gitignore
SHELL = {"", "sh", "bash", "shell", "console"}
NEW_VERB = "the new verb"  # title of a fence whose verb the reader has just written
MARKDOWN = MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=6)  # the plugin gives headings GitHub's anchors


@dataclass
class Page:
    """Anchors, links (targets as written) and code of one page; a fence is (language, text)."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fences: list[tuple[str, str]] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)


class _Html(HTMLParser):
    """Links and anchors of HTML within a page."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.page.links.append(value)
            if name in ("id", "name") and value:
                self.page.anchors.add(value)


def markdown_files() -> list[Path]:
    """Every .md of the repository, without what a build or a run leaves in it."""
    found = []
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in LEFT_OUT and not name.startswith(".") and not name.endswith(".egg-info")]
        found += [Path(folder, name) for name in names if name.endswith(".md")]
    return sorted(found)


@cache
def read(path: Path) -> Page:
    """Return what a page holds."""
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> Page:
    """Return what a page of this text holds."""
    page = Page()
    tokens = MARKDOWN.parse(text)
    for token in tokens + [child for token in tokens for child in token.children or ()]:
        if token.type == "heading_open":
            page.anchors.add(str(token.attrs["id"]))
        elif token.type in ("link_open", "image"):
            page.links.append(str(token.attrs["href" if token.type == "link_open" else "src"]))
        elif token.type == "fence":
            language, _, title = token.info.strip().partition(" ")
            page.fences.append((title if NEW_VERB in title else language, token.content))
        elif token.type == "code_inline":
            page.inline.append(token.content)
        elif token.type in ("html_block", "html_inline"):
            _Html(page).feed(token.content)
    return page


def commands(text: str) -> Iterator[list[str]]:
    """Yield what follows `facefoundry` wherever it is run in shell text: after a prompt, a launcher or `&&`, over several lines."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]  # the others are what was answered
    for line in prompted or lines:
        if "facefoundry" not in line:
            continue
        try:
            yield from _of_line(line)
        except ValueError:  # a quote that is not closed: output that mentions us, not a command
            if line.startswith("facefoundry "):
                raise


def _of_line(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    pieces: list[list[str]] = [[]]
    for token in lexer:
        if set(token) <= set("();<>|&"):
            pieces.append([])
        else:
            pieces[-1].append(token)
    for piece in pieces:
        places = [place for place, token in enumerate(piece) if token.rpartition("/")[2] == "facefoundry"]
        launched = places and (places[0] == 0 or piece[0] in ("srun", "time", "torchrun") or all("=" in token for token in piece[: places[0]]))
        if launched:
            yield piece[places[0] + 1 :]


@cache
def _idle() -> Any:
    """The real command line, whose verbs do nothing once their words are understood."""
    root = typer.main.get_command(app)
    nodes = [root]
    while nodes:
        node = nodes.pop()
        node.callback = lambda **given: None
        nodes += getattr(node, "commands", {}).values()
    return root


def mistake(words: list[str], *, whole: bool) -> str | None:
    """Return what the real command line says against these words (nothing is run; files need not exist), or None.

    whole: required arguments must be there, as in a command to be copied; a mention in a sentence may leave them out.
    """
    try:
        _idle().main(args=[word for word in words if word not in ("...", "…")], prog_name="facefoundry", standalone_mode=False)
    except Exception as error:  # typer's exceptions have moved between its versions; all have a message
        kind = type(error).__name__
        if not whole and kind in ("MissingParameter", "NoArgsIsHelpError"):
            return None
        return f"{kind}: {error}" if str(error) else f"{kind}: {getattr(error, 'message', '')}"
    return None
