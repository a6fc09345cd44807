"""From a job file to a plan on disk: the fingerprint, the anchors of the identities, and the table of shards."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..core.errors import UserError
from ..core.files import sha256_file, write_bytes, write_json
from ..identity.centres import embedder_of, read_centres, write_rows
from .identities import check_identities, files_of, make_identities
from .spec import JobSpec

LIBRARIES = ("facefoundry", "torch", "numpy", "pillow", "pyarrow")
"""Packages whose versions can change pixels or files; written into every plan."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A run of identities that is made, and made again, as a whole."""

    id: int
    first_identity: int
    identities: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `job/plan.json` holds.

    Attributes:
        spec: the job, its engine section as the first run pinned it.
        fingerprint: SHA-256 over the job and the hashes of the files it uses.
        materials: SHA-256 of weights, prior and anchor file, by name.
        device: where the first run computed ("cpu", "cuda").
        versions: of the libraries that decide bytes.
        shards: the table of shards.
    """

    spec: JobSpec
    fingerprint: str
    materials: dict[str, str]
    device: str
    versions: dict[str, str]
    shards: tuple[Shard, ...]

    @property
    def images(self) -> int:
        return self.spec.identities.count * self.spec.per_identity


def make_plan(spec: JobSpec, device: str = "cpu") -> Plan:
    """Return the plan of a job; reads the files it uses, writes nothing.

    Raises:
        UserError: a weights or anchor file is missing.
    """
    materials = _materials(spec)
    text = spec.fingerprint() + json.dumps(materials, sort_keys=True)
    total, size = spec.identities.count, spec.writer.shard_identities
    shards = tuple(Shard(id=k, first_identity=first, identities=min(size, total - first)) for k, first in enumerate(range(0, total, size)))
    return Plan(spec=spec, fingerprint=hashlib.sha256(text.encode()).hexdigest(), materials=materials, device=device, versions=library_versions(), shards=shards)


def open_job(folder: Path, spec: JobSpec, device: str) -> Plan:
    """Start or resume the job in `folder` and return its plan; on resuming, batch, threads and device stay as they were.

    Raises:
        UserError: the folder holds another job's data, or files of another origin, or cannot be written.
    """
    fresh = make_plan(spec, device)
    if not plan_path(folder).is_file():
        _refuse_foreign(folder)
        _write_anchors(folder, spec)
        write_bytes(folder / "job" / "job.yaml", yaml.safe_dump(spec.document(), sort_keys=False, allow_unicode=True).encode())
        write_json(plan_path(folder), _document(fresh))
        return fresh
    held = read_plan(folder)
    if held.fingerprint != fresh.fingerprint:
        changes = _differences(_document(held), _document(fresh))
        raise UserError(f"the output folder holds another job's data: {folder} was begun with other settings ({changes}); choose another --out, or remove the folder")
    return held


def read_plan(folder: Path) -> Plan:
    """Read the plan of a job folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        values = json.loads(plan_path(folder).read_bytes())
        shards = tuple(Shard(**shard) for shard in values["shards"])
        spec = JobSpec.parse(values["job"], source=str(plan_path(folder)))
        return Plan(spec=spec, shards=shards, **{key: values[key] for key in ("fingerprint", "materials", "device", "versions")})
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no job (there is no job/plan.json); give the folder that `facefoundry run --out` wrote") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{plan_path(folder)} is damaged ({error}); remove the folder and run the job again") from error


def read_anchors(folder: Path) -> np.ndarray:
    """Return the identity anchors of a job, unit float32, (I, D)."""
    return np.load(folder / "job" / "anchors.npy")


def anchor_counts(folder: Path) -> dict[str, Any]:
    """Return what was drawn and dropped when the anchors were made (`identities.make_identities`); empty in folders of earlier versions."""
    path = folder / "job" / "anchors.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def plan_path(folder: Path) -> Path:
    """Where a job folder keeps its plan."""
    return folder / "job" / "plan.json"


def resolve_device(name: str) -> str:
    """Return the device that `auto`, `cpu`, `cuda`, `cuda:1`, ... means here.

    Raises:
        UserError: there is no such device.
    """
    import torch

    from ..core.device import default_device

    try:
        device = default_device() if name == "auto" else torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"engine.device is '{name}', which cannot be used here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return str(device)


def library_versions() -> dict[str, str]:
    """Return the versions of the packages that can change pixels or files."""
    return {name: version(name) for name in LIBRARIES}


def _document(plan: Plan) -> dict[str, Any]:
    facts = {"fingerprint": plan.fingerprint, "materials": plan.materials, "device": plan.device, "versions": plan.versions}
    return {**facts, "job": plan.spec.document(), "shards": [vars(shard) for shard in plan.shards]}


def _materials(spec: JobSpec) -> dict[str, str]:
    """Hash the anchor source and every weights file a setting of the generator names, by path or as a bundled file."""
    check_identities(spec.identities)
    found = {f"identities{key}": sha256_file(path) for key, path in files_of(spec.identities).items()}
    if spec.centres is not None:
        _check_centres(spec.centres, spec.judge)
        found["centres"] = sha256_file(spec.centres)
    for key, value in spec.generator.settings.model_dump(mode="json").items():
        if isinstance(value, str) and (path := weights_file(value)) is not None:
            found[f"generator.{key}"] = sha256_file(path)
    return found


def weights_file(value: str) -> Path | None:
    """Return the file a setting names, by path or by the name of bundled weights; None if it names none."""
    inside = resources.files("facefoundry") / "weights" / f"{value}.safetensors"
    for path in (Path(value), Path(str(inside))):
        if path.suffix == ".safetensors" and path.is_file():
            return path
    return None


def _check_centres(path: Path, judge: str) -> None:
    """Refuse centres of another space now, not after the images are made."""
    from ..recognition.embedder import load_embedder

    dim, found, maker = load_embedder(judge).dim, read_centres(path).shape[1], embedder_of(path)
    if maker not in (None, judge):
        raise UserError(f"centres: {path} was made with the embedder '{maker}', but the judge is '{judge}'; make it with: facefoundry centres FACES --out {path.name} --embedder {judge}")
    if found != dim:
        raise UserError(f"centres: the rows of {path} have {found} numbers, those of the judge '{judge}' {dim}; make them with the same embedder")


def _write_anchors(folder: Path, spec: JobSpec) -> None:
    anchor_ID, counts = make_identities(spec.identities, spec.seed)
    write_json(folder / "job" / "anchors.json", counts)
    write_rows(folder / "job" / "anchors.npy", anchor_ID)


def _refuse_foreign(folder: Path) -> None:
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"the output folder {folder} cannot be used: {error.strerror}") from error
    if names - {"job"}:  # `job` alone is a run that was killed before its plan was written
        raise UserError(f"the output folder {folder} is not empty and holds no job of FaceFoundry ({', '.join(sorted(names)[:3])}, ...); choose another --out")


def _differences(held: dict[str, Any], fresh: dict[str, Any]) -> str:
    left, right = flat({k: held[k] for k in ("job", "materials")}), flat({k: fresh[k] for k in ("job", "materials")})
    keys = [key for key in sorted({*left, *right}) if left.get(key) != right.get(key) and not key.startswith("job.engine")]
    shown = [f"{key.removeprefix('job.')}: {str(left.get(key))[:24]} there, {str(right.get(key))[:24]} asked" for key in keys[:3]]
    return "; ".join(shown) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, the keys joined by dots; lists stay whole."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: item for name, inner in value.items() for key, item in flat(inner, f"{prefix}.{name}" if prefix else name).items()}
