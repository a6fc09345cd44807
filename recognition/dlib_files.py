"""Where the dlib model files are: found by path, because the package that carries them can no longer be imported.

`face_recognition_models` imports `pkg_resources`, which setuptools has dropped; its files are all we need.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..core.errors import UserError

RECOGNISER = "dlib_face_recognition_resnet_model_v1.dat"
LANDMARKS_68 = "shape_predictor_68_face_landmarks.dat"


def dlib_file(name: str) -> Path:
    """Return the path of a dlib model file; the package is located, never imported."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise UserError("the dlib network needs the package 'face-recognition-models', which is not installed; run: pip install face-recognition-models dlib-bin")
    path = Path(spec.origin).parent / "models" / name
    if not path.is_file():
        raise UserError(f"{path} is missing; reinstall it: pip install --force-reinstall face-recognition-models")
    return path
