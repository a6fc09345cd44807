"""The token model: causal, its cache changes nothing, its draws follow the distribution, its files and its training."""

import numpy as np
import pytest
import torch

from facefoundry.consumers.tokenizer.autoregressive import TokenModel, TokenModelConfig, drawn, load_token_model, sample_faces, save_token_model
from facefoundry.consumers.tokenizer.autoregressive_train import TokenBatches, TokenModelRecipe, TokenObjective, tokens_of, train_token_model
from facefoundry.consumers.tokenizer.glotok import GloTokConfig, save_glotok
from facefoundry.core.errors import UserError
from facefoundry.core.training import LoopConfig

LOOP = LoopConfig(steps=4, batch=4, optimiser="adamw", lr=3e-3, checkpoint_every=2, log_every=1)


@pytest.fixture(scope="module")
def tokenizer():
    return GloTokConfig.tiny().eval()


@pytest.fixture(scope="module")
def model(tokenizer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = TokenModel(TokenModelConfig(width=32, layers=2, head_dim=16).for_tokenizer(tokenizer, 5))
        for parameter in made.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[-1] ** -0.5)
    made.learn_books(tokenizer)
    return made.eval()


def tokens(count: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(12, (count, 49), generator=draw), torch.randint(20, (count, 49), generator=draw)], 2)


@torch.no_grad()
def test_no_position_sees_what_comes_after(model):
    token, label = tokens(1), torch.tensor([2])
    changed = token.clone()
    changed[:, 20, 0] = (changed[:, 20, 0] + 1) % 12
    (semantic, visual), (semantic_c, visual_c) = model(label, token), model(label, changed)
    assert semantic.shape == (1, 49, 12) and visual.shape == (1, 49, 20)
    assert torch.allclose(semantic[:, :21], semantic_c[:, :21], atol=1e-6) and (semantic[:, 21:] - semantic_c[:, 21:]).abs().amax(2).min() > 0
    assert torch.allclose(visual[:, :20], visual_c[:, :20], atol=1e-6) and (visual[:, 20] - visual_c[:, 20]).abs().max() > 1e-3  # given its own semantic token
    changed = token.clone()
    changed[:, 20, 1] = (changed[:, 20, 1] + 1) % 20
    assert torch.allclose(model(label, changed)[1][:, :21], visual[:, :21], atol=1e-6)  # not of its own visual token
    assert (model(torch.tensor([3]), token)[0] - semantic).abs().max() > 1e-3  # the class counts


def test_cache_changes_nothing(model):
    label, seeds = torch.tensor([0, 4, 2]), [1, 2, 3]
    with_cache, without = (model.sample(label, seeds, top_k=6, cached=cached) for cached in (True, False))
    assert torch.equal(with_cache, without) and with_cache.shape == (3, 2, 7, 7)
    assert len(with_cache.flatten().unique()) > 5


@torch.no_grad()
def test_draws_are_those_of_the_teacher_forced_logits(model):
    """The whole forward pass of what was drawn gives the distributions it was drawn from: top 1 is their argmax at every position."""
    label = torch.tensor([1, 3])
    token = model.sample(label, [5, 6], top_k=1).flatten(2).transpose(1, 2)
    semantic, visual = model(label, token)
    assert torch.equal(semantic.argmax(2), token[..., 0]) and torch.equal(visual.argmax(2), token[..., 1])


def test_a_face_depends_on_its_class_and_seed_alone(model):
    state = torch.get_rng_state()
    whole = model.sample(torch.tensor([0, 1, 1]), [7, 8, 9])
    assert torch.equal(whole[1:], model.sample(torch.tensor([1, 1]), [8, 9]))
    assert not torch.equal(whole[1], whole[2]) and torch.equal(state, torch.get_rng_state())


def test_rows_are_drawn_by_their_probability_and_top_k_cuts():
    logit = torch.tensor([[2.0, 0.0, 1.0, -1.0]]).expand(20000, 4)
    chance = torch.linspace(0, 1, 20001, dtype=torch.float64)[:-1]
    share = torch.bincount(drawn(logit, chance, 0, 1.0), minlength=4) / 20000
    assert torch.allclose(share, logit[0].softmax(0), atol=1e-3)
    share = torch.bincount(drawn(logit, chance, 2, 0.5), minlength=4) / 20000
    assert share[[1, 3]].sum() == 0 and share[0].item() == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-3)
    assert drawn(logit[:1], torch.tensor([1 - 1e-16], dtype=torch.float64), 0, 1.0).item() == 3


def test_bad_requests(model):
    for labels, seeds, options, words in (
        ([5], [1], {}, "trained on 0 to 4"), ([-1], [1], {}, "trained on"), ([0], [1, 2], {}, "one seed a class"), ([], [], {}, "at least one"),
        ([0], [1], {"top_k": -1}, "top_k"), ([0], [1], {"temperature": 0.0}, "temperature"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            model.sample(torch.tensor(labels, dtype=torch.int64), seeds, **options)


def test_files(model, tokenizer, tmp_path):
    save_token_model(tmp_path / "tokens.safetensors", model, facts={"classes": ["a"]})
    back, facts = load_token_model(tmp_path / "tokens.safetensors")
    assert facts["classes"] == ["a"] and torch.equal(back.sample(torch.tensor([1]), [2]), model.sample(torch.tensor([1]), [2]))
    save_glotok(tmp_path / "glotok.safetensors", tokenizer, facts={})
    with pytest.raises(UserError, match="expected 'token-model'"):
        load_token_model(tmp_path / "glotok.safetensors")
    faces = sample_faces(model, tokenizer, [0, 1, 2], [1, 2, 3], batch=2)
    assert faces.shape == (3, 3, 112, 112) and faces.abs().max() <= 1


def test_loss_is_the_cross_entropy_of_both_books(model):
    token, label = tokens(2), torch.tensor([0, 1])
    found = TokenObjective(model, TokenModelRecipe(loop=LOOP))(token, label)
    with torch.no_grad():
        logits = model(label, token)
    slow = [-np.mean([logits[book][b, p].double().log_softmax(0)[token[b, p, book]] for b in range(2) for p in range(49)]) for book in (0, 1)]
    assert found["semantic"].item() == pytest.approx(slow[0], rel=1e-5) and found["loss"].item() == pytest.approx(sum(slow) / 2, rel=1e-5)


def test_training_learns_resumes_and_refuses(tokenizer, tmp_path):
    image_NHWC = np.random.default_rng(0).integers(0, 256, (6, 112, 112, 3), dtype=np.uint8)
    label_N = np.array([0, 0, 1, 1, 2, 2], np.int32)
    save_glotok(tmp_path / "g.safetensors", tokenizer, facts={})
    recipe = TokenModelRecipe(network=TokenModelConfig(width=32, layers=1, dropout=0.1), loop=LOOP)
    whole = train_token_model(recipe, tmp_path / "g.safetensors", image_NHWC, label_N, tmp_path / "whole", names=("a", "b", "c"))
    assert load_token_model(whole)[1]["classes"] == ["a", "b", "c"]

    class Killed(Exception):
        pass

    class Dies(TokenBatches):
        def __call__(self, step, rank, world):
            if step == 3:
                raise Killed
            return super().__call__(step, rank, world)

    import facefoundry.consumers.tokenizer.autoregressive_train as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TokenBatches", Dies)
        with pytest.raises(Killed):
            train_token_model(recipe, tmp_path / "g.safetensors", image_NHWC, label_N, tmp_path / "cut", names=("a", "b", "c"))
    cut = train_token_model(recipe, tmp_path / "g.safetensors", image_NHWC, label_N, tmp_path / "cut", names=("a", "b", "c"))
    assert cut.read_bytes() == whole.read_bytes()
    with pytest.raises(UserError, match="another recipe or other data"):
        train_token_model(recipe, tmp_path / "g.safetensors", image_NHWC[::-1].copy(), label_N, tmp_path / "cut")
    with pytest.raises(UserError, match="less than one batch"):
        train_token_model(recipe, tmp_path / "g.safetensors", image_NHWC[:3], label_N[:3], tmp_path / "few")


def test_tokens_of_faces_and_mirrored_faces(tokenizer):
    image_NHWC = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    plain, mirrored = tokens_of(tokenizer, image_NHWC, batch=2), tokens_of(tokenizer, image_NHWC, mirrored=True)
    assert plain.dtype == np.uint16 and plain.shape == (3, 2, 7, 7)
    assert np.array_equal(mirrored, tokens_of(tokenizer, image_NHWC[:, :, ::-1].copy()))
