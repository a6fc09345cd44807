"""The rules of the house, held by machine: import direction, no work at import, no print, what the wheel holds."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import facefoundry
import pytest

ROOT = Path(facefoundry.__file__).resolve().parent
FLOORS = ("core", "identity", "styles_3dmm", "recognition", "generators", "quality", "challenge", "consumers", "jobs")
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
HEAVY = ("torch", "datasets", "numba", "matplotlib", "diffusers", "dlib", "accelerate", "scipy", "pyarrow")


def test_imports_point_down():
    from importlinter.cli import lint_imports

    try:
        assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0
    finally:
        logging.getLogger("facefoundry").disabled = False  # import-linter's logging set-up disables every logger there is


def test_packages_list_is_the_floors():
    text = (ROOT / "pyproject.toml").read_text()
    listed = set(re.findall(r'"facefoundry\.([\w.]+)",', text.split("packages = [")[1].split("]")[0]))
    floors = {".".join(path.parent.relative_to(ROOT).parts) for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py")}
    assert listed == floors | {"recipes", "weights"}  # the last two hold files, no code


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_rules(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print in line {node.lineno}: use core.progress or jobs.show"
        if isinstance(node, ast.Attribute):
            assert node.attr != "cuda" or ast.unparse(node.value) == "torch", f".cuda in line {node.lineno}: use a torch.device"
            assert ast.unparse(node) != "sys.path", f"sys.path in line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "weights_only":
            assert ast.unparse(node.value) == "True", f"weights_only in line {node.value.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
    assert len(path.read_text().splitlines()) <= 400, "a file of more than 400 lines wants to be two"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 80, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


def test_no_clones():
    """At most 5 % of the lines stand in a window of six equal lines that occurs in two files."""
    seen, cloned, total = defaultdict(set), 0, 0
    stripped = {}
    for path in SOURCES:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        stripped[path] = [line for line in lines if len(line) > 3 and not line.startswith(("#", "import ", "from "))]
        for start in range(len(stripped[path]) - 5):
            seen["\n".join(stripped[path][start : start + 6])].add(path)
    for path, lines in stripped.items():
        marked = {row for start in range(len(lines) - 5) if len(seen["\n".join(lines[start : start + 6])]) > 1 for row in range(start, start + 6)}
        cloned, total = cloned + len(marked), total + len(lines)
    assert cloned <= 0.05 * total, f"{cloned} of {total} lines"


def test_importing_the_package_loads_nothing_heavy():
    program = f"import sys, facefoundry, facefoundry.jobs.cli, facefoundry.core.config; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_import_does_no_work():
    """Every module imports without touching random state, threads, files to write or the network."""
    program = (
        "import importlib, os, random, socket, sys, threading\n"
        "import datasets, numba, torch, numpy as np, pydantic, matplotlib.figure, scipy.stats, diffusers\n"  # what libraries do is theirs
        "state, rng, cwd = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), os.getcwd()\n"
        "threads, grad = threading.active_count(), torch.is_grad_enabled()\n"
        "socket.socket.connect = lambda *a: sys.exit('a module reaches for the network')\n"
        f"for name in {[str(path.relative_to(ROOT).with_suffix('')).replace('/', '.') for path in SOURCES if path.name != '__init__.py']!r}:\n"
        "    importlib.import_module('facefoundry.' + name)\n"
        "assert torch.equal(state, torch.random.get_rng_state()), 'torch random state'\n"
        "assert rng == np.random.get_state()[1].tolist(), 'numpy random state'\n"
        "assert cwd == os.getcwd() and threads == threading.active_count() and grad == torch.is_grad_enabled()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The files in the wheel of a copy of the tree (a build leaves its litter where it runs)."""
    import shutil

    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", "build", "runs", "demo", ".pytest_cache", "*.tmp")
    shutil.copytree(ROOT, folder / "tree", ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", str(folder / "tree"), "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_wheel_holds_every_module_and_bundled_file(wheel):
    wanted = [path.relative_to(ROOT).as_posix() for path in SOURCES]
    wanted += [path.relative_to(ROOT).as_posix() for pattern in ("weights/*", "recipes/*.yaml", "jobs/*.html.j2", "py.typed", "__init__.py") for path in ROOT.glob(pattern)]
    missing = [name for name in wanted if f"facefoundry/{name}" not in wheel]
    assert not missing


def test_wheel_holds_no_tests_and_no_pictures(wheel):
    assert not [name for name in wheel if "/tests/" in name or "/benchmarks/" in name or name.endswith((".jpg", ".jpeg", ".parquet"))]


def test_bundled_weights_keep_their_size():
    size = {path.stem: path.stat().st_size for path in (ROOT / "weights").glob("*.safetensors")}
    generators = ("uiface", "id3", "lcm", "morphface", "autoencoder")
    assert sum(size.values()) <= 75_000_000
    assert sum(bytes_ for name, bytes_ in size.items() if name.startswith(generators)) <= 60_000_000
    assert all(size.get(name, 0) <= 6_000_000 for name in ("eyeseg-small", "aigi-small"))


def test_recipes_are_read_by_their_models():
    from facefoundry.core.config import read_yaml

    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        _recipe_model(read_yaml(path)[0], path.stem).load(path)


def _recipe_model(values: dict, name: str):
    from facefoundry.consumers.aigi.train import AigiRecipe
    from facefoundry.consumers.privacy.dctdp import DctdpRecipe
    from facefoundry.consumers.privacy.duetface import DuetFaceRecipe
    from facefoundry.consumers.privacy.minusface import MinusFaceRecipe
    from facefoundry.consumers.privacy.partialface import PartialFaceRecipe
    from facefoundry.consumers.privacy.slerpface import SlerpRecipe
    from facefoundry.consumers.segmentation.train import EyeSegRecipe
    from facefoundry.consumers.tokenizer.train import TokenizerRecipe
    from facefoundry.generators.id3_train import Id3Recipe
    from facefoundry.generators.morphface_train import MorphFaceRecipe
    from facefoundry.generators.sharpen import SharpDecoderRecipe
    from facefoundry.generators.train import GeneratorRecipe
    from facefoundry.jobs.spec import JobSpec
    from facefoundry.generators.distill import FewStepRecipe
    from facefoundry.quality.regressor import QualityRecipe
    from facefoundry.recognition.afa_train import AfaRecipe
    from facefoundry.recognition.distill import DistilRecipe
    from facefoundry.recognition.fan_train import FanRecipe
    from facefoundry.recognition.train import RecogniserRecipe

    by_key = {"widths": EyeSegRecipe, "tokenizer": TokenizerRecipe, "detector": AigiRecipe, "attack": AfaRecipe, "scales": FanRecipe, "quality_of": QualityRecipe, "identity_term": Id3Recipe, "style": MorphFaceRecipe, "denoiser": GeneratorRecipe, "identities": JobSpec, "extends": JobSpec, "student": FewStepRecipe, "sharpen": SharpDecoderRecipe, "teacher": DistilRecipe}
    privacy = {"privacy-dctdp": DctdpRecipe, "privacy-duetface": DuetFaceRecipe, "privacy-minusface": MinusFaceRecipe, "privacy-partialface": PartialFaceRecipe, "privacy-slerpface": SlerpRecipe}
    if name in privacy:
        return privacy[name]
    return next((model for key, model in by_key.items() if key in values), RecogniserRecipe)
