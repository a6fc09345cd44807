"""The local executor: one process in place, or several spawned ones that pull shards from the same stage."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import UserError
from ..core.progress import bar, log
from .executors import Executor, LocalExecutor
from .plan import Shard
from .ranks import take_gpu
from .shards import Stage
from .watch import show_workers, watch_markers

Made = tuple[Sequence[Path], dict[str, Any]]
"""Files of a finished shard, already renamed into place, and the facts for its marker (with "rows")."""

POLL_S = 0.1


class Step(Protocol):
    """What is done to a shard. It travels to the workers by pickle, so it holds paths and settings, no networks."""

    stage: Stage
    label: str

    def open(self) -> Callable[[Shard], Made]:
        """Load the networks, once in a process, and return the function that makes a shard."""
        ...


def cores() -> int:
    """Return the CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_steps(steps: Sequence[Step], shards: Sequence[Shard], *, workers: int, executor: Executor = LocalExecutor(), rows: Callable[[Shard], int] = lambda shard: 0) -> None:
    """Bring every shard through the steps, one step after the other; shards that are done already are left alone.

    Args:
        executor: who starts the workers.
        rows: how many images a shard has, for the progress bar.

    Raises:
        UserError: as a worker raised it, or a worker was killed. What is done stays done.
    """
    for step in steps:
        for name in step.stage.repair([shard.id for shard in shards]):
            log.warning("%s is damaged or missing and is made again", name)
    left = [shard for shard in shards if any(step.stage.marker(shard.id) is None for step in steps)]
    with executor.staff(steps, shards, min(workers, len(left))) if left else nullcontext() as staff:
        for step in steps:
            begun = [shard for shard in left if step.stage.marker(shard.id) is None]
            if not begun:
                continue
            with bar(step.label, sum(map(rows, begun))) as advance, show_workers(step.stage, {shard.id: rows(shard) for shard in begun}, advance):
                follow = staff.watch if staff else drain
                follow(step, begun, lambda shard: advance(rows(shard)))


def work(steps: Sequence[Step], shards: Sequence[Shard], number: int) -> None:
    """What every worker of every executor does: bring the shards through the steps.

    Args:
        number: of the worker: on this host it chooses the GPU, and it begins elsewhere in the list than its fellows.
    """
    take_gpu(number)
    turn = number * 61 % max(1, len(shards))  # coprime to most lengths: workers meet late
    for step in steps:
        drain(step, [*shards[turn:], *shards[:turn]])


def drain(step: Step, shards: Sequence[Shard], on_done: Callable[[Shard], None] = lambda shard: None) -> None:
    """Claim and make shards until all are done, by this process or by others; the step is opened when there is work."""
    opened = functools.cache(step.open)
    left, idle = deque(shards), 0
    while left:
        shard = left.popleft()
        if _bring_to_done(step.stage, shard, opened):
            on_done(shard)
            idle = 0
            continue
        left.append(shard)
        idle += 1
        if idle >= len(left):  # all that is left is in other hands
            time.sleep(POLL_S)
            idle = 0


def _bring_to_done(stage: Stage, shard: Shard, opened: Callable[[], Callable[[Shard], Made]]) -> bool:
    """Return whether the shard is done, after trying to make it; False while another worker has it."""
    if stage.marker(shard.id) is not None:
        return True
    with stage.claim(shard.id) as mine:
        if mine and stage.marker(shard.id) is None:
            begin_s = time.monotonic()
            files, facts = opened()(shard)
            stage.complete(shard.id, files, {**facts, "wall_s": round(time.monotonic() - begin_s, 3)})
        return mine


@dataclass
class _Staff:
    """Running worker processes and the pipes they report failures through."""

    processes: list[Any]
    receivers: list[Connection]

    def watch(self, step: Step, shards: Sequence[Shard], on_done: Callable[[Shard], None]) -> None:
        """Wait until all shards of a step are done; a worker's failure is raised here."""
        watch_markers(step, shards, on_done, self._listen, lambda: bool(self.receivers), self._gone)

    def _listen(self) -> None:
        for receiver in wait(self.receivers, timeout=POLL_S):
            try:
                _raise_failure(*receiver.recv())
            except EOFError:
                self.receivers.remove(receiver)

    def _gone(self, left: int) -> UserError:
        codes = ", ".join(str(process.exitcode) for process in self.processes)
        return UserError(f"the workers ended (exit codes {codes}) with {left} shards left; -9 is often lack of memory: use fewer --workers, then run the same command again")


@contextmanager
def local_staff(steps: Sequence[Step], shards: Sequence[Shard], count: int) -> Iterator[_Staff | None]:
    """Start `count` processes for the block and stop them after it; None where one process does and this one is it."""
    if count < 2:
        yield None
        return
    context = multiprocessing.get_context("spawn")  # a forked torch or CUDA state hangs
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [context.Process(target=_work, args=(steps, shards, sender, number), daemon=True) for number, (_, sender) in enumerate(pipes)]
    try:
        for process, (_, sender) in zip(processes, pipes):
            process.start()
            sender.close()  # only the worker's end stays open, so that its death is seen here
        yield _Staff(processes=processes, receivers=[receiver for receiver, _ in pipes])
    finally:
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join(timeout=10)
            if process.exitcode is None:
                process.kill()


def _raise_failure(kind: str, message: str) -> None:
    raise UserError(message) if kind == "user" else RuntimeError(f"a worker failed:\n{message}")


def _work(steps: Sequence[Step], shards: Sequence[Shard], sender: Connection, number: int) -> None:
    """Body of a spawned worker: make shards, report a failure through the pipe, end when the parent ends."""
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with terminable():
        try:
            work(steps, shards, number)
        except UserError as error:
            sender.send(("user", str(error)))
        except Exception:
            sender.send(("trace", traceback.format_exc()))
        finally:
            sender.close()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # an orphan would hold its claims for ever; its half-made shard is made again


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143) for the block, so that claims and temporary files are cleaned up on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
