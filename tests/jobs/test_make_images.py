"""Micro-batches that meet too little memory or too many failures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from facefoundry.core.errors import UserError
from facefoundry.core.seeds import numpy_rng
from facefoundry.core.types import FaceBatch
from facefoundry.jobs.make_images import is_out_of_memory, make_images
from procedural import Procedural, ProceduralConfig

ANCHORS = numpy_rng(0, "anchors").normal(size=(4, 128)).astype(np.float32)
ROWS = [(identity, image) for identity in range(4) for image in range(5)]


class Cramped(Procedural):
    """Memory for `room` images; `sizes` remembers what was asked."""

    def __init__(self, room: int, error: BaseException) -> None:
        super().__init__(ProceduralConfig())
        self.room, self.error, self.sizes = room, error, []

    def generate(self, anchor_BD: np.ndarray, seeds) -> FaceBatch:
        self.sizes.append(len(seeds))
        if len(seeds) > self.room:
            raise self.error
        return super().generate(anchor_BD, seeds)


def plan(batch: int = 8, max_failures: float = 0.5) -> SimpleNamespace:
    engine = SimpleNamespace(batch=batch, max_failures=max_failures)
    return SimpleNamespace(spec=SimpleNamespace(anchor_image=False, seed=3, engine=engine, per_identity=5))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_halved_batches_make_the_same_images(error, caplog):
    whole, _ = make_images(plan(), Procedural(ProceduralConfig()), ANCHORS, ROWS)
    cramped = Cramped(room=3, error=error)
    halved, failed = make_images(plan(), cramped, ANCHORS, ROWS)
    assert failed == [] and [row[:3] for row in halved] == [row[:3] for row in whole]
    assert all(np.array_equal(left[3], right[3]) for left, right in zip(halved, whole))
    assert cramped.sizes == [8, 4] + [2] * 10  # a size that did not fit is not tried again
    assert "going on with 2" in caplog.text


def test_an_image_that_does_not_fit_alone_is_the_users_to_solve():
    with pytest.raises(UserError, match="memory runs out with a single image"):
        make_images(plan(batch=2), Cramped(room=0, error=MemoryError()), ANCHORS, ROWS)


def test_failures_above_the_limit_stop_with_the_most_frequent_reason():
    broken = Procedural(ProceduralConfig(fail_every=2))
    made, failed = make_images(plan(max_failures=1.0), broken, ANCHORS, ROWS)
    assert len(made) + len(failed) == len(ROWS) and len(failed) > 4
    with pytest.raises(UserError, match=r"of a shard's 20 images failed, more than engine.max_failures = 0.1.*procedural generator fails"):
        make_images(plan(max_failures=0.1), broken, ANCHORS, ROWS)


def test_a_lone_failure_never_stops_a_job():
    rows = ROWS[:3]
    generator = Procedural(ProceduralConfig())
    generator.generate = lambda anchor_BD, seeds, real=generator.generate: (_ for _ in ()).throw(ValueError("no")) if len(seeds) > 1 or seeds[0] == first else real(anchor_BD, seeds)
    from facefoundry.core.seeds import derive_seed

    first = derive_seed(3, *rows[0], "noise")
    made, failed = make_images(plan(max_failures=0.0), generator, ANCHORS, rows)
    assert [row[:2] for row in made] == rows[1:] and failed[0]["face_id"] == "000000/0000"


def test_other_errors_are_not_taken_for_memory():
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("out of memory of who made it"))
