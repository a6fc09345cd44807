"""What the job machinery costs: writing against the encoder's own limit, a plan of a million rows, the status of 10,000 shards, overhead an image.

Run: `python benchmarks/jobs.py` (about a minute). Bars: writing ≥ 90 % of the encoder alone, a million rows planned in under 10 s, status under
1 s, machinery ≤ 3 % of the time the fastest bundled generator needs. Floor: an image must at least be encoded and its bytes hashed once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from facefoundry.core.files import write_json
from facefoundry.core.images import decode, encode_jpeg, encode_png, to_float
from facefoundry.jobs.make_images import make_images
from facefoundry.jobs.plan import Plan, open_job, read_anchors
from facefoundry.jobs.run import job_status, plan_summary
from facefoundry.jobs.shards import Stage
from facefoundry.jobs.spec import JobSpec, bundled_job, load_job
from facefoundry.jobs.steps import GenerateStep, open_generator, record_of

SHARDS = 10_000


def fastest(make, rounds: int = 3) -> float:
    """Return the least time of some calls, in seconds."""
    times = []
    for _ in range(rounds):
        begin_s = time.perf_counter()
        make()
        times.append(time.perf_counter() - begin_s)
    return min(times)


def faces(count: int) -> np.ndarray:
    """Return real output of the few-step generator, repeated: noise would be slower to encode than faces are."""
    spec = load_job(bundled_job("demo-lcm-job.yaml"), ["identities.count=8", "per_identity=4"])
    with tempfile.TemporaryDirectory() as folder:
        plan = open_job(Path(folder) / "job", spec, "cpu")
        anchor_ID = read_anchors(Path(folder) / "job")
        images, _ = make_images(plan, open_generator(plan, anchor_ID), anchor_ID, [(i, k) for i in range(8) for k in range(4)])
    return np.stack([images[row % len(images)][-1] for row in range(count)])


def writing(image_NHWC: np.ndarray, form: str) -> dict[str, float]:
    """Images a second: the encoder alone, and records encoded and written as a Parquet shard that is synced."""
    from facefoundry.identity.dataset import write_shard

    encode = encode_png if form == "png" else (lambda image_HWC: encode_jpeg(image_HWC, 95))
    spec = load_job(bundled_job("demo-job.yaml"), [f"writer.format={form}"])
    plan = Plan(spec=spec, fingerprint="0" * 64, materials={}, device="cpu", versions={}, shards=())
    anchor_ID = np.zeros((1, 128), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        alone = fastest(lambda: [encode(image) for image in image_NHWC])
        whole = fastest(lambda: write_shard(Path(folder) / "x.parquet", [record_of(plan, "uiface", anchor_ID, 0, row, row, {}, image) for row, image in enumerate(image_NHWC)]))
    return {"encoder_per_s": len(image_NHWC) / alone, "written_per_s": len(image_NHWC) / whole, "share_of_encoder": alone / whole}


def planning() -> float:
    """Seconds to plan 20,000 people of 50 images."""
    spec = load_job(bundled_job("demo-job.yaml"), ["identities.source=uniform", "identities.count=20000", "per_identity=50"])
    return fastest(lambda: plan_summary(spec))


def status(folder: Path) -> float:
    """Seconds to tell the state of a job with 10,000 shards done."""
    spec = load_job(bundled_job("demo-job.yaml"), ["identities.source=uniform", "identities.max_cosine=0.95", f"identities.count={SHARDS}", "per_identity=1", "writer.shard_identities=1"])
    open_job(folder, spec, "cpu")
    stage = Stage(root=folder, name="generate")
    stage.repair([])
    for shard in range(SHARDS):
        write_marker(stage, shard)
    return fastest(lambda: job_status(folder))


def write_marker(stage: Stage, shard: int) -> None:
    """A marker as a run leaves it, without the sync of each."""
    text = json.dumps({"shard": shard, "files": {}, "rows": 1, "failed": [], "wall_s": 0.1, "face_id": [f"{shard:06d}/0000"]})
    (stage.folder / "done" / f"{shard:05d}.json").write_text(text)


def overhead(image_NHWC: np.ndarray) -> dict[str, float]:
    """Milliseconds an image that are not the generator's: the generate step around a generator that costs nothing; and the share of the fastest one."""
    spec = load_job(bundled_job("demo-lcm-job.yaml"), ["identities.count=8", "per_identity=16"])
    with tempfile.TemporaryDirectory() as folder:
        plan = open_job(Path(folder) / "job", spec, "cpu")
        step, anchor_ID = GenerateStep(folder=Path(folder) / "job", lease_s=30.0), read_anchors(Path(folder) / "job")
        step.stage.repair([0])
        real = open_generator(plan, anchor_ID)
        rows = [(0, k) for k in range(16)]
        generating = fastest(lambda: make_images(plan, real, anchor_ID, rows), rounds=2) / len(rows)
        free = _Free(image_NHWC)
        around = fastest(lambda: step._make(plan, free, anchor_ID, plan.shards[0])) / plan.images
    return {"machinery_ms": 1e3 * around, "generating_ms": 1e3 * generating, "share": around / generating}


class _Free:
    """A generator that costs nothing: faces that were made before."""

    name, anchor_dim = "free", 128

    def __init__(self, image_NHWC: np.ndarray) -> None:
        self.image_NCHW = to_float(image_NHWC)

    def generate(self, anchor_BD, seeds):
        from facefoundry.core.types import FaceBatch

        return FaceBatch(image_BCHW=self.image_NCHW[: len(seeds)], seeds=tuple(seeds), passes_B=(1,) * len(seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results_jobs.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    image_NHWC = faces(512)
    assert np.array_equal(decode(encode_png(image_NHWC[0])), image_NHWC[0])
    result = {"png": writing(image_NHWC, "png"), "jpeg": writing(image_NHWC, "jpeg"), "plan_million_rows_s": planning(), "overhead": overhead(image_NHWC)}
    with tempfile.TemporaryDirectory() as folder:
        result["status_10000_shards_s"] = status(Path(folder) / "job")
    write_json(options.out, result)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
