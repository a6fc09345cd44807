"""What every generator promises: the tests try it on ours, `check_generator` on yours.

A promise is a function of a generator's registered settings class that raises `ContractError`. All of them use `tiny()`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..core.config import Config
from ..core.contracts import check_all, demand
from ..core.seeds import numpy_rng
from ..core.types import FaceBatch

SIDE = 112


def check_generator(config: type[Config]) -> None:
    """Try all promises on a generator's settings class (what is registered in `GENERATORS`).

    Raises:
        ContractError: lists the promises that are broken.
    """
    check_all(PROMISES, config)


def faces_have_the_house_shape_and_range(config: Any) -> None:
    """(B, 3, 112, 112) float32 in [-1, 1], not constant; the seeds and one count of passes for each image."""
    batch = _made(config, 3, [5, 6, 7])
    image_BCHW = batch.image_BCHW
    demand(tuple(image_BCHW.shape) == (3, 3, SIDE, SIDE) and image_BCHW.dtype == torch.float32, f"image_BCHW is {image_BCHW.dtype} {tuple(image_BCHW.shape)}, expected float32 (3, 3, {SIDE}, {SIDE}) for 3 anchors")
    least, most = float(image_BCHW.min()), float(image_BCHW.max())
    demand(-1 <= least and most <= 1, f"image_BCHW has values in [{least:.4g}, {most:.4g}], expected [-1, 1] and no NaN")
    demand(float(image_BCHW.std()) > 0, "the images are of one colour")
    demand(tuple(batch.seeds) == (5, 6, 7), f"seeds are {batch.seeds}, expected those of the request in its order: (5, 6, 7)")
    demand(len(batch.passes_B) == 3, f"passes_B has {len(batch.passes_B)} entries, expected one for each of 3 images")


def the_same_seeds_give_the_same_bits(config: Any) -> None:
    """Two calls with the same anchors and seeds are equal, and torch's and numpy's global generators are left as they were."""
    generator, anchor_BD = _tiny(config, 2)
    first = generator.generate(anchor_BD, [1, 2]).image_BCHW
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    demand(torch.equal(first, generator.generate(anchor_BD, [1, 2]).image_BCHW), "a second call with the same anchors and seeds gave other bits; draw with core.seeds.noise(seeds, shape)")
    untouched = torch.equal(state, torch.get_rng_state()) and np.array_equal(numpy_state, np.random.get_state()[1])
    demand(untouched, "generate draws from a global random generator; draw with core.seeds.noise(seeds, shape)")


def an_image_does_not_depend_on_its_batch(config: Any) -> None:
    """Five rows at once are the rows of a batch of two and a batch of three, within 1e-4."""
    generator, anchor_BD = _tiny(config, 5)
    seeds = [11, 12, 13, 14, 15]
    whole_BCHW = generator.generate(anchor_BD, seeds).image_BCHW
    parts_BCHW = torch.cat([generator.generate(anchor_BD[rows], seeds[rows]).image_BCHW for rows in (slice(0, 2), slice(2, 5))])
    apart = float((whole_BCHW - parts_BCHW).abs().max())
    demand(apart <= 1e-4, f"images differ by {apart:.3g} with the batch they are made in; a row may depend on its anchor and its seed alone")


def identity_and_seed_change_the_image(config: Any) -> None:
    """Another anchor is another image, and so is another seed."""
    generator, anchor_BD = _tiny(config, 2)
    base_BCHW = generator.generate(anchor_BD[:1], [1]).image_BCHW
    demand(float((generator.generate(anchor_BD[1:], [1]).image_BCHW - base_BCHW).abs().max()) > 1e-3, "another anchor gives the same image")
    demand(float((generator.generate(anchor_BD[:1], [2]).image_BCHW - base_BCHW).abs().max()) > 1e-3, "another seed gives the same image")


def settings_survive_the_way_through_a_file(config: Any) -> None:
    """The defaults, written as JSON and read again, are the defaults."""
    settings = config()
    demand(config.parse(settings.model_dump(mode="json")) == settings, "settings that were written to a file and read again are not equal; use pydantic fields only")


PROMISES = (
    faces_have_the_house_shape_and_range, the_same_seeds_give_the_same_bits, an_image_does_not_depend_on_its_batch, identity_and_seed_change_the_image, settings_survive_the_way_through_a_file,
)  # fmt: skip


def _tiny(config: Any, count: int) -> tuple[Any, np.ndarray]:
    """The generator's small self, and as many random anchors."""
    generator = config.tiny()
    anchor_BD = numpy_rng(3, "contract").normal(size=(count, generator.anchor_dim)).astype(np.float32)
    return generator, anchor_BD / np.linalg.norm(anchor_BD, axis=1, keepdims=True)


def _made(config: Any, count: int, seeds: list[int]) -> FaceBatch:
    generator, anchor_BD = _tiny(config, count)
    return generator.generate(anchor_BD, seeds)
