"""Who does the work of a job: processes of this machine, tasks of a Slurm array, or actors of a Ray cluster.

All three run the same loop over the same claims and markers in the dataset's folder (which every worker must see), so that the dataset does not
depend on the executor, on how many workers there are, or on which of them die.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from ..core.config import Config
from ..core.errors import UserError

if TYPE_CHECKING:
    from .local import Step
    from .plan import Shard


class Staff(Protocol):
    """Workers that were started and pull shards."""

    def watch(self, step: Step, shards: Sequence[Shard], on_done: Callable[[Shard], None]) -> None:
        """Wait until all shards of a step are done and tell of each; raise UserError when the workers are gone."""
        ...


class LocalExecutor(Config):
    """Processes of this machine: one a CPU core, or one a GPU."""

    name: Literal["local"] = "local"

    def workers(self, device: str) -> int:
        """Return how many workers fit this machine."""
        import torch

        from .local import cores

        return cores() if device == "cpu" else max(1, torch.cuda.device_count())

    def staff(self, steps: Sequence[Step], shards: Sequence[Shard], count: int) -> AbstractContextManager[Staff | None]:
        """Start workers for the block; None where one process does and this one is it."""
        from .local import local_staff

        return local_staff(steps, shards, count)


class SlurmExecutor(Config):
    """An array of Slurm tasks through submitit; a task that is pre-empted or times out is queued again and goes on."""

    name: Literal["slurm"]
    partition: str | None = None
    time_min: int = Field(default=240, gt=0)  # wall-clock minutes of a task
    cpus: int = Field(default=4, gt=0)  # of a worker
    gpus: int = Field(default=1, ge=0)  # of a worker
    memory_gb: float = Field(default=16.0, gt=0.0)
    options: dict[str, str | int] = {}  # further options of sbatch, e.g. {account: lab, qos: low}
    cluster: Literal["slurm", "local"] = "slurm"  # local: submitit's own stand-in, to try a job file out without a cluster

    def workers(self, device: str) -> int:
        """A cluster has no natural number: the job must say one."""
        raise UserError("the Slurm executor needs a number of workers; set engine.workers (or --workers) to the size of the array")

    def staff(self, steps: Sequence[Step], shards: Sequence[Shard], count: int) -> AbstractContextManager[Staff | None]:
        """Submit the array for the block; what is left of it is cancelled after it."""
        from .slurm import slurm_staff

        return slurm_staff(self, steps, shards, count)


class RayExecutor(Config):
    """Actors of a Ray cluster that is running already (`ray start --head`); an actor that is lost is started again elsewhere."""

    name: Literal["ray"]
    address: str = "auto"  # of the cluster, "host:port"; auto = the one this machine belongs to
    cpus: float = Field(default=1.0, ge=0.0)  # of a worker
    gpus: float = Field(default=0.0, ge=0.0)  # of a worker; a share of a card is allowed

    def workers(self, device: str) -> int:
        """Return how many workers the cluster has room for."""
        from .on_ray import room

        return room(self)

    def staff(self, steps: Sequence[Step], shards: Sequence[Shard], count: int) -> AbstractContextManager[Staff | None]:
        """Start actors for the block and stop them after it."""
        from .on_ray import ray_staff

        return ray_staff(self, steps, shards, count)


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Executor = Annotated[LocalExecutor | SlurmExecutor | RayExecutor, Field(discriminator="name"), BeforeValidator(_by_name)]
"""In a job file: `executor: ray`, or with settings `executor: {name: slurm, partition: gpu}`."""
