"""Skin in the head's texture: learned from rendered people, written and read, drawn in all tones, never one person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.weights import load_weights, save_tensors
from facefoundry.styles_3dmm.albedo import KIND, AlbedoModel, default_albedo, load_albedo, save_albedo
from facefoundry.styles_3dmm.albedo_fit import fit_albedo, skin_components
from facefoundry.styles_3dmm.camera import arcface_camera
from facefoundry.styles_3dmm.head_file import default_head
from facefoundry.styles_3dmm.light import ambient, directional
from facefoundry.styles_3dmm.morphable import PARTS
from facefoundry.styles_3dmm.render import render
from facefoundry.styles_3dmm.skin_colour import ToneModel, ita, linear
from facefoundry.styles_3dmm.style_maps import part_albedo
from facefoundry.styles_3dmm.unwrap import Texels

SIZE, PEOPLE = 64, 10
ANGLES = np.linspace(50, -20, PEOPLE)


def tones() -> ToneModel:
    return ToneModel(middle_3=np.array([0.65, 1.0, 1.3]), melanin_3=np.array([0.40, 0.48, 0.56]), haemoglobin_3=np.array([0.03, 0.13, 0.11]))


def made(size: int = SIZE) -> AlbedoModel:
    """A model with dark lips, and one component: freckled cheeks."""
    row, column = np.mgrid[:size, :size] / size
    detail = 0.4 * np.exp(-((column - 0.5) ** 2 + (row - 0.52) ** 2) / 0.002)[..., None] * [0.3, 1.0, 0.8]
    cheeks = 0.2 * np.exp(-((np.abs(column - 0.5) - 0.1) ** 2 + (row - 0.42) ** 2) / 0.002)[..., None] * [0.5, 0.8, 1.0]
    return AlbedoModel(tone=tones(), detail_HW3=detail.astype(np.float32), basis_AHW3=cheeks[None].astype(np.float32), licence="made by a test")


@pytest.fixture(scope="module")
def learned() -> tuple[AlbedoModel, AlbedoModel]:
    """(the model people were rendered with, the one learned from the pictures)."""
    head, true, rng = default_head(), made(), np.random.default_rng(0)
    code = rng.normal(size=(PEOPLE, 64)) * 0.5 * (np.arange(64) < 20)
    vertices, pose = head.vertices(code, np.zeros((PEOPLE, 52))), np.zeros((PEOPLE, 3))
    camera = arcface_camera(head, pose, vertices, size_px=240)
    texture = true.texture(head, np.tile([[2.0], [-2.0]], (PEOPLE // 2, 1)), np.stack([ANGLES, np.zeros(PEOPLE)], 1), size=SIZE)
    light = (ambient(0.6) + directional(np.array([0.5, -0.3, 1.0]), 0.45))[None]
    picture = render(head, vertices, camera, pose, albedo=texture, light_B93=light, size_px=240, background=0.9)
    images = (picture.colour * 255).round().astype(np.uint8)
    return true, fit_albedo(head, iter(images), picture.landmark_px.astype(float), licence="rendered", components=2, size=SIZE)


def at(name: str) -> tuple[int, int]:
    """Row and column of a landmark in the texture."""
    head = default_head()
    point = {"cheek": 47, "mouth": 51, "chin": 8}[name]
    column, row = (head.uv_V2[head.landmark_68[point]] * SIZE).astype(int)
    return row, column


def test_the_component_in_which_people_differ_is_found(learned):
    true, found = learned
    own, other = true.basis_AHW3[0].ravel(), found.basis_AHW3[0].ravel()
    assert abs(own @ other) / np.linalg.norm(own) / np.linalg.norm(other) > 0.7
    assert np.linalg.norm(found.basis_AHW3[0]) > 2 * np.linalg.norm(found.basis_AHW3[1])


def test_light_is_not_taken_for_skin(learned):
    """The lamp stands at the right: the mean detail's halves differ by little."""
    detail = learned[1].detail_HW3[20:36, 20:-20]
    assert np.abs(detail - detail[:, ::-1]).mean() < 1e-4
    assert np.abs(detail).mean() < 0.12


def test_tones_of_people_span_an_axis_of_melanin(learned):
    model = learned[1].tone
    assert (model.melanin_3 > 0).all() and model.melanin_3[2] > model.melanin_3[0]
    assert ita(np.exp(-model.density(np.array([[60.0, 0], [-55.0, 0]])))) == pytest.approx([60, -55], abs=1)


def test_no_component_is_one_person():
    rng = np.random.default_rng(0)
    amount = rng.permutation(np.linspace(-0.2, 0.2, 20))
    detail = amount[:, None, None, None] * np.ones((1, 8, 8, 3)) + 0.02 * rng.normal(size=(20, 8, 8, 3))
    detail[7, 2:4, 1:3] += 5.0  # somebody's birthmark
    mean, basis = skin_components(detail, 12)
    assert mean == pytest.approx((detail + detail[:, :, ::-1]).mean(0) / 2)
    mark = np.zeros((8, 8, 3))
    mark[2:4, 1:3] = 1
    for component in basis:
        assert abs((component * mark).sum()) / np.linalg.norm(component) / np.linalg.norm(mark) < 0.35
    assert np.abs(basis[0]).mean() == pytest.approx(amount.std(), rel=0.15)


def test_too_few_people_are_refused():
    with pytest.raises(UserError, match="3 faces for 24 components"):
        fit_albedo(default_head(), [], np.zeros((3, 68, 2)), licence="")


def test_round_trip_and_damage(tmp_path):
    model = made()
    path = tmp_path / "a.safetensors"
    save_albedo(path, model, facts={"people": 2})
    found = load_albedo(path)
    assert found.detail_HW3 == pytest.approx(model.detail_HW3, abs=1e-3) and found.basis_AHW3 == pytest.approx(model.basis_AHW3, abs=1e-3)
    assert found.tone.melanin_3 == pytest.approx(model.tone.melanin_3) and found.licence == model.licence
    tensors, config, _ = load_weights(path, kind=KIND)
    for name in ("basis", "detail", "texels", "tone"):
        save_tensors(path, {key: value.contiguous() for key, value in tensors.items() if key != name}, kind=KIND, config=config)
        with pytest.raises(UserError, match="does not hold a whole albedo model"):
            load_albedo(path)
    save_tensors(path, {**tensors, "detail": torch.zeros(5, 3)}, kind=KIND, config=config)
    with pytest.raises(UserError, match="does not hold a whole albedo model"):
        load_albedo(path)


def test_texture_darkens_light_and_dark_skin_by_the_same_share():
    head, model = default_head(), made()
    plain, spotted = (linear(model.texture(head, np.full((2, 1), amount), np.array([[50.0, 0], [-50.0, 0]]), size=SIZE)) for amount in (0.0, 2.0))
    skin = Texels.of(head, SIZE).part_HW == PARTS.index("skin")
    share = (spotted / plain)[:, skin]
    assert share[0] == pytest.approx(share[1], abs=1e-3) and share.min() < 0.8
    assert share[0] == pytest.approx(np.exp(-2 * model.basis_AHW3[0][skin]), abs=1e-3)


def test_parts_have_their_colours():
    head, model = default_head(), made()
    blue, black = np.array([[0.3, 0.4, 0.6]]), np.array([[0.05, 0.05, 0.05]])
    texture = model.texture(head, np.zeros((1, 1)), np.array([[20.0, 0.0]]), iris_B3=blue, hair_B3=black, size=128)[0]
    part = Texels.of(head, 128).part_HW
    assert texture[part == PARTS.index("iris")] == pytest.approx(np.repeat(blue, (part == PARTS.index("iris")).sum(), 0), abs=1e-6)
    assert texture[part == PARTS.index("hair")].max() < 0.06
    assert texture[part == PARTS.index("brows")].mean() < 0.85 * texture[part == PARTS.index("skin")].mean()
    assert texture.shape == (128, 128, 3) and texture.min() >= 0 and texture.max() <= 1


def test_vertex_colours_get_the_same_detail():
    """Where the texture's detail is, and only on skin for the mean; no detail, no change."""
    head, model = default_head(), made()
    colour = part_albedo(head, np.array([[0.7, 0.5, 0.4]]))
    nothing = replace(model, detail_HW3=np.zeros_like(model.detail_HW3), basis_AHW3=np.zeros_like(model.basis_AHW3))
    assert nothing.detailed(head, colour, np.ones((1, 1))) == pytest.approx(colour, abs=1e-5)
    share = linear(model.detailed(head, colour, np.full((1, 1), 2.0)))[0] / linear(colour)[0]
    column, row = (head.uv_V2 * SIZE - 0.5).round().astype(int).clip(0, SIZE - 1).T
    inner = np.ones(len(head.mean_V3), bool)
    inner[head.triangle_T3[head.part_T != PARTS.index("skin")]] = False
    assert share[inner] == pytest.approx(np.exp(-(model.detail_HW3 + 2 * model.basis_AHW3[0])[row, column])[inner], rel=1e-3)


def test_codes_of_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="coefficients_BA"):
        made().texture(default_head(), np.zeros((1, 3)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="tone_B2"):
        made().texture(default_head(), np.zeros((1, 1)), np.zeros((2, 2)))


def test_bundled_skin_reaches_light_and_dark_and_names_its_source():
    model, head = default_albedo(), default_head()
    assert "CC BY 4.0" in model.licence and "DeBruine" in model.licence and "changed" in model.licence
    made_of = np.exp(-model.tone.density(np.array([[65.0, 0], [-60.0, 0]])))
    assert ita(made_of) == pytest.approx([65, -60], abs=1)
    texture = model.sample(head, np.random.default_rng(0), 16, size=64)
    skin = Texels.of(head, 64).part_HW == PARTS.index("skin")
    angle = ita(linear(texture[:, skin]).mean(1).astype(np.float64))
    assert angle.max() > 45 and angle.min() < -40 and len(np.unique(texture[:, skin].mean((1, 2)).round(3))) > 14
    assert np.array_equal(texture[:3], model.sample(head, np.random.default_rng(0), 16, size=64)[:3])


def test_bundled_mean_and_components_are_populations_not_photographs():
    """Symmetric as no face is, calm beyond the face, and no component so sharp or so strong as one person's texture would be."""
    model = default_albedo()
    assert np.abs(model.detail_HW3 - model.detail_HW3[:, ::-1]).max() < 2e-3  # float16
    power = (model.basis_AHW3**2).sum((1, 2, 3))
    assert power[0] / power.sum() < 0.4 and len(model.basis_AHW3) <= 102 // 4
    for component in model.basis_AHW3:
        mirrored = (component * component[:, ::-1]).sum() / (component**2).sum()
        assert abs(abs(mirrored) - 1) < 0.05  # a pattern is even or odd; a face is neither
