"""Issue 11's targets for the demo of every generator, judged by dlib and by a recogniser that never saw an embedding of dlib's.

    python benchmarks/targets.py --work runs/targets [--generators uiface,id3] [--judge real.safetensors]

Each demo runs once as a user runs it (24 × 8, its own filter; an empty cache of descriptors, so that the time is a first run's) and is kept under --work by the
fingerprint of its job: the same line runs again only what changed (--fresh: all, for the time). "first" is the first bundled UIFace of the project's history, with the settings of its
own demo. Figures are of the images the demo's filters kept. Fréchet and kernel distances are of 125 people × 8 made the same way, kept or not: filters that
set whole people aside would leave each set another size. Axes: N images, I identities.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from honest_sides import DATA, OVERLAP, RECIPE, real_subset, score_of

from facefoundry.core.files import write_json
from facefoundry.core.images import to_float
from facefoundry.core.seeds import numpy_rng
from facefoundry.core.types import Embedder
from facefoundry.identity.dataset import FaceDataset
from facefoundry.identity.pairs import pair_histogram
from facefoundry.identity.sources import Faces, load_faces
from facefoundry.jobs.plan import make_plan
from facefoundry.jobs.spec import bundled_job, load_job
from facefoundry.quality.features import Features
from facefoundry.quality.frechet import fid, kid
from facefoundry.quality.leakage import leakage
from facefoundry.quality.metrics import dataset_figures, identity_centres
from facefoundry.quality.perceptual import mean_pair_distance
from facefoundry.recognition.embedder import embed_faces, load_embedder
from facefoundry.recognition.feature_maps import MobileFaceNetMaps
from facefoundry.recognition.train import RecogniserRecipe

HERE = Path(__file__).resolve().parent
FIRST_COMMIT = "820b189"
"""The commit that brought the first bundled weights; its demo job sampled as today's does."""

DEMOS = {"uiface": "demo-job.yaml", "id3": "demo-id3-job.yaml", "morphface": "demo-morphface-job.yaml", "lcm": "demo-lcm-job.yaml"}
PEOPLE = 24
"""Of a demo."""

REAL_IMAGES = 2000
"""Real faces that Fréchet and kernel distances are measured to."""

REAL_EACH = 8
"""Images of a real person that diversity is measured on: as many as a demo makes of its people."""

TARGETS = {"auc": (">=", 0.99), "fnmr_at_fmr_1pct": ("<=", 0.10), "diversity_over_real": (">=", 0.8), "fid_over_first": ("<=", 0.5), "seconds": ("<=", 180.0), "leaking_identities": ("<=", 0)}


def settings_of(name: str, work: Path) -> tuple[Path, list[str]]:
    """Return the job file of a demo and what is laid over it; the first bundled weights are taken from git's history."""
    if name != "first":
        return bundled_job(DEMOS[name]), []
    folder = work / "first"
    for file in ("weights/uiface-small.safetensors", "weights/autoencoder-small.safetensors", "recipes/demo-job.yaml"):
        path = folder / Path(file).name
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(subprocess.run(["git", "show", f"{FIRST_COMMIT}:{file}"], cwd=HERE.parent, capture_output=True, check=True).stdout)
    return folder / "demo-job.yaml", [f"generator.{part}={folder / f'{file}-small.safetensors'}" for part, file in (("denoiser", "uiface"), ("autoencoder", "autoencoder"))]


def demo(name: str, work: Path, fresh: bool, people: int = PEOPLE) -> tuple[Path, dict]:
    """Run a demo in a process of its own, or, unless it shall be `fresh`, find what such a run left; return its folder and what the run was.

    More people than a demo has may be as near to each other as a job's usually are (0.45): the pool holds 64 below the demo's 0.2.
    """
    job, more = settings_of(name, work)
    more = more if people == PEOPLE else [*more, f"identities.count={people}", "identities.max_cosine=null"]
    folder = work / f"{name}-{make_plan(load_job(job, more)).fingerprint[:8]}"
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    if fresh or not folder.with_suffix(".json").is_file():
        command = [str(Path(sys.executable).with_name("facefoundry")), "run", str(job), "--out", str(folder), "--json", *(word for setting in more for word in ("--set", setting))]
        begin_s, before = time.monotonic(), os.times()
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": cache}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        after = os.times()
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        write_json(folder.with_suffix(".json"), {"seconds": time.monotonic() - begin_s, "cpu_s": cpu_s, "cores": len(os.sched_getaffinity(0)), "counts": json.loads(done.stdout)["counts"]})
    return folder, json.loads(folder.with_suffix(".json").read_text())


def every_image(folder: Path) -> np.ndarray:
    """Return all images of a run, kept or rejected, in an order drawn once, uint8 (N, 112, 112, 3)."""
    parts = [FaceDataset.open(folder, part) for part in ("data", "rejected")]
    image_NHWC = np.concatenate([part.images(range(len(part))) for part in parts])
    return image_NHWC[numpy_rng(0, "order").permutation(len(image_NHWC))]


def independent(path: Path | None, work: Path, real: Faces) -> tuple[Embedder, str]:
    """Return the judge that knows nothing of dlib: a recogniser given, or one trained here on labels of real faces (300 people × 8, about two minutes)."""
    if path is None:
        path = work / "judge" / "recogniser.safetensors"
        if not path.is_file():
            score_of(real_subset(real, 300, 8), RecogniserRecipe.load(RECIPE, ["seed=0"]), path.parent)
    return load_embedder(str(path)), "recipes/recogniser-small.yaml on the labels of 2,400 real faces (300 people × 8)"


def real_threshold(embedder: Embedder, faces: Faces, fmr: float = 1e-3) -> float:
    """Cosine that the share `fmr` of pairs of different real people reach; people that no judge was trained on (LFW folds 7-8)."""
    return pair_histogram(embed_faces(embedder, faces.image_NHWC), faces.identity_N).threshold_at_fmr(fmr)


def perceptual(faces: Faces, network: MobileFaceNetMaps) -> float:
    """Mean over people of the mean perceptual distance of their images (`quality.perceptual`: LPIPS's form on the maps of mobilefacenet-small)."""
    rows = (np.flatnonzero(faces.identity_N == i) for i in range(len(faces.names)))
    return float(np.nanmean([mean_pair_distance(network.maps(to_float(faces.image_NHWC[row]))) for row in rows if len(row) > 1]))


def pixels(faces: Faces) -> float:
    """Mean over people of the root mean square difference of two of their images, in units of [-1, 1]."""
    found = []
    for i in range(len(faces.names)):
        flat = to_float(faces.image_NHWC[faces.identity_N == i]).flatten(1).double()
        pair = np.triu_indices(len(flat), 1)
        found += [float((flat[pair[0]] - flat[pair[1]]).square().mean(1).sqrt().mean())] if len(flat) > 1 else []
    return float(np.mean(found))


class Reference:
    """What every demo is measured against, computed once: real faces, their embeddings and features, thresholds."""

    def __init__(self, real: Faces, held_out: Faces, judge: Embedder, images: int) -> None:
        self.judges = {"dlib": load_embedder("dlib"), "independent": judge}
        self.real_embed_ND = embed_faces(self.judges["dlib"], real.image_NHWC)
        self.centre_RD = identity_centres(self.real_embed_ND, real.identity_N)[0]
        self.thresholds = {"dlib": 0.58, "independent": real_threshold(judge, held_out)}
        self.maps, self.eyes = MobileFaceNetMaps(), {"independent": Features(judge), "mobilefacenet-small": Features(load_embedder("mobilefacenet-small"))}
        self.images = images
        drawn = numpy_rng(0, "targets").permutation([row for row, name in enumerate(real.identity_N) if real.names[name] not in OVERLAP])
        # Two draws: what a demo is compared with, and equally many other real faces, whose distance is what the size alone gives.
        self.base = {name: see(real.image_NHWC[drawn[:REAL_IMAGES]]).penultimate_NF for name, see in self.eyes.items()}
        self.floor = self.distances(real.image_NHWC[drawn[REAL_IMAGES : REAL_IMAGES + images]])
        people = int((np.bincount(real.identity_N) >= REAL_EACH).sum()) - 1
        several = real_subset(real, people, REAL_EACH)
        self.diversity = {"people": people, "perceptual": perceptual(several, self.maps), "pixels": pixels(several), "dispersion": dataset_figures(embed_faces(self.judges["dlib"], several.image_NHWC), several.identity_N, threshold=0.58).dispersion}

    def distances(self, image_NHWC: np.ndarray) -> dict[str, float]:
        """Fréchet and kernel distance to REAL_IMAGES real faces in two feature networks."""
        found = {}
        for name, see in self.eyes.items():
            rows = see(image_NHWC[: self.images]).penultimate_NF
            found |= {f"fid {name}": fid(rows, self.base[name]), f"kid {name}": kid(rows, self.base[name])[0]}
        return found


def measure(faces: Faces, run: dict, many_NHWC: np.ndarray, ref: Reference) -> dict:
    """Every figure of one demo; the distances of `many_NHWC`, made as the demo is."""
    result: dict = {"seconds": run["seconds"], "cpu_s": run["cpu_s"], "cores": run["cores"], "kept": len(faces), "people": len(faces.names), "generated": run["counts"]["generated"]}
    embed = {name: embed_faces(judge, faces.image_NHWC) for name, judge in ref.judges.items()}
    for name, embed_ND in embed.items():
        found = dataset_figures(embed_ND, faces.identity_N, threshold=ref.thresholds[name])
        result[name] = {key: getattr(found, key) for key in ("auc", "fnmr_at_fmr_1pct", "mated_mean", "non_mated_mean", "close_identities", "dispersion", "nearest_centre_max", "threshold")}
        result[name]["pairs_of_identities"] = len(faces.names) * (len(faces.names) - 1) // 2
    own = {"perceptual": perceptual(faces, ref.maps), "pixels": pixels(faces), "dispersion": result["dlib"]["dispersion"]}
    result["diversity"] = {key: {"value": value, "over_real": value / ref.diversity[key]} for key, value in own.items()}
    result["distances"] = ref.distances(many_NHWC)
    centre_ID = identity_centres(embed["dlib"], faces.identity_N)[0]
    leaks = leakage(embed["dlib"], centre_ID, ref.centre_RD, fmr=1e-3)
    nearest_I = np.array([(embed["dlib"][faces.identity_N == i] @ ref.real_embed_ND.T).max() for i in range(len(faces.names))])
    result["leakage"] = {
        "threshold": leaks.threshold, "identities_that_match_a_person": int((leaks.centre_cosine_I >= leaks.threshold).sum()), "highest_identity": float(leaks.centre_cosine_I.max()),
        "images_that_match_a_person": int((leaks.cosine_N >= leaks.threshold).sum()), "people": leaks.people, "rate": leaks.centre_rate, "chance_hit": leaks.chance_hit,
        "nearest_face_median": float(np.median(nearest_I)), "nearest_face_highest": float(nearest_I.max()), "identities_with_an_image_that_matches_a_face": int((nearest_I >= leaks.threshold).sum()),
    }  # fmt: skip
    return result


def judged(result: dict, first: dict | None) -> dict:
    """The targets' figures of one demo and whether each is reached; Fréchet distance by the independent network's features."""
    value = {
        "auc": result["dlib"]["auc"], "fnmr_at_fmr_1pct": result["dlib"]["fnmr_at_fmr_1pct"], "diversity_over_real": result["diversity"]["perceptual"]["over_real"],
        "fid_over_first": result["distances"]["fid independent"] / first["distances"]["fid independent"] if first else None,
        "seconds": result["seconds"], "leaking_identities": result["leakage"]["identities_that_match_a_person"],
    }  # fmt: skip
    reached = {key: None if value[key] is None else (value[key] >= bar if sign == ">=" else value[key] <= bar) for key, (sign, bar) in TARGETS.items()}
    return {key: {"value": value[key], "target": f"{TARGETS[key][0]} {TARGETS[key][1]:g}", "reached": reached[key]} for key in TARGETS}


def ratios(own: dict[str, float], first: dict[str, float], floor: dict[str, float]) -> dict[str, float]:
    """Distances over the first model's; "less floor": after what equally many real faces have is taken off both, which is about the bias of a small set."""
    plain = {kind: own[kind] / first[kind] for kind in own}
    return plain | {f"{kind} less floor": (own[kind] - floor[kind]) / (first[kind] - floor[kind]) for kind in own if kind.startswith("fid")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/targets"))
    parser.add_argument("--generators", default=",".join(DEMOS), help="of " + ", ".join(DEMOS))
    parser.add_argument("--people", type=int, default=125, help="people of the sets that Fréchet and kernel distances are taken of, else made as the demo is: the demo's own 24 leave mostly the bias of a small set")
    parser.add_argument("--fresh", action="store_true", help="run every demo anew, for its time")
    parser.add_argument("--judge", type=Path, help="a recogniser that never saw an embedding of dlib's; left out, one is trained")
    parser.add_argument("--real", type=Path, default=DATA / "train112.zip")
    parser.add_argument("--held-out", type=Path, default=DATA / "lfw_folds7_8.zip")
    parser.add_argument("--out", type=Path, default=HERE / "results_targets.json")
    options = parser.parse_args()
    names = ("first", *options.generators.split(","))
    demos = {name: demo(name, options.work, options.fresh) for name in names}
    many = {name: every_image(demo(name, options.work, False, options.people)[0]) for name in names}
    real = load_faces(options.real)
    judge, words = independent(options.judge, options.work, real)
    ref = Reference(real, load_faces(options.held_out), judge, min(map(len, many.values())))
    found = {name: measure(load_faces(folder), run, many[name], ref) for name, (folder, run) in demos.items()}
    for name, result in found.items():
        first = None if name == "first" else found["first"]
        result["targets"] = judged(result, first)
        result["over_first"] = ratios(result["distances"], first["distances"], ref.floor) if first else {}
    write_json(options.out, {"independent": words, "first_commit": FIRST_COMMIT, "people": options.people, "images": ref.images, "real_diversity": ref.diversity, "real_floor": ref.floor, "real_images": REAL_IMAGES, "demos": found})
    for name, result in found.items():
        print(name, json.dumps(result["targets"]), flush=True)


if __name__ == "__main__":
    main()
