"""The .bin reader: every way the field pickles such a set, and nothing else."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from facefoundry.challenge.bin_file import read_bin, write_bin
from facefoundry.challenge.lfw import score_bin
from facefoundry.core.errors import UserError
from facefoundry.core.images import encode_png

IMAGES = [bytes([0xFF, 0xD8, k]) + bytes(range(200)) for k in range(8)]
SAME = [True, False, False, True]


def python2_bytes(images, same) -> bytes:
    """What cPickle of Python 2 writes: byte strings as STRING opcodes of protocol 2."""
    out = io.BytesIO()
    out.write(b"\x80\x02]q\x00(")
    for image in images:
        out.write(b"T" + len(image).to_bytes(4, "little") + image)
    out.write(b"e]q\x01(" + b"".join(b"\x88" if value else b"\x89" for value in same) + b"e\x86q\x02.")
    return out.getvalue()


FORMS = {
    **{f"bytes-{protocol}": lambda protocol=protocol: pickle.dumps((IMAGES, SAME), protocol) for protocol in range(6)},
    **{f"arrays-{protocol}": lambda protocol=protocol: pickle.dumps(([np.frombuffer(image, np.uint8).copy() for image in IMAGES], [np.bool_(v) for v in SAME]), protocol) for protocol in range(6)},
    "old numpy": lambda: pickle.dumps(([np.frombuffer(image, np.uint8).copy() for image in IMAGES], [np.bool_(v) for v in SAME]), 2).replace(b"numpy._core", b"numpy.core"),
    "label array": lambda: pickle.dumps((IMAGES, np.array(SAME))),
    "integer labels": lambda: pickle.dumps((IMAGES, np.array(SAME, np.int64))),
    "object array": lambda: pickle.dumps((np.array(IMAGES, dtype=object), SAME)),
    "python 2": lambda: python2_bytes(IMAGES, SAME),
}


@pytest.mark.parametrize("form", FORMS)
def test_reads_what_the_field_writes(tmp_path, form):
    path = tmp_path / "lfw.bin"
    path.write_bytes(FORMS[form]())
    found = read_bin(path)
    assert list(found.images) == IMAGES and found.same_P.tolist() == SAME and found.name == "lfw"
    assert found.read("lfw.bin/5") == IMAGES[5]
    pairs = found.pairs(3)
    assert pairs.paths[1] == ("lfw.bin/2", "lfw.bin/3") and pairs.fold_P.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_round_trip_is_byte_exact_and_any_reader_takes_it(tmp_path, protocol):
    images = [*IMAGES[:6], IMAGES[0], IMAGES[0]]  # an image twice must not change the bytes
    write_bin(tmp_path / "a.bin", images, SAME, protocol=protocol)
    found = read_bin(tmp_path / "a.bin")
    write_bin(tmp_path / "b.bin", found.images, found.same_P, protocol=protocol)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert pickle.loads((tmp_path / "a.bin").read_bytes()) == (images, SAME)


class Calls:
    def __init__(self, function, *arguments):
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Calls(exec, "raise SystemExit('executed')"), "asks for builtins.exec"),
        (Calls(getattr, "a", "b"), "asks for builtins.getattr"),
        (Calls(np.load, "x"), "asks for numpy.load"),
        (([Calls(__import__, "os")], []), "asks for builtins.__import__"),
        ((IMAGES[:7], SAME), "7 images and 4 labels"),
        (([], []), "0 images"),
        ((IMAGES, [True, False, 2, True]), "label 2 is 2"),
        (([*IMAGES[:7], 5], SAME), "image 7 is int"),
        ({"a": 1}, "holds dict"),
        ((IMAGES, SAME, 1), "holds tuple"),
        ((IMAGES, np.array([1.0, 0, 0, 1])), "array of type 'f8'"),
    ],
)
def test_refuses_everything_else(tmp_path, content, message):
    (tmp_path / "x.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=message):
        read_bin(tmp_path / "x.bin")


def test_arrays_of_objects_over_raw_bytes_are_never_made(tmp_path):
    # numpy.ndarray((1,), dtype('O'), buffer) turns bytes into object pointers: with the real class this kills the process.
    (tmp_path / "x.bin").write_bytes(pickle.dumps(([Calls(np.ndarray, (1,), np.dtype("O"), b"12345678")], [True])))
    with pytest.raises(UserError):
        read_bin(tmp_path / "x.bin")


@pytest.mark.parametrize("data", [b"", b"no pickle", FORMS["bytes-4"]()[:-40], b"\x80\x04K\x01."])
def test_damaged_files(tmp_path, data):
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(UserError, match="x.bin"):
        read_bin(tmp_path / "x.bin")
    with pytest.raises(UserError, match="cannot read"):
        read_bin(tmp_path / "nothing.bin")


def test_scores_a_set(tmp_path):
    class Mean:
        name, dim, differentiable = "mean", 3, True

        def __call__(self, image_BCHW):
            return torch.nn.functional.normalize(image_BCHW.mean((2, 3)) + 1e-3, dim=1)

    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (20, 3))
    images = [np.clip(colours[p if same else (p + 7 * (k % 2)) % 20] + rng.integers(-9, 10, (112, 112, 3)), 0, 255).astype(np.uint8) for p, same in enumerate([True, False] * 10) for k in range(2)]
    write_bin(tmp_path / "set.bin", [encode_png(image) for image in images], [True, False] * 10)
    result = score_bin(Mean(), read_bin(tmp_path / "set.bin"))
    assert result.score_P.size == 20 and result.accuracy.accuracy_F.size == 10 and result.auc > 0.9
    assert result.val is not None and "val_at_far_0.001" in result.summary()
