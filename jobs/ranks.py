"""Which of several processes this one is, when a scheduler started them all with one command.

Every process runs the same `facefoundry run` on the same folder; shards are shared out by claims, so that a rank decides three things only: the
GPU, where in the list of shards to begin, and who writes the report.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.errors import UserError

_SCHEDULERS = (
    ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ("SkyPilot pool", "SKYPILOT_JOB_RANK", "SKYPILOT_NUM_JOBS", ""),
    ("SkyPilot", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES", ""),
    ("Kubernetes", "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", ""),
)
"""Scheduler, and the environment variables in which it says rank, number of processes and rank on the host. The first that is there counts.

Kubernetes sets the index alone; the number may be passed on as JOB_COMPLETIONS and is not needed.
"""


@dataclass(frozen=True, kw_only=True)
class Rank:
    """This process among its fellows.

    Attributes:
        index: from 0; 0 writes the report.
        count: how many there are; None where the scheduler does not say.
        local: index among those on this host, which chooses the GPU.
        shares_host: whether fellows may run on this host (the scheduler gives ranks within a host).
        scheduler: who started them.
    """

    index: int = 0
    count: int | None = 1
    local: int = 0
    shares_host: bool = False
    scheduler: str = ""


def detect_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """Return the rank that torchrun, Slurm's srun, SkyPilot or an indexed Kubernetes job gave this process; rank 0 of 1 without one.

    Raises:
        UserError: a variable holds no number, or a rank outside of its number of processes.
    """
    environment = os.environ if environment is None else environment
    for scheduler, index, count, local in _SCHEDULERS:
        if index in environment:
            number, here = (_number(environment, name) if name in environment else None for name in (count, local))
            rank = Rank(index=_number(environment, index), count=number, local=here or 0, shares_host=here is not None, scheduler=scheduler)
            if rank.count is not None and not 0 <= rank.index < rank.count:
                raise UserError(f"{index}={rank.index} is not a rank among {count}={rank.count}; expected 0 to {rank.count - 1}")
            return rank
    return Rank()


def take_gpu(local: int) -> None:
    """Make "cuda" mean the GPU of this worker; nothing where there is one GPU or none."""
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() > 1:
        torch.cuda.set_device(local % torch.cuda.device_count())


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise UserError(f"the environment variable {name} is '{environment[name]}', expected a whole number; unset it if no scheduler set it") from None
