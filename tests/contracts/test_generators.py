"""What every registered generator promises, tried on its tiny() instance."""

import numpy as np
import pytest
import torch

from facefoundry.generators.registry import GENERATORS


def anchors(dim: int, count: int) -> np.ndarray:
    rows = np.random.default_rng(3).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=list(GENERATORS))
def generator(request):
    return GENERATORS[request.param].tiny()


def test_faces_have_the_house_shape_and_range(generator):
    batch = generator.generate(anchors(generator.anchor_dim, 3), [5, 6, 7])
    assert batch.image_BCHW.shape == (3, 3, 112, 112) and batch.image_BCHW.dtype == torch.float32
    assert batch.image_BCHW.min() >= -1 and batch.image_BCHW.max() <= 1 and batch.image_BCHW.std() > 0
    assert batch.seeds == (5, 6, 7) and len(batch.passes_B) == 3


def test_same_seeds_give_the_same_bits_and_leave_the_global_generator_alone(generator):
    anchor = anchors(generator.anchor_dim, 2)
    first = generator.generate(anchor, [1, 2]).image_BCHW
    state = torch.get_rng_state()
    assert torch.equal(first, generator.generate(anchor, [1, 2]).image_BCHW)
    assert torch.equal(state, torch.get_rng_state())


def test_an_image_does_not_depend_on_its_batch(generator):
    anchor, seeds = anchors(generator.anchor_dim, 5), [11, 12, 13, 14, 15]
    whole = generator.generate(anchor, seeds).image_BCHW
    parts = torch.cat([generator.generate(anchor[:2], seeds[:2]).image_BCHW, generator.generate(anchor[2:], seeds[2:]).image_BCHW])
    assert torch.allclose(whole, parts, atol=1e-4)


def test_another_identity_or_another_seed_is_another_image(generator):
    anchor = anchors(generator.anchor_dim, 2)
    base = generator.generate(anchor[:1], [1]).image_BCHW
    assert (generator.generate(anchor[1:], [1]).image_BCHW - base).abs().max() > 1e-3
    assert (generator.generate(anchor[:1], [2]).image_BCHW - base).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(GENERATORS))
def test_settings_survive_the_way_through_a_file(name):
    config = GENERATORS[name]()
    assert GENERATORS[name].parse(config.model_dump(mode="json")) == config
