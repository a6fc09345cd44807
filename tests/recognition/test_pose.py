"""Head pose: known cameras are recovered, a mirrored face turns the other way, unknown attributes stay unknown."""

import zipfile
from pathlib import Path

import facefoundry
import numpy as np
import pytest

from facefoundry.core.images import decode
from facefoundry.core.euler import angles, rotation
from facefoundry.recognition.pose import ATTRIBUTE_PREDICTORS, HEAD_MM, PosePredictor, generic_head, pose_degrees, predict_attributes

FACES = Path(facefoundry.__file__).resolve().parent.parent / "shared" / "data" / "faces" / "train112.zip"
MIRROR = {36: 45, 39: 42, 42: 39, 45: 36, 31: 35, 35: 31, 48: 54, 54: 48}


def seen(pose: np.ndarray, scale: float = 0.6) -> np.ndarray:
    """Landmarks of the generic head under weak perspective, (N, P, 2)."""
    return np.stack([scale * (generic_head() @ rotation(*row).T)[:, :2] + [50.0, 40.0] for row in pose])


def test_rotations_turn_the_nose_where_the_signs_say():
    nose = np.array([0.0, 0.0, 1.0])
    assert (rotation(30, 0, 0) @ nose)[0] > 0.4  # to the right
    assert (rotation(0, 30, 0) @ nose)[1] < -0.4  # up: y points down
    assert (rotation(0, 0, 30) @ [1.0, 0, 0])[1] > 0.4  # clockwise
    poses = np.random.default_rng(0).uniform(-80, 80, (50, 3))
    assert angles(np.stack([rotation(*row) for row in poses])) == pytest.approx(poses, abs=1e-9)


def test_known_cameras_are_recovered():
    rng = np.random.default_rng(1)
    poses = np.stack([rng.uniform(-60, 60, 200), rng.uniform(-35, 35, 200), rng.uniform(-20, 20, 200)], 1)
    assert pose_degrees(seen(poses), generic_head()) == pytest.approx(poses, abs=0.2)
    noisy = seen(poses) + rng.normal(scale=0.3, size=(200, len(HEAD_MM), 2))
    assert np.abs(pose_degrees(noisy, generic_head()) - poses).mean(0).max() < 1.0
    enlarged = 3 * seen(poses) + [200.0, -70.0]
    assert pose_degrees(enlarged, generic_head()) == pytest.approx(poses, abs=0.2)


def test_another_head_shape_costs_a_few_degrees():
    rng = np.random.default_rng(2)
    poses = np.stack([rng.uniform(-30, 30, 100), rng.uniform(-20, 20, 100), rng.uniform(-10, 10, 100)], 1)
    points = np.stack([0.6 * ((generic_head() * rng.normal(1, 0.05, 3)) @ rotation(*row).T)[:, :2] for row in poses])
    assert np.abs(pose_degrees(points, generic_head()) - poses).mean(0).max() < 2.0


def test_a_mirrored_face_turns_and_tilts_the_other_way():
    poses = np.array([[25.0, 10.0, 5.0], [-40.0, -8.0, 3.0]])
    order = [list(HEAD_MM).index(MIRROR.get(index, index)) for index in HEAD_MM]
    mirrored = (seen(poses) * [-1, 1])[:, order]
    assert pose_degrees(mirrored, generic_head()) == pytest.approx(poses * [-1, 1, -1], abs=0.2)


@pytest.mark.skipif(not FACES.is_file(), reason="needs the real faces beside the repository (../shared/data/faces/train112.zip)")
def test_real_faces_turn_the_other_way_in_the_mirror():
    with zipfile.ZipFile(FACES) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".jpg", ".png")))
        face = np.stack([decode(archive.read(name)) for name in names[:: len(names) // 30]])
    straight, turned = PosePredictor()(face), PosePredictor()(np.ascontiguousarray(face[:, :, ::-1]))
    assert straight.dtype == np.float32 and straight[:, 0].std() > 5
    assert np.abs(straight * [-1, 1, -1] - turned).mean(0).max() < 2.0  # measured over 220 faces: 0.8, 0.8 and 0.4 degrees
    assert np.corrcoef(straight[:, 0], turned[:, 0])[0, 1] < -0.95


def test_no_faces_have_no_poses():
    assert PosePredictor()(np.empty((0, 112, 112, 3), np.uint8)).shape == (0, 3)


def test_predictors_fill_the_columns_they_know():
    class Age:
        names = ("age_years", "yaw_deg")

        def __call__(self, image):
            return np.tile(np.array([[30.0, 1.0]], np.float32), (len(image), 1))

    class Pose:
        names = ("yaw_deg", "pitch_deg")

        def __call__(self, image):
            return np.tile(np.array([[2.0, 3.0]], np.float32), (len(image), 1))

    image = np.zeros((2, 112, 112, 3), np.uint8)
    wanted = ("age_years", "yaw_deg", "pitch_deg", "roll_deg")
    found = predict_attributes([Age(), Pose()], image, wanted)
    assert found[:, :3].tolist() == [[30.0, 1.0, 3.0]] * 2 and np.isnan(found[:, 3]).all()
    assert predict_attributes([Pose(), Age()], image, wanted)[0, 1] == 2.0
    assert np.isnan(predict_attributes([], image, wanted)).all()
    assert list(ATTRIBUTE_PREDICTORS) == ["pose"]
