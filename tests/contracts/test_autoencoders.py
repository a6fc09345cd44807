"""What every first stage promises to the generators, tried on small ones; those of consumers arrive through the registry."""

import subprocess
import sys

import pytest
import torch
from public_weights import TINY_VQ

from facefoundry.consumers.tokenizer.glotok import GloTokConfig
from facefoundry.core.weights import save_weights
from facefoundry.generators.autoencoder import PatchAutoencoderConfig
from facefoundry.generators.registry import AUTOENCODERS
from facefoundry.generators.train import load_autoencoder
from facefoundry.jobs.first_stages import know_first_stages

SMALL = {"patch": PatchAutoencoderConfig(patch=14, channels=4, width=16, blocks=1), "vq-f4": TINY_VQ, "glotok": GloTokConfig.tiny().config}


@pytest.fixture(params=SMALL)
def stage(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SMALL[request.param].build().eval()


def faces(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_every_registered_class_is_tried():
    know_first_stages()
    assert set(AUTOENCODERS) == SMALL.keys()


@torch.no_grad()
def test_shapes_and_types(stage):
    latent = stage.encode(faces(2))
    assert latent.shape == (2, *stage.latent_shape) and latent.dtype == torch.float32 and latent.isfinite().all()
    back = stage.decode(latent)
    assert back.shape == (2, 3, 112, 112) and back.dtype == torch.float32 and back.isfinite().all()


@torch.no_grad()
def test_a_face_does_not_depend_on_its_batch(stage):
    whole = stage.decode(stage.encode(faces(3)))
    assert torch.allclose(whole[1:2], stage.decode(stage.encode(faces(3)[1:2])), atol=1e-4)


@torch.no_grad()
def test_no_randomness(stage):
    state, latent = torch.get_rng_state(), stage.encode(faces(1))
    assert torch.equal(latent, stage.encode(faces(1))) and torch.equal(stage.decode(latent), stage.decode(latent))
    assert torch.equal(state, torch.get_rng_state())


@torch.no_grad()
def test_a_file_gives_it_back(stage, tmp_path):
    save_weights(tmp_path / "stage.safetensors", stage, kind="autoencoder", config=stage.config.model_dump(mode="json"))
    again = load_autoencoder(tmp_path / "stage.safetensors")
    assert type(again) is type(stage) and again.config == stage.config
    assert torch.equal(again.encode(faces(1)), stage.encode(faces(1)))


def test_generators_do_not_know_the_tokenizer_until_the_top_says_so():
    program = (
        "import sys\nfrom facefoundry.generators.registry import AUTOENCODERS\nbefore = set(AUTOENCODERS)\nassert not any('consumers' in name for name in sys.modules)\n"
        "from facefoundry.jobs.first_stages import know_first_stages\nknow_first_stages()\nassert set(AUTOENCODERS) - before == {'glotok'}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
