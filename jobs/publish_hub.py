"""A finished dataset folder becomes a dataset repository on the Hugging Face Hub.

Only what a reader needs leaves the machine: faces, tables, card, manifest, report. `job/` (plan, markers, embeddings) stays. A repository is made
private; it is shown only by `public`, and then behind a gate whose questions are on the card. The token is the one of the environment or
of `hf auth login`; it is never an argument.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import json_bytes, write_bytes
from ..identity.card import card_text
from ..identity.dataset import MANIFEST, verify_dataset
from .croissant import CROISSANT, croissant
from .plan import plan_path
from .publish_checks import problems_in, read_card, warnings_of
from .release import RELEASE, release, shards_digest
from .shards import Stage

FACES = ("data/*.parquet", "rejected/*.parquet", "metadata/*.parquet", "pairs/*.parquet")
"""Patterns of the files of rows. In the repository, those that the folder does not have are removed: a card's pattern would read them."""

PARTS = ("README.md", "LICENSE*", "LICENSES/*", MANIFEST, CROISSANT, RELEASE, "report.html", "report.json", "contact_sheet.png", "data/*.c2pa", *FACES)


@dataclass(frozen=True, kw_only=True)
class Release:
    """What would be published.

    Attributes:
        folder, repo: from where to where.
        texts: files that publishing writes, by name.
        sizes: bytes of every file, by path in the repository.
        problems: what forbids it.
        warnings: what may be accepted.
    """

    folder: Path
    repo: str
    texts: dict[str, bytes]
    sizes: dict[str, int]
    problems: list[str]
    warnings: list[str]

    def facts(self) -> dict[str, Any]:
        """Return it for people and programs."""
        total = {"repository": self.repo, "files": len(self.sizes), "bytes": sum(self.sizes.values())}
        return {**total, "list": self.sizes, "problems": self.problems, "warnings": self.warnings, "ready": not self.problems}


def prepare(folder: Path, repo: str, *, card: Path | None = None) -> Release:
    """Work out what publishing would upload and check it, every shard by its hash; writes nothing.

    Args:
        card: YAML with facts that nobody but the publisher knows (contact, citation, license, demographics, ...), see `card.TEXT_FACTS`.

    Raises:
        UserError: no finished dataset, a damaged one, a repository name that cannot be, an unreadable card file.
    """
    _check_name(repo)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} has no {MANIFEST} that can be read; finish the job first: facefoundry run, or ingest") from error
    damage = verify_dataset(folder)
    if damage:
        raise UserError("\n".join([f"{folder} is damaged; restore it, or run its job again:", *damage]))
    if card is not None:
        manifest["facts"] = {**manifest.get("facts", {}), **read_card(card)}
    published = _date(folder, manifest)
    texts = {
        "README.md": card_text(manifest, manifest.get("facts", {})).encode(),
        MANIFEST: json_bytes(manifest),
        CROISSANT: json_bytes(croissant(folder, manifest, repo=repo, published=published)),
        RELEASE: json_bytes(release(folder, manifest, repo=repo, published=published)),
    }
    sizes = _sizes(folder) | {name: len(data) for name, data in texts.items()}
    words = {name: data.decode() for name, data in texts.items()}
    problems, warnings = problems_in(folder, manifest, sizes, words), warnings_of(folder, manifest, sizes, words)
    return Release(folder=folder, repo=repo, texts=texts, sizes=dict(sorted(sizes.items())), problems=problems, warnings=warnings)


def publish(planned: Release, *, public: bool = False) -> str:
    """Write what `prepare` worked out and upload it; return the address of the repository. Killed? Run it again: what is there is not sent twice.

    Args:
        public: show the repository afterwards, behind a gate with approval by hand; otherwise it stays as it is (new ones: private).

    Raises:
        UserError: a check found a problem, nobody is logged in, or the Hub refused.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if planned.problems:
        raise UserError("\n".join([f"{planned.folder} cannot be published:", *planned.problems]))
    if get_token() is None:
        raise UserError("nobody is logged in to the Hub; run `hf auth login`, or set HF_TOKEN to a token that may write, then publish again")
    _write(planned)
    hub = HfApi()
    try:
        return _upload(hub, planned, public=public)
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no answer")
        raise UserError(f"the Hub refused ({status}): {_reason(error)}; check the name {planned.repo} and that your token may write there, then publish again") from error
    except (OSError, ValueError) as error:
        raise UserError(f"the upload to {planned.repo} broke off ({error}); publish again, what was sent is not sent twice") from error


def _upload(hub: Any, planned: Release, *, public: bool) -> str:
    where = {"repo_id": planned.repo, "repo_type": "dataset"}
    url = hub.create_repo(**where, private=True, exist_ok=True)
    held = hub.repo_info(**where)
    if not held.private and not held.gated:
        hub.update_repo_settings(**where, gated="manual")  # somebody made it public: the gate comes before the faces
    message = f"Publish {len(planned.sizes)} files with FaceFoundry"
    hub.upload_folder(**where, folder_path=planned.folder, allow_patterns=list(PARTS), ignore_patterns=["job/*", "**/.*"], delete_patterns=list(FACES), commit_message=message)
    if public and held.private:
        hub.update_repo_settings(**where, gated="manual", private=False)
    return str(url)


def _write(planned: Release) -> None:
    """Write the texts; a job's marker of the last stage is sealed again over the new card and manifest."""
    stage = Stage(root=planned.folder, name="publish")
    marker = stage.recorded(0) if plan_path(planned.folder).is_file() else None
    changed = [name for name, data in planned.texts.items() if not _holds(planned.folder / name, data)]
    for name in changed:
        write_bytes(planned.folder / name, planned.texts[name])
    if marker and set(changed) & marker["files"].keys():
        facts = {key: value for key, value in marker.items() if key not in ("shard", "files")}
        stage.complete(0, [planned.folder / name for name in marker["files"]], facts)


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _sizes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for pattern in PARTS for path in folder.glob(pattern) if path.is_file()}


def _date(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Return the day of the release: today, or the recorded one if the same rows were released before."""
    try:
        held = json.loads((folder / RELEASE).read_bytes())
        if held["shards_sha256"] == shards_digest(manifest):
            return str(held["date"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--repo '{repo}' is no repository name ({error}); expected owner/name") from error
    if repo.count("/") != 1:
        raise UserError(f"--repo '{repo}' is no repository name; expected owner/name")


def _reason(error: Exception) -> str:
    return str(getattr(error, "server_message", None) or str(error).splitlines()[0])
