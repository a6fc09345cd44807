"""FLAME from .npz and from pickles of both Pythons, chumpy's stood in for; pickles that would run something are refused before they do."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
from types import ModuleType

import numpy as np
import pytest
from foreign_files import K, known, places, same_shape, shapes, theirs, triangles
from scipy import sparse

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm.flame import read_flame
from facefoundry.styles_3dmm.foreign import adopt
from facefoundry.styles_3dmm.safe_pickle import Holder, read_pickle


def arrays(columns: int = K) -> dict[str, np.ndarray]:
    """FLAME's arrays, metres; eyes as joints 3 and 4."""
    own = theirs()
    count = len(own.mean_V3)
    near = np.linalg.norm(own.mean_V3[:, None] - own.eye_centre_23, axis=2).argsort(0)[:4]
    weight, regressor = np.zeros((count, 5)), np.zeros((5, count))
    weight[:, 0] = 1.0
    for eye in range(2):
        weight[near[:, eye], 0], weight[near[:, eye], 3 + eye], regressor[3 + eye, near[:, eye]] = 0, 1, 1 / 4
    shape = np.moveaxis(np.concatenate([shapes(), np.zeros((max(0, columns - K), count, 3))]), 0, 2) / 1000
    return {"v_template": places() / 1000, "shapedirs": shape, "f": triangles().astype(np.uint32), "weights": weight, "J_regressor": regressor}


class Ch:
    """Stands in for chumpy's array when the tests write a pickle."""

    def __init__(self, x):
        self.x, self._dirty_vars = x, "all"


def pickled(tmp_path, monkeypatch, protocol: int, columns: int = K):
    module = ModuleType("chumpy.ch")
    module.Ch = Ch
    monkeypatch.setattr(Ch, "__module__", "chumpy.ch")
    monkeypatch.setitem(sys.modules, "chumpy", ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    stored: dict = dict(arrays(columns))
    stored |= {"shapedirs": Ch(stored["shapedirs"]), "v_template": Ch(stored["v_template"]), "J_regressor": sparse.csc_matrix(stored["J_regressor"])}
    stored |= {"kintree_table": np.zeros((2, 5), np.uint32), "bs_style": "lbs", "scale": np.float64(1.0)}
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(stored, protocol=protocol))
    return tmp_path / "generic_model.pkl"


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read_without_chumpy(tmp_path, monkeypatch, protocol):
    path = pickled(tmp_path, monkeypatch, protocol)
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.delitem(sys.modules, name)
    raw = read_flame(path)
    assert raw.mean_V3 == pytest.approx(places() / 1000) and raw.identity_KV3 == pytest.approx(shapes() / 1000)
    assert (raw.triangle_T3 == triangles()).all() and np.bincount(raw.eye_V).tolist()[1:] == [4, 4]
    head = adopt(raw, str(path), known())
    same_shape(head)
    assert head.eye_centre_23[0, 0] > 0 > head.eye_centre_23[1, 0]
    assert "Max Planck" in head.licence and head.name == "flame"


def test_python_2_pickles_are_read(tmp_path):
    """As Python 2 writes them: arrays' bytes as a text, chumpy's objects by copy_reg."""

    def string(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def array(value: np.ndarray) -> bytes:
        shape = b"(" + b"".join(b"K" + bytes([size]) if size < 256 else b"M" + struct.pack("<H", size) for size in value.shape) + b"t"
        kind = b"cnumpy\ndtype\n(" + string(value.dtype.str[1:].encode()) + b"K\0K\1tR(K\3" + string(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0t" + string(b"b") + b"tR(K\1" + shape + kind + b"I00\n" + string(value.tobytes()) + b"tb"

    own = arrays()
    chumpy = b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR(d" + string(b"x") + array(own["shapedirs"]) + b"sb"
    data = b"\x80\2(d" + string(b"v_template") + array(own["v_template"]) + b"s" + string(b"shapedirs") + chumpy + b"s" + string(b"f") + array(own["f"]) + b"s."
    (tmp_path / "old.pkl").write_bytes(data)
    raw = read_flame(tmp_path / "old.pkl")
    assert raw.mean_V3 == pytest.approx(own["v_template"]) and raw.identity_KV3 == pytest.approx(shapes() / 1000)
    assert raw.eye_V is None


def test_npz_holds_the_same_and_columns_beyond_300_are_expressions(tmp_path):
    np.savez(tmp_path / "flame.npz", **arrays(columns=305))
    raw = read_flame(tmp_path / "flame.npz")
    assert raw.identity_KV3.shape == (300, len(places()), 3) and raw.expression_EV3.shape == (5, len(places()), 3)
    assert raw.identity_KV3[:K] == pytest.approx(shapes() / 1000)


class Evil:
    """Pickles to a call."""

    def __init__(self, call, *values):
        self.call, self.values = call, values

    def __reduce__(self):
        return self.call, self.values


@pytest.mark.parametrize(
    "call, values, name",
    [
        (os.system, ("touch {mark}",), "system"), (eval, ("open('{mark}', 'w')",), "eval"), (exec, ("open('{mark}', 'w')",), "exec"), (open, ("{mark}", "w"), "open"),
        (getattr, ("", "join"), "getattr"), (np.save, ("{mark}", [1]), "save"), (np.load, ("{mark}",), "load"), (__import__, ("os",), "__import__"),
        (np.fromfile, ("{mark}",), "fromfile"), (io.FileIO, ("{mark}", "w"), "FileIO"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_calls_are_refused_and_not_run(tmp_path, call, values, name, protocol):
    mark = tmp_path / "ran.npy"
    evil = Evil(call, *(value.format(mark=mark) if isinstance(value, str) else value for value in values))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({**arrays(), "v_template": evil}, protocol=protocol))
    with pytest.raises(UserError, match=f"asks for .*{name}.* refused"):
        read_flame(tmp_path / "evil.pkl")
    assert not mark.exists()


def test_classes_on_the_list_cannot_be_changed_by_a_pickle(tmp_path):
    """BUILD with a second mapping sets attributes, of a class too."""
    data = b"\x80\2cchumpy.ch\nCh\nN}U\4keptK\7s\x86b."
    (tmp_path / "evil.pkl").write_bytes(data)
    with pytest.raises(UserError, match="cut off or no pickle"):
        read_pickle(tmp_path / "evil.pkl")
    assert Holder().kept == ()


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.99])
def test_cut_pickles_are_refused(tmp_path, monkeypatch, share):
    path = pickled(tmp_path, monkeypatch, 2)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match="cut off or no pickle"):
        read_flame(path)


def test_arrays_that_are_none_are_named(tmp_path):
    def refused(stored: object, message: str) -> None:
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(stored, protocol=2))
        with pytest.raises(UserError, match=message):
            read_flame(tmp_path / "m.pkl")

    refused([1, 2], "holds list, expected a mapping")
    refused({"a": 1}, "has no 'v_template'")
    refused({**arrays(), "v_template": "text"}, "'v_template' is no array of numbers")
    refused({**arrays(), "f": np.array([{}, 1], object)}, "'f' is no array")
    refused({**arrays(), "shapedirs": np.zeros((3, 3, 3))}, "'shapedirs' has shape")
    broken = sparse.csc_matrix(arrays()["J_regressor"])
    broken.indices[0] = 99
    refused({**arrays(), "J_regressor": broken}, "'J_regressor' is no array")


def test_npz_with_pickled_objects_or_cut_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", v_template=np.array([Evil(os.system, "true")], object), allow_pickle=True)
    with pytest.raises(UserError, match="without pickled objects"):
        read_flame(tmp_path / "m.npz")
    np.savez(tmp_path / "m.npz", **arrays())
    (tmp_path / "m.npz").write_bytes((tmp_path / "m.npz").read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot read"):
        read_flame(tmp_path / "m.npz")
