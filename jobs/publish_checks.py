"""What is looked at before a dataset folder may leave the machine: the Hub's limits, the card, secrets, real people, marks.

Limits as the Hub's documentation states them (August 2026). A problem stops the publication, a warning does not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ..core.errors import UserError
from ..identity.card import TEXT_FACTS
from ..identity.parquet import open_parquet
from ..identity.shards import shards_of
from .media_type import source_type

MAX_FILES, MAX_IN_FOLDER = 100_000, 10_000
LARGE_FILE, MAX_FILE = 200 * 10**9, 500 * 10**9
MAX_ROW_GROUP = 300 * 10**6
"""Files of a repository, entries of a folder, bytes of a file (recommended, refused), bytes that a viewer reads at once."""

_TEXT_SUFFIXES = (".md", ".json", ".html", ".yaml", ".txt", "")
_SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "an AWS key": r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']+:[^/\s:@\"']+@",
}
_HOME = re.compile(r"(?:/home/|/Users/|[A-Z]:\\+Users\\+)([A-Za-z0-9._-]+)")


def problems_in(folder: Path, manifest: Mapping[str, Any], sizes: Mapping[str, int], texts: Mapping[str, str]) -> list[str]:
    """Return what forbids publishing a sound folder, one line each.

    Args:
        sizes: path in the repository → bytes, of every file that would be uploaded.
        texts: the text files that are written at publication, by path; they stand for what lies in the folder.
    """
    real = ["the set holds photographs of real people; their consent is not recorded here, and this program does not publish them"]
    return [*(real if "real" in manifest["origins"] else []), *_limits(sizes), *_card_problems(texts.get("README.md", ""), sizes), *_row_groups(folder), *_secrets(folder, sizes, texts)]


def warnings_of(folder: Path, manifest: Mapping[str, Any], sizes: Mapping[str, int], texts: Mapping[str, str]) -> list[str]:
    """Return what the publisher should know and may accept, one line each."""
    facts, found = manifest.get("facts", {}), []
    missing = [name for name in ("license", "contact", "citation") if not facts.get(name)]
    if missing:
        found.append(f"the card states no {', no '.join(missing)}; give them in a file: --card card.yaml")
    unmeasured = [name for name in ("leakage", "demographics") if not facts.get(name)]
    if "were not compared with real people" in str(facts.get("leakage", "")):
        unmeasured.insert(0, "leakage of the images")
    if unmeasured:
        found.append(f"not measured, and the card says so: {', '.join(unmeasured)}")
    if any(origin.startswith("generated") for origin in manifest["origins"]) and not _is_marked(folder):
        found.append("the images carry no mark of machine-made media (EU AI Act, Art. 50); mint with writer.mark: true")
    found += [f"{name} has {size / 1e9:.0f} GB; the Hub recommends less than {LARGE_FILE / 1e9:.0f}" for name, size in sizes.items() if LARGE_FILE < size <= MAX_FILE]
    people = {name: sorted(set(_HOME.findall(text))) for name, text in _texts(folder, sizes, texts)}
    return [*found, *(f"{name} names a home folder ({', '.join(names)})" for name, names in people.items() if names)]


def read_card(path: Path) -> dict[str, Any]:
    """Read a file of facts for the card.

    Raises:
        UserError: not there, no mapping, or a key that the card has no place for.
    """
    from ..core.config import read_yaml

    if not path.is_file():
        raise UserError(f"there is no card file {path}; expected YAML with some of: {', '.join(TEXT_FACTS)}")
    values, _ = read_yaml(path)
    unknown = sorted(set(values) - set(TEXT_FACTS))
    if unknown:
        raise UserError(f"{path}: the card has no place for {', '.join(unknown)}; expected some of: {', '.join(TEXT_FACTS)}")
    return dict(values)


def _limits(sizes: Mapping[str, int]) -> list[str]:
    found = [f"{len(sizes)} files; a repository on the Hub should stay below {MAX_FILES}: raise writer.shard_identities"] if len(sizes) >= MAX_FILES else []
    folders = Counter(str(PurePosixPath(name).parent) for name in sizes)
    found += [f"{folder}/ holds {count} files; the Hub takes fewer than {MAX_IN_FOLDER} in a folder: raise writer.shard_identities" for folder, count in folders.items() if count >= MAX_IN_FOLDER]
    return found + [f"{name} has {size / 1e9:.0f} GB; the Hub takes up to {MAX_FILE / 1e9:.0f}: lower writer.shard_identities" for name, size in sizes.items() if size > MAX_FILE]


def _card_problems(card: str, sizes: Mapping[str, int]) -> list[str]:
    """A card must be there, its head must be YAML, and each configuration must find files."""
    try:
        front = yaml.safe_load(card.split("---\n")[1])
        patterns = {config["config_name"]: [files["path"] for files in config["data_files"]] for config in front["configs"]}
    except (IndexError, KeyError, TypeError, yaml.YAMLError):
        return ["README.md is missing, or its YAML head names no configurations; run the job again, or ingest the faces again"]
    return [f"README.md: the configuration '{name}' finds no file ({', '.join(paths)})" for name, paths in patterns.items() if not any(PurePosixPath(file).match(path) for file in sizes for path in paths)]


def _row_groups(folder: Path) -> list[str]:
    found = []
    for shard in (*shards_of(folder, "data"), *shards_of(folder, "rejected")):
        footer = open_parquet(shard).metadata
        largest = max((footer.row_group(number).total_byte_size for number in range(footer.num_row_groups)), default=0)
        if largest > MAX_ROW_GROUP:
            found.append(f"{shard.name}: a row group of {largest / 1e6:.0f} MB; a viewer reads at most {MAX_ROW_GROUP / 1e6:.0f}: write the shard again")
    return found


def _secrets(folder: Path, sizes: Mapping[str, int], texts: Mapping[str, str]) -> list[str]:
    """Names of files that look as if they held a secret; the secret itself is never shown."""
    return [f"{name} holds what looks like {kind}; take it out and revoke it" for name, text in _texts(folder, sizes, texts) for kind, pattern in _SECRETS.items() if re.search(pattern, text)]


def _texts(folder: Path, sizes: Mapping[str, int], texts: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    names = [name for name in sizes if PurePosixPath(name).suffix in _TEXT_SUFFIXES]
    return [(name, texts[name] if name in texts else (folder / name).read_text(encoding="utf-8", errors="replace")) for name in names]


def _is_marked(folder: Path) -> bool:
    """Whether the first image of every shard carries a mark."""
    for shard in (*shards_of(folder, "data"), *shards_of(folder, "rejected")):
        cell = open_parquet(shard).read_row_group(0, columns=["image"]).column("image")[0].as_py()
        if cell and cell["bytes"] and source_type(cell["bytes"]) is None:
            return False
    return True
