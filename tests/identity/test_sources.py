"""Aligned faces from every kind of source are the same faces."""

from pathlib import Path

import numpy as np
import pytest

import facefoundry
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode
from facefoundry.identity.ingest import ingest
from facefoundry.identity.rec_faces import ImageRecord, pack, write_rec
from facefoundry.identity.recordio import write_records
from facefoundry.identity.sources import load_faces

SHARED = Path(facefoundry.__file__).resolve().parent.parent / "shared" / "data"


def test_folder_zip_and_dataset_give_the_same_faces(tmp_path, people, make_folder, make_zip):
    folder = load_faces(make_folder(tmp_path / "set", people))
    flat = load_faces(make_zip(tmp_path / "flat.zip", people))
    rooted = load_faces(make_zip(tmp_path / "rooted.zip", {f"set/{name}": data for name, data in people.items()}))
    ingest(tmp_path / "set", tmp_path / "out")
    stored = load_faces(tmp_path / "out")
    assert folder.names == ("ann", "bob", "cid") and folder.paths[0] == "ann/0.png" and len(folder) == 6
    assert stored.names == ("000000", "000001", "000002") and stored.paths[-1] == "000002/0000"
    for faces in (folder, flat, rooted, stored):
        assert faces.identity_N.tolist() == [0, 0, 1, 1, 1, 2] and faces.identity_N.dtype == np.int32
        assert faces.image_NHWC.dtype == np.uint8 and faces.failed == ()
        for image, data in zip(faces.image_NHWC, people.values()):
            np.testing.assert_array_equal(image, decode(data))


def test_bad_files_are_listed_and_the_rest_is_sorted(tmp_path, people, make_folder, picture, caplog):
    files = {**people, "ann/9.png": picture(3)[:-60], "bob/9.png": b"", "cid/9.png": picture(1, (64, 64)), "dan/readme.txt": b"hello", "loose.png": picture(5)}
    faces = load_faces(make_folder(tmp_path / "set", files))
    assert len(faces) == 6 and faces.names == ("ann", "bob", "cid") and list(faces.paths) == sorted(people)
    reasons = dict(faces.failed)
    assert set(reasons) == set(files) - set(people)
    for name, words in (("ann/9.png", "truncated"), ("bob/9.png", "empty"), ("cid/9.png", "64x64"), ("dan/readme.txt", "not an image"), ("loose.png", "identity")):
        assert words in reasons[name]
    assert "5 of 11 files left out" in caplog.text


def test_no_usable_face_is_a_user_error(tmp_path, make_folder):
    with pytest.raises(UserError, match="no usable 112x112 face.*a/x.png"):
        load_faces(make_folder(tmp_path / "set", {"a/x.png": b"nothing"}))


@pytest.mark.skipif(not (SHARED / "faces").is_dir(), reason="needs the real faces beside the repository (../shared/data/faces)")
def test_real_evaluation_faces():
    faces = load_faces(SHARED / "faces" / "lfw_folds7_8.zip")
    assert len(faces) == 2585 and len(faces.names) == 886 and faces.failed == ()


def test_a_rec_set_is_read_by_its_file_and_by_its_folder(tmp_path, people):
    images = list(people.values())
    write_rec(tmp_path / "set" / "train.rec", list(zip([0, 0, 1, 1, 1, 2], images)))
    for path in (tmp_path / "set" / "train.rec", tmp_path / "set"):
        faces = load_faces(path)
        assert faces.names == ("000000", "000001", "000002") and faces.identity_N.tolist() == [0, 0, 1, 1, 1, 2] and faces.failed == ()
        for image, data in zip(faces.image_NHWC, images):
            np.testing.assert_array_equal(image, decode(data))
    (tmp_path / "set" / "labels.tsv").write_text("label\tidentity\timages\n0\tann\t2\n1\tbob\t3\n2\tcid\t1\n")
    assert load_faces(tmp_path / "set").names == ("ann", "bob", "cid")


def test_a_rec_set_without_header_and_with_a_bad_image(tmp_path, people, picture):
    images = [*people.values()][:2]
    records = [pack(ImageRecord(labels=(float(label),), image=image)) for label, image in zip((7, 9, 9), (*images, picture(3)[:-60]))]
    write_records(tmp_path / "im2rec.rec", list(enumerate(records)))
    faces = load_faces(tmp_path / "im2rec.rec")
    assert faces.names == ("000007", "000009") and len(faces) == 2 and [path for path, _ in faces.failed] == ["im2rec.rec#00000002"]
    (tmp_path / "im2rec.rec").write_bytes((tmp_path / "im2rec.rec").read_bytes()[:-40])
    with pytest.raises(UserError, match="im2rec"):
        load_faces(tmp_path / "im2rec.rec")
