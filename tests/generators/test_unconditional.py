"""Faces without an identity: a function of the seed alone, and what the empty context says."""

import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.seeds import derive_seed, noise
from facefoundry.generators.prediction import to_noise
from facefoundry.generators.sampling import SamplerConfig
from facefoundry.generators.solvers import build_solver
from facefoundry.generators.uiface import UIFaceConfig
from facefoundry.generators.unconditional import unconditional_faces

FAST = SamplerConfig(steps=4)


def test_rows_depend_on_their_seed_alone():
    generator = UIFaceConfig.tiny()
    image_BCHW = unconditional_faces(generator, [1, 2, 3], FAST)
    assert image_BCHW.shape == (3, 3, 112, 112) and image_BCHW.dtype == torch.float32 and image_BCHW.abs().max() <= 1
    torch.testing.assert_close(unconditional_faces(generator, [2], FAST)[0], image_BCHW[1], atol=1e-5, rtol=0)
    assert (image_BCHW[0] - image_BCHW[1]).abs().max() > 0.01


@torch.inference_mode()
def test_equals_the_loop_written_out():
    generator = UIFaceConfig.tiny()
    network, solver = generator.network, build_solver("ddim", 4)
    latent = noise([derive_seed(7, "latent")], generator.autoencoder.latent_shape)
    for index, point in enumerate(solver.points):
        said = network(latent, torch.tensor([point.t]), network.empty_context[None])
        latent = solver.step(index, latent, to_noise(network.config.prediction, said, latent, point.alpha))
    torch.testing.assert_close(unconditional_faces(generator, [7], FAST), generator.autoencoder.decode(latent).clamp(-1, 1), atol=1e-5, rtol=0)


def test_a_generator_without_an_empty_context_is_refused():
    class Other:
        name = "other"

    with pytest.raises(UserError, match="'other' has no empty context"):
        unconditional_faces(Other(), [1], FAST)
