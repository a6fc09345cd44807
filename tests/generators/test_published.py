"""Published denoiser checkpoints: the numbers the public code computes, and every way a file can be wrong."""

import hashlib
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from public_weights import TINY, TINY_VQ, fill, listing, pins, rows, unet_shapes, vq_shapes, write_denoiser

from facefoundry.core.errors import UserError
from facefoundry.core.weights import load_into, load_weights
from facefoundry.generators.attention import AttentionControl
from facefoundry.generators.published import import_denoiser, read_checkpoint
from facefoundry.generators.registry import GENERATORS
from facefoundry.generators.unet import FamilyUNet, UNetConfig
from facefoundry.generators.vq import import_first_stage

PUBLIC = {
    "uiface": {
        "keys_sha256": "e310b19455de53540645623fc31944c13e4b17eef9287f80629eca1f51454932",
        "identity": [0.385037, 0.214043, -0.593248, -0.994659, 0.564309, 0.590734, -0.704534, -1.099951],
        "empty": [0.287706, 0.439895, -0.546499, -1.179861, 0.410887, 0.540923, -0.830318, -1.145532],
        "injected": [0.385467, 0.219481, -0.574904, -1.004786, 0.563415, 0.598229, -0.717196, -1.123007],
    },
    "idiffface": {
        "keys_sha256": "97f27b591ca048af6a7ab98bec2477ac39bb230142e9bf3cf464368e32580ed1",
        "identity": [-0.322357, 0.057472, 0.18143, -1.260054, 0.106465, 0.284901, -1.054451, -1.047986],
        "empty": [-0.45866, -0.017699, 0.232459, -1.436613, 0.147253, 0.490607, -1.173404, -0.983861],
    },
}
"""Printed by `benchmarks/parity.py --pins` from the public implementations (Tencent/TFace 171ec14, fdbtrs/IDiff-Face 8b39369)."""

PUBLISHED_KEYS = {"uiface": "70777f4abd2978e03471257da737b9d6000ac421d458f80340edca9d9e311059", "idiffface": "368c02541d528d516a418e5ac032da6f74e5f58a287b69dd563131bc53bd80d7"}
"""The same digest of names and shapes for the published configurations."""


def imported(tmp_path, kind="uiface", **how) -> tuple[FamilyUNet, dict]:
    write_denoiser(tmp_path / "model.ckpt", kind, **how)
    import_denoiser(tmp_path / "model.ckpt", kind, tmp_path / "out.safetensors")
    tensors, config, facts = load_weights(tmp_path / "out.safetensors", kind="denoiser")
    network = FamilyUNet(UNetConfig.parse(config))
    load_into(network, tensors, tmp_path)
    return network.eval(), facts


@pytest.mark.parametrize("kind", PUBLIC)
@torch.no_grad()
def test_the_public_codes_numbers(kind, tmp_path):
    shapes = unet_shapes(TINY, kind)
    assert hashlib.sha256(listing(shapes).encode()).hexdigest() == PUBLIC[kind]["keys_sha256"]
    network, _ = imported(tmp_path, kind)
    assert network.config == TINY
    latent, t, identity = rows(2, 3, 8, 8, seed=1), torch.tensor([7, 980]), rows(2, 16, seed=2)
    context, empty = network.embed_context(identity / identity.norm(dim=1, keepdim=True)), network.empty_rows(2)
    assert np.allclose(pins(network(latent, t, context)), PUBLIC[kind]["identity"], atol=1e-5)
    assert np.allclose(pins(network(latent, t, empty)), PUBLIC[kind]["empty"], atol=1e-5)
    if kind == "uiface":
        control = AttentionControl(2, torch.arange(2), share_self=True, blend_cross=True)
        both = network(torch.cat([latent, latent]), torch.cat([t, t]), torch.cat([empty, context]), control)
        assert np.allclose(pins(both[2:]), PUBLIC[kind]["injected"], atol=1e-5)


@pytest.mark.parametrize("kind", PUBLIC)
def test_published_names_and_shapes_are_the_public_codes(kind):
    shapes = unet_shapes(UNetConfig(), kind)
    assert hashlib.sha256(listing(shapes).encode()).hexdigest() == PUBLISHED_KEYS[kind]
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 216_341_187 + 256 * (kind == "uiface")


@pytest.mark.parametrize("prefix", ["", "module.", "eps_model.", "module.eps_model.", "_forward_module.module.eps_model.", "averaged_model.eps_model.", "ema_model.averaged_model.module.eps_model."])
def test_every_wrapper_comes_off_and_buffers_stay_behind(prefix, tmp_path):
    bare = write_denoiser(tmp_path / "model.ckpt", prefix=prefix)
    read = read_checkpoint(tmp_path / "model.ckpt")
    assert set(read) - set(bare) == {"betas", "alpha_bars"} and all(torch.equal(read[name], tensor) for name, tensor in bare.items())
    network, facts = imported(tmp_path, prefix=prefix)
    assert torch.equal(network.empty_context, bare["empty_context_embedding"])
    assert facts["parameters"] == 950_819 and "averaged weights equal the raw ones" in facts["note"] and facts["licence"].startswith("Apache-2.0")
    assert facts["files"] == {"model.ckpt": hashlib.sha256((tmp_path / "model.ckpt").read_bytes()).hexdigest()}


def test_zeros_stand_for_the_empty_context_idiffface_never_learnt(tmp_path):
    network, facts = imported(tmp_path, "idiffface")
    assert network.empty_context.abs().max() == 0 and facts["licence"] == "CC BY-NC-SA 4.0"
    assert network.config.prediction == "epsilon" and network.config.identity_scale == 1 and not network.config.context_in_time


def test_lightning_file_with_a_callback_class_as_a_key_is_read_and_the_class_is_not_loaded(tmp_path, monkeypatch):
    module = ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    with monkeypatch.context() as patched:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            patched.setitem(sys.modules, name, ModuleType(name))
        patched.setitem(sys.modules, module.__name__, module)
        torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": {module.ModelCheckpoint: {"best_model_score": torch.tensor(1.0)}}}, tmp_path / "lightning.ckpt")
    assert torch.equal(read_checkpoint(tmp_path / "lightning.ckpt")["a"], torch.ones(2))


class Foreign:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_with_foreign_objects_is_refused_and_does_not_run(tmp_path, capsys):
    torch.save({"eps_model.stem": Foreign()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"evil\.ckpt holds the object (builtins\.)?print, which could run code when opened, so the file is refused"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x02not a pickle", b"<html>quota exceeded</html>"])
def test_damaged_files_are_a_users_mistake(content, tmp_path):
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.ckpt"):
        read_checkpoint(tmp_path / "bad.ckpt")


def test_a_whole_file_cut_short_is_damaged(tmp_path):
    write_denoiser(tmp_path / "model.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "model.ckpt").read_bytes()[:-5000])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "cut.ckpt")


def save(tmp_path, tensors):
    torch.save(tensors, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt", "uiface", tmp_path / "out.safetensors"


def test_missing_unknown_and_misshapen_keys_are_named(tmp_path):
    tensors = fill(unet_shapes(TINY, "uiface"))
    without = {name: tensor for name, tensor in tensors.items() if name != "middle.res1.scale_emb.bias"}
    with pytest.raises(UserError, match=r"missing: middle\.res1\.scale_emb\.bias;"):
        import_denoiser(*save(tmp_path, without))
    with pytest.raises(UserError, match=r"unknown: discriminator\.weight;"):
        import_denoiser(*save(tmp_path, tensors | {"discriminator.weight": torch.ones(1)}))
    with pytest.raises(UserError, match=r"misshapen: final\.bias is \(4,\), expected \(3,\)"):
        import_denoiser(*save(tmp_path, tensors | {"final.bias": torch.ones(4)}))
    with pytest.raises(UserError, match=r"missing: empty_context_embedding"):  # an IDiff-Face file under the wrong kind
        import_denoiser(*save(tmp_path, fill(unet_shapes(TINY, "idiffface"))))
    assert not (tmp_path / "out.safetensors").exists()


def test_other_networks_are_told_apart(tmp_path):
    tensors = fill(unet_shapes(TINY, "uiface"))
    other = {name: tensor for name, tensor in tensors.items() if ".c_proj_in." not in name}
    with pytest.raises(UserError, match="its conditioning is not cross-attention"):
        import_denoiser(*save(tmp_path, other))
    with pytest.raises(UserError, match=r"not a cross-attention U-Net of the IDiff-Face family: image_proj\.weight"):
        import_denoiser(*save(tmp_path, {"layer1.weight": torch.ones(2)}))
    with pytest.raises(UserError, match=r"not tensors \(epoch, global_step"):
        import_denoiser(*save(tmp_path, {"global_step": 3, "epoch": 1, "optimizer": {}}))
    with pytest.raises(UserError, match="holds list, expected a state dict"):
        import_denoiser(*save(tmp_path, [torch.ones(1)]))
    with pytest.raises(UserError, match="two different tensors for 'a'"):
        import_denoiser(*save(tmp_path, {"a": torch.ones(1), "module.a": torch.zeros(1)}))
    with pytest.raises(UserError, match="there is no file"):
        import_denoiser(tmp_path / "nowhere.ckpt", "uiface", tmp_path / "out.safetensors")


def test_imported_weights_build_and_run(tmp_path):
    write_denoiser(tmp_path / "model.ckpt", config=TINY.model_copy(update={"identity_dim": 512}))
    import_denoiser(tmp_path / "model.ckpt", "uiface", tmp_path / "denoiser.safetensors")
    small = TINY_VQ.model_copy(update={"multipliers": (1, 1, 1)})
    torch.save(fill(vq_shapes(small)), tmp_path / "vq.ckpt")
    import_first_stage([tmp_path / "vq.ckpt"], tmp_path / "vq.safetensors")
    values = {"denoiser": str(tmp_path / "denoiser.safetensors"), "autoencoder": str(tmp_path / "vq.safetensors"), "sampler": {"steps": 3}, "precision": "fp32"}
    generator = GENERATORS["uiface"].parse(values).build(torch.device("cpu"))
    assert generator.anchor_dim == 512 and generator.autoencoder.latent_shape == (3, 32, 32)
    anchor = np.eye(512, dtype=np.float32)[:2]
    batch = generator.generate(anchor, [1, 2])
    assert batch.image_BCHW.shape == (2, 3, 112, 112) and torch.isfinite(batch.image_BCHW).all() and batch.image_BCHW.std() > 0
