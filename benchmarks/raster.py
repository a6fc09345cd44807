"""Pictures of a 5,000-vertex head at 128 px on one core: the renderer, its z-buffer alone, the same source as plain Python, and pytorch3d where installed.

Run `NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/raster.py` in the repository root; it writes benchmarks/results_raster.json. Goal: 2,000
colour renders a second and core. Every picture shows another head in another pose: one picture drawn again and again is twice as fast, because the
processor's branch predictor learns it by heart.

Arithmetic floor at 7 Gflop/s scalar (anchors.md §5e): set-up 9.8 k triangles × 40 flop + 28 k pixel tests × 20 + 8 k covered pixels × 15 = 1.1 Mflop, 0.15 ms
for the z-buffer; normals 9.8 k × 30 + 5 k × 8 = 0.33 Mflop, 0.05 ms; colour 8 k pixels × 130 = 1.1 Mflop, 0.15 ms; projection 5 k × 24 = 0.12 Mflop, 0.02 ms.
Together 0.37 ms.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.files import write_json
from facefoundry.styles_3dmm.camera import Camera, project
from facefoundry.styles_3dmm.light import ambient, directional
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.pytorch3d_raster import render_pytorch3d
from facefoundry.styles_3dmm.raster import fill, rasterise
from facefoundry.styles_3dmm.render import render

GOAL_PER_S = 2_000
FLOOR_MS = 0.37
SIZE_PX = 128
BATCH = 64
ROUNDS = 9


def main() -> None:
    """Measure and write the result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    head, rng = tiny(rings=50), np.random.default_rng(0)
    vertices_BV3 = head.vertices(rng.normal(size=(BATCH, 8)), rng.normal(size=(BATCH, 4)))
    pose_B3 = rng.uniform(-1, 1, (BATCH, 3)) * (60.0, 25.0, 15.0)
    camera = Camera.weak(np.full(BATCH, 0.55), np.full((BATCH, 2), 60.0))
    light_B93 = np.repeat((ambient(0.3) + directional(np.array([-1.0, -1.0, 2.0]), 0.8))[None], BATCH, 0)
    albedo_BV3 = np.full(vertices_BV3.shape, 0.6, np.float32)
    point_BV3 = project(camera, vertices_BV3, pose_B3)
    covered = float((rasterise(point_BV3, head.triangle_T3, (SIZE_PX, SIZE_PX)).triangle_BHW >= 0).mean())

    def ours(layers: tuple[str, ...]) -> None:
        render(head, vertices_BV3, camera, pose_B3, albedo=albedo_BV3, light_B93=light_B93, size_px=SIZE_PX, layers=layers)

    found = {
        "colour": _milliseconds(lambda: ours(("colour",)), BATCH),
        "all_layers": _milliseconds(lambda: ours(("colour", "normals", "albedo", "lambert")), BATCH),
        "z_buffer": _milliseconds(lambda: rasterise(point_BV3, head.triangle_T3, (SIZE_PX, SIZE_PX)), BATCH),
        "z_buffer_plain_python": _milliseconds(lambda: _plain(point_BV3[0], head.triangle_T3), 1, rounds=1),
    }
    tensors = [torch.from_numpy(value).float() for value in (vertices_BV3[:1], albedo_BV3[:1], light_B93[:1])]
    one = Camera.weak(camera.scale_B[:1], camera.shift_B2[:1])
    try:
        found["pytorch3d"] = _milliseconds(lambda: render_pytorch3d(head, tensors[0], one, pose_B3[:1], albedo_BV3=tensors[1], light_B93=tensors[2], size_px=SIZE_PX), 1, rounds=1)
    except UserError as error:
        logging.info("%s", error)
    for name, ms in found.items():
        logging.info("%-22s %9.3f ms %10.1f/s", name, ms, 1000 / ms)
    machine = {"processor": platform.processor() or platform.machine(), "numba": numba.__version__, "numpy": np.__version__, "threads": 1}
    mesh = {"vertices": len(head.mean_V3), "triangles": len(head.triangle_T3), "size_px": SIZE_PX, "covered": covered, "batch": BATCH}
    passed = 1000 / found["colour"] >= GOAL_PER_S
    write_json(Path(__file__).parent / "results_raster.json", {"goal_per_s": GOAL_PER_S, "floor_ms": FLOOR_MS, "passed": passed, "machine": machine, "scene": mesh, "ms": found})


def _plain(point_V3: np.ndarray, triangle_T3: np.ndarray) -> None:
    shape = (SIZE_PX, SIZE_PX)
    fill.py_func(point_V3, triangle_T3, 0.0, np.full(shape, -1, np.int32), np.zeros((*shape, 3), np.float32), np.full(shape, -np.inf, np.float32))


def _milliseconds(call: Callable[[], object], pictures: int, rounds: int = ROUNDS) -> float:
    """Processor time of the fastest round, a picture; what else the machine does counts as little as it can."""
    if rounds > 1:
        call()
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times) / pictures * 1000


if __name__ == "__main__":
    main()
