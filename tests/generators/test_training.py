"""Training: the run that is killed and resumed ends with the same weights; the average averages; the objective is the paper's."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.training import LoopConfig, run_loop
from facefoundry.core.training_state import load_state
from facefoundry.core.weights import load_weights
from facefoundry.generators.autoencoder import PatchAutoencoderConfig
from facefoundry.generators.train import AutoencoderRecipe, DenoiserObjective, DenoiserRecipe, GeneratorRecipe, LatentBatches, train_autoencoder, train_generator
from facefoundry.generators.prediction import min_snr_weight, target
from facefoundry.generators.schedule import add_noise
from facefoundry.generators.unet import FamilyUNet, UNetConfig

NETWORK = UNetConfig(channels=4, width=16, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=8, groups=4, identity_dim=8, context_dim=8, tokens=4)


def recipe(steps: int = 12) -> GeneratorRecipe:
    return GeneratorRecipe(
        name="tiny",
        autoencoder=AutoencoderRecipe(network=PatchAutoencoderConfig(patch=14, channels=4, width=16, blocks=1), loop=LoopConfig(steps=3, batch=4, optimiser="adamw", lr=1e-3, ema=True)),
        denoiser=DenoiserRecipe(network=NETWORK, loop=LoopConfig(steps=steps, batch=4, optimiser="adamw", lr=3e-4, ema=True, checkpoint_every=2, warmup=0.2)),
    )


def faces(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    embed = rng.normal(size=(count, 8)).astype(np.float32)
    return rng.integers(0, 256, (count, 112, 112, 3), dtype=np.uint8), embed / np.linalg.norm(embed, axis=1, keepdims=True)


SCRIPT = """
import sys, time
sys.path[:0] = [{tests!r}]
from pathlib import Path
import test_training as here
from facefoundry.core import training
save = training.Keeper.save
def slow_save(keeper, step):
    save(keeper, step)
    time.sleep(0.15)
training.Keeper.save = slow_save
here.train_generator(here.recipe(), *here.faces(), Path({out!r}))
"""


def test_kill_9_and_resume_give_the_weights_of_an_undisturbed_run(tmp_path):
    whole = train_generator(recipe(), *faces(), tmp_path / "whole")
    script = textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent), out=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", script])
    state = tmp_path / "killed" / "denoiser" / "state.pt"
    deadline = time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and state.exists()
    again = train_generator(recipe(), *faces(), tmp_path / "killed")
    assert again["denoiser"].read_bytes() == whole["denoiser"].read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "denoiser" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    train_generator(recipe(4), *faces(), tmp_path)
    with pytest.raises(UserError, match="another recipe or other data .steps: 4 there, 6 now"):
        train_generator(recipe(6), *faces(), tmp_path)


def test_a_pickle_in_the_place_of_the_state_is_refused(tmp_path):
    import pickle

    class Payload:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    (tmp_path / "autoencoder").mkdir()
    (tmp_path / "autoencoder" / "state.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UserError, match="not a training state that can be trusted"):
        train_generator(recipe(), *faces(), tmp_path)


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    broken = recipe().model_copy(update={"denoiser": recipe().denoiser.model_copy(update={"loop": LoopConfig(steps=40, batch=4, optimiser="adamw", lr=1e18, warmup=0, clip=0)})})
    with pytest.raises(UserError, match="stopped at step [0-9]+ of 40"):
        train_generator(broken, *faces(), tmp_path)


def test_the_average_is_the_published_recursion(tmp_path):
    class Walk(torch.nn.Module):
        """The weight's gradient is 1, 2, 3, ...: every value is known by hand."""

        def __init__(self):
            super().__init__()
            self.network = torch.nn.Linear(1, 1, bias=False)

        def forward(self, factor):
            return {"loss": self.network.weight.sum() * factor.sum()}

    class Steps:
        steps_per_epoch = 6

        def __call__(self, step, rank, world):
            return (torch.tensor([1.0 + step]),)

    torch.manual_seed(0)
    walk = Walk()
    weight = average = walk.network.weight.item()
    run_loop(walk, Steps(), LoopConfig(steps=6, batch=1, lr=0.1, warmup=0, weight_decay=0, schedule="constant", clip=0, ema=True), tmp_path, data="")
    # SGD with momentum 0.9 by hand, then decay_n = 1 - (1 + n)^-0.75 with n counted from the second update (the first copies).
    speed = 0.0
    for n in range(6):
        speed = 0.9 * speed + (1 + n)
        weight -= 0.1 * speed
        decay = 0.0 if n == 0 else 1 - (1 + n) ** -0.75
        average = decay * average + (1 - decay) * weight
    assert walk.network.weight.item() == pytest.approx(average, rel=1e-5)
    assert walk.network.weight.item() != pytest.approx(weight, rel=1e-2)


def test_first_row_is_always_empty_and_mirrored_rows_use_mirrored_latents():
    latents = np.arange(12, dtype=np.float16)[:, None, None, None] * np.ones((1, 4, 8, 8), np.float16)
    embed = faces(6)[1]
    batches = LatentBatches(latents, embed, recipe().denoiser)
    shares = []
    for step in range(60):
        clean, _, t, identity, empty = batches(step, 0, 1)
        assert bool(empty[0]) and 0 <= int(t.min()) and int(t.max()) < 1000
        rows = clean[:, 0, 0, 0].long()
        assert torch.equal(identity, torch.from_numpy(embed)[rows % 6])
        shares.append(float(empty[1:].float().mean()))
    assert np.mean(shares) == pytest.approx(0.2, abs=0.08)


def test_two_processes_share_the_batch_of_one():
    latents = np.random.default_rng(0).normal(size=(24, 4, 8, 8)).astype(np.float16)
    batches = LatentBatches(latents, faces(12)[1], recipe().denoiser)
    rows = lambda identity: sorted(map(tuple, identity.tolist()))
    whole, halves = batches(3, 0, 1)[3], [batches(3, rank, 2)[3] for rank in (0, 1)]
    assert rows(whole) == rows(torch.cat(halves))


def test_two_processes_train_together(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys\nsys.path[:0] = [{str(Path(__file__).parent)!r}]\nfrom pathlib import Path\nimport test_training as here\n"
        f"here.train_generator(here.recipe(4), *here.faces(), Path({str(tmp_path / 'out')!r}))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    finished = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    state = load_state(tmp_path / "out" / "denoiser" / "state.pt")
    assert state["step"] == 4 and (tmp_path / "out" / "denoiser" / "denoiser.safetensors").exists()


def test_parts_of_a_batch_add_up_to_the_whole(tmp_path):
    whole, parts = (recipe().model_copy(update={"autoencoder": recipe().autoencoder.model_copy(update={"loop": LoopConfig(steps=3, batch=6, accumulate=n, optimiser="sgd", lr=0.05)})}) for n in (1, 4))
    held = [train_autoencoder(one.autoencoder, faces()[0], tmp_path / name) for one, name in ((whole, "whole"), (parts, "parts"))]
    first, second = (load_weights(path, kind="autoencoder")[0] for path in held)
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
    untouched, _, _ = load_weights(train_autoencoder(whole.autoencoder.model_copy(update={"loop": LoopConfig(steps=1, batch=6, optimiser="sgd", lr=1e-9)}), faces()[0], tmp_path / "still"), kind="autoencoder")
    assert not all(torch.allclose(first[name], untouched[name], atol=1e-5) for name in first)


@pytest.mark.parametrize("min_snr", [0.0, 5.0])
@pytest.mark.parametrize("kind", ["epsilon", "v", "flow"])
def test_the_objective_row_by_row(kind, min_snr):
    config = NETWORK.model_copy(update={"prediction": kind, "context_dropout": 0.0})
    network = FamilyUNet(config).train()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    clean, noise = torch.randn(2, 3, 4, 8, 8)
    t, identity, empty = torch.tensor([5, 500, 900]), torch.from_numpy(faces(3)[1]), torch.tensor([True, False, False])
    loss = DenoiserObjective(network, recipe().denoiser.model_copy(update={"network": config, "min_snr": min_snr}))(clean, noise, t, identity, empty)["loss"]
    rows = []
    for row in range(3):
        one = slice(row, row + 1)
        context = network.empty_rows(1) if empty[row] else network.embed_context(identity[one])
        said = network(add_noise(clean[one], noise[one], t[one]), t[one], context)
        weight = min_snr_weight(kind, t[one], min_snr) if min_snr else 1.0
        rows.append(weight * ((said - target(kind, clean[one], noise[one], t[one])) ** 2).mean())
    assert float(loss) == pytest.approx(float(sum(rows)) / 3, rel=1e-5)
