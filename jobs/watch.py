"""How the process that leads a job follows its workers: by the markers they leave, whoever they are and wherever they run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core.progress import Bar

if TYPE_CHECKING:
    from .local import Step
    from .plan import Shard
    from .shards import Stage

LOOK_S = 0.5
"""Between two looks at the claims."""


@contextmanager
def show_workers(stage: Stage, rows: Mapping[int, int], bar: Bar) -> Iterator[None]:
    """Show beneath a bar, for the block, who works on which shard and how far it is; on this machine and wherever claims are seen.

    Args:
        rows: images of each shard.
    """
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(LOOK_S):
            held = stage.at_work()
            bar.parts({f"{who}, shard {shard}": (min(done, rows[shard]), rows[shard]) for who, (shard, done) in held.items() if shard in rows})

    thread = threading.Thread(target=follow, daemon=True)
    if bar.shown:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
        bar.parts({})


def watch_markers(step: Step, shards: Sequence[Shard], on_done: Callable[[Shard], None], pause: Callable[[], None], alive: Callable[[], bool], gone: Callable[[int], Exception]) -> None:
    """Wait until all shards of a step are done.

    Args:
        on_done: called once for each shard that became done.
        pause: waits a moment between two looks; raises what a worker failed of.
        alive: whether any worker is left.
        gone: makes the error to raise, from how many shards are left when the last worker is gone.
    """
    left = list(shards)
    while left:
        pause()
        living = alive()  # before the look at the markers: a worker may finish its last shard and end in between
        marked = step.stage.marked()
        done = {shard.id for shard in left if shard.id in marked and step.stage.marker(shard.id) is not None}
        for shard in left:
            if shard.id in done:
                on_done(shard)
        left = [shard for shard in left if shard.id not in done]
        if left and not living:
            raise gone(len(left))
