"""Who a rendered face is and how it is shown: shape, skin, hair and eyes drawn from the anchor, all else from the image's seed.

Everything is a plain number with a plain law, so that nothing of a real person can be in it: choices of ours, no likeness of a measured population.
Axes: B images, D anchor, K identity and E expression coefficients, V vertices, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from ..core.seeds import numpy_rng
from ..styles_3dmm.albedo import AlbedoModel
from ..styles_3dmm.light import ambient, directional
from ..styles_3dmm.morphable import PARTS, MorphableHead
from ..styles_3dmm.normals import seams, vertex_normals
from ..styles_3dmm.style_maps import part_share

_TRAITS = ("tone", "red", "age", "hair", "iris", "volume", "brow", "beard", "lip", "mottle", "seed")

_SKIN_RGB = np.log([(0.93, 0.76, 0.66), (0.83, 0.63, 0.51), (0.68, 0.47, 0.35), (0.47, 0.31, 0.22), (0.27, 0.18, 0.13)])
"""Skin from light to dark, logarithms of sRGB numbers; between them the tone is mixed."""
_HAIR_RGB = np.array([(0.06, 0.05, 0.05), (0.13, 0.09, 0.07), (0.25, 0.16, 0.10), (0.42, 0.28, 0.16), (0.66, 0.52, 0.32), (0.50, 0.24, 0.12)])
_IRIS_RGB = np.array([(0.20, 0.12, 0.07), (0.30, 0.19, 0.10), (0.38, 0.33, 0.18), (0.33, 0.42, 0.36), (0.36, 0.47, 0.58)])
_GREY_HAIR = np.array([0.70, 0.69, 0.67])

_MOODS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"mouthSmile": 0.9, "cheekSquint": 0.5, "eyeSquint": 0.3, "mouthDimple": 0.3},
    "laugh": {"mouthSmile": 0.9, "jawOpen": 0.45, "cheekSquint": 0.8, "eyeSquint": 0.5, "mouthUpperUp": 0.5, "mouthLowerDown": 0.3},
    "speech": {"jawOpen": 0.35, "mouthFunnel": 0.4, "mouthLowerDown": 0.3, "mouthStretch": 0.2},
    "surprise": {"jawOpen": 0.7, "browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.8},
    "anger": {"browDown": 0.9, "eyeSquint": 0.4, "mouthPress": 0.6, "noseSneer": 0.5, "mouthFrown": 0.3},
    "sadness": {"browInnerUp": 0.7, "mouthFrown": 0.7, "mouthShrugLower": 0.4, "eyeSquint": 0.2},
    "kiss": {"mouthPucker": 0.8, "mouthFunnel": 0.3},
}  # fmt: skip
_MOOD_SHARES = np.array([0.34, 0.2, 0.12, 0.12, 0.06, 0.07, 0.06, 0.03])


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """Traits of the people on B images; the same anchor gives the same person.

    Attributes:
        shape_BK: identity coefficients. traits: name to (B,) in (0, 1), uniform over anchors that point everywhere; "seed" feeds the skin's mottling.
    """

    shape_BK: np.ndarray
    traits: dict[str, np.ndarray]


def people(anchor_BD: np.ndarray, components: int, spread: float) -> Person:
    """Read people from unit anchors, (B, D), by fixed random projections: every coefficient has variance `spread`² over directions, and close anchors are
    people who look alike."""
    rng, dim = numpy_rng("rendered", "people", anchor_BD.shape[1]), anchor_BD.shape[1]
    trait_DT, shape_DK = rng.normal(size=(dim, len(_TRAITS))), rng.normal(size=(dim, components))
    # Row by row: sums of a matrix product may round by the size of the batch, and a face must not depend on who is made beside it.
    trait_BT, shape_BK = (np.stack([(row_D[:, None] * into).sum(0) for row_D in anchor_BD.astype(np.float64)]) for into in (trait_DT, shape_DK))
    return Person(shape_BK=spread * np.clip(shape_BK, -2.8, 2.8), traits=dict(zip(_TRAITS, ndtr(trait_BT).T)))


def expression(rng: np.random.Generator, head: MorphableHead, gaze_2: np.ndarray) -> np.ndarray:
    """Draw expression coefficients, (E,): a mood more or less, one-sided by a little, some twitches, a blink now and then; lids follow the gaze."""
    if not head.expression_names:
        return rng.normal(size=len(head.expression_EV3))
    strength = rng.uniform(0.2, 1.0)
    mood = _MOODS[str(rng.choice(list(_MOODS), p=_MOOD_SHARES))]
    twitch_E = (rng.random(len(head.expression_names)) < 0.06) * rng.beta(1.2, 4.0, len(head.expression_names))
    blink = rng.uniform(0.4, 1.0) if rng.random() < 0.06 else 0.12 * rng.random()
    asked = {**{name: strength * value for name, value in mood.items()}, "eyeBlink": blink}
    asked |= {"eyeLookUp": max(gaze_2[1], 0.0) / 25.0, "eyeLookDown": max(-gaze_2[1], 0.0) / 25.0}
    value_E = twitch_E * np.array([name not in ("tongueOut", "mouthClose") for name in head.expression_names])
    for e, name in enumerate(head.expression_names):
        both = asked.get(name.removesuffix("Left").removesuffix("Right"))
        if both:
            value_E[e] = both * (1.0 if name.startswith("eye") else rng.uniform(0.85, 1.15))
    return np.clip(value_E, 0.0, 1.0)


def light(rng: np.random.Generator) -> np.ndarray:
    """Draw a light, (9, 3): some from everywhere, a lamp or two from above, each of its own tint."""
    level = rng.uniform(0.25, 0.65)
    light_93 = ambient(level * _tint(rng, 0.04))
    for strength in (rng.uniform(0.3, 1.0), rng.uniform(0.0, 0.35)):
        direction = np.array([rng.normal(0, 0.9), rng.normal(-0.5, 0.5), rng.uniform(0.1, 1.2)])
        light_93 += directional(direction, strength * _tint(rng, 0.09))
    return light_93


def _tint(rng: np.random.Generator, spread: float) -> np.ndarray:
    """A colour between warm and cold, mean 1."""
    warm = rng.normal(0.0, spread)
    return np.array([1.0 + warm, 1.0, 1.0 - warm]).clip(0.4, 1.6)


def background(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw a picture without a face, (side, side, 3) in [0, 1]: fields of colour of three sizes, smoothly grown."""
    picture = np.full((side, side, 3), rng.uniform(0.1, 0.9)) + rng.normal(0, 0.08, 3)
    for cells, share in ((2, 0.22), (5, 0.16), (17, 0.08)):
        field_CC3 = share * rng.random() * (rng.normal(size=(cells, cells, 1)) + 0.3 * rng.normal(size=(cells, cells, 3)))
        picture += enlarge(_grow(cells, side), field_CC3)
    return np.clip(picture, 0.0, 1.0).astype(np.float32)


def enlarge(rows_SC: np.ndarray, field_CC3: np.ndarray) -> np.ndarray:
    """Apply one matrix along both axes of a picture, (C, C, 3) → (S, S, 3)."""
    return np.moveaxis(rows_SC @ np.moveaxis(field_CC3, -1, 0) @ rows_SC.T, 0, -1)


@lru_cache(maxsize=8)
def _grow(cells: int, side: int) -> np.ndarray:
    """Linear interpolation from `cells` values to `side`, (side, cells)."""
    place = np.linspace(0, cells - 1, side)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(cells)))


def colours(head: MorphableHead, person: Person) -> np.ndarray:
    """Return the albedo of people's vertices, (B, V, 3) float32 in [0, 1]."""
    trait = {name: value[:, None] for name, value in person.traits.items()}
    tone_B3 = skin_tone(person)
    pale_B1 = tone_B3.mean(1, keepdims=True)
    hair_B3 = _mix(_HAIR_RGB, trait["hair"] ** (2.4 - 1.6 * pale_B1))
    hair_B3 = hair_B3 + (_GREY_HAIR - hair_B3) * np.clip((trait["age"] - 0.72) * 3.2, 0, 0.9)
    iris_B3 = _mix(_IRIS_RGB, trait["iris"] ** (1.0 + 9.0 * np.clip(0.75 - pale_B1, 0, 1)))
    lips_B3 = tone_B3 * (0.95, 0.62, 0.62) ** (0.5 + trait["lip"])
    brow_B3 = tone_B3 + (hair_B3 * 0.8 - tone_B3) * (0.45 + 0.5 * trait["brow"])
    fixed = {"sclera": (0.84, 0.81, 0.79), "pupil": (0.03, 0.03, 0.03), "teeth": (0.86, 0.82, 0.74), "mouth": (0.30, 0.12, 0.11)}
    by_name = {"skin": tone_B3, "lips": lips_B3, "iris": iris_B3, "brows": brow_B3, "hair": hair_B3}
    colour_BP3 = np.stack([by_name[part] if part in by_name else np.broadcast_to(fixed[part], tone_B3.shape) for part in PARTS], axis=1)
    colour_BV3 = (part_share(head) @ colour_BP3.astype(np.float32)).astype(np.float32)
    skin_V, mottle_BV = part_share(head)[:, PARTS.index("skin")], _mottle(head, person)
    flush_V, beard_V = _regions(head)
    colour_BV3 *= 1.0 + (skin_V * mottle_BV)[..., None].astype(np.float32) * np.array([0.7, 1.0, 1.1], np.float32)
    colour_BV3 *= 1.0 - (flush_V * trait["red"] * 0.16)[..., None].astype(np.float32) * np.array([0.1, 1.0, 0.9], np.float32)
    stubble_BV = (beard_V * np.clip(trait["beard"] - 0.55, 0, 1) * 2.0 * (1.0 + 3.0 * mottle_BV)).clip(0, 0.85)[..., None].astype(np.float32)
    return np.clip(colour_BV3 + (hair_B3[:, None].astype(np.float32) - colour_BV3) * stubble_BV, 0.0, 1.0)


def skin_code(person: Person, skin: AlbedoModel) -> np.ndarray:
    """Return coefficients of people's skin, (B, A): the same anchor has the same skin."""
    return np.concatenate([skin.draw(numpy_rng("rendered", "skin", round(float(seed) * 2**40)), 1) for seed in person.traits["seed"]])


def skin_tone(person: Person) -> np.ndarray:
    """Return the skin's albedo, (B, 3): evenly spread from light to dark, a little redder or yellower."""
    return np.exp(_mix(_SKIN_RGB, person.traits["tone"][:, None])) * (1.0 + (person.traits["red"][:, None] - 0.5) * (0.03, -0.05, -0.09))


def hair_volume(head: MorphableHead, vertices_BV3: np.ndarray, person: Person) -> np.ndarray:
    """Return the heads with their hair standing off the scalp, up to 24 mm; next to nothing for those with little."""
    share_V = part_share(head)[:, PARTS.index("hair")]
    if not share_V.any():
        return vertices_BV3
    lift_BV = 24.0 * (person.traits["volume"] ** 1.5)[:, None] * share_V * (0.75 + 3.0 * np.abs(_mottle(head, person)))
    return vertices_BV3 + vertex_normals(vertices_BV3, head.triangle_T3, seams(head)) * lift_BV[..., None].astype(np.float32)


def _mix(table_X3: np.ndarray, place_B1: np.ndarray) -> np.ndarray:
    """Colours between neighbours of a table, (B, 3); place in [0, 1]."""
    along_B = np.clip(place_B1[:, 0], 0, 1) * (len(table_X3) - 1)
    lower_B = np.minimum(along_B.astype(int), len(table_X3) - 2)
    return table_X3[lower_B] + (table_X3[lower_B + 1] - table_X3[lower_B]) * (along_B - lower_B)[:, None]


def _mottle(head: MorphableHead, person: Person) -> np.ndarray:
    """Spots of skin, (B, V), about ±0.1: waves of three sizes over the head and a grain; stronger with age and the trait."""
    wave_BV = np.zeros((len(person.shape_BK), len(head.mean_V3)), np.float32)
    place_V3, grain_V = head.mean_V3, numpy_rng("rendered", "grain").normal(size=len(head.mean_V3)).astype(np.float32)
    for row, seed in enumerate(person.traits["seed"]):
        rng = numpy_rng("rendered", "mottle", round(float(seed) * 2**40))
        for length_mm, size in ((60.0, 0.035), (20.0, 0.03), (8.0, 0.02)):
            direction_33, phase_3 = rng.normal(size=(3, 3)) * 2 / length_mm, rng.uniform(0, 2 * np.pi, 3)
            wave_BV[row] += size * np.sin(place_V3 @ direction_33.astype(np.float32) + phase_3.astype(np.float32)).mean(1)
        wave_BV[row] += 0.025 * np.roll(grain_V, int(rng.integers(len(grain_V))))
    return wave_BV * (0.4 + 0.6 * person.traits["mottle"] + 0.6 * person.traits["age"])[:, None].astype(np.float32)


@lru_cache(maxsize=4)
def _regions(head: MorphableHead) -> tuple[np.ndarray, np.ndarray]:
    """How much a vertex lies where cheeks and nose flush, and where a beard grows, (V,) each in [0, 1]."""
    place_V3, at = head.mean_V3, head.mean_V3[head.landmark_68]
    bump = lambda centre, size_mm: np.exp(-np.square((place_V3 - centre) / size_mm).sum(1))  # noqa: E731
    flush_V = np.clip(sum(bump((at[eye] + at[mouth]) / 2, 22.0) for eye, mouth in ((36, 48), (45, 54))) + bump(at[30], 12.0), 0, 1)
    below_V = 1 / (1 + np.exp(-(place_V3[:, 1] - at[33][1] - 6.0 + 0.35 * np.maximum(np.abs(place_V3[:, 0]) - 20.0, 0.0)) / 5.0))
    front_V = 1 / (1 + np.exp(-(place_V3[:, 2] + 60.0) / 6.0)) * (place_V3[:, 1] < at[8][1] + 12.0)
    return flush_V, below_V * front_V * part_share(head)[:, PARTS.index("skin")]


@lru_cache(maxsize=64)
def blur_matrix(sigma_px: float, side: int) -> np.ndarray:
    """Return the matrix, (side, side), that blurs a row of pixels by a Gaussian; edges go on."""
    apart = np.arange(side)[:, None] - np.arange(-8, side + 8)
    weight = np.exp(-0.5 * np.square(apart / sigma_px))
    folded = np.zeros((side, side))
    np.add.at(folded.T, np.arange(-8, side + 8).clip(0, side - 1), weight.T)
    return (folded / folded.sum(1, keepdims=True)).astype(np.float32)
