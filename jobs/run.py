"""Run a job from its file to the finished dataset and its report; a second call carries on or finds nothing to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.progress import log
from .executors import Executor, LocalExecutor
from .local import run_steps, terminable
from .plan import Plan, Shard, library_versions, make_plan, open_job, read_plan, resolve_device
from .ranks import Rank, detect_rank, take_gpu
from .shards import Stage
from .spec import JobSpec
from .refill import counts, is_listed, rounds, shards_in, stage_of, write_list
from .steps import EmbedStep, GenerateStep
from .store import bring_finished, join, put_finished, share_plan

WHOLE = (Shard(id=0, first_identity=0, identities=0),)


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What a finished run hands back.

    Attributes:
        folder: the dataset.
        seconds: wall time of this call.
        values: counts, figures and costs; what report.json holds. Empty in processes other than the first of several (`ranks`).
    """

    folder: Path
    seconds: float
    values: dict[str, Any]


def run_job(spec: JobSpec, folder: Path, *, workers: int | None = None) -> JobResult:
    """Make the dataset of `spec` in `folder`, resuming whatever is there.

    Args:
        workers: processes; overrides the engine's. Any number gives the same dataset.

    Raises:
        UserError: the folder holds another job's data, the disk is full, weights are missing, every image of a shard failed.
    """
    from .publish import PublishStep
    from .report import write_report

    begin_s = time.monotonic()
    device = resolve_device(spec.engine.device)
    if spec.engine.store:
        join(folder, spec.engine.store)
    plan = open_job(folder, spec, device)
    if spec.engine.store:
        share_plan(folder)
        bring_finished(folder)
        plan = read_plan(folder)
    _warn_of_changes(plan, spec, device)
    rank = detect_rank()
    take_gpu(rank.local)
    executor, number = _crew(spec, plan, rank, workers)
    publish = PublishStep(folder=folder, lease_s=plan.spec.engine.lease_s)
    with terminable():
        publish.stage.repair([0])
        if publish.stage.marker(0) is None or not _embedded(folder, plan):
            _mint(folder, plan, executor, number)
            if rank.index and spec.engine.store:  # the first of several gathers the shards from the store
                return JobResult(folder=folder, seconds=time.monotonic() - begin_s, values={})
            run_steps((publish,), WHOLE, workers=1)
        if rank.index:  # one of several processes writes the report
            return JobResult(folder=folder, seconds=time.monotonic() - begin_s, values={})
        values = write_report(folder)
        put_finished(folder)
        for part in rounds(folder, plan):
            stage_of(folder, "generate", part).discard([shard.id for shard in shards_in(folder, plan, part)])
        _sweep(folder, [publish.stage, *(stage_of(folder, kind, part, plan.spec.engine.lease_s) for kind in ("generate", "embed") for part in rounds(folder, plan))])
    return JobResult(folder=folder, seconds=time.monotonic() - begin_s, values=values)


def _crew(spec: JobSpec, plan: Plan, rank: Rank, workers: int | None) -> tuple[Executor, int]:
    """Return who works and how many: where a scheduler started several of us, each is a worker and starts no cluster of its own."""
    wanted = workers or spec.engine.workers
    if rank.count == 1:
        return spec.engine.executor, wanted or spec.engine.executor.workers(plan.device)
    local = LocalExecutor()
    return local, wanted or (1 if rank.shares_host else local.workers(plan.device))


def _mint(folder: Path, plan: Plan, executor: Executor, workers: int) -> None:
    """Make and embed the images of every round; the list of a round is written once the rounds before it are done."""
    from .publish import gather

    for number in range(plan.spec.refill + 1):
        if not is_listed(folder, number):
            rows = gather(folder, plan, number)
            write_list(folder, plan, number, identity_N=rows.identity_N, image_N=rows.image_N, kept_N=rows.kept_N, refused=rows.refused)
        shards, size = shards_in(folder, plan, number), counts(folder, plan, number)
        if not shards:
            return
        steps = [kind(folder=folder, lease_s=plan.spec.engine.lease_s, number=number) for kind in (GenerateStep, EmbedStep)]
        run_steps(steps, shards, workers=workers, executor=executor, rows=lambda shard, size=size: size[shard.id])


def _embedded(folder: Path, plan: Plan) -> bool:
    """Whether the embeddings of every round are there."""
    return all(stage_of(folder, "embed", part).marker(shard.id) is not None for part in rounds(folder, plan) for shard in shards_in(folder, plan, part))


def job_status(folder: Path) -> dict[str, Any]:
    """Return how far a job is: shards and images done by stage, speed and time left; reads markers only."""
    plan = read_plan(folder)
    stages, parts = {}, rounds(folder, plan)
    work = [(stage_of(folder, kind, part).name, shards_in(folder, plan, part)) for part in parts for kind in ("generate", "embed")]
    for name, shards in (*work, ("publish", WHOLE)):
        stage = Stage(root=folder, name=name, lease_s=plan.spec.engine.lease_s)
        markers = stage.records(shard.id for shard in shards)
        stages[name] = {
            "shards": len(shards), "done": len(markers), "working": stage.working(), "images": sum(marker["rows"] for marker in markers),
            "failed": sum(len(marker["failed"]) for marker in markers if isinstance(marker.get("failed"), list)),
            "worker_s": round(sum(marker["wall_s"] for marker in markers), 1),
        }  # fmt: skip
    made = [stage for name, stage in stages.items() if name.startswith("generate")]
    images, spent_s, working = (sum(stage[key] for stage in made) for key in ("images", "worker_s", "working"))
    rate = images / spent_s if spent_s else None
    left = sum(sum(counts(folder, plan, part).values()) for part in parts) - images - sum(stage["failed"] for stage in made)
    state = "finished" if stages["publish"]["done"] else "running" if any(stage["working"] for stage in stages.values()) else "stopped"
    eta_s = round(left / rate / max(1, working)) if rate and left > 0 else None
    return {"job": plan.spec.name, "fingerprint": plan.fingerprint, "state": state, "images": plan.images, "images_per_worker_s": rate and round(rate, 2), "eta_s": eta_s, "stages": stages}


def plan_summary(spec: JobSpec) -> dict[str, Any]:
    """Return what a job would make, without making it: counts, shards, disk, fingerprint, licence chain, warnings."""
    from .licences import licence_chain, plan_warnings

    plan = make_plan(spec, resolve_device(spec.engine.device))
    workers = spec.engine.workers or spec.engine.executor.workers(plan.device)
    # 112x112 noise-free faces take about 22 kB as PNG and 7 kB as JPEG 95; work shards double it until the job is published.
    size = plan.images * (22_000 if spec.writer.format == "png" else 7_000)
    return {
        "job": spec.name, "fingerprint": plan.fingerprint, "identities": spec.identities.count, "images": plan.images, "shards": len(plan.shards),
        "generator": spec.generator.name, "judge": spec.judge, "filters": [part.name for part in spec.filters], "device": plan.device,
        "workers": workers, "disk_mb": round(2 * size / 1e6, 1), "materials": plan.materials, "licences": {part.role: f"{part.name}: {part.licence}" for part in licence_chain(spec)},
        "warnings": plan_warnings(spec, images=plan.images, shards=len(plan.shards), workers=workers),
    }  # fmt: skip


def verify_job(folder: Path) -> dict[str, Any]:
    """Hash every file of a dataset folder again and decode every image.

    Returns:
        {"ok", "problems": [...], "rows", "digest"}; the digest is over (face_id, SHA-256 of the image) of all rows.
    """
    from ..core.images import decode
    from ..identity.dataset import FaceDataset, verify_dataset
    from .publish import dataset_digest

    problems = verify_dataset(folder)
    if problems:
        return {"ok": False, "problems": problems, "rows": None, "digest": None}
    parts = [FaceDataset.open(folder, part) for part in ("data", "rejected")]
    rows = 0
    for part in parts:
        for record in part.records():
            rows += 1
            try:
                if record.image is not None:
                    decode(record.image)
            except UserError as error:
                problems.append(f"face {record.face_id}: {error}")
    digest = dataset_digest([shard for part in parts for shard in part.shards])
    return {"ok": not problems, "problems": problems, "rows": rows, "digest": digest}


def _sweep(folder: Path, stages: Sequence[Stage]) -> None:
    """Remove temporary files of runs that were killed, unless somebody else is at work here."""
    if any(stage.working() for stage in stages):
        return
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _warn_of_changes(plan: Plan, spec: JobSpec, device: str) -> None:
    """Say what a resumed job keeps although this call asks for something else."""
    held, asked = plan.spec.engine, spec.engine
    for name, left, right in (("batch", held.batch, asked.batch), ("threads", held.threads, asked.threads), ("device", plan.device, device)):
        if left != right:
            log.warning("the job was begun with %s %s and keeps it (asked: %s), so that its images stay the same", name, left, right)
    versions = library_versions()
    changed = [f"{name} {old} -> {new}" for name, old in plan.versions.items() if (new := versions[name]) != old]
    if changed:
        log.warning("versions changed since the job was begun (%s); pixels may differ in the last bit between old and new shards", ", ".join(changed))
