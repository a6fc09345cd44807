"""Numbers in place of names: the table that an export of ours puts beside a set whose format knows people by number only."""

from __future__ import annotations

from pathlib import Path

LABELS = "labels.tsv"
"""Lines: label, identity, images."""


def people_of(path: Path) -> dict[int, str]:
    """Return the names of the labels from `labels.tsv` beside a set of ours; empty for a set of another maker."""
    table = (path if path.is_dir() else path.parent) / LABELS
    if not table.is_file():
        return {}
    rows = [line.split("\t") for line in table.read_text(encoding="ascii").splitlines()[1:]]
    return {int(row[0]): row[1] for row in rows}


def person(names: dict[int, str], label: int) -> str:
    """Return the name of a label: the one it was exported under, else its number in six digits."""
    return names.get(label) or f"{label:06d}"
