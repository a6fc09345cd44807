"""MorphFace's sampling: the three-way guidance by hand, the schedules, batches, empty conditions, records of styles."""

import math

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.face_style import FaceStyle
from facefoundry.generators.blending import Blending
from facefoundry.generators.morphface import MorphFaceConfig, MorphFaceSampler, sample
from facefoundry.generators.prediction import to_noise
from facefoundry.generators.solvers import build_solver
from facefoundry.generators.style_source import DrawnStyles, ToyStyles, subject_rng


def unit_rows(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- schedules -----------------------------------------------------------------------------------------------------------------------------


def test_weights_at_the_ends_and_the_middle():
    edge = 1 / (1 + math.exp(5))  # σ(-5): t = 0 and t = 1000 lie five τ_b from t_b
    blending = Blending()
    assert blending.weights(500) == pytest.approx((1.5, 1.5))
    assert blending.weights(0) == pytest.approx((1 + edge, 2 - edge))
    assert blending.weights(1000) == pytest.approx((2 - edge, 1 + edge))
    turned = Blending(schedule="mirrored")
    assert turned.weights(0) == pytest.approx((2 - edge, 1 + edge)) and turned.weights(1000) == pytest.approx((1 + edge, 2 - edge))
    assert Blending(schedule="constant").weights(3) == Blending(schedule="constant").weights(997) == (1.5, 1.5)
    assert Blending(schedule="single").factors(123) == (-1.0, 0.0, 2.0)  # 2 ε(c_id,c_sty) - ε(∅,∅)


def test_weights_are_those_of_the_specification_elsewhere():
    blending = Blending(style=(3.0, 0.5), identity=(0.0, 4.0), t_b=600, tau_b=50)
    for t in (0, 130, 600, 777, 999):
        sigmoid = 1 / (1 + math.exp(-(t - 600) / 50))
        assert blending.weights(t) == pytest.approx((0.5 + 2.5 * sigmoid, 4.0 - 4.0 * sigmoid))
        assert sum(blending.factors(t)) == pytest.approx(1)


# --- three-way guidance --------------------------------------------------------------------------------------------------------------------


def by_hand(generator, anchor, seed: int, drawn: DrawnStyles, config: MorphFaceSampler) -> torch.Tensor:
    """The slow, obvious sampler: one pass a condition and image, summed as the formula says."""
    from facefoundry.core.seeds import derive_seed, noise

    network = generator.network
    latent = noise([derive_seed(seed, "latent")], generator.autoencoder.latent_shape)
    style = network.encoder(torch.from_numpy(generator.styles.render(drawn.code_BP)))
    identity, no_one, no_style = network.unet.embed_context(torch.from_numpy(anchor)), network.unet.empty_context[None], network.empty_style[None]
    solver = build_solver(config.solver, config.steps)
    for index, point in enumerate(solver.points):
        say = lambda c, s: to_noise("epsilon", network(latent, torch.tensor([point.t]), torch.cat([c, s], 1)), latent, point.alpha)
        neither, styled, both = say(no_one, no_style), say(no_one, style), say(identity, style)
        w_s, w_i = config.blending.weights(point.t)
        predicted = both * 2 - neither if config.blending.schedule == "single" else neither + w_s * (styled - neither) + w_i * (both - styled)
        latent = solver.step(index, latent, predicted)
    return generator.autoencoder.decode(latent).clamp(-1, 1)


@pytest.mark.parametrize("meeting", ["joint", "parallel"])
@pytest.mark.parametrize("schedule", ["structure_first", "mirrored", "constant", "single"])
def test_one_batch_equals_single_passes_summed_by_hand(schedule, meeting):
    config = MorphFaceSampler(steps=4, blending=Blending(schedule=schedule))
    generator = MorphFaceConfig.tiny(sampler=config, meeting=meeting)
    anchor, seeds = unit_rows(2), [3, 4]
    drawn = generator.styles.draw(anchor, seeds)
    batch = generator.show(anchor, seeds, drawn)
    with torch.inference_mode():
        for row in range(2):
            one = DrawnStyles(code_BP=drawn.code_BP[row : row + 1], styles=drawn.styles[row : row + 1])
            assert torch.allclose(batch.image_BCHW[row], by_hand(generator, anchor[row : row + 1], seeds[row], one, config)[0], atol=1e-4)
    needed = {"structure_first": 3, "mirrored": 3, "constant": 2, "single": 2}[schedule]  # constant 1.5/1.5 never asks ε(∅,c_sty)
    assert batch.passes_B == (needed * 3, needed * 3)  # ddim of 4 steps evaluates 3 times


def test_schedules_and_their_order_in_time_make_different_faces():
    anchor = unit_rows(2)
    image = {name: MorphFaceConfig.tiny(sampler=MorphFaceSampler(steps=4, blending=Blending(schedule=name))).generate(anchor, [1, 2]).image_BCHW for name in ("structure_first", "mirrored", "constant", "single")}
    for first in image:
        assert all((image[first] - image[other]).abs().max() > 1e-3 for other in image if other != first)


def test_without_weight_on_a_condition_it_does_not_matter():
    nobody = MorphFaceConfig.tiny(sampler=MorphFaceSampler(steps=4, blending=Blending(schedule="constant", style=(1.3, 1.3), identity=(0, 0))))
    drawn = ToyStyles().draw(unit_rows(1), [5])
    assert torch.equal(nobody.show(unit_rows(1), [5], drawn).image_BCHW, nobody.show(unit_rows(1, seed=9), [5], drawn).image_BCHW)
    plain = MorphFaceConfig.tiny(sampler=MorphFaceSampler(steps=4, blending=Blending(schedule="constant", style=(0, 0), identity=(0, 0))))
    other = ToyStyles().draw(unit_rows(1, seed=9), [6])
    assert torch.equal(plain.show(unit_rows(1), [5], drawn).image_BCHW, plain.show(unit_rows(1), [5], other).image_BCHW)
    assert plain.show(unit_rows(1), [5], drawn).passes_B == (3,)


def test_style_changes_the_image_and_identity_alone_does_too():
    generator, anchor = MorphFaceConfig.tiny(), unit_rows(1)
    first, second = generator.styles.draw(anchor, [1]), generator.styles.draw(anchor, [2])
    base = generator.show(anchor, [5], first).image_BCHW
    assert (generator.show(anchor, [5], second).image_BCHW - base).abs().max() > 1e-3
    assert (generator.show(unit_rows(1, seed=4), [5], first).image_BCHW - base).abs().max() > 1e-3


# --- batches, seeds, styles ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"rescale": 0.7}, {"negative": 0.4}, {"cone": 0.6}, {"cache": 2}, {"solver": "unipc"}, {"solver": "dpm++"}])
def test_every_switch_keeps_the_contract(settings):
    generator, anchor = MorphFaceConfig.tiny(sampler=MorphFaceSampler(steps=6, **settings)), unit_rows(3)
    base = MorphFaceConfig.tiny(sampler=MorphFaceSampler(steps=6)).generate(anchor, [5, 6, 7])
    whole = generator.generate(anchor, [5, 6, 7])
    alone = torch.cat([generator.generate(anchor[k : k + 1], [5 + k]).image_BCHW for k in range(3)])
    assert torch.allclose(whole.image_BCHW, alone, atol=1e-4)
    assert (whole.image_BCHW - base.image_BCHW).abs().max() > 1e-4
    if "cache" in settings:
        assert whole.passes_B[0] < base.passes_B[0]


def test_styles_belong_to_the_anchor_and_the_seed_and_travel_with_the_faces():
    generator, anchor = MorphFaceConfig.tiny(), unit_rows(2)
    batch = generator.generate(anchor[[0, 0, 1]], [7, 8, 7])
    assert all(isinstance(style, FaceStyle) for style in batch.styles) and len({style.pose_deg for style in batch.styles}) == 3
    assert generator.generate(anchor[1:], [7]).styles[0] == batch.styles[2]
    # What the images of one anchor share is drawn from the anchor.
    assert np.array_equal(subject_rng(anchor[0]).normal(size=4), subject_rng(anchor[0].copy()).normal(size=4))
    assert not np.array_equal(subject_rng(anchor[0]).normal(size=4), subject_rng(anchor[1]).normal(size=4))
    far = np.stack([generator.styles.draw(anchor[[k] * 200], range(200)).code_BP.mean(0) for k in range(2)])
    assert np.abs(far[0] - far[1]).max() > 0.5  # habits differ by more than 200 draws' noise (0.07)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="guidance and guidance_over_time are not used here"):
        MorphFaceSampler.parse({"guidance": 2.0})
    with pytest.raises(UserError, match="structure_first"):
        Blending.parse({"schedule": "structure"})
    generator = MorphFaceConfig.tiny()
    with pytest.raises(ValueError, match="code_BP"):
        generator.show(unit_rows(2), [1, 2], generator.styles.draw(unit_rows(1), [1]))


def test_sampling_does_not_touch_the_noise_it_was_given():
    generator = MorphFaceConfig.tiny()
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    kept, context = latent.clone(), generator.network.join(generator.network.unet.empty_rows(1), generator.network.empty_styles(1))
    with torch.inference_mode():
        sample(generator.network, latent, (context, context, context), MorphFaceSampler(steps=3))
    assert torch.equal(latent, kept)
