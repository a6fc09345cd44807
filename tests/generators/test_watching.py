"""Looking into a sampling: what is shown is what was used, and looking changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.generators.attention import Attention
from facefoundry.generators.schedule import alpha_bars
from facefoundry.generators.uiface import UIFaceConfig, UIFaceSampler
from facefoundry.generators.watching import Recorder

SEEDS = [3, 4]


def anchors(generator, count: int = 2) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((count, generator.anchor_dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def watched(sampler: UIFaceSampler):
    generator, recorder = UIFaceConfig.tiny(sampler=sampler), Recorder()
    return generator, generator.generate(anchors(generator), SEEDS, watch=recorder).image_BCHW, recorder


SAMPLERS = {
    "plain": UIFaceSampler(steps=6), "early": UIFaceSampler(steps=6, delta=1.0), "published": UIFaceSampler(steps=6, solver="ddim-published", skip_duplicates=False), "cached": UIFaceSampler(steps=6, cache=2),
    "nothing injected": UIFaceSampler(steps=6, inject_self=False, inject_cross=False), "unipc": UIFaceSampler(steps=6, solver="unipc"), "negative": UIFaceSampler(steps=6, negative=0.5),
}  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_looking_changes_no_pixel(sampler):
    generator, seen, recorder = watched(sampler)
    assert torch.equal(seen, generator.generate(anchors(generator), SEEDS).image_BCHW)
    assert len(recorder.visits) == len(recorder.logits) and all(recorder.logits)


@pytest.mark.parametrize("name", ["plain", "published", "cached"])
def test_the_last_estimate_is_the_image(name):
    generator, image, recorder = watched(SAMPLERS[name])
    assert torch.equal(generator.autoencoder.decode(recorder.visits[-1].clean()).float().clamp(-1, 1), image)


def test_the_last_estimate_is_the_image_of_a_multistep_solver():
    generator, image, recorder = watched(SAMPLERS["unipc"])
    assert torch.allclose(generator.autoencoder.decode(recorder.visits[-1].clean()).float().clamp(-1, 1), image, atol=1e-4)


def test_an_estimate_undoes_the_noise():
    _, _, recorder = watched(SAMPLERS["plain"])
    visit = recorder.visits[2]
    alpha = float(alpha_bars()[visit.t])
    assert visit.alpha == pytest.approx(alpha)
    assert torch.allclose(alpha**0.5 * visit.clean() + (1 - alpha) ** 0.5 * visit.noise_BCHW, visit.latent_BCHW, atol=1e-5)


def test_stages_are_told():
    told = {name: torch.stack([visit.has_identity_B for visit in watched(sampler)[2].visits]) for name, sampler in SAMPLERS.items()}
    times = torch.tensor([visit.t for visit in watched(SAMPLERS["plain"])[2].visits])
    assert torch.equal(told["plain"][:, 0], times < 500)
    assert told["early"][:, 0].tolist() == [False, False, True, True, True]  # the first comparison of maps is at the second step, and counts from the third on
    assert bool(torch.stack([visit.has_identity_B for visit in watched(UIFaceSampler(steps=6, t_max=1000))[2].visits]).all())


def test_weights_sum_to_one_and_blocks_come_in_order():
    generator, _, recorder = watched(SAMPLERS["plain"])
    blocks = sum(isinstance(module, Attention) for module in generator.network.modules())
    for visit, found in zip(recorder.visits, recorder.logits):
        assert [kind for kind, _ in found] == ["self", "cross"] * (blocks // 2)
        for kind, logits_RNLT in found:
            assert logits_RNLT.dtype == torch.float32 and len(logits_RNLT) == (4 if visit.t < 500 else 2)
            assert torch.allclose(logits_RNLT.softmax(-1).sum(-1), torch.ones(logits_RNLT.shape[:3]), atol=1e-5)
            assert logits_RNLT.shape[3] == (logits_RNLT.shape[2] if kind == "self" else generator.network.config.tokens)


def test_injected_self_attention_is_the_reference_rows():
    for name, equal in (("plain", True), ("nothing injected", False)):
        last = [logits for kind, logits in watched(SAMPLERS[name])[2].logits[-1] if kind == "self"]
        assert all(torch.equal(logits[:2], logits[2:]) == equal for logits in last[1:])  # before the first cross-attention the rows are equal anyway


def test_logits_are_those_of_queries_and_keys():
    """Against a slow reference: what the projections of the first block said, as torch's own hooks see it."""
    generator, recorder, said = UIFaceConfig.tiny(sampler=SAMPLERS["nothing injected"]), Recorder(), {}
    block = next(module for module in generator.network.modules() if isinstance(module, Attention))
    for name in ("query", "key"):
        getattr(block, name).register_forward_hook(lambda _, __, out, name=name: said.__setitem__(name, out))
    generator.generate(anchors(generator), SEEDS, watch=recorder)
    shown = recorder.logits[-1][0][1]
    for row in range(4):
        for head in range(shown.shape[1]):
            part = slice(head * block.head_dim, (head + 1) * block.head_dim)
            wanted = said["query"][row][:, part].numpy() @ said["key"][row][:, part].numpy().T / block.head_dim**0.5
            assert np.allclose(shown[row, head].numpy(), wanted, atol=1e-4)


def test_attention_can_be_left_out():
    generator, recorder = UIFaceConfig.tiny(sampler=SAMPLERS["plain"]), Recorder(keep_attention=False)
    generator.generate(anchors(generator), SEEDS, watch=recorder)
    assert recorder.logits == [[]] * len(recorder.visits)
