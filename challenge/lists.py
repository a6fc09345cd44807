"""Text lists as they come: UTF-8, CRLF or LF, a byte-order mark, back-slashes; and messages that name file and line."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import UserError
from ..core.files import read_lines


def read_table(path: Path | str, key: str, value: str) -> dict[str, str]:
    """Read `key,value` lines (comma, semicolon, tab or spaces; a header that begins with the key's name is skipped).

    Raises:
        UserError: unreadable, a line with other than two fields, or a key with two values (names file and line).
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, f"table of {key} and {value}"), 1):
        fields = line.replace(",", " ").replace(";", " ").split()
        if not fields or (number == 1 and fields[0].lower() == key):
            continue
        if len(fields) != 2:
            raise UserError(f"{path}, line {number}: '{line.strip()[:80]}'; expected {key},{value}")
        if table.setdefault(fields[0], fields[1]) != fields[1]:
            raise UserError(f"{path}, line {number}: '{fields[0]}' is {fields[1]} here and {table[fields[0]]} before; expected one {value} for each {key}")
    return table


def slashes(name: str) -> str:
    """Return a path of a list with forward slashes, whichever it was written with."""
    return name.replace("\\", "/")
