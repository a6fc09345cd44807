"""What trained a recogniser, read from the manifests of its datasets, against the rules of a sub-task (challenge_ecosystem.md §1.2).

The rules bind what trains the recogniser, not what trained the generator: a winning generator itself had seen CASIA and FFHQ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UserError
from .frcsyn_rules import SubTask, check_training_data


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """One dataset folder as its manifest describes it.

    Attributes:
        title, generator: of the manifest.
        images, identities: rows kept after filtering; rejected rows do not train.
        origins: kinds of origin among the rows ("generated", "rendered", "real").
        fingerprint: of the job that made it, or None.
    """

    title: str
    generator: str
    images: int
    identities: int
    origins: tuple[str, ...]
    fingerprint: str | None

    @property
    def is_real(self) -> bool:
        """Whether a photograph of a real person is among the rows."""
        return "real" in self.origins


def read_training_set(folder: Path | str) -> TrainingSet:
    """Read the manifest of a dataset folder.

    Raises:
        UserError: no manifest that can be read: the provenance is unknown.
    """
    path = Path(folder) / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return TrainingSet(
            title=str(manifest["title"]),
            generator=str(manifest["generator"]),
            images=int(manifest["rows"]["data"]),
            identities=int(manifest["identities"]),
            origins=tuple(map(str, manifest["origins"])),
            fingerprint=manifest.get("facts", {}).get("fingerprint"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no manifest that can be read ({error}), so the provenance of the training data is unknown; bring the faces in with: facefoundry ingest --title NAME") from error


def check_training_sets(row: SubTask, sets: Sequence[TrainingSet]) -> list[str]:
    """Return what breaks a sub-task's rules on training data; empty = allowed.

    The synthetic images of all sets are counted together against the budget. Real data is known by the title of its set, compared
    without case and punctuation ("casia webface" is CASIA-WebFace). A set that mixes real and synthetic rows cannot be counted and is refused.
    """
    problems = [f"'{one.title}' mixes real and synthetic faces; keep them in two datasets" for one in sets if one.is_real and len(one.origins) > 1]
    synthetic = [one for one in sets if not one.is_real]
    allowed = {_plain(name): name for name in row.real}
    real = [allowed.get(_plain(one.title), one.title) for one in sets if one.is_real]
    problems += check_training_data(row, synthetic_images=sum(one.images for one in synthetic), real=real)
    if row.generators:
        fixed = {_plain(name) for name in row.generators}
        problems += [f"'{one.title}' is by '{one.generator}', edition {row.edition} fixes {' or '.join(row.generators)}" for one in synthetic if not {_plain(one.title), _plain(one.generator)} & fixed]
    return problems


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
