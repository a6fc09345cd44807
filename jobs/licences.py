"""The licence chain of a job: what every part that shapes the images was made from, and what that forbids.

Bundled and imported weights carry it in their header ("licence", else "data"); what came without is said to be unknown, never guessed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import bundled
from .identities import PRIOR
from .plan import weights_file
from .spec import JobSpec

UNKNOWN = "not known here; ask whoever made it"

_KNOWN = {
    "anchor-prior": "statistics of LFW, CelebA and Glint faces (research use only); it holds no real person",
    "autoencoder-sharp": "trained on research data; weights for research use",
    "autoencoder-small": "trained on research data; weights for research use",
    "lcm-small": "student of uiface-small, trained on research data; weights for research use",
    "lcm-decoder": "student of autoencoder-small, trained on research data; weights for research use",
    "dlib": "network released as CC0 by its author; trained on face sets gathered for research (FaceScrub, VGG and others)",
}
"""Parts whose file does not say it."""

_CLOSED = re.compile(r"\b(research|nc|non-?commercial|not known)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One link of the chain."""

    role: str
    name: str
    licence: str

    @property
    def is_open(self) -> bool:
        """Whether nothing in the text limits use; a limit, "research" or silence does."""
        return _CLOSED.search(self.licence) is None


def licence_chain(spec: JobSpec) -> list[Part]:
    """Return the parts of a job with their licences: generator's weights, anchors, judge, files of the user's."""
    parts = []
    for key, value in spec.generator.settings.model_dump(mode="json").items():
        if isinstance(value, str) and (path := weights_file(value)) is not None:
            parts.append(Part(role=f"generator.{key}", name=value, licence=_of_file(path)))
    if spec.identities.source == "file" or spec.identities.file is not None:
        parts.append(Part(role="identities", name=str(spec.identities.file and spec.identities.file.name), licence=UNKNOWN))
    elif spec.identities.source in ("prior", "gaussian"):
        parts.append(Part(role="identities", name="anchor-prior", licence=_of_file(bundled(PRIOR))))
    return [*parts, Part(role="judge", name=spec.judge, licence=_of_judge(spec.judge))]


def chain_text(spec: JobSpec) -> str:
    """Return the chain for the card of the dataset."""
    lines = [f"- {part.role} `{part.name}`: {part.licence}" for part in licence_chain(spec)]
    return "\n".join(["The set inherits the limits of what made it:", "", *lines])


def training_data(spec: JobSpec) -> str:
    """Return which real data the generator's weights say they were trained on, for the card."""
    settings = spec.generator.settings.model_dump(mode="json").values()
    found = {value: weights_facts(path).get("data", "its file does not say") for value in settings if isinstance(value, str) and (path := weights_file(value)) is not None}
    return "; ".join(f"`{name}`: {data}" for name, data in found.items()) or f"none that its settings name (generator `{spec.generator.name}` loads no weights)"


def plan_warnings(spec: JobSpec, *, images: int, shards: int, workers: int) -> list[str]:
    """Return what somebody should know before a job runs; nothing of it stops it."""
    closed = [part.role for part in licence_chain(spec) if not part.is_open]
    found = [f"licence: {', '.join(closed)} limit use or say nothing; treat the dataset as research only"] if closed else []
    if not any(part.name.startswith("leakage") for part in spec.filters):
        found.append("leakage: the images are not compared with real people (centres and the filter 'leakage')")
    if spec.writer.format == "jpeg":
        found.append("jpeg: 8x8 blocks and colour steps stay in the images; privacy and detection methods would learn them")
    if images > 500_000:
        found.append(f"size: {images:,} images are more than the 500,000 of FRCSyn sub-tasks x.1 and x.3")
    if shards < workers:
        found.append(f"shards: {shards} for {workers} workers; writer.shard_identities below {spec.writer.shard_identities} would give all of them work")
    return found


def _of_judge(name: str) -> str:
    try:
        path = Path(name) if Path(name).suffix == ".safetensors" else bundled(f"{name}.safetensors")
    except UserError:
        return _KNOWN.get(name, UNKNOWN)
    return _of_file(path)


def weights_facts(path: Path) -> dict[str, Any]:
    """Return what a weights file says of itself in its header ("data", "licence", ...); empty where it says nothing or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:  # the header alone
            return json.loads((file.metadata() or {}).get("facefoundry", "{}")).get("facts", {})
    except (OSError, ValueError, SafetensorError):  # what the file is worth is said by whoever loads it
        return {}


def _of_file(path: Path) -> str:
    facts = weights_facts(path)
    return str(facts.get("licence") or _KNOWN.get(path.stem) or facts.get("data") or UNKNOWN)
