"""The morphable head: its matrix product against a loop over faces, its mesh, regions and landmarks; the bundled head is the one the weights were trained with."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from facefoundry.styles_3dmm.head_file import default_head
from facefoundry.styles_3dmm.morphable import PARTS, MorphableHead, tiny

HEADS = {"tiny": tiny, "bundled": default_head}


@pytest.fixture(params=HEADS)
def head(request) -> MorphableHead:
    return HEADS[request.param]()


def place(name: str) -> np.ndarray:
    """The bundled head's triangles of a part, their middles."""
    model = default_head()
    return model.mean_V3[model.triangle_T3[model.part_T == PARTS.index(name)]].mean(1)


def areas(model: MorphableHead) -> np.ndarray:
    corner = model.mean_V3.astype(np.float64)[model.triangle_T3]
    return np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) / 2


def test_64_faces_in_one_product_are_64_faces_one_by_one(head):
    rng = np.random.default_rng(0)
    identity, expression = rng.normal(size=(64, len(head.identity_KV3))), rng.uniform(size=(64, len(head.expression_EV3)))
    found = head.vertices(identity, expression)
    assert found.shape == (64, len(head.mean_V3), 3) and found.dtype == np.float32
    for face in (0, 1, 31, 63):
        slow = head.mean_V3.astype(np.float64)
        for k, weight in enumerate(identity[face]):
            slow = slow + weight * head.identity_KV3[k]
        for e, weight in enumerate(expression[face]):
            slow = slow + weight * head.expression_EV3[e]
        assert found[face] == pytest.approx(slow, abs=2e-3)


def test_landmarks_are_vertices_of_the_mesh(head):
    vertices = head.vertices(np.ones((2, len(head.identity_KV3))), np.zeros((2, len(head.expression_EV3))))
    found = head.landmarks(vertices)
    assert len(set(head.landmark_68.tolist())) == 68
    used = set(head.triangle_T3.ravel().tolist())
    for face in range(2):
        for p, vertex in enumerate(head.landmark_68):
            assert vertex in used
            assert (found[face, p] == vertices[face, vertex]).all()


def test_codes_of_wrong_length_are_refused(head):
    with pytest.raises(ValueError, match="identity_BK has shape"):
        head.vertices(np.zeros((2, 3)), np.zeros((2, len(head.expression_EV3))))
    with pytest.raises(ValueError, match="expression_BE has shape"):
        head.vertices(np.zeros((2, len(head.identity_KV3))), np.zeros((3, len(head.expression_EV3))))


def test_regions_partition_the_bundled_mesh():
    head = default_head()
    assert head.part_T.shape == (len(head.triangle_T3),) and set(head.part_T.tolist()) == set(range(len(PARTS)))
    share = np.bincount(head.part_T, areas(head), minlength=len(PARTS)) / areas(head).sum()
    assert share.sum() == pytest.approx(1.0)
    assert share[PARTS.index("skin")] > share[PARTS.index("hair")] > 0.1 and share[PARTS.index("pupil")] < 0.001
    # An eyeball's triangles are sclera, iris or pupil, and nothing else is.
    of_eye = (head.eye_V[head.triangle_T3] > 0).all(1)
    assert (of_eye == np.isin(head.part_T, [PARTS.index(name) for name in ("sclera", "iris", "pupil")])).all()
    assert (of_eye == (head.eye_V[head.triangle_T3] > 0).any(1)).all()


def test_regions_lie_where_faces_have_them():
    head = default_head()
    at = head.mean_V3[head.landmark_68]
    assert np.abs(place("pupil")[:, 1]).max() < 3 and np.hypot(*(np.abs(place("pupil")[:, :2]) - [head.eye_centre_23[0, 0], 0]).T).max() < 2.1  # mm
    assert place("brows")[:, 1].max() < at[36:48, 1].min() and place("brows")[:, 1].min() > place("hair")[:, 1].min()
    assert at[48, 0] - 2 < place("lips")[:, 0].min() and place("lips")[:, 0].max() < at[54, 0] + 2
    assert place("teeth")[:, 2].max() < place("lips")[:, 2].max()


def test_triangles_are_wound_outwards(head):
    """The volume inside, by the divergence theorem, is positive, and a mesh turned inside out would have it negative; faces look at the camera."""
    corner = head.mean_V3.astype(np.float64)[head.triangle_T3]
    assert np.einsum("ti,ti->t", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])).sum() / 6 > 1e6  # mm³
    assert head.triangle_T3.min() == 0 and head.triangle_T3.max() == len(head.mean_V3) - 1
    assert (areas(head) > 1e-4).mean() > 0.999


def test_bundled_identity_basis_is_orthogonal_and_ordered():
    flat = default_head().identity_KV3.reshape(64, -1).astype(np.float64)
    length = np.linalg.norm(flat, axis=1)
    cosine = flat @ flat.T / np.outer(length, length) - np.eye(64)
    assert np.abs(cosine).max() < 2e-3  # int8 rows
    assert np.abs(cosine[:24, :24]).max() < 1e-4
    assert (np.diff(length) < 1e-2 * length[:-1]).all()


def test_axes_and_size_of_the_bundled_head():
    head = default_head()
    at = head.mean_V3[head.landmark_68]
    assert at[8, 1] > at[57, 1] > at[33, 1] > at[27, 1]  # y grows from the nose's root to the chin
    assert at[45, 0] > 0 > at[36, 0]  # dlib's 36 is at the left of the picture
    assert at[30, 2] > at[[36, 45, 48, 54], 2].max()  # the nose tip is nearest to the camera
    assert head.eye_centre_23.mean(0) == pytest.approx(0, abs=1e-4) and head.eye_centre_23[0, 0] > 0 > head.eye_centre_23[1, 0]
    assert 60 < head.eye_centre_23[0, 0] * 2 < 66  # mm between eyes, adults


def test_face_units_move_what_their_names_say():
    head = default_head()

    def moved(name: str, landmark: int) -> np.ndarray:
        return head.expression_EV3[head.expression_names.index(name), head.landmark_68[landmark]]

    assert len(head.expression_names) == 52
    assert moved("jawOpen", 57)[1] > 8  # lower lip down, mm
    assert moved("browInnerUp", 21)[1] < -2
    assert moved("mouthSmileLeft", 54)[0] > 2 and abs(moved("mouthSmileLeft", 48)[0]) < 1  # the model's left is at the viewer's right
    upper, lower = moved("eyeBlinkLeft", 44), moved("eyeBlinkLeft", 46)
    assert upper[1] - lower[1] > 4


def test_the_bundled_mesh_and_bases_are_those_the_weights_were_trained_with():
    """Maps of this head feed morphface-small; whoever changes the mesh trains those weights again."""
    head = default_head()
    digest = hashlib.sha256()
    for array in (head.mean_V3, head.identity_KV3, head.expression_EV3, head.triangle_T3, head.part_T):
        digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest()[:16] == "c427d7d3e8a74191"
