"""The verb `distill` on a handful of faces, and the job that uses what it wrote."""

import sys

import numpy as np
import pytest
import torch
from facefoundry.core.images import encode_png
from facefoundry.core.weights import save_weights
from facefoundry.generators.autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from facefoundry.generators.unet import FamilyUNet, UNetConfig
from facefoundry.jobs.cli import main

RECIPE = """
name: tiny
teacher: {{name: uiface, denoiser: {folder}/denoiser.safetensors, autoencoder: {folder}/autoencoder.safetensors, sampler: {{steps: 6}}}}
trajectories: {{count: 4, batch: 4, times: [830, 498]}}
student: {{segments: 2, rank: 2, loop: {{steps: 2, batch: 4, optimiser: adamw, lr: 1.0e-3}}}}
decoder: {{width: 16, blocks: 1, detail_width: 4, loop: {{steps: 2, batch: 4, optimiser: adamw, lr: 1.0e-3}}}}
"""


def command(capsys, *words: object) -> tuple[int, str, str]:
    argv, sys.argv = sys.argv, ["facefoundry", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = argv
    return ended.value.code or 0, *capsys.readouterr()


@pytest.fixture
def recipe(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = UNetConfig(channels=4, width=16, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=8, groups=4, identity_dim=128, context_dim=8, tokens=4)
        autoencoder = PatchAutoencoderConfig(patch=14, channels=4, width=16, blocks=1)
        save_weights(tmp_path / "denoiser.safetensors", FamilyUNet(config), kind="denoiser", config=config.model_dump(mode="json"))
        save_weights(tmp_path / "autoencoder.safetensors", PatchAutoencoder(autoencoder), kind="autoencoder", config=autoencoder.model_dump(mode="json"))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(folder=tmp_path))
    return path


@pytest.fixture
def faces(tmp_path):
    for name in ("ada", "bo"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for shot in range(2):
            pattern = np.random.default_rng((len(name), shot)).integers(0, 256, (14, 14, 3))
            (tmp_path / "faces" / name / f"{shot}.png").write_bytes(encode_png(np.kron(pattern, np.ones((8, 8, 1))).astype(np.uint8)))
    return tmp_path / "faces"


def test_distil_and_run_a_job_with_the_student(capsys, tmp_path, recipe, faces):
    out = tmp_path / "out"
    distil = ("distill", recipe, "--data", faces, "--out", out, "--embedder", "mobilefacenet-small")
    code, told, err = command(capsys, *distil)
    student, decoder = out / "student" / "lcm.safetensors", out / "decoder" / "autoencoder.safetensors"
    assert code == 0, err
    assert student.is_file() and decoder.is_file() and f"denoiser: {student}" in told and "steps: 2" in told
    before = student.read_bytes()
    assert command(capsys, *distil)[0] == 0 and student.read_bytes() == before  # a finished run is found finished
    code, _, err = command(capsys, *distil, "--set", "student.loop.lr=0.002")
    assert code == 2 and "lr: 0.001 there, 0.002 now" in err

    job = tmp_path / "job.yaml"
    job.write_text(f"name: few\nseed: 1\nidentities: {{source: prior, count: 1}}\nper_identity: 1\ngenerator: {{name: lcm, denoiser: {student}, autoencoder: {decoder}, steps: 2}}\njudge: mobilefacenet-small\n")
    code, told, err = command(capsys, "plan", job)
    assert code == 0, err
    (tmp_path / "denoiser.safetensors").write_bytes(decoder.read_bytes())
    from facefoundry.core.errors import UserError
    from facefoundry.generators.lcm import load_student

    with pytest.raises(UserError, match="was trained on another"):
        load_student(student)


def test_mistakes_are_named(capsys, tmp_path, recipe, faces):
    code, _, err = command(capsys, "distill", recipe, "--data", faces, "--out", tmp_path / "out", "--set", "student.segmnts=2")
    assert code == 2 and "unknown key 'student.segmnts'" in err and "segments" in err
