"""Training: the run that is killed and resumed ends with the same weights; the average averages; the objective is the paper's."""

import json
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.training import LoopConfig
from facefoundry.generators.autoencoder import PatchAutoencoderConfig
from facefoundry.generators.train import AutoencoderRecipe, DenoiserRecipe, DenoiserTask, GeneratorRecipe, train_generator
from facefoundry.generators.unet import FamilyUNet, UNetConfig

NETWORK = UNetConfig(channels=4, width=16, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=8, groups=4, identity_dim=8, context_dim=8, tokens=4)


def recipe(steps: int = 12) -> GeneratorRecipe:
    return GeneratorRecipe(
        name="tiny",
        autoencoder=AutoencoderRecipe(network=PatchAutoencoderConfig(patch=14, channels=4, width=16, blocks=1), loop=LoopConfig(steps=3, batch=4, precision="fp32")),
        denoiser=DenoiserRecipe(network=NETWORK, loop=LoopConfig(steps=steps, batch=4, precision="fp32", save_every=2, warmup=2)),
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
save = training._Run.save
def slow_save(run, step):
    save(run, step)
    time.sleep(0.15)
training._Run.save = slow_save
here.train_generator(here.recipe(), *here.faces(), Path({out!r}))
"""


def test_kill_9_and_resume_give_the_weights_of_an_undisturbed_run(tmp_path):
    whole = train_generator(recipe(), *faces(), tmp_path / "whole")
    script = textwrap.dedent(SCRIPT).format(tests=str(__import__("pathlib").Path(__file__).parent), out=str(tmp_path / "killed"))
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
    with pytest.raises(UserError, match="other settings.*steps: 4 there, 6 now"):
        train_generator(recipe(6), *faces(), tmp_path)


def test_a_pickle_in_the_place_of_the_state_is_refused(tmp_path):
    import pickle

    class Payload:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    (tmp_path / "autoencoder").mkdir()
    (tmp_path / "autoencoder" / "state.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UserError, match="cannot be read as a training state"):
        train_generator(recipe(), *faces(), tmp_path)


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    broken = recipe().model_copy(update={"denoiser": recipe().denoiser.model_copy(update={"loop": LoopConfig(steps=40, batch=4, lr=1e18, warmup=0, clip=0, precision="fp32")})})
    with pytest.raises(UserError, match="at step [0-9]+; lower lr"):
        train_generator(broken, *faces(), tmp_path)


def test_the_average_is_the_published_recursion(tmp_path):
    from facefoundry.core.training import fit

    class Walk:
        fingerprint = "walk"

        def __init__(self):
            self.modules = torch.nn.ModuleDict({"p": torch.nn.Linear(1, 1, bias=False)})
            self.seen = [self.modules["p"].weight.item()]

        def loss(self, step, device, rank, world):
            if step:
                self.seen.append(self.modules["p"].weight.item())
            return self.modules["p"].weight.sum() * (1 + step), {}

    torch.manual_seed(0)
    walk = Walk()
    modules = fit(walk, LoopConfig(steps=6, batch=1, lr=0.1, warmup=0, schedule="constant", optimiser="sgd", clip=0, precision="fp32"), tmp_path, label="walk")
    # SGD with momentum 0.9 by hand, then decay_n = 1 - (1 + n)^-0.75 with n counted from the second update (the first copies).
    weight, speed, average = walk.seen[0], 0.0, walk.seen[0]
    for n in range(6):
        speed = 0.9 * speed + (1 + n)
        weight -= 0.1 * speed
        decay = 0.0 if n == 0 else 1 - (1 + n) ** -0.75
        average = decay * average + (1 - decay) * weight
    assert modules["p"].weight.item() == pytest.approx(average, rel=1e-5)
    assert modules["p"].weight.item() != pytest.approx(weight, rel=1e-2)


def test_first_row_is_always_empty_and_mirrored_rows_use_mirrored_latents():
    seen = {}

    class Spy(FamilyUNet):
        def embed_context(self, identity, drop=None):
            seen["drop"] = drop
            return super().embed_context(identity, drop)

    latents = np.arange(12, dtype=np.float16)[:, None, None, None] * np.ones((1, 4, 8, 8), np.float16)
    task = DenoiserTask(Spy(NETWORK), recipe().denoiser, latents, torch.from_numpy(faces(6)[1]))
    shares = []
    for step in range(60):
        task.loss(step, torch.device("cpu"), 0, 1)
        assert bool(seen["drop"][0])
        shares.append(float(seen["drop"][1:].float().mean()))
    assert np.mean(shares) == pytest.approx(0.2, abs=0.08)
