"""MorphFace's network and training: warm start, drops, mirrored maps, unknown codes, resume, a learnt style."""

import numpy as np
import pytest
import torch

from facefoundry.core import training
from facefoundry.core.errors import UserError
from facefoundry.core.files import weights_path
from facefoundry.core.training import LoopConfig
from facefoundry.core.weights import load_into, load_weights, save_weights
from facefoundry.generators.attention import AttentionControl, ContextMemory
from facefoundry.generators.id3_network import warm_start
from facefoundry.generators.morphface_network import KIND, MorphFaceNetwork, MorphFaceNetworkConfig, load_morphface
from facefoundry.generators.morphface_train import Drops, MorphFaceBatches, MorphFaceRecipe, cached_maps, train_morphface
from facefoundry.generators.style_encoder import StyleEncoder, StyleEncoderConfig, mirrored_maps, pack_maps, unpack_maps
from facefoundry.generators.style_source import ToyStyles
from facefoundry.generators.train import DenoiserObjective
from facefoundry.generators.unet import FamilyUNet, UNetConfig

UNET = UNetConfig(channels=192, width=16, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=8, groups=4, identity_dim=8, context_dim=8, tokens=4, context_dropout=0.0, prediction="v", context_in_time=True)
STYLE = {"encoder": {"size_px": 16, "widths": [8, 8], "style_dim": 8, "dropout": 0.0}, "style_tokens": 3, "token_dim": 4, "meeting": "parallel"}


def recipe(steps: int = 4, **changes) -> MorphFaceRecipe:
    loop = {"steps": steps, "batch": 6, "optimiser": "adamw", "lr": 2e-3, "warmup": 0, "weight_decay": 0, "checkpoint_every": 2}
    denoiser = {"network": UNET.model_dump(), "loop": {**loop, **changes.pop("loop", {})}, **changes.pop("denoiser", {})}
    return MorphFaceRecipe.parse({"name": "tiny", "denoiser": denoiser, "style": STYLE, "autoencoder": "pixel8", **changes})


def data(count: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    rows = rng.normal(size=(count, 8)).astype(np.float32)
    return coarse.repeat(16, 1).repeat(16, 2), rows / np.linalg.norm(rows, axis=1, keepdims=True), rng.normal(size=(count, 6)).astype(np.float32)


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return network


# --- warm start ----------------------------------------------------------------------------------------------------------------------------


def both_say(plain: FamilyUNet, styled: MorphFaceNetwork, side: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    """What a plain denoiser and a MorphFace network say of the same latents and identities, the latter with styles and without."""
    torch.manual_seed(0)
    config = plain.config
    latent, identity = torch.randn(3, config.channels, side, side), torch.nn.functional.normalize(torch.randn(3, config.identity_dim))
    t, nobody, size = torch.tensor([10, 400, 990]), torch.tensor([False, True, False]), styled.config.encoder.size_px
    maps, bare = torch.rand(3, 9, size, size) * 2 - 1, torch.tensor([False, False, True])
    with torch.inference_mode():
        return plain(latent, t, plain.embed_context(identity, nobody)), styled(latent, t, styled.embed_context(identity, nobody, maps, bare))


def test_a_warm_started_network_is_the_function_it_began_from(tmp_path):
    plain = randomised(FamilyUNet(UNET)).eval()
    save_weights(tmp_path / "plain.safetensors", plain, kind="denoiser", config=UNET.model_dump(mode="json"))
    styled = MorphFaceNetwork(MorphFaceNetworkConfig.parse({**STYLE, "unet": UNET}))
    warm_start(styled, tmp_path / "plain.safetensors", KIND)
    said, same = both_say(plain, styled.eval())
    assert said.std() > 0.1 and torch.equal(said, same)
    save_weights(tmp_path / "styled.safetensors", randomised(styled), kind=KIND, config=styled.config.model_dump(mode="json"))
    again = MorphFaceNetwork(styled.config)
    warm_start(again, tmp_path / "styled.safetensors", KIND)
    assert all(torch.equal(a, b) for a, b in zip(styled.state_dict().values(), again.state_dict().values()))
    assert not torch.equal(*both_say(plain, again.eval()))


def test_the_bundled_recipe_begins_as_the_bundled_uiface():
    from facefoundry.jobs.spec import bundled_job  # the recipes lie together

    checked = MorphFaceRecipe.load(bundled_job("morphface-small.yaml"))
    tensors, config, _ = load_weights(weights_path("uiface-small"), kind="denoiser")
    plain = FamilyUNet(UNetConfig.parse(config))
    load_into(plain, tensors, weights_path("uiface-small"))
    styled = MorphFaceNetwork(checked.network())
    warm_start(styled, weights_path(str(checked.denoiser.warm_start)), KIND)
    assert torch.equal(*both_say(plain.eval(), styled.eval(), side=16))
    extra = sum(p.numel() for p in styled.parameters()) / sum(p.numel() for p in plain.parameters())
    assert 1.01 < extra < 1.03


def test_a_shared_softmax_would_not_be_that_function(tmp_path):
    plain = randomised(FamilyUNet(UNET)).eval()
    save_weights(tmp_path / "plain.safetensors", plain, kind="denoiser", config=UNET.model_dump(mode="json"))
    joint = MorphFaceNetwork(MorphFaceNetworkConfig.parse({**STYLE, "unet": UNET, "meeting": "joint", "token_dim": 0}))
    warm_start(joint, tmp_path / "plain.safetensors", KIND)
    said, other = both_say(plain, joint.eval())
    assert (said - other).abs().max() > 1e-3


def test_joint_attention_is_one_softmax_over_all_tokens():
    network = randomised(MorphFaceNetwork(MorphFaceNetworkConfig.parse({**STYLE, "unet": UNET, "meeting": "joint", "token_dim": 0}))).eval()
    block, x, context = network.unet.middle.attention, torch.randn(2, 5, 32), torch.randn(2, 16)
    tokens = torch.cat([block.context_tokens(context[:, :8]), block.style.tokens(context)], 1)
    assert tokens.shape == (2, 4 + 3, 8)
    layer, heads = block.cross_attention, lambda z: z.unflatten(2, (4, 8)).transpose(1, 2)
    logits = heads(layer.query(x)) @ heads(layer.key(tokens)).transpose(2, 3) / 8**0.5
    expected = layer.out((logits.softmax(-1) @ heads(layer.value(tokens))).transpose(1, 2).flatten(2))
    assert torch.allclose(block.cross(x, context, None), expected, atol=1e-5)


def test_parallel_attention_is_two_softmaxes_and_one_way_out():
    network = randomised(MorphFaceNetwork(MorphFaceNetworkConfig.parse({**STYLE, "unet": UNET}))).eval()
    block, x, context = network.unet.middle.attention, torch.randn(2, 5, 32), torch.randn(2, 16)
    layer, heads = block.cross_attention, lambda z: z.unflatten(2, (4, 8)).transpose(1, 2)
    said = 0
    for tokens, key, value in ((block.context_tokens(context[:, :8]), layer.key, layer.value), (block.style.tokens(context), block.style.key, block.style.value)):
        said = said + (heads(layer.query(x)) @ heads(key(tokens)).transpose(2, 3) / 8**0.5).softmax(-1) @ heads(value(tokens))
    expected = layer.out(said.transpose(1, 2).flatten(2))
    assert torch.allclose(block.cross(x, context, None), expected, atol=1e-5)
    control = AttentionControl(0, torch.empty(0, dtype=torch.int64), share_self=False, memory=ContextMemory(context))
    assert torch.allclose(block.cross(x, torch.full_like(context, torch.nan), control), expected, atol=1e-5)  # the memory's contexts count
    control = AttentionControl(0, torch.empty(0, dtype=torch.int64), share_self=False, record=True)
    assert torch.allclose(block.cross(x, context, control), expected, atol=1e-5)


# --- conditions ----------------------------------------------------------------------------------------------------------------------------


def test_empty_vectors_take_the_place_of_what_is_dropped():
    network = randomised(MorphFaceNetwork(MorphFaceNetworkConfig.parse({**STYLE, "unet": UNET}))).eval()
    identity, maps = torch.randn(4, 8), torch.rand(4, 9, 16, 16)
    context = network.embed_context(identity, torch.tensor([False, True, False, True]), maps, torch.tensor([False, False, True, True]))
    expected = torch.cat([network.unet.embed_context(identity), network.encoder(maps)], 1)
    assert torch.equal(context[0], expected[0])
    assert torch.equal(context[1], torch.cat([network.unet.empty_context, expected[1, 8:]]))
    assert torch.equal(context[2], torch.cat([expected[2, :8], network.empty_style]))
    assert torch.equal(context[3], network.join(network.unet.empty_rows(1), network.empty_styles(1))[0])
    context.sum().backward()
    assert network.empty_style.grad.abs().sum() > 0 and network.unet.empty_context.grad.abs().sum() > 0


def test_drops_have_their_shares_and_exclude_each_other():
    no_identity, no_style = Drops(both=0.1, identity=0.2, style=0.05).draw(200_000, np.random.default_rng(0))
    share = lambda mask: mask.float().mean().item()
    assert share(no_identity & no_style) == pytest.approx(0.1, abs=3e-3)
    assert share(no_identity & ~no_style) == pytest.approx(0.2, abs=3e-3)
    assert share(~no_identity & no_style) == pytest.approx(0.05, abs=3e-3)
    with pytest.raises(UserError, match="at most 1 together"):
        Drops.parse({"both": 0.5, "identity": 0.5, "style": 0.1})


def test_mirrored_maps_are_the_render_of_the_mirrored_head():
    # A sphere: the normal's x is the column; its mirror image is itself. Light from the left becomes light from the right.
    grid = torch.linspace(-0.7, 0.7, 8)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    z = (1 - x**2 - y**2).clamp_min(0).sqrt()
    lit = lambda side: torch.stack([x, y, z, *(0 * x,) * 3, *((side * x).clamp_min(0),) * 3])[None]
    assert torch.allclose(mirrored_maps(lit(1.0)), lit(-1.0))
    kept = lit(1.0)
    mirrored_maps(kept)
    assert torch.equal(kept, lit(1.0))


def test_packed_maps_lose_at_most_half_a_step_and_keep_nothing_nothing():
    maps = np.random.default_rng(0).uniform(-1, 1, (2, 9, 8, 8)).astype(np.float32)
    maps[:, :, 0] = 0
    back = unpack_maps(torch.from_numpy(pack_maps(maps))).numpy()
    assert np.abs(back - maps).max() <= 0.5 / 127 + 1e-6 and not back[:, :, 0].any()
    assert torch.equal(unpack_maps(torch.from_numpy(maps)), torch.from_numpy(maps))
    with pytest.raises(ValueError, match="maps_B9HW has values"):
        pack_maps(255 * maps)


@pytest.mark.parametrize(("size", "widths"), [(112, (32, 64, 128, 256, 256)), (16, (8, 8)), (112, (16, 32))])
def test_encoder_halves_the_side_once_a_stage(size, widths):
    config = StyleEncoderConfig(size_px=size, widths=widths, style_dim=12)
    side = size
    for _ in widths:
        side = (side + 1) // 2
    encoder = StyleEncoder(config).eval()
    assert encoder.linear.in_features == widths[-1] * side**2
    assert encoder(torch.zeros(2, 9, size, size)).shape == (2, 12)


# --- batches and the run -------------------------------------------------------------------------------------------------------------------


def batches(code_NP: np.ndarray, tmp_path, checked: MorphFaceRecipe) -> MorphFaceBatches:
    count = len(code_NP)
    latent = np.arange(2 * count, dtype=np.float16)[:, None, None, None].repeat(2, 1).repeat(4, 2).repeat(4, 3)
    return MorphFaceBatches(latent, data(count)[1], cached_maps(ToyStyles(), code_NP, tmp_path), np.isfinite(code_NP).all(1), checked)


def test_mirrored_latents_come_with_mirrored_maps_and_unknown_codes_without_style(tmp_path):
    _, embed, code = data(12)
    code[5] = np.nan
    source = batches(code, tmp_path, recipe(drops={"both": 0, "identity": 0.3, "style": 0}))
    seen_mirrored = seen_unknown = 0
    for step in range(12):
        clean, _, _, identity, no_identity, maps, no_style = source(step, 0, 1)
        for row in range(6):
            number, mirror = int(clean[row, 0, 0, 0]) % 12, clean[row, 0, 0, 0] >= 12
            assert np.array_equal(identity[row], embed[number]) and bool(no_style[row]) == (number == 5)
            expected = torch.from_numpy(pack_maps(ToyStyles()(np.nan_to_num(code[number : number + 1]))))
            if number != 5:
                assert torch.equal(maps[row], (mirrored_maps(expected) if mirror else expected)[0])
            else:
                assert not maps[row].any()
            seen_mirrored, seen_unknown = seen_mirrored + bool(mirror), seen_unknown + (number == 5)
    assert 0 < seen_mirrored < 72 and seen_unknown
    again, first = source(3, 0, 1), source(3, 0, 1)
    assert all(torch.equal(a, b) for a, b in zip(again, first))


def test_maps_are_rendered_once_for_the_same_codes(tmp_path):
    class Counted(ToyStyles):
        calls = 0

        def __call__(self, code_BP):
            Counted.calls += 1
            return super().__call__(code_BP)

    _, _, code = data(5)
    first = np.array(cached_maps(Counted(), code, tmp_path, batch=2))
    assert Counted.calls == 3 and np.array_equal(cached_maps(Counted(), code, tmp_path, batch=2), first) and Counted.calls == 3
    code[0] += 1
    assert not np.array_equal(cached_maps(Counted(), code, tmp_path), first)
    other = Counted()
    other.fingerprint = "another light"
    before = Counted.calls
    cached_maps(other, code, tmp_path)
    assert Counted.calls > before and not list(tmp_path.glob("*.partial"))


def test_a_killed_training_ends_where_it_would_have_ended(tmp_path, monkeypatch):
    faces, embed, code = data()
    whole = train_morphface(recipe(loop={"ema": True, "accumulate": 2}), faces, embed, code, ToyStyles(), tmp_path / "a")
    original, calls = training._step, 0

    def dies(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(training, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_morphface(recipe(loop={"ema": True, "accumulate": 2}), faces, embed, code, ToyStyles(), tmp_path / "b")
    monkeypatch.setattr(training, "_step", original)
    again = train_morphface(recipe(loop={"ema": True, "accumulate": 2}), faces, embed, code, ToyStyles(), tmp_path / "b")
    (first, _), (second, facts) = load_morphface(whole), load_morphface(again)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    assert facts["steps"] == 4 and facts["maps"] == "toy" and "loop" not in facts["recipe"]["denoiser"]
    assert not any(name.endswith("_B") for name in facts)
    with pytest.raises(UserError, match="another recipe or other data"):
        train_morphface(recipe(loop={"ema": True, "accumulate": 2}), faces, embed, code + 1, ToyStyles(), tmp_path / "b")


def test_the_network_learns_what_the_style_says(tmp_path):
    """Faces that are one grey level, told by the style alone: with it the error falls far below what it is without."""
    rng = np.random.default_rng(0)
    code = rng.normal(size=(48, 6)).astype(np.float32)
    level = (128 + 60 * np.tanh(code[:, 0])).astype(np.uint8)
    faces = np.broadcast_to(level[:, None, None, None], (48, 112, 112, 3)).copy()
    _, embed, _ = data(48)
    path = train_morphface(recipe(70, loop={"batch": 16, "lr": 5e-3}, drops={"both": 0.1, "identity": 0.4, "style": 0.1}), faces, embed, code, ToyStyles(), tmp_path)
    network, _ = load_morphface(path)
    network_recipe = recipe(drops={"both": 0, "identity": 1.0, "style": 0}).denoiser
    from facefoundry.generators.pixel import PixelAutoencoder

    clean = PixelAutoencoder(8).encode(torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 127.5 - 1)
    noise, t = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)), torch.full((48,), 900)
    nobody, everybody, maps = torch.ones(48, dtype=torch.bool), torch.zeros(48, dtype=torch.bool), torch.from_numpy(ToyStyles()(code))
    objective = DenoiserObjective(network, network_recipe).eval()
    with torch.inference_mode():
        told, untold, wrong = (objective(clean, noise, t, torch.from_numpy(embed), nobody, m, none)["loss"].item() for m, none in ((maps, everybody), (maps, nobody), (maps.roll(1, 0), everybody)))
    assert told < 0.85 * untold and told < 0.75 * wrong, (told, untold, wrong)


def test_mistakes_of_the_recipe_and_the_data_are_named(tmp_path):
    faces, embed, code = data()
    with pytest.raises(UserError, match="11 style codes for 12 faces"):
        train_morphface(recipe(), faces, embed, code[:11], ToyStyles(), tmp_path)
    with pytest.raises(UserError, match="the maps are 32 px wide"):
        train_morphface(recipe(), faces, embed, code, ToyStyles(size_px=32), tmp_path)
    with pytest.raises(UserError, match="empty_share is not used here"):
        recipe(denoiser={"empty_share": 0.2})
    with pytest.raises(UserError, match="token_dim is 4"):
        recipe(style={**STYLE, "meeting": "joint"})
    with pytest.raises(UserError, match="unknown key"):
        recipe(style={**STYLE, "tokens": 3})
    with pytest.raises(UserError, match="below 16 or a multiple of it"):
        StyleEncoderConfig.parse({"widths": [20]})


def test_loop_is_the_house_loop():
    assert isinstance(recipe().denoiser.loop, LoopConfig)
