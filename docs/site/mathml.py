"""Equations as MathML, made while the site is built: no script, no font and no network when a page is looked at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
_ARG = re.compile(r"\\arg(?![A-Za-z])")
# What latex2mathml 3.81 writes, and what a browser needs: accents as near a letter as hats are; bars that grow by \left and \right alone.
_MENDS = {"<mover><mi>": '<mover accent="true"><mi>', "<mo>&#x02016;</mo>": '<mo stretchy="false">&#x02016;</mo>', "<mo>&#x0007C;</mo>": '<mo stretchy="false">&#x0007C;</mo>'}


def render(node: nodes.math | nodes.math_block, display: str) -> str:
    """Return the MathML of an equation; what the converter does not know is a warning (an error in `make docs`), not a page with raw TeX."""
    try:
        markup = convert(_ARG.sub(r"\\operatorname{arg}", node.astext()), display=display)  # \arg it does not know
    except Exception as error:  # the converter has a dozen exceptions without a common base
        logger.warning("equation cannot be converted (%r): %s", error, node.astext(), location=node, type="mathml")
        return f"<code>{node.astext()}</code>"
    for written, needed in _MENDS.items():
        markup = markup.replace(written, needed)
    if "\\" in markup:  # an unknown command is passed on as text
        logger.warning("equation with a command latex2mathml does not know: %s", node.astext(), location=node, type="mathml")
    return markup


def inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write `$...$`."""
    self.body.append(render(node, "inline"))
    raise nodes.SkipNode


def block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write `$$...$$`, in a box that scrolls sideways where the page is narrow."""
    self.body.append(self.starttag(node, "div", CLASS="math-block"))
    self.body.append(render(node, "block"))
    if node.get("number"):
        self.body.append(f'<span class="eqno">({node["number"]})</span>')
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer `html_math_renderer = "mathml"`."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
