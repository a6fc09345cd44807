"""Opening pickles of arrays without trusting them: a pickle can call anything by name, so only the names on a list are found, and each stands for a holder here.

A holder keeps what was stored and runs nothing; arrays are made afterwards, from bytes of plain numbers. So neither chumpy (which wants an old Python) nor the
unpickling code of NumPy and SciPy takes part. Written by Python 2 as by Python 3; protocols 0 to 5.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError

_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class _Still(type):
    """Classes whose attributes a pickle cannot set."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise TypeError(f"a pickle tried to change {cls.__name__}.{name}")


class Holder(metaclass=_Still):
    """What was pickled as an object of chumpy's or SciPy's.

    Attributes:
        kept: what it stored: mostly its attributes by name.
    """

    def __init__(self, *stored: Any) -> None:
        self.kept: Any = stored

    def __setstate__(self, state: Any) -> None:
        self.kept = state


class _Type(Holder):
    """A type of numbers: its code, such as "f8", and its byte order."""

    def __init__(self, code: Any = None, *flags: Any) -> None:
        self.code = code

    def numpy(self) -> np.dtype:
        order = self.kept[1] if isinstance(self.kept, tuple) and len(self.kept) > 1 else "<"
        if self.code not in _NUMBERS or order not in ("<", ">", "|", "="):
            raise ValueError(f"an array of '{self.code}', expected plain numbers")
        return np.dtype(self.code) if order in "|=" else np.dtype(order + self.code)


class Array(Holder):
    """An array: shape, type, order and bytes as they were stored."""

    def __init__(self, *stored: Any) -> None:
        self.kept = stored

    def numpy(self) -> np.ndarray:
        """Return the array.

        Raises:
            ValueError: it holds other things than numbers, or fewer bytes than its shape asks for.
        """
        try:
            _, shape, kind, fortran, raw = self.kept
            data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
            flat = np.frombuffer(data, kind.numpy())
            # An order of axes: protocol 5 stores what lies in memory, shape included, and says how to turn it.
            return flat.reshape(shape).transpose(fortran) if isinstance(fortran, tuple) else flat.reshape(shape, order="F" if fortran else "C")
        except (TypeError, AttributeError) as error:
            raise ValueError(f"no stored array ({error})") from error


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the mapping in a pickle; what was no plain Python value is a `Holder`.

    Raises:
        UserError: it is missing, cut off, holds something other than a mapping, or asks for a name that is not on the list (the name is told; nothing has run).
    """
    try:
        with open(path, "rb") as file:
            value = _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; expected a pickle of arrays") from error
    except (EOFError, pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, MemoryError, OverflowError, AssertionError) as error:
        raise UserError(f"{path} is cut off or no pickle of arrays ({error}); copy it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, expected a mapping of arrays")
    return value


class _Encode(Holder):
    """How Python 3 writes bytes in the older protocols: text and the codec latin1."""

    def __new__(cls, text: str, codec: str) -> Any:
        if codec not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes in the codec '{codec}', expected latin1")
        return text.encode("latin1")


class _Remade(Holder):
    """How Python 2 writes objects of plain classes: the class, its base, what the base stored."""

    def __new__(cls, kind: Any, base: Any = None, state: Any = None) -> Any:
        if kind is not Holder:
            raise pickle.UnpicklingError("an object of another class than chumpy's or SciPy's")
        return Holder()


class _Buffer(Holder):
    """How protocol 5 writes arrays: bytes, type, shape, order."""

    def __new__(cls, raw: Any, kind: Any, shape: Any, order: Any = "C", axes: Any = None) -> Any:
        return Array(1, shape, kind, axes if order == "K" and axes is not None else order == "F", raw)


_FOUND: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Holder for core in ("core", "_core")},
    **{(module, "_reconstructor"): _Remade for module in ("copy_reg", "copyreg")},
    **{(module, "object"): Holder for module in ("__builtin__", "builtins")},
    **{(module, "csc_matrix"): Holder for module in ("scipy.sparse.csc", "scipy.sparse._csc", "scipy.sparse")},
    ("numpy", "ndarray"): Holder,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Encode,
}


class _Unpickler(pickle.Unpickler):
    """Finds the names of the list, and for whatever is chumpy's a holder."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "chumpy" or module.startswith("chumpy."):
            return Holder
        if (module, name) not in _FOUND:
            raise UserError(f"the pickle asks for '{module}.{name}', which arrays do not need: it is refused, for a pickle can run code when opened. Get the model from its maker again")
        return _FOUND[module, name]

    def persistent_load(self, key: Any) -> Any:
        raise pickle.UnpicklingError(f"a reference to something outside the file ('{key}')")
