"""insightface's .bin verification sets: read without running code, written byte for byte as they were (recognition.md §9.1).

A file is a pickle of (bins, issame): 2P encoded images (bytes, or 1-D uint8 arrays) and P booleans; images 2p and 2p + 1 form pair p.
A pickle calls the functions it names. Only the few constructors such files need are known here, and numpy's are replaced by stand-ins:
the real `numpy.ndarray` makes arrays of objects over arbitrary bytes, which crashes Python and could do worse. A file by Python 2 needs the
text of its byte strings left alone (`encoding="bytes"`).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes
from .pair_lists import Pairs

@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationSet:
    """The content of a .bin file.

    Attributes:
        name: of the file, without its end.
        images: 2P encoded images.
        same_P: bool, (P,).
    """

    name: str
    images: tuple[bytes, ...]
    same_P: np.ndarray

    @property
    def names(self) -> list[str]:
        """What messages call the images: their number in the file."""
        return [self._called(number) for number in range(len(self.images))]

    def read(self, name: str) -> bytes:
        """Return an encoded image by its name."""
        return self.images[int(name.rpartition("/")[2])]

    def pairs(self, folds: int = 10) -> Pairs:
        """Return the pairs in contiguous folds, the first P % folds one pair longer."""
        count = len(self.same_P)
        names = self.names
        fold_P = np.concatenate([np.full(len(part), fold) for fold, part in enumerate(np.array_split(np.arange(count), folds))])
        return Pairs(paths=tuple(zip(names[::2], names[1::2])), same_P=self.same_P, fold_P=fold_P)

    def _called(self, number: int) -> str:
        return f"{self.name}.bin/{number}"


def read_bin(path: Path | str, *, labelled: bool = True) -> VerificationSet:
    """Read a .bin verification set; nothing in it is executed.

    Args:
        labelled: False ignores the labels (SDFR's sanitizer samples have none to speak of); `same_P` is then all False.

    Raises:
        UserError: not a pickle, a pickle that asks for anything but lists, bytes, booleans and numpy arrays of them (names it), or counts
            that do not fit (2 images a pair).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; expected a .bin verification set") from error
    content = _unpickle(data, path)
    if not isinstance(content, (tuple, list)) or len(content) != 2 or not all(isinstance(part, (list, tuple, _Array)) for part in content):
        raise UserError(f"{path} holds {type(content).__name__}, expected the pair (list of images, list of booleans)")
    listed = [part.values() if isinstance(part, _Array) else part for part in content]
    images = tuple(_image_bytes(image, path, number) for number, image in enumerate(listed[0]))
    same = [_boolean(value, path, number) for number, value in enumerate(listed[1])] if labelled else [False] * (len(images) // 2)
    if len(images) != 2 * len(same) or not same:
        raise UserError(f"{path} holds {len(images)} images and {len(same)} labels; expected two images for each label: the file is cut, or is no verification set")
    return VerificationSet(name=path.stem, images=images, same_P=np.array(same, bool))


def write_bin(path: Path | str, images: Sequence[bytes], same_P: Sequence[bool] | np.ndarray, *, protocol: int = 4) -> None:
    """Write a .bin verification set: plain bytes and bools, which every reader of the field takes; equal content gives equal bytes.

    Raises:
        UserError: not two images for each label.
    """
    same = [bool(value) for value in same_P]
    if len(images) != 2 * len(same):
        raise UserError(f"{len(images)} images and {len(same)} labels; a .bin set needs two images for each label")
    # No memo: the pickler would write an image that occurs twice as a reference or not, by the identity of the object.
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=protocol)
    pickler.fast = True
    pickler.dump(([bytes(image) for image in images], same))
    write_bytes(Path(path), buffer.getvalue())


class _Dtype:
    """Stand-in for numpy.dtype: remembers its name."""

    def __init__(self, name: str, *_: object) -> None:
        self.name = name.decode("ascii") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        pass  # byte order and alignment: one-byte types have neither, labels are read little-endian


class _Array:
    """Stand-in for numpy.ndarray: shape, type and bytes (or the list of an object array)."""

    shape: tuple[int, ...]
    dtype: _Dtype
    content: bytes | list

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, _, self.content = state

    def values(self) -> list:
        """Return the elements: objects as they are, numbers as Python's."""
        if isinstance(self.content, list):
            return self.content
        if self.dtype.name not in _NUMBERS:
            raise UserError(f"holds an array of type '{self.dtype.name}', expected bytes or booleans")
        return np.frombuffer(self.content, self.dtype.name).tolist()


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(buffer: Any, dtype: _Dtype, shape: tuple[int, ...], *_: object) -> _Array:
    array = _Array()
    array.shape, array.dtype, array.content = shape, dtype, bytes(buffer)
    return array


def _scalar(dtype: _Dtype, content: bytes | str) -> Any:
    return _frombuffer(content.encode("latin1") if isinstance(content, str) else content, dtype, ()).values()[0]


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Protocols 0 to 2 spell bytes as `_codecs.encode(text, "latin1")`; no other codec is looked up."""
    if encoding != "latin1":
        raise UserError(f"asks for the codec '{encoding}', expected latin1")
    return text.encode("latin1")


_NUMBERS = frozenset({"b1", "u1", "i1", "u4", "i4", "u8", "i8"})
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("_codecs", "encode"): _latin1_bytes,
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (list, tuple, bytes, bool)},
}


class _Whitelist(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise UserError(f"asks for {module}.{name}, which no verification set needs; it could run code, so the file is refused")
        return _STAND_INS[module, name]


def _unpickle(data: bytes, path: Path) -> Any:
    try:
        try:
            return _Whitelist(io.BytesIO(data)).load()
        except UnicodeDecodeError:
            return _Whitelist(io.BytesIO(data), encoding="bytes").load()
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a damaged pickle fails in any way inside the unpickler; all mean the same to the user
        raise UserError(f"{path} cannot be read as a .bin verification set ({type(error).__name__}: {error}); copy or make it again") from error


def _image_bytes(image: Any, path: Path, number: int) -> bytes:
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if isinstance(image, _Array) and image.dtype.name == "u1" and isinstance(image.content, bytes):
        return image.content
    if isinstance(image, str):  # a byte string of Python 2 that happened to decode
        return image.encode("latin1")
    raise UserError(f"{path}: image {number} is {type(image).__name__}, expected an encoded image (bytes)")


def _boolean(value: Any, path: Path, number: int) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise UserError(f"{path}: label {number} is {value!r}, expected True or False")
