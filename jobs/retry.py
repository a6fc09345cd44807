"""Mint the shards again in which images failed; the rest of a finished job is put back from the dataset, not made again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..core.errors import UserError
from ..core.files import sha256_file
from ..core.progress import log
from ..identity.dataset import read_shard, shards_of, write_shard
from .plan import Plan, read_plan
from .publish import PublishStep, address
from .refill import list_path, rounds, shards_in, stage_of
from .run import run_job


def retry_failed(folder: Path, *, workers: int | None = None) -> dict[str, Any]:
    """Make the shards with failed images again and publish again.

    A shard is made as a whole, in its own batches: if nothing fails this time the dataset is that of a run in which nothing ever failed.
    Rounds of a refill after the first failure are listed and made anew, since they follow from the images before them.

    Returns:
        `failed_before`, `failed_after`, `shards` made again.

    Raises:
        UserError: no job there, or one that is running.
    """
    plan = read_plan(folder)
    found = {number: _failures(folder, plan, number) for number in rounds(folder, plan)}
    total = sum(len(rows) for shards in found.values() for rows in shards.values())
    if not total:
        return {"failed_before": 0, "failed_after": 0, "shards": 0}
    _refuse_running(folder, plan)
    first = min(number for number, shards in found.items() if shards)
    again = set(found[first])
    for number in range(first + 1):
        _put_back(folder, plan, number, leave_out=again if number == first else set())
    _take_back(folder, plan, first, again)
    run_job(plan.spec, folder, workers=workers)
    left = sum(len(rows) for number in rounds(folder, plan) for rows in _failures(folder, plan, number).values())
    return {"failed_before": total, "failed_after": left, "shards": len(again)}


def _failures(folder: Path, plan: Plan, number: int) -> dict[int, list[dict[str, str]]]:
    """Return the failed images of a round by shard."""
    stage = stage_of(folder, "generate", number)
    return {shard.id: rows for shard in shards_in(folder, plan, number) if (rows := (stage.recorded(shard.id) or {}).get("failed"))}


def _refuse_running(folder: Path, plan: Plan) -> None:
    lease_s = plan.spec.engine.lease_s
    stages = [PublishStep(folder=folder, lease_s=lease_s).stage, *(stage_of(folder, kind, number, lease_s) for kind in ("generate", "embed") for number in rounds(folder, plan))]
    if any(stage.working() for stage in stages):
        raise UserError(f"the job in {folder} is running; wait until it ends, then retry what failed")


def _put_back(folder: Path, plan: Plan, number: int, *, leave_out: set[int]) -> None:
    """Write the work files of a round again from the published rows: the same records without scores and reasons are the same bytes."""
    stage = stage_of(folder, "generate", number)
    published = _published(folder, plan)
    for shard in shards_in(folder, plan, number):
        marker, path = stage.recorded(shard.id), stage.data(shard.id, ".parquet")
        if shard.id in leave_out or marker is None or path.exists():
            continue
        rows = (record for file in published.get(shard.id, ()) for record in read_shard(file) if address(record.face_id)[1] // plan.spec.per_identity == number)
        write_shard(path, [replace(record, scores={}, dropped=None) for record in sorted(rows, key=lambda record: address(record.face_id))])
        if sha256_file(path) != marker["files"][str(path.relative_to(folder))]["sha256"]:
            log.warning("shard %d cannot be put back from the dataset as it was and is made again", shard.id)
            path.unlink()


def _published(folder: Path, plan: Plan) -> dict[int, list[Path]]:
    """Return the files of the dataset by the shard of the job they came from; a file holds rows of one."""
    found: dict[int, list[Path]] = {}
    for file in (*shards_of(folder, "data"), *shards_of(folder, "rejected")):
        identity = next(_identities(file))
        found.setdefault(identity // plan.spec.writer.shard_identities, []).append(file)
    return found


def _identities(file: Path) -> Iterator[int]:
    yield from pq.ParquetFile(file).read(columns=["identity"]).column("identity").to_pylist()


def _take_back(folder: Path, plan: Plan, first: int, again: set[int]) -> None:
    """Undo what follows from the failed shards, last things first, so that a kill in between leaves a job that `run` can finish."""
    PublishStep(folder=folder, lease_s=plan.spec.engine.lease_s).stage.forget([0])
    for number in range(plan.spec.refill, first, -1):
        for kind in ("generate", "embed"):  # before the list: markers must not outlive the list they belong to
            shutil.rmtree(stage_of(folder, kind, number).folder, ignore_errors=True)
        list_path(folder, number).unlink(missing_ok=True)
    for kind in ("embed", "generate"):  # embeddings must not outlive their images
        stage_of(folder, kind, first).forget(sorted(again))
