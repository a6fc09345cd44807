"""Files that are whole or absent, hashes, and the paths of bundled weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import UserError


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)`, fsync the file, rename it to `path`, fsync the folder.

    A reader sees the old file or the whole new one, also after a power cut. On any error the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder, then run the same command again") from error
    finally:
        with suppress(OSError):  # what went wrong before is what the user must hear
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    write_atomic(path, lambda temporary: _put(temporary, data))


def read_lines(path: Path | str, what: str) -> list[str]:
    """Return the lines of a text file without their ends.

    Args:
        what: what the file is, for the message ("pair list").

    Raises:
        UserError: it cannot be read, or is no UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the {what} {path}: {getattr(error, 'strerror', None) or error}; expected a text file") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return what `write_json` writes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def bundled(name: str) -> Path:
    """Return the path of a bundled file, e.g. `bundled("uiface-small.safetensors")`.

    Raises:
        UserError: the file is not in this installation.
    """
    path = Path(str(resources.files("facefoundry") / "weights" / name))
    if not path.is_file():
        raise UserError(f"the bundled file '{name}' is missing from {path.parent}; reinstall facefoundry, or train it with the file in recipes/")
    return path


def weights_path(name: str) -> Path:
    """Return a weights file: a path as it is (with a slash, or ending in .safetensors), a bare name from the bundled weights.

    Raises:
        UserError: there is no such file.
    """
    if not name.endswith(".safetensors") and "/" not in name:
        return bundled(f"{name}.safetensors")
    path = Path(name)
    if not path.is_file():
        raise UserError(f"no weights file at {path}")
    return path


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
