"""How the process that leads a job follows its workers: by the markers they leave, whoever they are and wherever they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .local import Step
    from .plan import Shard


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
