"""Two-stage sampling against a slow, obvious reference that runs every pass by itself with explicit attention logits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facefoundry.generators.attention import ContextAttention
from facefoundry.generators.schedule import ddim_steps
from facefoundry.generators.uiface import UIFaceConfig, UIFaceSampler, attention_map, guided, sample


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


def reference(network, z, context, config: UIFaceSampler, explicit: ExplicitAttention) -> torch.Tensor:
    """generators.md §2.2, line by line."""
    flag, before = torch.zeros(len(z), dtype=torch.bool), None
    for t, alpha, alpha_next in ddim_steps(config.steps, config.schedule):
        empty = network.empty_rows(len(z))
        eps_u, maps_u = explicit.run(network, z, t, empty)
        shared = maps_u if config.inject_self else None
        if t >= config.t_max:
            eps, maps_c = explicit.run(network, z, t, torch.where(flag[:, None], context, empty), self_from=shared)
            now = attention_map([cross for _, cross in maps_c], tuple(z.shape[-2:]))
            if before is not None:
                flag = flag | ((now - before).abs().mean((1, 2)) < config.delta)
            before = now
        else:
            eps_c, _ = explicit.run(network, z, t, context, self_from=shared, cross_from=maps_u if config.inject_cross else None)
            eps = (1 + config.guidance) * eps_c - config.guidance * eps_u
        clean = (z - (1 - alpha) ** 0.5 * eps) / alpha**0.5
        z = alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * eps
    return z


@pytest.mark.parametrize("settings", [
    {}, {"schedule": "published"}, {"inject_self": False}, {"inject_cross": False}, {"t_max": 1000}, {"t_max": 0, "delta": 0.05}, {"guidance": 2.5, "delta": 0.02},
])
@torch.no_grad()
def test_one_batch_with_skipped_passes_equals_every_pass_by_itself(settings, monkeypatch):
    generator, config = UIFaceConfig.tiny(), UIFaceSampler(**{"steps": 10, "delta": 0.02, **settings})
    torch.manual_seed(1)
    z, context = torch.randn(3, 4, 8, 8), generator.network.embed_context(torch.from_numpy(unit_rows(3, 8)))
    fast, _ = sample(generator.network, z, context, config)
    every, _ = sample(generator.network, z, context, config.model_copy(update={"skip_duplicates": False}))
    slow = reference(generator.network, z, context, config, ExplicitAttention(monkeypatch))
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


def test_rescaled_guidance_keeps_the_spread_of_the_identity_pass():
    torch.manual_seed(0)
    z, identity, empty = (torch.randn(2, 4, 8, 8) for _ in range(3))
    alpha = 0.3
    clean = lambda eps: (z - (1 - alpha) ** 0.5 * eps) / alpha**0.5
    plain = guided(z, identity, empty, alpha, UIFaceSampler(guidance=3.0))
    assert torch.allclose(plain, 4 * identity - 3 * empty, atol=1e-5)
    full = guided(z, identity, empty, alpha, UIFaceSampler(guidance=3.0, rescale=1.0))
    assert torch.allclose(clean(full).std((1, 2, 3)), clean(identity).std((1, 2, 3)), rtol=1e-4)
    direction = torch.nn.functional.cosine_similarity(clean(full).flatten(1), clean(plain).flatten(1))
    assert torch.allclose(direction, torch.ones(2), atol=1e-5)
