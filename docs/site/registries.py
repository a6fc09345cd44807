"""`.. registry:: facefoundry.generators.registry.GENERATORS` lists what is registered: key, class, and what it says of itself first."""

from __future__ import annotations

import inspect
from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from docstrings import plain_to_rest

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class RegistryTable(SphinxDirective):
    """A table of one registry."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        module, _, name = self.arguments[0].rpartition(".")
        registry = getattr(import_module(module), name)
        entries = {key: registry[key] for key in registry}
        homes = Counter(entry.__module__ for entry in entries.values())
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - name", "     - class", "     - what"]
        for key, entry in entries.items():
            told = import_module(entry.__module__) if homes[entry.__module__] == 1 else entry  # a file of its own says it best
            first = " ".join((inspect.getdoc(told) or "").split("\n\n")[0].split())
            lines += [f"   * - ``{key}``", f"     - :py:class:`~{entry.__module__}.{entry.__qualname__}`", f"     - {plain_to_rest(first)}"]
        return self._parsed(lines)

    def _parsed(self, lines: list[str]) -> list[nodes.Node]:
        """Return the nodes of lines of reStructuredText."""
        holder = nodes.Element()
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), self.content_offset, holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("registry", RegistryTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
