"""Docstrings of this project are plain text with `code` in single backticks; Sphinx reads reStructuredText. This makes one into the other."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_SPECIAL = re.compile(r"[\\*|]|_(?!\w)")  # an underscore is markup at the end of a word only; names of arguments must stay what they are


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda sign: "\\" + sign[0], text)


def plain_to_rest(text: str) -> str:
    """Return the text with code between double backticks and every other sign that reStructuredText would read as markup escaped."""
    parts = re.split(r"`+", text)
    if len(parts) % 2 == 0:  # a lone backtick: nothing is code
        return _escaped("".join(parts))
    done = ""
    for place, part in enumerate(parts):
        if place % 2 and part.strip():
            glued_left, glued_right = done[-1:].isalnum(), parts[place + 1][:1].isalnum()
            done += ("\\ " if glued_left else "") + f"``{part.strip()}``" + ("\\ " if glued_right else "")
        else:
            done += _escaped(part)
    return done


def module_to_rest(text: str) -> str:
    """Return a module's docstring, which has no sections: what is indented in it is a table or a formula, shown as it stands."""
    blocks = []
    for indented, lines in groupby(text.split("\n"), key=lambda line: line.startswith("  ")):
        block = "\n".join(lines)
        blocks.append(f"\n::\n\n{block}\n" if indented else plain_to_rest(block))
    return "\n".join(blocks)


def convert(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Replace a docstring before napoleon reads its sections."""
    text = "\n".join(lines)
    lines[:] = (module_to_rest(text) if what == "module" else plain_to_rest(text)).split("\n")
    app.env.temp_data["docstring"] = list(lines)


def restore(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Undo napoleon's reading of what stands below a constant: it takes what is before a colon for a type."""
    if what in ("attribute", "data", "property"):
        lines[:] = app.env.temp_data["docstring"]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the conversions, before and after napoleon's (priority 500)."""
    app.connect("autodoc-process-docstring", convert, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
