"""The Slurm executor: workers are tasks of an array, submitted by submitit; they pull shards as any other worker does.

A task that times out or is pre-empted is queued again by submitit and goes on with whatever shards are left: nothing is handed over but the list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.progress import log
from .ranks import detect_rank
from .watch import watch_markers

if TYPE_CHECKING:
    from .executors import SlurmExecutor
    from .local import Step
    from .plan import Shard

LOOK_S = 1.0
"""Between two looks at markers and queue: the folder is on a shared file system, the queue belongs to everybody."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The body of one task; submitit carries it to the node."""

    steps: Sequence[Step]
    shards: Sequence[Shard]
    number: int

    def __call__(self) -> None:
        from .local import work

        rank = detect_rank()
        work(self.steps, self.shards, rank.local if rank.scheduler else self.number)

    def checkpoint(self) -> Any:
        """Called by submitit on a time-out or a pre-emption: the same worker again; its claims lapse, the shards it finished stay."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@contextmanager
def slurm_staff(executor: SlurmExecutor, steps: Sequence[Step], shards: Sequence[Shard], count: int) -> Iterator[_Array]:
    """Submit `count` workers for the block; those left are cancelled after it."""
    folder = steps[0].stage.root / "job" / "slurm"
    queue = _open(executor, folder)
    with queue.batch():
        jobs = [queue.submit(Worker(steps=list(steps), shards=list(shards), number=number)) for number in range(count)]
    log.info("submitted %d workers as %s; their logs are in %s", count, jobs[0].job_id.split("_")[0], folder)
    try:
        yield _Array(jobs=jobs, folder=folder)
    finally:
        for job in jobs:
            if not job.done(force_check=True):
                job.cancel(check=False)


@dataclass(frozen=True, kw_only=True)
class _Array:
    """Tasks that were submitted, and where their logs lie."""

    jobs: Sequence[Any]
    folder: Path

    def watch(self, step: Step, shards: Sequence[Shard], on_done: Callable[[Shard], None]) -> None:
        """Wait until all shards of a step are done; the first failure of a task is raised here."""
        watch_markers(step, shards, on_done, self._pause, lambda: any(not job.done() for job in self.jobs), self._gone)

    def _pause(self) -> None:
        time.sleep(LOOK_S)
        for job in self.jobs:
            if job.done() and (error := job.exception()) is not None:
                raise _failure(error, self.folder)

    def _gone(self, left: int) -> UserError:
        return UserError(f"the Slurm tasks ended with {left} shards left; see the logs in {self.folder}, then run the same command again")


def _open(executor: SlurmExecutor, folder: Path) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError("the Slurm executor needs submitit; install it with: pip install 'facefoundry[slurm]'") from None
    try:
        queue = submitit.AutoExecutor(folder=folder, cluster=executor.cluster)
    except RuntimeError as error:
        raise UserError(f"Slurm cannot be used from this machine ({error}); run this on a login node, or choose engine.executor: local") from error
    queue.update_parameters(name="facefoundry", timeout_min=executor.time_min, cpus_per_task=executor.cpus, mem_gb=executor.memory_gb, gpus_per_node=executor.gpus, tasks_per_node=1, nodes=1)
    if executor.cluster == "slurm":
        queue.update_parameters(**{f"slurm_{key}": value for key, value in {"partition": executor.partition, "additional_parameters": executor.options or None}.items() if value})
    return queue


def _failure(error: BaseException, folder: Path) -> Exception:
    """A user's mistake on a node is a user's mistake here; the rest is told with its trace."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "UserError: " in line), None)
    if told:
        return UserError(told.split("UserError: ", 1)[1])
    return UserError(f"a Slurm task failed ({lines[-1] if lines else type(error).__name__}); its log is in {folder}; mend the cause and run the same command again")
