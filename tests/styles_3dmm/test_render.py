"""Pictures of heads: layers that explain each other, exact labels and landmarks, textures, soft edges; pytorch3d's conventions on a stand-in."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

import facefoundry.styles_3dmm.render as render_module
from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.camera import Camera, project
from facefoundry.styles_3dmm.light import ambient, directional, shade
from facefoundry.styles_3dmm.morphable import PARTS, tiny
from facefoundry.styles_3dmm.normals import accumulate, seams, vertex_normals
from facefoundry.styles_3dmm.pytorch3d_raster import rasterise_pytorch3d, render_pytorch3d
from facefoundry.styles_3dmm.raster import rasterise
from facefoundry.styles_3dmm.render import GREY, Rendering, render


def tilt() -> np.ndarray:
    return np.array([[20.0, -10.0, 5.0], [-40.0, 15.0, 0.0]])


def scene(seed: int = 0) -> dict:
    head, rng = tiny(), np.random.default_rng(seed)
    return {
        "head": head,
        "vertices_BV3": head.vertices(rng.normal(size=(2, 8)), rng.normal(size=(2, 4))),
        "camera": Camera.weak(np.full(2, 0.2), np.full((2, 2), 24.0)),
        "pose_B3": tilt(),
        "albedo": rng.uniform(0, 1, (2, len(head.mean_V3), 3)).astype(np.float32),
        "light_B93": np.stack([ambient(0.4) + directional(np.array([-1, -1, 1]), (0.7, 0.6, 0.5)), ambient((0.1, 0.9, 2.0))]),
        "size_px": (48, 52),
    }


def drawn(**changes) -> Rendering:
    given = {**scene(), **changes}
    return render(given.pop("head"), given.pop("vertices_BV3"), given.pop("camera"), given.pop("pose_B3"), **given)


def test_layers_explain_each_other():
    made, given = drawn(background=(0.1, 0.2, 0.3)), scene()
    inside = made.mask
    assert 0.2 < inside.mean() < 0.9 and made.colour.shape == (2, 48, 52, 3)
    assert np.allclose(np.linalg.norm(made.normals[inside], axis=1), 1, atol=1e-5) and not made.normals[~inside].any()
    for row in range(2):
        light = shade(made.normals[row][inside[row]][None], given["light_B93"][row : row + 1])[0]
        assert np.allclose(made.colour[row][inside[row]], np.minimum(made.albedo[row][inside[row]] * light, 1), atol=1e-5)
        assert np.allclose(made.lambert[row][inside[row]], np.minimum(GREY * light, 1), atol=1e-5)
    assert np.allclose(made.colour[~inside], (0.1, 0.2, 0.3)) and (made.depth[~inside] == -np.inf).all()
    assert np.array_equal(made.parts > 0, inside)


def test_backgrounds_of_every_kind_stand_behind_the_same_head():
    black, outside = drawn(layers=("colour",)), ~drawn().mask
    assert not black.colour[outside].any()
    picture_HW3 = np.random.default_rng(0).random((48, 52, 3)).astype(np.float32)
    for background, expected in ((0.4, np.full((48, 52, 3), 0.4)), ((0.1, 0.5, 0.9), np.full((48, 52, 3), (0.1, 0.5, 0.9))), (picture_HW3, picture_HW3)):
        for supersample in (1, 2):
            made = drawn(layers=("colour",), background=background, supersample=supersample).colour
            far = outside if supersample == 1 else np.stack([binary_erosion(mask, iterations=2) for mask in outside])
            assert np.allclose(made[far], np.broadcast_to(expected, made.shape)[far], atol=1e-6)
            made[far] = 0.0
            assert made.flags.writeable and (supersample > 1 or np.array_equal(made[~outside], black.colour[~outside]))


def test_labels_and_albedo_are_those_of_the_triangles():
    given, made = scene(), drawn()
    head = given["head"]
    fragments = rasterise(project(given["camera"], given["vertices_BV3"], given["pose_B3"]), head.triangle_T3, (48, 52))
    inside = fragments.triangle_BHW >= 0
    assert np.array_equal(made.mask, inside) and np.array_equal(made.depth, fragments.depth_BHW)
    assert np.array_equal(made.parts[inside], head.part_T[fragments.triangle_BHW[inside]] + 1)
    assert {PARTS.index("skin") + 1, PARTS.index("sclera") + 1} <= set(np.unique(made.parts))
    row, y, x = np.argwhere(inside)[77]
    corner = head.triangle_T3[fragments.triangle_BHW[row, y, x]]
    assert np.allclose(made.albedo[row, y, x], fragments.weight_BHW3[row, y, x] @ given["albedo"][row][corner], atol=1e-6)


def test_a_sphere_has_the_normals_of_a_sphere():
    """Also lit from the left it is bright at the left: camera axes, not mirrored."""
    head = tiny()
    ball = head.mean_V3 - head.mean_V3.mean(0)
    ball = (ball / np.linalg.norm(ball, axis=1, keepdims=True) * 60)[None]
    light = directional(np.array([-1.0, 0, 0.3]))[None]
    made = render(head, ball, Camera.weak([0.4], [[32.0, 32.0]]), np.zeros((1, 3)), light_B93=light, size_px=64)
    y, x = np.nonzero(made.mask[0])
    exact = np.stack([x - 32.0, y - 32.0], -1) / 24
    middle = np.linalg.norm(exact, axis=1) < 0.8
    assert np.abs(made.normals[0, y, x, :2] - exact)[middle].max() < 0.08
    assert made.lambert[0, 32, 12].mean() > made.lambert[0, 32, 52].mean() + 0.2


def test_landmarks_lie_on_the_head_and_hidden_ones_are_known():
    given = scene()
    frontal, turned = drawn(pose_B3=np.zeros((2, 3))), drawn(pose_B3=np.array([[75.0, 0, 0], [-75.0, 0, 0]]))
    wanted = project(given["camera"], given["head"].landmarks(given["vertices_BV3"]), np.zeros((2, 3)))
    assert np.allclose(frontal.landmark_px, wanted[:, :, :2], atol=1e-5)
    assert frontal.landmark_visible.mean() > 0.9 and turned.landmark_visible.mean() < 0.8
    # Turned to the viewer's right, points at the viewer's left come forward and those at the right go behind.
    x_68 = given["head"].mean_V3[given["head"].landmark_68, 0]
    assert turned.landmark_visible[0][x_68 < -30].mean() > turned.landmark_visible[0][x_68 > 30].mean()
    outside = drawn(camera=Camera.weak(np.full(2, 0.2), np.full((2, 2), 500.0)))
    assert not outside.landmark_visible.any() and not outside.mask.any()


def test_texture_is_read_by_uv():
    """A texture that is linear in u and v shows u and v."""
    given = scene()
    head = replace(given["head"], uv_V2=np.random.default_rng(4).uniform(0.1, 0.9, (len(given["head"].mean_V3), 2)).astype(np.float32))
    v, u = np.meshgrid((np.arange(40) + 0.5) / 40, (np.arange(30) + 0.5) / 30, indexing="ij")
    texture = np.stack([u, v, 0 * u], -1)[None].astype(np.float32)
    by_texture = drawn(head=head, albedo=texture)
    by_vertex = drawn(head=head, albedo=np.concatenate([head.uv_V2, 0 * head.uv_V2[:, :1]], 1)[None])
    assert np.allclose(by_texture.albedo, by_vertex.albedo, atol=1e-5) and by_texture.albedo.max() > 0.5


def test_supersampling_is_the_mean_of_the_larger_picture():
    given = scene()
    soft, large = drawn(supersample=2), drawn(size_px=(96, 104), camera=given["camera"].resized(2))
    assert np.allclose(soft.colour, large.colour.reshape(2, 48, 2, 52, 2, 3).mean((2, 4)), atol=1e-6)
    assert np.array_equal(soft.mask, drawn().mask) and np.allclose(soft.normals, drawn().normals)


def test_only_what_is_asked_for_and_one_row_for_all():
    part = drawn(layers=("colour",))
    assert part.normals is None and part.lambert is None and np.array_equal(part.colour, drawn().colour)
    given = scene()
    shared = drawn(albedo=given["albedo"][:1], light_B93=given["light_B93"][:1])
    repeated = drawn(albedo=given["albedo"][[0, 0]], light_B93=given["light_B93"][[0, 0]])
    assert np.array_equal(shared.colour, repeated.colour)
    maps = drawn().style_maps()
    assert maps.shape == (2, 9, 48, 52) and maps.abs().max() <= 1 and not maps.permute(0, 2, 3, 1)[~torch.from_numpy(drawn().mask)].any()
    assert torch.allclose(drawn().image(), torch.from_numpy(drawn().colour.transpose(0, 3, 1, 2)) * 2 - 1)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="colours"):
        drawn(layers=("colours",))
    with pytest.raises(ValueError, match="one for all"):
        drawn(light_B93=np.repeat(ambient()[None], 3, 0))
    with pytest.raises(UserError, match="1x1"):
        drawn(size_px=0)
    with pytest.raises(ValueError, match="vertices_BV3"):
        drawn(vertices_BV3=np.zeros((2, 5, 3)))


def test_normals_as_plain_python_and_across_seams():
    head = tiny(rings=8)
    doubled = replace(head, mean_V3=np.concatenate([head.mean_V3, head.mean_V3]), triangle_T3=head.triangle_T3 + (np.arange(len(head.triangle_T3)) % 2 * len(head.mean_V3))[:, None].astype(np.int32))
    whole = vertex_normals(head.mean_V3[None], head.triangle_T3)
    cut = vertex_normals(doubled.mean_V3[None], doubled.triangle_T3, seams(doubled))
    assert np.allclose(cut[0, : len(head.mean_V3)], whole[0], atol=1e-5) and np.allclose(cut[0, len(head.mean_V3) :], whole[0], atol=1e-5)
    slow = np.zeros_like(whole)
    accumulate.py_func(head.mean_V3[None], head.triangle_T3, head.triangle_T3, np.arange(len(head.mean_V3), dtype=np.int32), slow)
    assert np.allclose(whole, slow, atol=1e-5)


def test_painting_as_plain_python(monkeypatch):
    fast = drawn(size_px=24)
    monkeypatch.setattr(render_module, "paint", render_module.paint.py_func)
    slow = drawn(size_px=24)
    for layer in ("colour", "normals", "albedo", "lambert", "parts"):
        assert np.allclose(getattr(fast, layer), getattr(slow, layer), atol=1e-5)


def fake_rasterize_meshes(mesh, *, image_size, blur_radius, faces_per_pixel, perspective_correct):
    """pytorch3d's documented contract, slow: x to the left, y up, nearest z first, the shorter side spans [-1, 1], packed triangle numbers."""
    assert blur_radius == 0 and faces_per_pixel == 1
    (height, width), short, first = image_size, min(image_size), 0
    face = -torch.ones(len(mesh.verts), height, width, 1, dtype=torch.int64)
    z_out, weight_out = -torch.ones(len(mesh.verts), height, width, 1), -torch.ones(len(mesh.verts), height, width, 1, 3)
    y, x = torch.meshgrid((height - 1 - 2 * torch.arange(height)) / short, (width - 1 - 2 * torch.arange(width)) / short, indexing="ij")
    for row, (vertex, corners) in enumerate(zip(mesh.verts, mesh.faces)):
        for number, corner in enumerate(corners):
            a, b, c = vertex[corner]
            edges = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((b, c), (c, a), (a, b))]
            weight = torch.stack(edges, -1) / sum(edges)[..., None]
            inside = (weight > 0).all(-1)
            if perspective_correct:
                weight = weight / vertex[corner, 2] / (weight / vertex[corner, 2]).sum(-1, keepdim=True)
            z = weight @ vertex[corner, 2]
            nearer = inside & (z > 0) & ((face[row, ..., 0] < 0) | (z < z_out[row, ..., 0]))
            face[row, nearer, 0], z_out[row, nearer, 0], weight_out[row, nearer, 0] = first + number, z[nearer], weight[nearer]
        first += len(corners)
    return face, z_out, weight_out, None


@pytest.fixture()
def stand_in(monkeypatch):
    class Meshes:
        def __init__(self, verts, faces):
            self.verts, self.faces = verts, faces

    renderer, structures = ModuleType("pytorch3d.renderer"), ModuleType("pytorch3d.structures")
    renderer.rasterize_meshes, structures.Meshes = fake_rasterize_meshes, Meshes
    for name, module in (("pytorch3d", ModuleType("pytorch3d")), ("pytorch3d.renderer", renderer), ("pytorch3d.structures", structures)):
        monkeypatch.setitem(sys.modules, name, module)


def cameras() -> list[Camera]:
    return [Camera.weak(np.full(2, 0.16), np.full((2, 2), 18.0)), Camera.perspective(np.full(2, 96.0), np.full(2, 600.0), np.full((2, 2), 18.0))]


def by_pytorch3d(camera: Camera, head, pose_B3: np.ndarray) -> tuple[Rendering, dict[str, torch.Tensor], torch.Tensor]:
    rng, vertices = np.random.default_rng(0), np.repeat(head.mean_V3[None], 2, 0)
    albedo, light = rng.uniform(0, 1, vertices.shape).astype(np.float32), np.stack([ambient(0.5) + directional(np.array([1.0, -1, 1]), 0.4)] * 2).astype(np.float32)
    ours = render(head, vertices, camera, pose_B3, albedo=albedo, light_B93=light, size_px=(36, 40))
    leaf = torch.from_numpy(vertices).requires_grad_()
    return ours, render_pytorch3d(head, leaf, camera, pose_B3, albedo_BV3=torch.from_numpy(albedo), light_B93=torch.from_numpy(light), size_px=(36, 40)), leaf


def agree(ours: Rendering, theirs: dict[str, torch.Tensor]) -> None:
    """Equal but for pixels on the very edge of a triangle, where the fill rules differ."""
    inside = ours.mask & (theirs["triangle"].numpy() >= 0)
    assert inside.sum() > 300 and (ours.mask != (theirs["triangle"].numpy() >= 0)).mean() < 0.005
    for layer in ("colour", "normals", "albedo", "lambert"):
        apart = np.abs(getattr(ours, layer) - theirs[layer].detach().numpy()).max(-1)[inside]
        assert (apart < 5e-3).mean() > 0.99, layer
    assert np.median(np.abs(ours.depth[inside] - theirs["depth"].detach().numpy()[inside])) < 0.05


@pytest.mark.parametrize("camera", cameras(), ids=["weak", "perspective"])
def test_axes_are_turned_for_pytorch3d(stand_in, camera):
    ours, theirs, leaf = by_pytorch3d(camera, tiny(rings=10), tilt())
    agree(ours, theirs)
    theirs["colour"].sum().backward()
    assert torch.isfinite(leaf.grad).all() and leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("camera", cameras(), ids=["weak", "perspective"])
def test_agrees_with_pytorch3d(camera):
    pytest.importorskip("pytorch3d", reason="pytorch3d is not installed: the agreement on a real scene cannot be tried here")
    agree(*by_pytorch3d(camera, tiny(), tilt())[:2])


def test_without_pytorch3d_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer", None)
    with pytest.raises(UserError, match="styles_3dmm.render"):
        rasterise_pytorch3d(torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]]), (4, 4))
