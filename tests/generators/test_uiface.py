"""Two-stage sampling against a slow, obvious reference that runs every pass by itself with explicit attention logits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facefoundry.generators.attention import ContextAttention
from facefoundry.core.device import compile_network
from facefoundry.generators.cache import LIVE, forward_macs
from facefoundry.generators.solvers import build_solver
from facefoundry.generators.uiface import UIFaceConfig, UIFaceSampler, attention_map, sample


def unit_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class ExplicitAttention:
    """Replaces every attention block's forward: logits are formed, stored, and overwritten where the caller says."""

    def __init__(self, monkeypatch):
        self.logits, self.self_from, self.cross_from = [], None, None
        outer = self

        def forward(block, image, context, control=None):
            n, c, h, w = image.shape
            index = len(outer.logits)
            x = block.project_in(image).flatten(2)

            def attend(attention, x_BCL, source_BLD, replace):
                q, k, v = attention.query(x_BCL.transpose(1, 2)), attention.key(source_BLD), attention.value(source_BLD)
                split = lambda a: a.reshape(n, a.shape[1], -1, attention.head_dim).transpose(1, 2)
                logits = split(q) @ split(k).transpose(-1, -2) / attention.head_dim**0.5
                used = replace(logits)
                out = (used.softmax(-1) @ split(v)).transpose(1, 2).reshape(n, x_BCL.shape[2], c)
                return attention.out(out).transpose(1, 2), logits

            def replace_self(logits):
                return logits if outer.self_from is None else outer.self_from[index][0]

            def replace_cross(logits):
                if outer.cross_from is None:
                    return logits
                u = outer.cross_from[index][1]
                sigma, mu = logits.std(-1, keepdim=True), logits.mean(-1, keepdim=True)
                return (logits - mu) / sigma * (u.std(-1, keepdim=True) + sigma) / 2 + (u.mean(-1, keepdim=True) + mu) / 2

            normed = block.norm(x)
            added, self_logits = attend(block.self_attention, normed, normed.transpose(1, 2), replace_self)
            x = x + added
            added, cross_logits = attend(block.cross_attention, block.norm(x), block.context_tokens(context), replace_cross)
            x = x + added
            x = x + block.mlp(block.norm(x).transpose(1, 2)).transpose(1, 2)
            outer.logits.append((self_logits, cross_logits))
            return image + block.project_out(x.reshape(n, c, h, w))

        monkeypatch.setattr(ContextAttention, "forward", forward)

    def run(self, network, z, t, context, self_from=None, cross_from=None):
        self.logits, self.self_from, self.cross_from = [], self_from, cross_from
        return network(z, torch.full((len(z),), t), context), self.logits


def reference(network, z, context, config: UIFaceSampler, explicit: ExplicitAttention, negative=None) -> torch.Tensor:
    """generators.md §2.2, line by line."""
    flag, before, t_before, solver = torch.zeros(len(z), dtype=torch.bool), None, 0, build_solver(config.solver, config.steps)
    for index, point in enumerate(solver.points):
        t, alpha = point.t, point.alpha
        empty = network.empty_rows(len(z))
        if t < config.t_max:
            empty = (1 - config.negative) * empty + config.negative * (0 if negative is None else negative)
        eps_u, maps_u = explicit.run(network, z, t, empty)
        shared = maps_u if config.inject_self else None
        if t >= config.t_max:
            eps, maps_c = explicit.run(network, z, t, torch.where(flag[:, None], context, empty), self_from=shared)
            now = attention_map([cross for _, cross in maps_c], tuple(z.shape[-2:]))
            if before is not None:
                flag = flag | ((now - before).abs().mean((1, 2)) < config.delta * (t_before - t) / 20)
            before, t_before = now, t
        else:
            w = config.guidance * (1 - t / 1000 if config.guidance_over_time == "rising" else 1)
            eps_c, _ = explicit.run(network, z, t, context, self_from=shared, cross_from=maps_u if config.inject_cross else None)
            eps = (1 + w) * eps_c - w * eps_u
        if config.solver.startswith("ddim"):
            clean = (z - (1 - alpha) ** 0.5 * eps) / alpha**0.5
            z = point.alpha_next**0.5 * clean + (1 - point.alpha_next) ** 0.5 * eps
        else:
            z = solver.step(index, z, eps)
    return z


@pytest.mark.parametrize("settings", [
    {}, {"solver": "ddim-published"}, {"inject_self": False}, {"inject_cross": False}, {"t_max": 1000}, {"t_max": 0}, {"guidance": 2.5, "delta": 0.003},
    {"solver": "dpm++"}, {"solver": "unipc", "guidance_over_time": "rising"}, {"negative": 0.6},
])
@torch.no_grad()
def test_one_batch_with_skipped_passes_equals_every_pass_by_itself(settings, monkeypatch):
    generator, config = UIFaceConfig.tiny(), UIFaceSampler(**{"steps": 10, "delta": 0.004, **settings})
    torch.manual_seed(1)
    z, context = torch.randn(3, 4, 8, 8), generator.network.embed_context(torch.from_numpy(unit_rows(3, 8)))
    negative = generator.network.embed_context(torch.from_numpy(unit_rows(3, 8, seed=5)))
    fast, _ = sample(generator.network, z, context, config, negative)
    every, _ = sample(generator.network, z, context, config.model_copy(update={"skip_duplicates": False}), negative)
    slow = reference(generator.network, z, context, config, ExplicitAttention(monkeypatch), negative)
    assert torch.allclose(fast, every, atol=1e-4 * slow.abs().max().item())
    assert torch.allclose(fast, slow, atol=1e-4 * slow.abs().max().item())


@torch.no_grad()
def test_rows_settle_one_by_one_and_only_settled_rows_cost_two_passes():
    generator = UIFaceConfig.tiny()
    torch.manual_seed(1)
    z, context = torch.randn(6, 4, 8, 8), generator.network.embed_context(torch.from_numpy(unit_rows(6, 8)))
    never = sample(generator.network, z, context, UIFaceSampler(steps=10, delta=0.0))[1]
    at_once = sample(generator.network, z, context, UIFaceSampler(steps=10, delta=9.0))[1]
    # Exact schedule of 10: t = 900..100; stage 1 is 900..500 (5 steps), stage 2 is 400..100 (4 steps of 2 passes).
    assert never.tolist() == [5 + 8] * 6
    # Settled from the third step on: the first comparison is at the second.
    assert at_once.tolist() == [2 + 2 * 3 + 8] * 6


def test_attention_map_by_hand():
    logits = torch.zeros(1, 1, 4, 2)
    logits[0, 0, 3] = 2.0
    weight = F.softmax(logits[0, 0, :, 0], 0)
    expected = (weight / weight.max() - (weight / weight.max()).min()) / (1 - (weight / weight.max()).min())
    assert torch.allclose(attention_map([logits], (2, 2)).flatten(), expected, atol=1e-6)


def test_anchor_of_wrong_size_or_length_is_refused():
    generator = UIFaceConfig.tiny()
    with pytest.raises(ValueError, match=r"anchor_BD has shape \(2, 5\), expected \(2 8\)"):
        generator.generate(unit_rows(2, 5), [1, 2])
    with pytest.raises(ValueError, match="not unit length"):
        generator.generate(2 * unit_rows(2, 8), [1, 2])
    with pytest.raises(ValueError, match="not unit length"):
        generator.generate(np.full((1, 8), np.nan, np.float32), [1])


@torch.no_grad()
def test_a_cached_pass_counts_by_its_multiply_adds_and_begins_with_stage_two():
    generator = UIFaceConfig.tiny()
    torch.manual_seed(1)
    z, context = torch.randn(2, 4, 8, 8), generator.network.embed_context(torch.from_numpy(unit_rows(2, 8)))
    config = UIFaceSampler(steps=10, delta=0.0, cache=3)
    latent, passes = sample(generator.network, z, context, config)
    share = forward_macs(generator.network.config, (8, 8), LIVE) / forward_macs(generator.network.config, (8, 8))
    # Stage 1: t = 900..500, 5 whole passes; stage 2: t = 400..100, whole, shallow, shallow, whole, each of both rows.
    assert passes.tolist() == pytest.approx([5 + 2 * (2 + 2 * share)] * 2)
    whole, _ = sample(generator.network, z, context, config.model_copy(update={"cache": 1}))
    assert not torch.equal(latent, whole)


@pytest.mark.parametrize("settings", [
    {"solver": "dpm++"}, {"solver": "unipc"}, {"cache": 2, "delta": 0.004}, {"cone": 0.5}, {"negative": 0.8}, {"guidance_over_time": "falling"},
])
def test_every_switch_changes_the_image_and_keeps_it_free_of_its_batch_mates(settings):
    base, switched = UIFaceConfig.tiny(), UIFaceConfig.tiny(sampler=UIFaceSampler(**{"steps": 10, **settings}))
    anchor, seeds = unit_rows(4, 8), [3, 1, 4, 1]
    whole = switched.generate(anchor, seeds).image_BCHW
    assert (whole - base.generate(anchor, seeds).image_BCHW).abs().max() > 1e-3
    assert torch.allclose(whole[1:3], switched.generate(anchor[1:3], seeds[1:3]).image_BCHW, atol=1e-4)


def test_the_published_preset_makes_every_pass_of_the_public_code():
    generator = UIFaceConfig.tiny(sampler=UIFaceSampler.published().model_copy(update={"steps": 10}))
    assert generator.generate(unit_rows(2, 8), [1, 2]).passes_B == (20.0, 20.0)


def test_compile_is_passed_over_off_cuda(caplog):
    with caplog.at_level("INFO"):
        compile_network(torch.nn.Identity(), torch.device("cpu"))
    assert "compile is for CUDA; on cpu the network runs as it is" in caplog.text
