"""A morphable head from whatever file holds one; the format is told by the name, the licence is said."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import UserError
from .bfm import read_bfm
from .eos import read_eos
from .flame import read_flame
from .foreign import RawModel, adopt
from .head_file import load_head
from .ict import NEUTRAL, read_ict
from .landmark_transfer import read_landmarks
from .morphable import MorphableHead

_READERS = {".pkl": read_flame, ".npz": read_flame, ".mat": read_bfm, ".h5": read_bfm, ".bin": read_eos, ".json": read_eos}


def read_head(path: Path, landmarks: Path | None = None) -> MorphableHead:
    """Return the head in an ICT-FaceKit folder, a FLAME .pkl or .npz, a Basel .mat or .h5, an eos .bin or .json, or our own .safetensors.

    Args:
        landmarks: which vertices the 68 points are (`read_landmarks`), for models whose file does not say or where it errs; not for our own.

    Raises:
        UserError: of no known format, damaged, or refused.
    """
    if path.suffix == ".safetensors":
        if landmarks is not None:
            raise UserError(f"{path.name} holds its landmarks; leave --landmarks out")
        return load_head(path)
    return adopt(_raw(path), str(path), read_landmarks(landmarks) if landmarks is not None else None)


def _raw(path: Path) -> RawModel:
    if path.is_dir():
        inner = path if (path / NEUTRAL).is_file() else path / "FaceXModel"
        if not (inner / NEUTRAL).is_file():
            raise UserError(f"the folder {path} has no {NEUTRAL}; expected ICT-FaceKit's FaceXModel")
        return read_ict(inner)
    if path.suffix not in _READERS:
        raise UserError(f"{path}: no format of a head ends in '{path.suffix}'; expected a folder (ICT-FaceKit), {', '.join(_READERS)} or .safetensors")
    return _READERS[path.suffix](path)
