"""The Ray executor: actors of a running cluster pull shards as any other worker does; one that is lost is started again.

Ray core only: shards are claimed in the dataset's folder, which every node must see, so that the loss of any process, the cluster's head included,
costs the shards it was at.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.progress import log
from .watch import watch_markers

if TYPE_CHECKING:
    from .executors import RayExecutor
    from .local import Step
    from .plan import Shard

LOOK_S = 0.2
LOSSES_EACH = 5
"""How often an actor is started again before its slot is given up: a shard that kills its worker must not kill for ever."""


def room(executor: RayExecutor) -> int:
    """Return how many workers fit into the cluster's processors and GPUs."""
    ray = _join(executor)
    have = ray.cluster_resources()
    fits = [int(have.get(kind, 0) // need) for kind, need in (("CPU", executor.cpus), ("GPU", executor.gpus)) if need]
    if not fits or min(fits) < 1:
        raise UserError(f"the Ray cluster has {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs, too few for one worker of {executor.cpus:g} CPUs and {executor.gpus:g} GPUs")
    return min(fits)


@contextmanager
def ray_staff(executor: RayExecutor, steps: Sequence[Step], shards: Sequence[Shard], count: int) -> Iterator[_Actors]:
    """Start `count` actors for the block and stop them after it; the cluster goes on."""
    ray = _join(executor)
    from ray import exceptions

    actors = _Actors(ray=ray, lost=exceptions.RayActorError, broken=exceptions.RayError, start=_starter(ray, executor, steps, shards), count=count, head=ray.get_runtime_context().gcs_address)
    try:
        actors.hire()
        yield actors
    finally:
        actors.dismiss()


@dataclass(kw_only=True)
class _Actors:
    """Actors at work; `running` maps the promise of an actor's end to (number, actor)."""

    ray: Any
    lost: type[Exception]
    broken: type[Exception]
    start: Callable[[int], tuple[Any, Any]]
    count: int
    head: str
    running: dict[Any, tuple[int, Any]] = field(default_factory=dict)
    losses: dict[int, int] = field(default_factory=dict)

    def hire(self) -> None:
        """Start all actors."""
        for number in range(self.count):
            self._start(number)

    def watch(self, step: Step, shards: Sequence[Shard], on_done: Callable[[Shard], None]) -> None:
        """Wait until all shards of a step are done; lost actors are replaced, an actor's failure is raised here."""
        watch_markers(step, shards, on_done, self._look_after, lambda: bool(self.running), self._gone)

    def dismiss(self) -> None:
        """Stop what still runs."""
        for _, actor in self.running.values():
            try:
                self.ray.kill(actor)
            except Exception as error:  # the cluster may be gone: there is nothing left to stop
                log.debug("an actor could not be stopped: %s", error)

    def _start(self, number: int) -> None:
        promise, actor = self.start(number)
        self.running[promise] = (number, actor)

    def _look_after(self) -> None:
        begin_s = time.monotonic()
        if not _answers(self.head):  # asked here: Ray itself waits a minute and then ends the process without a word
            raise _unreachable(f"nothing answers at {self.head}")
        try:
            ended, _ = self.ray.wait(list(self.running), num_returns=1, timeout=LOOK_S) if self.running else ([], [])
            for promise in ended:
                self._settle(promise)
        except (self.broken, ConnectionError, RuntimeError) as error:
            raise _unreachable(_first_line(error)) from error
        time.sleep(max(0.0, LOOK_S - (time.monotonic() - begin_s)))

    def _settle(self, promise: Any) -> None:
        """Take the end of an actor: nothing left to do, a failure, or a loss that is made good."""
        number, _ = self.running.pop(promise)
        try:
            failure = self.ray.get(promise)
        except self.lost as error:
            self.losses[number] = self.losses.get(number, 0) + 1
            if self.losses[number] > LOSSES_EACH:
                log.warning("worker %d was lost %d times and is not started again", number, self.losses[number])
                return
            log.warning("worker %d was lost (%s) and is started again", number, _first_line(error))
            self._start(number)
            return
        if failure is not None:
            raise UserError(failure)

    def _gone(self, left: int) -> UserError:
        return UserError(f"the Ray workers ended with {left} shards left; look at Ray's own logs (often lack of memory), then run the same command again")


def _starter(ray: Any, executor: RayExecutor, steps: Sequence[Step], shards: Sequence[Shard]) -> Callable[[int], tuple[Any, Any]]:
    remote = ray.remote(num_cpus=executor.cpus, num_gpus=executor.gpus)(_Worker)

    def start(number: int) -> tuple[Any, Any]:
        actor = remote.remote()
        return actor.run.remote(list(steps), list(shards), number), actor

    return start


class _Worker:
    """Body of an actor."""

    def run(self, steps: Sequence[Step], shards: Sequence[Shard], number: int) -> str | None:
        """Work until nothing is left; a user's mistake comes back as its message, for exceptions lose their kind on the way."""
        from .local import work

        try:
            work(steps, shards, number)
        except UserError as error:
            return str(error)
        return None


def _join(executor: RayExecutor) -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("the Ray executor needs ray; install it with: pip install 'facefoundry[ray]'") from None
    if not ray.is_initialized():
        if ":" in executor.address and not _answers(executor.address):
            raise _no_cluster(executor, "nothing answers there")
        try:
            ray.init(address=executor.address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _no_cluster(executor, _first_line(error)) from error
    return ray


def _no_cluster(executor: RayExecutor, why: str) -> UserError:
    return UserError(f"there is no Ray cluster at '{executor.address}' ({why}); start one with `ray start --head`, or give engine.executor.address")


def _unreachable(why: str) -> UserError:
    return UserError(f"the Ray cluster cannot be reached any more ({why}); what is done stays done: start a cluster and run the same command again")


def _answers(address: str) -> bool:
    """Whether something listens at "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, ValueError):
        return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
