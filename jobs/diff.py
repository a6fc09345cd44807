"""What sets two jobs apart: settings, files they use, versions, and (of finished ones) what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..identity.dataset import FaceDataset
from .plan import Plan, flat, make_plan, plan_path, read_plan, resolve_device
from .shards import Stage
from .spec import load_job

Pair = list[Any]
"""[in the first, in the second]; None where one has no such thing."""


def diff_jobs(first: Path, second: Path) -> dict[str, Any]:
    """Compare two jobs, each a job file or the folder of a job.

    Returns:
        `same_dataset`: whether they make the same images (equal fingerprints); `settings`: what decides the bytes and differs; `engine`: how they
        run; `materials`: hashes of weights and anchor files; `versions`, `device`: what can change last bits; of two finished folders `counts`,
        `figures` and `images` ({"same", "other_pixels", "only_first", "only_second"} by face id).

    Raises:
        UserError: neither a job file nor a job folder.
    """
    plans = [_plan(place) for place in (first, second)]
    left, right = (flat(plan.spec.document()) for plan in plans)
    changed = _differences(left, right)
    found: dict[str, Any] = {
        "same_dataset": plans[0].fingerprint == plans[1].fingerprint, "fingerprints": [plan.fingerprint for plan in plans],
        "settings": {key: value for key, value in changed.items() if not key.startswith("engine.")}, "engine": {key: value for key, value in changed.items() if key.startswith("engine.")},
        "materials": _differences(plans[0].materials, plans[1].materials), "versions": _differences(plans[0].versions, plans[1].versions),
        "device": [plan.device for plan in plans] if plans[0].device != plans[1].device else None,
    }  # fmt: skip
    if all(_finished(place) for place in (first, second)):
        reports = [json.loads((place / "report.json").read_bytes()) for place in (first, second)]
        found |= {part: _differences(*(flat(report[part]) for report in reports)) for part in ("counts", "figures")}
        found["images"] = _images(first, second)
    return found


def _plan(place: Path) -> Plan:
    if place.is_dir():
        return read_plan(place)
    spec = load_job(place)
    return make_plan(spec, resolve_device(spec.engine.device))


def _finished(place: Path) -> bool:
    return plan_path(place).is_file() and (place / "report.json").is_file()


def _differences(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Pair]:
    return {key: [left.get(key), right.get(key)] for key in sorted({*left, *right}) if left.get(key) != right.get(key)}


def _images(first: Path, second: Path) -> dict[str, int]:
    left, right = _hashes(first), _hashes(second)
    both = left.keys() & right.keys()
    same = sum(left[name] == right[name] for name in both)
    return {"same": same, "other_pixels": len(both) - same, "only_first": len(left) - len(both), "only_second": len(right) - len(both)}


def _hashes(folder: Path) -> dict[str, str]:
    """Hash of every kept image, from the markers; no image is read."""
    kept = set(FaceDataset.open(folder).table.column("face_id").to_pylist())
    found: dict[str, str] = {}
    for stage in sorted((folder / "job").glob("generate*")):
        markers = Stage(root=folder, name=stage.name)
        for shard in markers.marked():
            marker = markers.recorded(shard) or {}
            found |= zip(marker.get("face_id", ()), marker.get("image_sha256", ()))
    return {name: digest for name, digest in found.items() if name in kept}
