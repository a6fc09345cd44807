"""The VQ first stage: CompVis's numbers, its file forms, and its rules (nothing quantised on the way in, everything on the way out)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from public_weights import TINY_VQ, fill, pins, rows, vq_shapes

from facefoundry.core.errors import UserError
from facefoundry.generators.autoencoder import PatchAutoencoder
from facefoundry.generators.train import load_autoencoder
from facefoundry.generators.vq import VQAutoencoder, VQConfig, import_first_stage

ENCODED = [-1.260724, -0.150873, 0.402583, -0.757377, -0.951494, -0.230717, 0.012736, 0.036001]
DECODED = [-0.779711, -0.789418, -0.441046, 0.881302, 0.321696, 0.943791, 1.0, 0.951441]
"""Printed by `benchmarks/parity.py --ldm ... --pins` from CompVis/latent-diffusion a506df5."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> VQAutoencoder:
    folder = tmp_path_factory.mktemp("vq")
    torch.save({"state_dict": {f"first_stage_model.{name}": tensor for name, tensor in fill(vq_shapes(TINY_VQ)).items()} | {"model.diffusion_model.out.weight": torch.ones(1), "betas": torch.ones(1000)}}, folder / "model.ckpt")
    facts = import_first_stage([folder / "model.ckpt"], folder / "vq.safetensors")
    assert facts["parameters"] == 655_038
    return load_autoencoder(folder / "vq.safetensors")


def face() -> torch.Tensor:
    return F.interpolate(rows(1, 3, 14, 14, seed=3).clamp(-2, 2) / 2, (112, 112), mode="bilinear")


@torch.no_grad()
def test_the_public_codes_numbers(loaded):
    assert loaded.config == TINY_VQ and loaded.latent_shape == (3, 64, 64)
    latent = loaded.encode(face())
    assert np.allclose(pins(latent), ENCODED, atol=2e-5)
    assert np.allclose(pins(loaded.decode(latent)), DECODED, atol=5e-5)


@torch.no_grad()
def test_latents_are_not_quantised_and_decoding_picks_the_nearest_entry(loaded):
    latent, book = loaded.encode(face()), loaded.network.quantize.embedding.weight
    flat = latent[0].flatten(1).T
    nearest = torch.stack([book[((book - row) ** 2).sum(1).argmin()] for row in flat])
    assert (flat - nearest).abs().max() > 0.01
    quantised = nearest.T.reshape(latent.shape)
    assert torch.allclose(loaded.decode(latent), loaded.decode(quantised), atol=1e-4)


@torch.no_grad()
def test_faces_are_clamped_before_they_are_resized(loaded):
    latent = loaded.encode(face())
    raw = loaded.network.decode(latent).sample
    assert raw.shape[-1] == 128 and raw.abs().max() > 1
    assert torch.equal(loaded.decode(latent), F.interpolate(raw.clamp(-1, 1), (112, 112), mode="bilinear"))


def test_published_size():
    with torch.device("meta"):
        network = VQAutoencoder(VQConfig())
    assert network.latent_shape == (3, 32, 32)
    assert sum(tensor.numel() for tensor in network.parameters()) == 55_322_782


def test_two_files_and_a_file_with_its_loss(tmp_path):
    tensors = fill(vq_shapes(TINY_VQ))
    encoder = {name: tensor for name, tensor in tensors.items() if name.startswith(("encoder.", "quant_conv."))}
    torch.save(encoder, tmp_path / "encoder.pt")
    torch.save({name: tensor for name, tensor in tensors.items() if name not in encoder}, tmp_path / "decoder.pt")
    torch.save({"state_dict": tensors | {"loss.discriminator.main.0.weight": torch.ones(1)}}, tmp_path / "whole.ckpt")
    both = import_first_stage([tmp_path / "encoder.pt", tmp_path / "decoder.pt"], tmp_path / "two.safetensors")
    import_first_stage([tmp_path / "whole.ckpt"], tmp_path / "one.safetensors")
    assert sorted(both["files"]) == ["decoder.pt", "encoder.pt"]
    one, two = load_autoencoder(tmp_path / "one.safetensors").state_dict(), load_autoencoder(tmp_path / "two.safetensors").state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(UserError, match="pass the encoder's and the decoder's together"):
        import_first_stage([tmp_path / "encoder.pt"], tmp_path / "no.safetensors")
    with pytest.raises(UserError, match="tensors that the file before it has too"):
        import_first_stage([tmp_path / "whole.ckpt", tmp_path / "decoder.pt"], tmp_path / "no.safetensors")


def test_missing_unknown_and_misshapen_keys_are_named(tmp_path):
    tensors = fill(vq_shapes(TINY_VQ))

    def refuse(changed, words):
        torch.save(changed, tmp_path / "bad.ckpt")
        with pytest.raises(UserError, match=words):
            import_first_stage([tmp_path / "bad.ckpt"], tmp_path / "no.safetensors")

    refuse({name: tensor for name, tensor in tensors.items() if name != "decoder.mid.attn_1.q.bias"}, r"missing: decoder\.mid\.attn_1\.q\.bias")
    refuse(tensors | {"encoder.down.0.attn.0.q.weight": torch.ones(32, 32, 1, 1)}, r"unknown: encoder\.down\.0\.attn\.0\.q\.weight")
    refuse(tensors | {"quant_conv.weight": torch.ones(4, 3, 1, 1)}, r"misshapen: quant_conv\.weight is \(4, 3, 1, 1\), expected \(3, 3, 1, 1\)")
    refuse({"layer.weight": torch.ones(1)}, "not a whole VQ first stage: encoder")


def test_a_file_that_names_no_class_is_the_patch_autoencoder():
    from facefoundry.core.files import bundled

    assert type(load_autoencoder(bundled("autoencoder-small.safetensors"))) is PatchAutoencoder


def test_gradients_pass_through_the_decoder(loaded):
    latent = rows(1, *loaded.latent_shape, seed=4).requires_grad_()
    loaded.decode(latent).sum().backward()
    assert torch.isfinite(latent.grad).all() and latent.grad.abs().max() > 0
