"""Sharpening a decoder: latents stay, each term does what it says, the disturbance is as told, a killed run ends as an undisturbed one."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from facefoundry.core.errors import UserError
from facefoundry.core.files import bundled
from facefoundry.core.training import LoopConfig, data_digest
from facefoundry.core.training_state import load_state
from facefoundry.core.weights import load_weights, read_safetensors, save_weights
from facefoundry.generators.autoencoder import PatchAutoencoder, PatchAutoencoderConfig, reconstruction
from facefoundry.generators.one_step import OneStep
from facefoundry.generators.pixel import PixelAutoencoder
from facefoundry.generators.schedule import alpha_bars
from facefoundry.generators.sharpen import SharpDecoderRecipe, SharpenBatches, SharpenObjective, SharpenRecipe, disturbed, save_autoencoder, sharpen_decoder, texture_gap
from facefoundry.generators.train import AutoencoderRecipe, load_autoencoder, train_autoencoder
from facefoundry.generators.unet import FamilyUNet, UNetConfig

SMALL = PatchAutoencoderConfig(patch=14, channels=4, width=16, blocks=1, detail_width=4)
BUNDLED_LATENTS = "c128637f6162775331b712ae2ee8b87f64063cd8e8cb99ddea579a06f7d235df"
"""Digest of mean, basis and scale of autoencoder-small."""
LOOP = LoopConfig(steps=6, batch=2, optimiser="adamw", lr=1e-3, ema=True, weight_decay=0, checkpoint_every=2, log_every=1)


class Eyes:
    """Blocks of 4x4 pixels as maps."""

    name = "toy"

    def maps(self, image_BCHW):
        with torch.inference_mode():
            return self.live_maps(image_BCHW)

    def live_maps(self, image_BCHW):
        return [torch.nn.functional.pixel_unshuffle(image_BCHW, 4)]


def faces(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def small() -> PatchAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PatchAutoencoder(SMALL)
        network.fit_basis(torch.rand(4, 3, 112, 112) * 2 - 1)
    return network


def recipe(**changes) -> SharpenRecipe:
    return SharpenRecipe(**{"loop": LOOP, "critic": 4, "gan_from": 0.5, **changes})


def objective(asked: SharpenRecipe, eyes=None) -> SharpenObjective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return SharpenObjective(small(), asked, eyes)


def test_off_by_default_it_is_plain_reconstruction():
    asked = recipe()
    batch = SharpenBatches(faces(), asked, small().latent_shape)(0, 0, 1)
    made = objective(asked)
    assert made.critic is None
    found = made(*batch)
    assert found.keys() == {"loss", "rec", "psnr_db"}
    latent = made.network.encode(batch[0]) + 0.1 * batch[2][:, :1, None, None] * batch[1]
    assert float(found["loss"]) == pytest.approx(float(reconstruction(made.network.decode(latent), batch[0], 0.5)[0]), rel=1e-5)
    assert AutoencoderRecipe(loop=LOOP).sharpen is None


def test_loss_is_the_weighted_sum_of_its_parts():
    asked = recipe(perceptual=0.7, gan=0.3)
    found = objective(asked, Eyes())(*SharpenBatches(faces(), asked, (4, 8, 8))(4, 0, 1))
    wanted = found["rec"] + 0.7 * found["perceptual"] + 0.3 * found["gan_weight"] * found["gan"] + found["critic"]
    assert float(found["loss"]) == pytest.approx(float(wanted), rel=1e-5) and float(found["perceptual"]) > 0


def test_the_critic_learns_first_and_teaches_the_decoder_later():
    asked = recipe(gan=0.5, gan_most=100.0)
    made, batches = objective(asked), SharpenBatches(faces(), asked, (4, 8, 8))
    early, late = batches(2, 0, 1), batches(3, 0, 1)
    assert not early[3].any() and late[3].all()

    def gradients(batch):
        made.zero_grad()
        made(*batch)["loss"].backward()
        return torch.cat([weight.grad.flatten() for weight in made.network.decoder.parameters()])

    alone = gradients(early)
    assert made.critic[0].weight.grad.abs().max() > 0
    assert (gradients((*early[:3], late[3])) - alone).abs().max() > 1e-6
    made.critic = None
    assert torch.allclose(gradients(early), alone, atol=1e-6)
    bound = objective(recipe(gan=0.5, gan_most=1e-3))
    assert float(bound(*late)["gan_weight"]) == pytest.approx(1e-3)


def test_the_critic_sees_fine_detail_alone():
    """A change of colour or light leaves it unmoved, a change of texture does not."""
    asked, batch = recipe(gan=0.5), SharpenBatches(faces(), recipe(), (4, 8, 8))(4, 0, 1)
    made, seen = objective(asked), []
    made.critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    made(*batch)
    made(batch[0] + 0.1, *batch[1:])
    real, shifted = seen[1], seen[4]  # each call: the player's fakes, the real faces, the critic's fakes
    assert torch.allclose(real, shifted, atol=1e-5)
    inside = batch[0][:, :, 1:-1, 1:-1] - torch.nn.functional.avg_pool2d(batch[0], 3, 1)
    assert torch.allclose(real[:, :, 1:-1, 1:-1], 4 * inside, atol=1e-5)


def test_disturbance_fades_detail_and_adds_noise():
    flat, latent = torch.full((2, 3, 8, 8), 0.7), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    none, noise = torch.zeros(2), torch.randn(2, 3, 8, 8)
    assert torch.allclose(disturbed(flat, noise, none, torch.ones(2)), flat, atol=1e-6)  # a flat latent has no detail, at its border neither
    found = disturbed(latent, noise, torch.tensor([0.1, 0.0]), torch.tensor([0.0, 0.25]))
    assert torch.allclose(found[0], latent[0] + 0.1 * noise[0], atol=1e-6)
    for y, x in ((3, 4), (0, 0), (7, 2)):
        near = [latent[1, :, min(max(y + dy, 0), 7), min(max(x + dx, 0), 7)] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        mean = torch.stack(near).mean(0)
        assert torch.allclose(found[1, :, y, x], latent[1, :, y, x] - 0.25 * (latent[1, :, y, x] - mean), atol=1e-6)
    strengths = torch.cat([SharpenBatches(faces(), recipe(), (4, 8, 8))(step, 0, 1)[2] for step in range(6)])
    assert strengths.shape == (12, 3) and 0 <= strengths.min() and strengths.max() < 1 and len(strengths.unique()) == strengths.numel()


def denoiser(said: str = "v") -> FamilyUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = FamilyUNet(UNetConfig(channels=4, width=16, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=8, groups=4, identity_dim=8, context_dim=8, tokens=4, prediction=said))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("said", ["epsilon", "v"])
def test_one_step_says_what_the_denoiser_says(said):
    network, latent, noise, t = denoiser(said), torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([5, 100, 300])
    found = OneStep(network, "toy")(latent, noise, t)
    for row in range(3):
        alpha = alpha_bars()[t[row]].float()
        noisy = alpha.sqrt() * latent[row : row + 1] + (1 - alpha).sqrt() * noise[row : row + 1]
        with torch.no_grad():
            word = network(noisy, t[row : row + 1], network.empty_rows(1))
        clean = alpha.sqrt() * noisy - (1 - alpha).sqrt() * word if said == "v" else (noisy - (1 - alpha).sqrt() * word) / alpha.sqrt()
        assert torch.allclose(found[row : row + 1], clean, atol=1e-4)


def test_every_other_face_comes_from_the_denoiser():
    seen = []

    def one_step(latent_BCHW, noise_BCHW, t_B):
        seen.append((latent_BCHW, noise_BCHW, t_B))
        return torch.zeros_like(latent_BCHW)

    asked = recipe(denoised=0.5, denoised_t=40, latent_noise=0.0)
    made = objective(asked)
    made._frozen = (None, one_step)
    batch = (torch.rand(4, 3, 112, 112), torch.randn(4, 4, 8, 8), torch.tensor([[0, 0, 0.5], [0, 0, 0.0], [0, 0, 0.5], [0, 0, 0.999]]), torch.zeros(4, dtype=torch.bool))
    drawn = []
    made.network.decode = lambda latent_BCHW: drawn.append(latent_BCHW) or torch.zeros(4, 3, 112, 112)
    made(*batch)
    (latent, noise, t), = seen
    clean = made.network.encode(batch[0])
    assert t.tolist() == [0, 40] and torch.equal(latent, clean[1::2])
    assert torch.equal(noise, batch[1][::2])  # never the noise that is added to the same face
    assert not drawn[0][1::2].any() and torch.equal(drawn[0][::2], clean[::2])


def test_a_denoiser_is_named_in_the_facts_and_must_fit(tmp_path):
    network = denoiser()
    save_weights(tmp_path / "denoiser.safetensors", network, kind="denoiser", config=network.config.model_dump(mode="json"))
    asked = recipe(denoiser=str(tmp_path / "denoiser.safetensors"))
    facts = load_weights(sharpen_decoder(asked, small(), faces(), tmp_path / "out"), kind="autoencoder")[2]
    assert facts["denoiser"].startswith(asked.denoiser) and len(facts["denoiser"].split()[-1]) == 16
    with pytest.raises(UserError, match="takes 4 latent channels, the autoencoder makes 5"):
        sharpen_decoder(asked, PatchAutoencoder(SMALL.model_copy(update={"channels": 5})), faces(), tmp_path / "other")


def test_latents_stay_bit_for_bit_and_a_killed_run_ends_the_same(tmp_path, monkeypatch):
    asked, start = recipe(perceptual=0.5, gan=0.5, fade=0.2), small()
    whole = sharpen_decoder(asked, small(), faces(), tmp_path / "whole", eyes=Eyes())
    made = load_autoencoder(whole)
    image = torch.rand(3, 3, 112, 112) * 2 - 1
    assert torch.equal(made.encode(image), start.encode(image))
    tensors = read_safetensors(whole)[1]
    assert all(tensor.dtype == (torch.float32 if name in ("mean", "basis", "scale") else torch.float16) for name, tensor in tensors.items())
    assert all(torch.equal(tensors[name], getattr(start, name)) for name in ("mean", "basis", "scale"))
    assert not torch.equal(tensors["decoder.stem.weight"].float(), start.decoder.stem.weight.half().float())
    facts = load_weights(whole, kind="autoencoder")[2]
    assert (facts["steps"], facts["eyes"], facts["gan"]) == (6, "toy", 0.5)

    class Killed(Exception):
        pass

    calls, inner = [], SharpenObjective.forward

    def dying(self, *batch):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return inner(self, *batch)

    monkeypatch.setattr(SharpenObjective, "forward", dying)
    with pytest.raises(Killed):
        sharpen_decoder(asked, small(), faces(), tmp_path / "killed", eyes=Eyes())
    assert load_state(tmp_path / "killed" / "state.pt")["step"] == 2
    monkeypatch.undo()
    assert sharpen_decoder(asked, small(), faces(), tmp_path / "killed", eyes=Eyes()).read_bytes() == whole.read_bytes()
    with pytest.raises(UserError, match="gan: 0.5 there, 0.4 now"):
        sharpen_decoder(asked.model_copy(update={"gan": 0.4}), small(), faces(), tmp_path / "killed", eyes=Eyes())
    other = small()
    torch.nn.init.normal_(other.decoder.stem.weight)
    with pytest.raises(UserError, match="another recipe or other data .*start:"):
        sharpen_decoder(asked, other, faces(), tmp_path / "killed", eyes=Eyes())


def test_as_a_part_of_the_autoencoders_training(tmp_path):
    first = AutoencoderRecipe(network=SMALL, loop=LOOP)
    plain = train_autoencoder(first, faces(), tmp_path)
    both = train_autoencoder(first.model_copy(update={"sharpen": recipe(gan=0.5)}), faces(), tmp_path)  # goes on in the same folder
    assert both == tmp_path / "sharp" / "autoencoder.safetensors" and plain == tmp_path / "autoencoder.safetensors"
    held = [load_weights(path, kind="autoencoder")[0] for path in (plain, both)]
    assert torch.equal(held[0]["basis"], held[1]["basis"]) and not torch.equal(held[0]["decoder.out.weight"], held[1]["decoder.out.weight"])
    (tmp_path / "state.pt").unlink()  # a file brought from elsewhere is sharpened too
    assert train_autoencoder(first.model_copy(update={"sharpen": recipe(gan=0.5)}), faces(), tmp_path).read_bytes() == both.read_bytes()


def test_mistakes_are_told_before_the_training(tmp_path):
    seeing = recipe(perceptual=0.5)
    with pytest.raises(UserError, match="no feature network"):
        train_autoencoder(AutoencoderRecipe(network=SMALL, loop=LOOP, sharpen=seeing), faces(), tmp_path)
    assert not (tmp_path / "state.pt").exists()
    with pytest.raises(UserError, match="PixelAutoencoder; only the decoder of a patch autoencoder"):
        sharpen_decoder(recipe(), PixelAutoencoder(1), faces(), tmp_path)
    with pytest.raises(UserError, match="less than one batch of 2"):
        sharpen_decoder(recipe(), small(), faces(1), tmp_path)
    with pytest.raises(UserError, match="gan_form"):
        SharpenRecipe.parse({"loop": LOOP.model_dump(), "gan_form": 1})


def test_the_verb_and_its_recipe(tmp_path, monkeypatch):
    from PIL import Image

    from facefoundry.jobs.cli import app

    from facefoundry.jobs.spec import bundled_job  # the recipes lie together

    assert SharpDecoderRecipe.load(bundled_job("demo-job.yaml").parent / "decoder-small.yaml", []).sharpen.gan > 0
    save_autoencoder(tmp_path / "first.safetensors", small(), facts={})
    for number, face in enumerate(faces()):
        (tmp_path / "faces" / str(number // 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(tmp_path / "faces" / str(number // 2) / f"{number}.png")
    (tmp_path / "recipe.yaml").write_text(f"autoencoder: {tmp_path / 'first.safetensors'}\nsharpen: {{perceptual: 0.1, gan: 0.1, critic: 4, loop: {LOOP.model_dump_json()}}}\n")
    done = CliRunner().invoke(app, ["train", "decoder", str(tmp_path / "recipe.yaml"), "--data", str(tmp_path / "faces"), "--out", str(tmp_path / "out"), "--set", "sharpen.loop.steps=2", "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)["autoencoder"]
    assert load_weights(tmp_path / "out" / "autoencoder.safetensors", kind="autoencoder")[2]["eyes"] == "mobilefacenet-small" and made.endswith("autoencoder.safetensors")


def test_the_bundled_basis_has_not_moved():
    """Every bundled denoiser speaks these latents: a decoder may change, this not."""
    tensors = read_safetensors(bundled("autoencoder-small.safetensors"))[1]
    assert data_digest(*(tensors[name].numpy() for name in ("mean", "basis", "scale"))) == BUNDLED_LATENTS


def test_texture_gap_is_the_loop_over_places():
    found, wanted = torch.randn(2, 3, 14, 14), torch.randn(2, 3, 14, 14)
    sizes = []
    for x in (found, wanted):
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        size = (x - torch.stack([padded[:, :, dy : dy + 14, dx : dx + 14] for dy in range(3) for dx in range(3)]).mean(0)).abs()
        sizes.append([[[float(size[:, c, y::7, x::7].mean()) for x in range(7)] for y in range(7)] for c in range(3)])
    wanted_gap = np.abs(np.array(sizes[0]) - np.array(sizes[1])).mean()
    assert float(texture_gap(found, wanted, 7)) == pytest.approx(wanted_gap, rel=1e-4)
    assert float(texture_gap(wanted.roll(1, 0), wanted, 7)) < 1e-6  # no pixel is told what to be


def test_texture_brings_detail_back():
    asked = recipe(texture=1.0)
    found = objective(asked)(*SharpenBatches(faces(), asked, (4, 8, 8))(0, 0, 1))
    assert float(found["loss"]) == pytest.approx(float(found["rec"] + found["texture"]), rel=1e-5) and float(found["texture"]) > 0
