"""Files laid out as the public trainers write them load strictly, and our network then computes what theirs does.

The references are written here from the names and shapes of the public code, narrow: nothing of the import is used to make them.
"""

from __future__ import annotations

import pytest
import torch
from facefoundry.core.errors import UserError
from facefoundry.core.weights import load_weights
from facefoundry.recognition.checkpoint import load_network
from facefoundry.recognition.embedder import load_embedder
from facefoundry.recognition.published import PUBLISHERS, import_recogniser
from torch import nn

C = 8  # 64 in the published networks


class Sum(nn.Module):
    """A residual module whose two paths have given names."""

    def __init__(self, skip: str, path: str | None, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._skip, self._path, self._order = skip, path, [name for name in parts if name != skip]

    def forward(self, x):
        y = x
        for name in self._order:
            y = getattr(self, name)(y)
        return y + (getattr(self, self._skip)(x) if hasattr(self, self._skip) else x)


def chain(**parts: nn.Module) -> nn.Module:
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    return net


def conv(a: int, b: int, k: int = 3, s: int = 1, g: int = 1, p: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(a, b, k, s, k // 2 if p is None else p, groups=g, bias=False)


class Excite(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(c, max(1, c // 16), 1, bias=False), nn.Conv2d(max(1, c // 16), c, 1, bias=False)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(nn.functional.adaptive_avg_pool2d(x, 1)))))


def ir(units=(3, 4, 14, 3), *, squeeze=False, middle=True) -> nn.Module:
    """TFace, CVLface, AdaFace (middle) and CurricularFace (without)."""
    blocks, c_in = [], C
    for c, count in zip((C, 2 * C, 4 * C, 8 * C), units):
        for unit in range(count):
            stride = 2 if unit == 0 else 1
            layers = [nn.BatchNorm2d(c_in), conv(c_in, c), *([nn.BatchNorm2d(c)] if middle else []), nn.PReLU(c), conv(c, c, s=stride), nn.BatchNorm2d(c)]
            res = nn.Sequential(*layers)
            if squeeze:
                res.add_module("se_block" if middle else "5", Excite(c))
            short = nn.MaxPool2d(1, stride) if c_in == c else nn.Sequential(conv(c_in, c, 1, stride), nn.BatchNorm2d(c))
            blocks.append(Sum("shortcut_layer", "res_layer", shortcut_layer=short, res_layer=res))
            c_in = c
    head = nn.Sequential(nn.BatchNorm2d(c_in), nn.Dropout(0.4), nn.Flatten(), nn.Linear(c_in * 49, 16), nn.BatchNorm1d(16, affine=False))
    return chain(input_layer=nn.Sequential(conv(3, C), nn.BatchNorm2d(C), nn.PReLU(C)), body=nn.Sequential(*blocks), output_layer=head)


def iresnet(units=(2, 2, 2, 2)) -> nn.Module:
    net, c_in = chain(conv1=conv(3, C), bn1=nn.BatchNorm2d(C), prelu=nn.PReLU(C)), C
    for stage, (c, count) in enumerate(zip((C, 2 * C, 4 * C, 8 * C), units), 1):
        blocks = []
        for unit in range(count):
            stride = 2 if unit == 0 else 1
            parts = {"bn1": nn.BatchNorm2d(c_in), "conv1": conv(c_in, c), "bn2": nn.BatchNorm2d(c), "prelu": nn.PReLU(c), "conv2": conv(c, c, s=stride), "bn3": nn.BatchNorm2d(c)}
            if unit == 0:
                parts["downsample"] = nn.Sequential(conv(c_in, c, 1, 2), nn.BatchNorm2d(c))
            blocks.append(Sum("downsample", None, **parts))
            c_in = c
        net.add_module(f"layer{stage}", nn.Sequential(*blocks))
    for name, part in {"bn2": nn.BatchNorm2d(c_in), "flat": nn.Flatten(), "fc": nn.Linear(c_in * 49, 16), "features": nn.BatchNorm1d(16)}.items():
        net.add_module(name, part)
    nn.init.constant_(net.features.weight, 1.0)
    return net


def mobile(unit, depthwise, residual, rows: tuple[str, ...], repeats=(4, 6, 2), wider=1, second=None) -> list[tuple[str, nn.Module]]:
    """Table 10.2 by rows; `unit`, `depthwise` and `residual` name the parts as their trainer does."""
    last, c = 8 * C, C * wider
    parts = [(rows[0], unit(3, c, 3, 2)), (rows[1], second or unit(c, c, 3, 1, C))]
    for place, (inner, out, within, count) in enumerate(((2 * C, C, 2 * C, repeats[0]), (4 * C, 2 * C, 4 * C, repeats[1]), (8 * C, 2 * C, 4 * C, repeats[2]))):
        out *= wider
        parts += [(rows[2 + 2 * place], depthwise(c, inner, out, 2, False)), (rows[3 + 2 * place], residual([depthwise(out, within, out, 1, True) for _ in range(count)]))]
        c = out
    return [*parts, (rows[8], unit(c, last, 1, 1))]


def tface_mobile() -> nn.Module:
    def unit(a, b, k, s, g=1, p=None, linear=False):
        parts = {"conv": conv(a, b, k, s, g, p), "bn": nn.BatchNorm2d(b)} | ({} if linear else {"prelu": nn.PReLU(b)})
        return chain(**parts)

    def depthwise(a, inner, b, s, same):
        parts = {"conv": unit(a, inner, 1, 1), "conv_dw": unit(inner, inner, 3, s, inner), "project": unit(inner, b, 1, 1, linear=True)}
        return Sum("none", None, **parts) if same else chain(**parts)

    rows = ("conv1", "conv2_dw", "conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5", "conv_6_sep")
    parts = mobile(unit, depthwise, lambda blocks: chain(model=nn.Sequential(*blocks)), rows)
    last = chain(conv_6_dw=unit(8 * C, 8 * C, 7, 1, 8 * C, 0, linear=True), flat=nn.Flatten(), linear=nn.Linear(8 * C, 16, bias=False), bn=nn.BatchNorm1d(16, affine=False))
    return chain(**dict(parts), output_layer=last)


def mbf(repeats=(4, 6, 2), wider=2, large=False) -> nn.Module:
    def unit(a, b, k, s, g=1, p=None, linear=False):
        return chain(layers=nn.Sequential(conv(a, b, k, s, g, p), nn.BatchNorm2d(b), *([] if linear else [nn.PReLU(b)])))

    def depthwise(a, inner, b, s, same):
        layers = nn.Sequential(unit(a, inner, 1, 1), unit(inner, inner, 3, s, inner), unit(inner, b, 1, 1, linear=True))
        return Sum("none", None, layers=layers) if same else chain(layers=layers)

    second = chain(layers=nn.Sequential(*(depthwise(C * wider, 2 * C, C * wider, 1, True) for _ in range(2)))) if large else None
    parts = mobile(unit, depthwise, lambda blocks: chain(layers=nn.Sequential(*blocks)), tuple("01234567") + ("sep",), repeats, wider, second)
    last = chain(layers=nn.Sequential(unit(8 * C, 8 * C, 7, 1, 8 * C, 0, linear=True), nn.Flatten(), nn.Linear(8 * C, 16, bias=False), nn.BatchNorm1d(16)))
    return chain(layers=nn.Sequential(*(part for _, part in parts[:-1])), conv_sep=parts[-1][1], features=last)


CASES = {
    "arcface r18": ("arcface_torch", iresnet, "iresnet-18"),
    "arcface r100": ("arcface_torch", lambda: iresnet((3, 13, 30, 3)), "iresnet-100"),
    "arcface mbf": ("arcface_torch", mbf, "mbf"),
    "arcface mbf-large": ("arcface_torch", lambda: mbf((8, 12, 4), 4, True), "mbf-large"),
    "cvlface ir50": ("cvlface", ir, "ir-50"),
    "adaface ir18": ("adaface", lambda: ir((2, 2, 2, 2)), "ir-18"),
    "tface ir-se-50": ("tface", lambda: ir(squeeze=True), "ir-se-50"),
    "tface mobilefacenet": ("tface", tface_mobile, "mobilefacenet"),
    "curricularface": ("curricularface", lambda: ir((3, 13, 30, 3), middle=False), "ir-100-evolve"),
    "curricularface se": ("curricularface", lambda: ir(squeeze=True, middle=False), "ir-se-50-evolve"),
}
PREFIX = {"cvlface": "net.", "adaface": "model.", "arcface_torch": "", "tface": "", "curricularface": "module."}


def filled(network: nn.Module) -> nn.Module:
    """Random statistics and scales, so that no two tensors can be exchanged unseen."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and name != "features.weight":
            spread = 1.0 if tensor.ndim != 4 else (2.0 / tensor[0].numel()) ** 0.5
            tensor.copy_(spread * torch.randn(tensor.shape, generator=generator) if tensor.ndim > 1 else 0.5 + torch.rand(tensor.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("case", CASES)
def test_the_imported_network_computes_what_theirs_does(case, tmp_path):
    kind, build, name = CASES[case]
    torch.manual_seed(0)
    theirs = filled(build())
    held = {PREFIX[kind] + key: tensor for key, tensor in theirs.state_dict().items()}
    if kind == "adaface":  # a Lightning file with the head beside the network
        held = {"state_dict": {**held, "head.kernel": torch.zeros(2, 3), "head.t": torch.zeros(1)}, "epoch": 3}
    torch.save(held, tmp_path / "model.pt")
    facts = import_recogniser(tmp_path / "model.pt", kind, tmp_path / "out.safetensors")
    ours, _ = load_network(tmp_path / "out.safetensors")
    config = load_weights(tmp_path / "out.safetensors", kind="recogniser")[1]
    image_BCHW = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        wanted = theirs(image_BCHW.flip(1) if kind == "adaface" else image_BCHW)
        given = ours(image_BCHW)
    assert (config["name"], config["width"], config["embed_dim"]) == (name, 0.125, 16) and facts["network"] == name
    assert torch.allclose(given, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max())) and float(wanted.std()) > 0.01
    assert load_embedder(tmp_path / "out.safetensors").dim == 16


def test_colours_are_turned_on_demand(tmp_path):
    theirs = filled(iresnet())
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    import_recogniser(tmp_path / "model.pt", "arcface_torch", tmp_path / "out.safetensors", bgr=True)
    image_BCHW = torch.rand(1, 3, 112, 112)
    with torch.no_grad():
        assert torch.allclose(load_network(tmp_path / "out.safetensors")[0](image_BCHW), theirs(image_BCHW.flip(1)), rtol=1e-4, atol=1e-3)


def test_counters_of_old_files_may_be_missing_but_nothing_else(tmp_path):
    held = filled(iresnet()).state_dict()
    torch.save({key: tensor for key, tensor in held.items() if "num_batches" not in key}, tmp_path / "old.pt")
    import_recogniser(tmp_path / "old.pt", "arcface_torch", tmp_path / "out.safetensors")
    for gone, words in (("layer2.0.bn3.running_var", "missing: layer2.0.bn3.running_var"), ("fc.weight", "lacks fc.weight"), ("layer4.1.conv1.weight", "no network of ours has units")):
        torch.save({key: tensor for key, tensor in held.items() if key != gone}, tmp_path / "bad.pt")
        with pytest.raises(UserError, match=words):
            import_recogniser(tmp_path / "bad.pt", "arcface_torch", tmp_path / "no.safetensors")
    torch.save({**held, "extra.weight": torch.zeros(1)}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="unknown: extra.weight"):
        import_recogniser(tmp_path / "bad.pt", "arcface_torch", tmp_path / "no.safetensors")
    assert not (tmp_path / "no.safetensors").exists()


def test_code_in_a_file_is_not_run_and_other_families_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(UserError, match="could run code|damaged"):
        import_recogniser(tmp_path / "trap.pt", "arcface_torch", tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists()
    torch.save({"patch_embed.proj.weight": torch.zeros(2, 3, 4, 4)}, tmp_path / "vit.pt")
    with pytest.raises(UserError, match="no network of cvlface that we have"):
        import_recogniser(tmp_path / "vit.pt", "cvlface", tmp_path / "out.safetensors")
    with pytest.raises(UserError, match="did you mean 'arcface_torch'"):
        import_recogniser(tmp_path / "vit.pt", "arcface_torc", tmp_path / "out.safetensors")


def test_the_command_knows_every_publisher():
    from facefoundry.jobs.cli_weights import RECOGNISERS

    assert sorted(RECOGNISERS) == sorted(PUBLISHERS)
