"""Training of the tokenizer: the loss's parts, what each reaches, restarts, resume, teachers, figures."""

import numpy as np
import pytest
import torch

from facefoundry.consumers.tokenizer import train as module
from facefoundry.consumers.tokenizer.figures import measure
from facefoundry.consumers.tokenizer.glotok import GloTokConfig, load_glotok
from facefoundry.consumers.tokenizer.histogram_relation import histogram_divergence, log_histogram
from facefoundry.consumers.tokenizer.restart import RowRestart
from facefoundry.consumers.tokenizer.teacher import Dinov2Teacher, RecogniserTeacher, open_teacher, teacher_book
from facefoundry.consumers.tokenizer.train import TokenizerBatches, TokenizerObjective, TokenizerRecipe, TokenizerWeights, train_tokenizer
from facefoundry.core.errors import UserError
from facefoundry.core.images import to_float
from facefoundry.core.training import LoopConfig

TINY = GloTokConfig(fold=8, widths=(16, 16), groups=4, semantic=12, visual=20, residual_width=32)
LOOP = LoopConfig(steps=6, batch=2, optimiser="adamw", lr=1e-3, checkpoint_every=2, log_every=1, weight_decay=0)


def recipe(**changes) -> TokenizerRecipe:
    weights = TokenizerWeights(**{"gan_from": 0.5, "histogram_rows": 8, **changes.pop("weights", {})})
    return TokenizerRecipe(**{"tokenizer": TINY, "weights": weights, "critic": 4, "restart_every": 2, "loop": LOOP, **changes})


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def target() -> torch.Tensor:
    return log_histogram(torch.randn(30, 6, generator=torch.Generator().manual_seed(0)))


def objective(asked: TokenizerRecipe) -> TokenizerObjective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TokenizerObjective(asked.tokenizer.build(), asked, target(), 6)


def test_loss_is_the_weighted_sum_of_its_parts():
    asked = recipe(weights={"gan": 0.0, "rec": 2.0, "quantise": 3.0, "perceptual": 0.7, "residual": 0.5, "histogram": 0.01})
    made, batch = objective(asked), TokenizerBatches(images(), asked)(0, 0, 1)
    found = made(*batch)
    wanted = sum(weight * found[name] for name, weight in (("rec", 2.0), ("quantise", 3.0), ("perceptual", 0.7), ("residual", 0.5), ("histogram", 0.01)))
    assert found["loss"].item() == pytest.approx(wanted.item(), rel=1e-6)
    rows = made.network.rows(0)[batch[1][0]]
    assert found["histogram"].item() == pytest.approx(histogram_divergence(log_histogram(rows), target()).item(), rel=1e-5)
    assert len(batch[1][0].unique()) == 8
    assert found["psnr_db"].item() == pytest.approx(10 * np.log10(4 / found["rec"].item()), rel=1e-4)


def test_the_histogram_moves_the_semantic_book_only():
    made = objective(recipe(weights={"gan": 0.0, "perceptual": 0.0, "rec": 0.0, "quantise": 0.0, "residual": 0.0}))
    made(*TokenizerBatches(images(), recipe())(0, 0, 1))["loss"].backward()
    moved = {name for name, weight in made.network.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert moved == {"books.0.embedding.parametrizations.weight.original"}


def test_without_a_part_it_is_not_computed():
    asked = recipe(weights={"gan": 0.0, "histogram": 0.0, "perceptual": 0.0}, tokenizer=TINY.model_copy(update={"residual": False}))
    assert objective(asked)(*TokenizerBatches(images(), asked)(0, 0, 1)).keys() == {"loss", "rec", "quantise", "psnr_db"}


def test_same_first_weights_with_residual_and_without():
    with_it, without = (objective(recipe(tokenizer=TINY.model_copy(update={"residual": on}))).network.state_dict() for on in (True, False))
    assert without.keys() < with_it.keys() and all(torch.equal(without[name], with_it[name]) for name in without)


def test_the_critic_plays_late_and_each_side_learns_its_own():
    asked = recipe(weights={"perceptual": 0.0, "histogram": 0.0, "rec": 0.0, "quantise": 0.0, "residual": 0.0})
    made, batches = objective(asked), TokenizerBatches(images(), asked)
    assert not batches(2, 0, 1)[2].any() and batches(3, 0, 1)[2].all()
    early = made(*batches(2, 0, 1))
    assert "gan" not in early and early["loss"].requires_grad
    late = made(*batches(3, 0, 1))
    assert late["gan_weight"] == 0  # no reconstruction term: nothing to adapt to
    late["loss"].backward()
    assert made.critic[0].weight.grad.abs().max() > 0
    assert not made.network.decoder.conv_out.weight.grad.any()  # the critic's own loss sees detached pictures


def test_dead_rows_restart_at_outputs():
    book, output = TINY.build().books[0].embedding, torch.nn.functional.normalize(torch.randn(30, 8), dim=1)
    restart, before = RowRestart(12, every=2, until=4, seed=1), book.weight.detach().clone()
    alive = torch.tensor([0, 3, 3, 7])
    assert restart(book, output, alive) == 0 and restart(book, output, alive[:1]) == 9
    after = book.weight.detach()
    assert torch.allclose(after[[0, 3, 7]], before[[0, 3, 7]])
    dead = [row for row in range(12) if row not in (0, 3, 7)]
    assert (after[dead] @ output.T).amax(1).min() > 1 - 1e-5  # each is an output
    stored = book.parametrizations.weight.original.norm(dim=1)
    assert torch.allclose(stored[dead], stored[[0, 3, 7, *dead]].median().expand(9), rtol=0.5)
    assert int(restart.used_K.sum()) == 0
    assert [restart(book, output, alive) for _ in range(4)] == [0, 9, 0, 0]  # the counts began anew; after 4 steps none any more


def test_training_begins_with_settled_outputs(tmp_path, monkeypatch):
    """Else restarted rows all point where a random encoder points, and the histogram's loss rises."""
    seen = []
    monkeypatch.setattr(module, "run_loop", lambda objective, *args, **settings: seen.append(objective.network) or 0)
    train_tokenizer(recipe(), images(), tmp_path, book_KD=np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32))
    with torch.no_grad():
        code_BDHW = seen[0].codes(to_float(images()))
    for part_BDHW in code_BDHW.chunk(2, 1):
        assert part_BDHW.mean((0, 2, 3)).norm() < 0.3


def test_training_writes_facts_resumes_and_refuses(tmp_path, monkeypatch):
    asked, book = recipe(), np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)
    whole = train_tokenizer(asked, images(), tmp_path / "whole", book_KD=book)
    network, facts = load_glotok(whole)
    assert facts["steps"] == 6 and facts["teacher"] == "recogniser" and facts["weights"]["histogram"] == 0.01 and network.config == TINY

    class Killed(Exception):
        pass

    class Dies(TokenizerBatches):
        def __call__(self, step, rank, world):
            if step == 5:
                raise Killed
            return super().__call__(step, rank, world)

    monkeypatch.setattr(module, "TokenizerBatches", Dies)
    with pytest.raises(Killed):
        train_tokenizer(asked, images(), tmp_path / "cut", book_KD=book)
    monkeypatch.setattr(module, "TokenizerBatches", TokenizerBatches)
    assert train_tokenizer(asked, images(), tmp_path / "cut", book_KD=book).read_bytes() == whole.read_bytes()
    with pytest.raises(UserError, match="another recipe or other data"):
        train_tokenizer(asked, images()[::-1].copy(), tmp_path / "cut", book_KD=book)
    with pytest.raises(UserError, match="another recipe or other data"):
        train_tokenizer(asked, images(), tmp_path / "cut", book_KD=book[:, ::-1] * np.arange(1, 7, dtype=np.float32))  # another teacher
    with pytest.raises(UserError, match="less than one batch"):
        train_tokenizer(asked, images(1), tmp_path / "few", book_KD=book)


def test_teacher_book_of_the_recogniser_is_the_centres_of_its_patches():
    image_NHWC, teacher = images(3), RecogniserTeacher()
    book = teacher_book(teacher, image_NHWC, 5, patches=200, rounds=20)
    assert book.shape == (5, 64) and np.array_equal(book, teacher_book(teacher, image_NHWC, 5, patches=200, rounds=20))
    patch = np.concatenate([teacher.patches(torch.from_numpy(image_NHWC[n : n + 1]).permute(0, 3, 1, 2) / 127.5 - 1)[0].numpy() for n in range(3)])
    assert patch.shape == (3 * 196, 64)
    spread = lambda centres: ((patch[:, None] - centres[None]) ** 2).sum(2).min(1).mean()  # noqa: E731
    assert spread(book) < 0.9 * ((patch - patch.mean(0)) ** 2).sum(1).mean()
    with pytest.raises(UserError, match="fewer than the 600 rows"):
        teacher_book(teacher, image_NHWC, 600, patches=200)


def test_dinov2_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14)
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    teacher = open_teacher(f"dinov2:{tmp_path}")
    assert teacher.patches(torch.zeros(2, 3, 112, 112)).shape == (2, 256, 16)
    assert teacher_book(Dinov2Teacher(tmp_path, side=56), images(2), 4, patches=16).shape == (4, 16)
    with pytest.raises(UserError, match="multiple of 14"):
        Dinov2Teacher(tmp_path, side=100)
    with pytest.raises(UserError, match=r"no config\.json"):
        open_teacher(f"dinov2:{tmp_path / 'none'}")


def test_unknown_teacher():
    with pytest.raises(UserError, match="expected recogniser, or dinov2:FOLDER"):
        open_teacher("clip")


def test_figures_of_a_perfect_and_a_blurring_tokenizer():
    image_NHWC = np.repeat(np.repeat(images(6)[:, ::16, ::16], 16, 1), 16, 2)
    perfect = measure(lambda image_BCHW: image_BCHW, image_NHWC).summary()
    assert perfect["images"] == 6 and perfect["rfid"] == pytest.approx(0, abs=1e-4) and perfect["perceptual"] == pytest.approx(0, abs=1e-5)
    assert perfect["ssim"] == pytest.approx(1) and perfect["identity"] == pytest.approx(1, abs=1e-4) and perfect["psnr_db"] == np.inf
    noise = torch.from_numpy(np.random.default_rng(3).normal(0, 0.1, (6, 3, 112, 112)).astype(np.float32))
    noisy = measure(lambda image_BCHW: image_BCHW + noise, image_NHWC)
    error = ((noisy.image_NHWC / 255.0 - image_NHWC / 255.0) ** 2).mean((1, 2, 3))
    assert np.allclose(noisy.psnr_db, -10 * np.log10(error), atol=1e-4)
    assert noisy.summary()["rfid"] > 0 and 0 < noisy.summary()["perceptual"] < 4 and noisy.summary()["ssim"] < 1
    with pytest.raises(UserError, match="1 faces"):
        measure(lambda image_BCHW: image_BCHW, image_NHWC[:1])


def test_bad_recipe():
    with pytest.raises(UserError, match="unknown key 'weights.histgram'.*histogram"):
        TokenizerRecipe.parse({"weights": {"histgram": 1}, "loop": {}})
