"""Distillation: trajectories are the sampler's own, goals are reached exactly, a killed run ends as an undisturbed one, training learns."""

import json

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.seeds import derive_seed, noise
from facefoundry.core.training import LoopConfig
from facefoundry.generators.autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from facefoundry.generators.distill import DecoderRecipe, FewStepRecipe, JumpBatches, JumpObjective, StudentRecipe, distill, jump_goal, segment_end
from facefoundry.generators.lcm import LCMConfig, jump, load_student
from facefoundry.generators.prediction import target
from facefoundry.generators.schedule import alpha_bars
from facefoundry.generators.solvers import build_solver
from facefoundry.generators.trajectories import TrajectoryConfig, cached_trajectories, nearest_times, record
from facefoundry.generators.train import load_autoencoder
from facefoundry.generators.uiface import UIFaceConfig, UIFaceSampler, sample

SAMPLER = UIFaceSampler(steps=10, t_max=500, guidance=2.0, rescale=0.5)
TIMES = (900, 600, 400, 200)


def unit_rows(count: int, dim: int = 8) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def teacher():
    return UIFaceConfig.tiny(sampler=SAMPLER)


def recipe(steps: int = 6, rank: int = 2, decoder: bool = False, **loop) -> FewStepRecipe:
    settings = LoopConfig(**{"steps": steps, "batch": 8, "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0, "checkpoint_every": 2, **loop})
    small = DecoderRecipe(width=16, blocks=1, detail_width=4, loop=settings) if decoder else None
    return FewStepRecipe(name="tiny", trajectories=TrajectoryConfig(count=12, batch=5, times=TIMES), student=StudentRecipe(segments=2, rank=rank, loop=settings), decoder=small)


@pytest.fixture
def based(tmp_path):
    """A recipe whose base denoiser is on disk, as an adapter needs it."""
    from facefoundry.core.weights import save_weights

    network = teacher().network
    save_weights(tmp_path / "base.safetensors", network, kind="denoiser", config=network.config.model_dump(mode="json"))
    return lambda **keys: recipe(**keys).model_copy(update={"teacher": UIFaceConfig(denoiser=str(tmp_path / "base.safetensors"))})


def test_a_trajectory_is_what_the_sampler_does():
    made, context = teacher(), None
    with torch.inference_mode():
        context = made.network.embed_context(torch.from_numpy(unit_rows(3)))
        start = noise([1, 2, 3], made.autoencoder.latent_shape)
        seen = record(made, start, context)
        ends, _ = sample(made.network, start, context, SAMPLER)
    points = build_solver("ddim", 10).points
    assert sorted(seen) == sorted([-1, *(point.t for point in points)])
    assert torch.equal(seen[-1], ends) and torch.equal(seen[points[0].t], start)
    # One step further by hand, in stage 2 with guidance and injection: sampling on from a state ends in the same face.
    at = next(k for k, point in enumerate(points) if point.t < SAMPLER.t_max)

    class Rest:
        def __init__(self):
            self.inner = build_solver("ddim", 10)
            self.points = self.inner.points[at:]

        def step(self, index, latent, predicted):
            return self.inner.step(index + at, latent, predicted)

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr("facefoundry.generators.uiface.build_solver", lambda *_: Rest())
        again, _ = sample(made.network, seen[points[at].t], context, SAMPLER)
    assert torch.allclose(again, ends, atol=1e-4)


def test_trajectories_are_kept_in_files_and_read_again(tmp_path):
    made, config = teacher(), TrajectoryConfig(count=12, batch=5, times=TIMES)
    found = cached_trajectories(made, unit_rows(7), config, tmp_path, seed=3)
    assert found.times == TIMES and len(found) == 12 and len(list(tmp_path.iterdir())) == 3
    # All seven identities appear once before the first appears twice.
    assert len({row.tobytes() for row in found.embed_ND[:7]}) == 7
    with torch.inference_mode():
        start = noise([derive_seed(3, 11, "trajectory")], made.autoencoder.latent_shape)
        seen = record(made, start, made.network.embed_context(torch.from_numpy(found.embed_ND[11:])))
    assert torch.allclose(found.state(np.array([11, 11]), np.array([0, 4])), torch.cat([seen[900], seen[-1]]), rtol=2e-3, atol=1e-2)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "000001.npy").unlink()
    again = cached_trajectories(made, unit_rows(7), config, tmp_path, seed=3)
    assert again.digest() == found.digest() and (tmp_path / "000000.npy").stat().st_mtime_ns == stamps[tmp_path / "000000.npy"]


def test_times_the_sampler_cannot_tell_apart_are_refused():
    assert nearest_times([900, 800, 300, 100], (999, 310, 90)) == (900, 300, 100)
    with pytest.raises(UserError, match="visits only 3 times"):
        nearest_times([900, 500, 100], (900, 510, 490))


@pytest.mark.parametrize("kind", ["epsilon", "v", "flow"])
@pytest.mark.parametrize("t, s", [(960, 640), (640, 360), (160, None)])
def test_a_student_that_says_its_goal_lands_on_it(kind, t, s):
    draw = torch.Generator().manual_seed(0)
    latent, goal = (torch.randn(2, 4, 8, 8, generator=draw).double() for _ in range(2))
    alpha, alpha_goal = alpha_bars()[t], alpha_bars()[s] if s else torch.tensor(1.0).double()
    said = target(kind, *jump_goal(latent, goal, alpha, alpha_goal), torch.tensor([t, t]))
    assert torch.allclose(jump(kind, said, latent, float(alpha), float(alpha_goal)), goal, atol=1e-6)


def test_segments_end_where_the_next_begins():
    assert segment_end(np.arange(8), 8, 4).tolist() == [2, 2, 4, 4, 6, 6, 8, 8]
    assert segment_end(np.arange(8), 8, 1).tolist() == [8] * 8 and segment_end(np.arange(8), 8, 8).tolist() == list(range(1, 9))


def test_batches_hold_pairs_of_one_trajectory_and_all_of_them_in_an_epoch(tmp_path):
    found = cached_trajectories(teacher(), unit_rows(12), TrajectoryConfig(count=12, batch=5, times=TIMES), tmp_path, seed=0)
    batches = JumpBatches(found, 2, LoopConfig(batch=8))
    assert batches.steps_per_epoch == 6
    times = []
    for step in range(6):
        latent, goal, t, alpha, identity = batches(step, 0, 1)
        for row in range(8):
            which = int(np.flatnonzero((found.embed_ND == identity[row].numpy()).all(1))[0])
            start = TIMES.index(int(t[row]))
            end = [2, 2, 4, 4][start]
            assert torch.equal(latent[row], found.state(np.array([which]), np.array([start]))[0])
            assert torch.equal(goal[row], found.state(np.array([which]), np.array([end]))[0])
            assert float(alpha[row]) == pytest.approx(float(alpha_bars()[400]) if end == 2 else 1.0)
            times.append((which, start))
    assert len(set(times)) == 48
    halves = [batches(2, rank, 2)[2].tolist() for rank in (0, 1)]
    assert sorted(sum(halves, [])) == sorted(batches(2, 0, 1)[2].tolist())


@pytest.mark.parametrize("rank", [2, 0])
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path, based, rank, monkeypatch):
    from facefoundry.core import training

    wanted = based(rank=rank, decoder=True)
    whole = distill(wanted, unit_rows(7), tmp_path / "whole", teacher=teacher())

    def dies(objective, optimiser, batches, config, accelerator, place):
        if place[0] == 3:
            raise KeyboardInterrupt
        return step(objective, optimiser, batches, config, accelerator, place)

    step = training._step
    monkeypatch.setattr(training, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        distill(wanted, unit_rows(7), tmp_path / "killed", teacher=teacher())
    monkeypatch.setattr(training, "_step", step)
    resumed = distill(wanted, unit_rows(7), tmp_path / "killed", teacher=teacher())
    for name in ("denoiser", "autoencoder"):
        assert whole[name].read_bytes() == resumed[name].read_bytes()


def test_another_teachers_decoder_is_never_taken_for_this_ones(tmp_path, based):
    """The trajectories are the same whatever decodes them: a finished small decoder of the teacher's former one must not pass for this one's."""
    distill(based(decoder=True), unit_rows(7), tmp_path / "run", teacher=teacher())
    other = teacher()
    torch.nn.init.normal_(other.autoencoder.decoder.out.bias, std=0.5)
    with pytest.raises(UserError, match="belongs to a training with another recipe or other data .teacher:"):
        distill(based(decoder=True), unit_rows(7), tmp_path / "run", teacher=other)


def test_training_reduces_the_loss_and_makes_a_generator(tmp_path, based):
    wanted, made = based(steps=20, decoder=True, lr=3e-3), teacher()
    torch.nn.init.normal_(made.autoencoder.decoder.out.bias, std=0.5)  # an untrained decoder would teach nothing but its basis
    paths = distill(wanted, unit_rows(7), tmp_path / "run", teacher=made)

    found = cached_trajectories(made, unit_rows(7), wanted.trajectories, next((tmp_path / "run").glob("trajectories-*")), seed=0)
    batches = JumpBatches(found, 2, wanted.student.loop)

    def error(network):
        objective = JumpObjective(network, wanted.student.loop)
        return float(sum(objective(*batches(step, 0, 1))["loss"] for step in range(batches.steps_per_epoch)))

    with torch.no_grad():
        assert error(load_student(paths["denoiser"])[0]) < 0.9 * error(made.network)
    decoder = [json.loads(line)["loss"] for line in (tmp_path / "run" / "decoder" / "log.jsonl").read_text().splitlines()]
    assert decoder[-1] < 0.8 * decoder[0]

    config = LCMConfig(denoiser=str(paths["denoiser"]), autoencoder=str(paths["autoencoder"]), steps=2, precision="fp32")
    batch = config.build(torch.device("cpu")).generate(unit_rows(2), [1, 2])
    assert batch.passes_B == (2, 2) and batch.image_BCHW.std() > 0


def test_the_small_decoder_keeps_the_latents(tmp_path, based):
    made = teacher()
    path = distill(based(decoder=True), unit_rows(7), tmp_path / "run", teacher=made)["autoencoder"]
    small, image = load_autoencoder(path), torch.rand(2, 3, 112, 112) * 2 - 1
    assert isinstance(small, PatchAutoencoder) and torch.allclose(small.encode(image), made.autoencoder.encode(image), atol=1e-5)
    assert small.config == PatchAutoencoderConfig(patch=14, channels=4, width=16, blocks=1, detail_width=4)


def test_rows_of_another_embedder_are_refused(tmp_path):
    with pytest.raises(UserError, match="have 16 numbers, the teacher 'uiface-small' takes 8"):
        distill(recipe(), unit_rows(3, 16), tmp_path, teacher=teacher())


@pytest.mark.parametrize("values, message", [({"student": {"segments": 3, "loop": {}}}, "4 trajectories.times in 3"), ({"trajectories": {"times": [100, 200]}, "student": {"segments": 1, "loop": {}}}, "falling")])
def test_recipes_that_cannot_be(values, message):
    with pytest.raises(UserError, match=message):
        FewStepRecipe.parse({"name": "x", "trajectories": {"times": TIMES}, **values})
