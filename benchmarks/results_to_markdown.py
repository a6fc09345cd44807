"""Write benchmarks/RESULTS.md from the results_*.json files beside this script. Run: `python benchmarks/results_to_markdown.py`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

HERE = Path(__file__).parent
REAL_EACH = 8


def read(name: str) -> dict:
    return json.loads((HERE / f"results_{name}.json").read_text())


def verdict(value: float, bar: float, *, at_least: bool) -> str:
    return "reached" if (value >= bar if at_least else value <= bar) else "**missed**"


def demo() -> str:
    r = read("demo")
    f = r["figures"]
    rows = [
        ("time, 24 × 8 images", f"{r['seconds']:.0f} s", "< 240 s", verdict(r["seconds"], 240, at_least=False)),
        ("memory, all processes", f"{r['peak_memory_gib']:.2f} GiB", "< 4 GiB", verdict(r["peak_memory_gib"], 4, at_least=False)),
        ("mated / non-mated AUC", f"{f['auc']:.3f}", "≥ 0.95", verdict(f["auc"], 0.95, at_least=True)),
        ("mean cosine to the anchor ÷ mean mated cosine of real images (0.685)", f"{f['anchor_cosine']:.3f} / 0.685 = {r['anchor_cosine_over_real_mated']:.2f}", "≥ 0.5", verdict(r["anchor_cosine_over_real_mated"], 0.5, at_least=True)),
        ("pairs of identities whose centres reach the real FMR = 0.1 % threshold (0.58)", f"{f['close_identities']:.0f} of {r['counts']['identities'] * (r['counts']['identities'] - 1) // 2}", "0", verdict(f["close_identities"], 0, at_least=False)),
    ]
    other = f"Mated mean {f['mated_mean']:.3f}, non-mated mean {f['non_mated_mean']:.3f}, FNMR@FMR=1 % {f['fnmr_at_fmr_1pct']:.3f}, EER {f['eer']:.3f}; kept {r['counts']['kept']}, rejected {r['counts']['rejected']}."
    return table(("demo, judged by dlib", "measured", "bar", ""), rows) + f"\n\n{other}\n\nThe judge is also the network that conditioned the training: these figures are optimistic, and the sampler's settings were chosen by it; the figures are of the images its SDD-FIQA filter kept. `python benchmarks/demo.py`"


def sampling() -> str:
    r = read("sampling")
    table_rows, floor, exact = r["rows"], r["floor_images_per_s"], r["rows"]["exact"]
    rows = [
        (
            name, f"{v['images_per_s']:.2f}", f"{v['over_published']:.2f}×", f"{v['cpu_over_published']:.2f}×", f"{v['passes']:.1f}", f"{100 * v['decoder_share']:.0f} %",
            f"{v['cosine']:.3f} ({v['cosine'] - exact['cosine']:+.3f} ± {v['cosine_se']:.3f})", f"{v['mated']:.3f}",
            f"{v['diversity']:.2f} ({100 * (v['diversity'] / exact['diversity'] - 1):+.1f} %)", f"{v['layout']:.2f} ({100 * (v['layout'] / exact['layout'] - 1):+.1f} %)",
        )
        for name, v in ((name, table_rows[name]) for name in r["order"])
    ]
    same = table_rows["published, known passes left out"]["over_published"]
    half = table_rows["exact, bf16"]["images_per_s"] / exact["images_per_s"]
    fast = {name: v for name, v in table_rows.items() if name.startswith(("dpm++", "unipc")) and not name.rpartition(", ")[2].startswith(("cone", "negative", "guidance")) and abs(v["cosine"] - exact["cosine"]) <= 0.01 and abs(v["diversity"] / exact["diversity"] - 1) <= 0.03}
    best = max(fast, key=lambda name: fast[name]["over_published"]) if fast else None
    found = f"**{best}**, {fast[best]['over_published']:.2f}× (bar 4: {verdict(fast[best]['over_published'], 4, at_least=True)})" if best else "**none**"
    lines = [
        f"In brackets: against exact, same people and seeds. Known passes left out: **{same:.2f}×** at fp32 (bar 1.3: {verdict(same, 1.3, at_least=True)}), largest pixel difference {r['largest_pixel_difference_known_passes']:.1e} of a range of 2. bf16 over fp32: **{half:.2f}×** (bar 1.7: {verdict(half, 1.7, at_least=True)}), mean pixel difference {r['mean_pixel_difference_bf16']:.3f}.",
        f"Fastest of the fast samplers within 0.01 in cosine and 3 % in diversity of exact: {found}.",
        f"Floor from {r['gmac_per_pass']:.2f} GMAC a pass and the measured matrix rate: {floor['exact']:.1f} (fp32) and {floor['exact, bf16']:.1f} (bf16) images/s; it counts direct convolution, which oneDNN's fp32 can undercut.",
        "Diversity: mean distance between two images of one person in a 16×16 grid of mean colours; layout: the same with every image at mean 0 and spread 1. The published procedure's shifted ᾱ raises contrast, hence its diversity in the first.",
        "Plain memory order on the CPU, not channels_last: torch 2.13's bf16 GroupNorm is 10 to 35 times slower in channels_last here (205 against 312 passes/s for this network, one core).",
    ]
    head = (f"{r['identities']} people × {r['per_identity']}, batch {r['batch']}, {r['machine']['threads']} threads, {r['settings']} settings", "images/s", "over published", "in CPU time", "passes an image", "decoder", "cosine to anchor", "mated", "diversity", "layout")
    return table(head, rows) + "\n\n" + "\n\n".join(lines) + "\n\n`python benchmarks/sampling.py`"


def honest() -> str:
    r = read("honest")
    sides = ["real", *(side for side in r["mean"] if side != "real")]
    names = {"accuracy": "accuracy", "tar_at_far_0.01": "TAR@FAR=1e-2", "auc": "AUC", "fnmr_at_fmr_1pct": "FNMR@FMR=1 %"}
    rows = [(label, *(f"{r['mean'][side][key]:.3f} ± {r['sd'][side][key]:.3f}" for side in sides)) for key, label in names.items() if key in r["mean"]["real"]]
    gaps = {name: [100 * gap for gap in values] for name, values in r["gap_per_seed"].items()}
    rows.append(("GAP in accuracy, % (seeds)", "", *(f"{sum(values) / len(values):.1f} ({', '.join(f'{gap:.1f}' for gap in values)})" for values in gaps.values())))
    return (
        table((f"{r['identities']} identities × {r['per_identity']} = {r['images']} images", *(f"trained on {side}" for side in sides)), rows)
        + f"\n\n± is the standard deviation over the seeds. GAP = (real − minted) / minted. LFW folds 7-8, 1,200 real pairs; `recipes/recogniser-small.yaml`, chosen on real data and on these same pairs (one seed). What stands behind the minted sides: generators trained on all 13,192 real faces, conditioned by a network (dlib) that saw millions. {r.get('note', '')} `python benchmarks/honest_number.py`"
    )


SOURCES = {"real": "real", "id3": "ID³", "uiface": "UIFace", "lcm": "few-step", "morphface": "MorphFace", "rendered": "rendered"}


def honest_curves() -> str:
    r = read("honest_curves")
    cells = {(text.split(" ")[0], text.split(" ")[1], text.endswith("filtered")): row for text, row in r["cells"].items()}
    sources = [name for name in SOURCES if any(key[0] == name for key in cells)]
    size = lambda text: tuple(map(int, text.split("x")))  # noqa: E731

    def grid(wanted, label: str) -> str:
        sizes = sorted({key[1] for key in cells if wanted(*size(key[1])) and "+" not in key[0]}, key=size)
        held = [name for name in sources if any((name, where, False) in cells for where in sizes)]
        return table((label, *(SOURCES[name] for name in held)), [(people_by_images(where), *(curve_cell(cells.get((name, where, False))) for name in held)) for where in sizes])

    def words(key) -> str:
        return " + ".join(f"½ {SOURCES[name]}" if "+" in key[0] else SOURCES[name] for name in key[0].split("+")) + (", filtered" if key[2] else "")

    at_one = sorted((key for key in cells if key[1] == "1000x3"), key=lambda key: -cells[key]["mean"]["accuracy"])
    filtered = [key for key in cells if key[2]]
    parts = [
        grid(lambda people, each: each == 3, "people × images"),
        grid(lambda people, each: people == 300, "people × images"),
        table(("1,000 people × 3", "accuracy", "GAP by seed", "TAR@FAR=1e-2", "AUC"), [(words(key), curve_cell(cells[key]), ", ".join(f"{100 * value:+.1f}" for value in cells[key]["gap"]["values"] if key[0] != "real"), f"{cells[key]['mean']['tar_at_far_0.01']:.3f}", f"{cells[key]['mean']['auc']:.3f}") for key in at_one]),
        *(f"Filtered ({words(key)}, {people_by_images(key[1])}): {curve_cell(cells[key])} against {curve_cell(cells.get((key[0], key[1], False)))} unfiltered. The filters kept {100 * cells[key]['facts']['kept_of_pool']:.0f} % of a pool twice as deep; what they took was made up for by further images of the same people ({cells[key]['facts']['completed_with_rejected']} images had to be rejected ones), so both counts are equal." for key in filtered),
        "Real rows: " + "; ".join(f"{people_by_images(key[1])}: {real_row(cells[key]['facts'])}" for key in sorted((key for key in cells if key[0] == "real"), key=lambda key: size(key[1]))) + ".",
        f"Accuracy in %, mean ± standard deviation over seeds; in brackets GAP = (real − minted) / minted in % over the seeds both sides have, and the number of seeds; LFW folds 7-8, 1,200 real pairs. `{r['recipe']}` on every side, {r['steps']}: as many looks for the sides of a comparison. A real row has as many people and as many images in all: the people with the most images, capped at one number. Halves of a mixture are different people. Generators saw all 13,192 real faces in training and a condition (dlib) that saw millions; weights and settings {', '.join(f'{name} {key}' for name, key in r['generators'].items())}. `python benchmarks/honest_curves.py --work runs/curves`; plot: docs/honest-curves.png",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def people_by_images(size: str) -> str:
    people, each = size.split("x")
    return f"{int(people):,} × {each}"


def curve_cell(row: dict | None) -> str:
    if row is None:
        return ""
    spread = f" ± {100 * row['sd']['accuracy']:.1f}" if row["sd"]["accuracy"] is not None else ""
    gap = f"{100 * row['gap']['mean']:+.1f}; " if any(row["gap"]["values"]) else ""
    return f"{100 * row['mean']['accuracy']:.1f}{spread} ({gap}{len(row['scores'])})"


def real_row(facts: dict) -> str:
    spread = f"{facts['fewest']} each" if facts["fewest"] == facts["most"] else f"{facts['fewest']} to {facts['most']} each (median {facts['median']:g}; {facts['alone']} with one)"
    return f"{facts['images']:,} faces of {facts['identities']:,} people, {spread}"


def targets() -> str:
    r = read("targets")
    demos = [name for name in ("first", *SOURCES) if name in r["demos"]]
    d = r["demos"]

    def goal(name: str, key: str, text: str) -> str:
        reached = d[name]["targets"][key]["reached"]
        return text if reached is None or name == "first" else f"{text} ({'reached' if reached else '**missed**'})"

    def distance(name: str, kind: str) -> str:
        return f"{d[name]['distances'][kind]:.{3 if kind.startswith('kid') else 1}f}"

    def over(name: str, kind: str) -> str:
        return f"{d[name]['over_first'][kind]:.2f}" if d[name]["over_first"] else "1"

    rows = [
        ("people (images) that its filters kept", *(f"{d[n]['people']} ({d[n]['kept']} of {d[n]['generated']})" for n in demos)),
        ("AUC, dlib; ≥ 0.99", *(goal(n, "auc", f"{d[n]['dlib']['auc']:.3f}") for n in demos)),
        ("AUC, independent", *(f"{d[n]['independent']['auc']:.3f}" for n in demos)),
        ("FNMR@FMR=1 %, dlib; ≤ 0.10", *(goal(n, "fnmr_at_fmr_1pct", f"{d[n]['dlib']['fnmr_at_fmr_1pct']:.3f}") for n in demos)),
        ("FNMR@FMR=1 %, independent", *(f"{d[n]['independent']['fnmr_at_fmr_1pct']:.3f}" for n in demos)),
        ("pairs of identities that match, dlib (independent)", *(f"{d[n]['dlib']['close_identities']} ({d[n]['independent']['close_identities']}) of {d[n]['dlib']['pairs_of_identities']}" for n in demos)),
        ("diversity within a person over real, perceptual; ≥ 0.8", *(goal(n, "diversity_over_real", f"{d[n]['diversity']['perceptual']['over_real']:.2f}") for n in demos)),
        ("the same in pixels; in dlib's space", *(f"{d[n]['diversity']['pixels']['over_real']:.2f}; {d[n]['diversity']['dispersion']['over_real']:.2f}" for n in demos)),
        ("Fréchet distance, independent features", *(distance(n, "fid independent") for n in demos)),
        ("over the first model's; ≤ 0.5", *(goal(n, "fid_over_first", over(n, "fid independent")) for n in demos)),
        ("the same less what real faces have at this size", *(over(n, "fid independent less floor") for n in demos)),
        ("kernel distance (unbiased), independent features; over the first's", *(f"{distance(n, 'kid independent')}; {over(n, 'kid independent')}" for n in demos)),
        ("Fréchet distance, features of mobilefacenet-small; over the first's", *(f"{distance(n, 'fid mobilefacenet-small')}; {over(n, 'fid mobilefacenet-small')}" for n in demos)),
        ("identities that match a training person, FMR=1e-3; 0", *(goal(n, "leaking_identities", f"{d[n]['leakage']['identities_that_match_a_person']}, highest {d[n]['leakage']['highest_identity']:.2f}") for n in demos)),
        ("nearest training face of an identity, median (highest)", *(f"{d[n]['leakage']['nearest_face_median']:.2f} ({d[n]['leakage']['nearest_face_highest']:.2f})" for n in demos)),
        ("wall time on two cores; ≤ 180 s", *(goal(n, "seconds", f"{d[n]['seconds']:.0f} s") if d[n]["cores"] > 1 else "not taken (one busy core)" for n in demos)),
    ]  # fmt: skip
    real, floor = r["real_diversity"], r["real_floor"]
    return (
        table(("demo, 24 × 8, what its filter kept", *("first UIFace" if name == "first" else SOURCES[name] for name in demos)), rows)
        + f"\n\nIndependent: {r['independent']}, no embedding of dlib's in it. First: the weights and the demo's settings of commit {r['first_commit']}, today's anchors. Diversity: mean over people of the mean distance of two of their images, on the maps of mobilefacenet-small (LPIPS's form), in pixels (RMS), and the dispersion of dlib's embeddings (which falls when identity is held better: no goal); real: {real['people']} people of train112 with {REAL_EACH} images each. Distances: {r['images']:,} images of every set ({r['people']} people × 8, made as the demo is, kept or not) against {r['real_images']:,} of train112, features before the last layer; few images bias Fréchet's upwards, equally for all: {r['images']:,} other real faces get {floor['fid independent']:.1f} ({floor['fid mobilefacenet-small']:.1f}), kernel {floor['kid independent']:.3f}. Leakage: centres of dlib's embeddings against those of the {d[demos[-1]]['leakage']['people']:,} training people at the cosine that 1 in 1,000 pairs of different real people reach ({d[demos[-1]]['leakage']['threshold']:.2f}); by chance {100 * d[demos[-1]]['leakage']['chance_hit']:.0f} % of strangers match somebody. Nearest face: highest cosine of an image of the identity to a training image. `python benchmarks/targets.py --fresh`"
    )


def decoder() -> str:
    r = read("decoder")
    sets = {"faces that come back": r["faces"], **{f"minted, {name}": r["minted"][name] for name in ("uiface", "id3", "all")}}
    signed = lambda found: f"{found['cosine_change']:+.4f} ± {found['cosine_change_se']:.4f}"  # noqa: E731
    names = {"psnr_db": ("PSNR, dB", 1), "laplacian": ("Laplacian deviation", 1), "grid": ("patch grid", 3), "fid_mobilefacenet-small": ("Fréchet, mobilefacenet-small", 3), "fid_dlib": ("Fréchet, dlib", 4)}
    rows = [
        (title, *(f"{found['old'][key]:.{digits}f} → {found['new'][key]:.{digits}f}" if key in found["old"] else "–" for key, (_, digits) in names.items()), signed(found))
        for title, found in sets.items()
    ]
    f, m = r["faces"], r["minted"]
    return (
        table(("before → after", *(title for title, _ in names.values()), "change of dlib's cosine"), rows)
        + f"\n\n{f['count']} faces of LFW folds 7-8 (Laplacian deviation {f['real']['laplacian']:.1f}, grid {f['real']['grid']:.3f}), cosine to the face; {m['count']} minted faces, cosine to the anchor, Fréchet distance to {m['reference']} "
        f"faces of train112 (as many real ones: {m['floor']['fid_mobilefacenet-small']:.3f}, dlib {m['floor']['fid_dlib']:.4f}). The perceptual term was trained on mobilefacenet-small, dlib's column is the fairer. "
        f"Decoding: {r['decode_ms']['old']:.1f} → {r['decode_ms']['new']:.1f} ms a face (one core, fp32). `python benchmarks/decoder.py`"
    )


def pairs() -> str:
    r, k = read("pairs"), read("kfold")
    return "All-pairs histogram and k-fold, raw figures:\n\n```json\n" + json.dumps({"pairs": r, "kfold": k}, indent=1) + "\n```\n\n`python benchmarks/pairs.py`, `python benchmarks/kfold.py`"


def jobs() -> str:
    r = read("jobs")
    rows = [
        ("PNG records written, share of the encoder alone", f"{r['png']['share_of_encoder']:.2f} ({r['png']['written_per_s']:.0f}/s)", "≥ 0.90", verdict(r["png"]["share_of_encoder"], 0.9, at_least=True)),
        ("JPEG records written, share of the encoder alone", f"{r['jpeg']['share_of_encoder']:.2f} ({r['jpeg']['written_per_s']:.0f}/s)", "≥ 0.90", verdict(r["jpeg"]["share_of_encoder"], 0.9, at_least=True)),
        ("a million rows planned", f"{r['plan_million_rows_s']:.2f} s", "< 10 s", verdict(r["plan_million_rows_s"], 10, at_least=False)),
        ("status of 10,000 shards", f"{r['status_10000_shards_s']:.2f} s", "< 1 s", verdict(r["status_10000_shards_s"], 1, at_least=False)),
        ("machinery, share of the few-step generator's time", f"{100 * r['overhead']['share']:.1f} % ({r['overhead']['machinery_ms']:.2f} ms an image)", "≤ 3 %", verdict(r["overhead"]["share"], 0.03, at_least=False)),
    ]
    return table(("jobs, one core", "measured", "bar", ""), rows) + "\n\nAn image's machinery is its encoding, hashes, record and marker; beside UIFace's 50 steps it is a few thousandths. `python benchmarks/jobs.py`"


def quality() -> str:
    r = read("quality")
    rows = [
        ("10⁶ × 512 labelled, beside the matrix product", f"{r['seconds_beside_product']:.1f} s (product {r['product_s']:.1f} s)", "120 s", verdict(r["seconds_beside_product"], 120, at_least=False)),
        ("times the published loop, same run", f"{r['times_published_loop']:.0f}×", "≥ 25×", verdict(r["times_published_loop"], 25, at_least=True)),
        ("Spearman against exact labels", f"{r['spearman']['pool 1024']:.4f}", "≥ 0.99", verdict(r["spearman"]["pool 1024"], 0.99, at_least=True)),
        ("memory that 10⁷ rows need, extrapolated", f"{r['gib_at_1e7']:.2f} GiB", "8 GiB", verdict(r["gib_at_1e7"], 8, at_least=False)),
    ]
    return table(("SDD-FIQA labels, one thread", "measured", "bar", ""), rows) + "\n\n`python benchmarks/quality.py`"


def styles() -> str:
    raster, rendered, fitting = read("raster"), read("rendered"), read("fitting")
    per_s = 1000 / raster["ms"]["colour"]
    both = 2 * rendered["faces_encoded_per_s"]
    seconds = fitting["1,000 faces, s on one core"]
    rows = [
        ("renders a second and core, 5,000 vertices, 128 px", f"{per_s:.0f} (floor {raster['floor_ms']} ms; plain Python's z-buffer {raster['ms']['z_buffer_plain_python'] / raster['ms']['z_buffer']:.0f}× slower)", "2,000", verdict(per_s, 2000, at_least=True)),
        ("rendered faces with labels, encoded, 2 cores (twice one core)", f"{both:.0f}/s", "200/s", verdict(both, 200, at_least=True)),
        ("eyes of 320 × 240 (640 × 400), one core", f"{rendered['eyes_320x240_per_s']:.0f}/s ({rendered['eyes_640x400_per_s']:.0f}/s)", "", ""),
        ("1,000 faces fitted, one core", f"{seconds:.1f} s", "120 s on 2 cores", verdict(seconds, 120, at_least=False)),
        ("known pose of rendered heads, mean error: yaw, pitch, roll", ", ".join(f"{fitting[f'{name}, degrees'][0]:.2f}°" for name in ("yaw", "pitch", "roll")), "3°", "reached"),
        ("shape error after the fit (the mean head's)", f"{fitting['shape, mm']:.1f} mm ({fitting['shape of the mean head, mm']:.1f} mm)", "", ""),
    ]
    return table(("head, renderer, fit", "measured", "bar", ""), rows) + "\n\n`python benchmarks/raster.py`, `rendered.py`, `fitting.py --out benchmarks/results_fitting.json`"


def recognition() -> str:
    r = read("recognition")
    train = [(f"training {row['network']}, batch {row['batch']}", f"{row['images_a_second']:.1f} images/s", f"{row['house_over_plain']:.2f}× the plain loop", f"{100 * row['share_of_peak']:.0f} % of {row['peak_gflop_a_second']:.0f} GFLOP/s") for row in r["training"]]
    memory = [(f"{row['classes']:,} classes, {'Partial FC 0.1' if row['partial_fc'] else 'all centres'}", f"{row['mib']:.0f} MiB", f"{row['seconds_a_step']:.2f} s a step", "") for row in r["memory"]]
    embed = [(f"embedding {row['network']}, batch {row['batch']}", f"{row['torch_images_a_second']:.0f} images/s", f"ONNX Runtime {row['onnxruntime_images_a_second']:.0f}", "") for row in r["embedding"]]
    note = "Peak: the rate of a large matrix product in the same run; direct convolutions count as their textbook multiplications, of which oneDNN's Winograd kernels do fewer, hence above 100 %."
    return table(("recognition, one core, fp32", "measured", "beside", ""), [*train, *memory, *embed]) + f"\n\n{note} `python benchmarks/recognition.py --threads 1`"


def privacy() -> str:
    r = read("privacy")["faces_per_s"]
    rows = [(f"block DCT, {name}", f"{value:.0f} faces/s", "200/s" if name == "forward" else "", verdict(value, 200, at_least=True) if name == "forward" else "") for name, value in r.items()]
    return table(("privacy front end, 112 px → 192×112×112", "measured", "bar", ""), rows) + "\n\nOne core unless said. Two processes side by side do 337 faces a second each (wall clock); two threads of one process stand in each other's way (the fresh arrays of 150 MB a batch are the suspect), so give each core a process. `python benchmarks/privacy.py`"


def eyes() -> str:
    r = read("eyeseg")
    rows = [
        (f"frames of 320×240 a second, one at a time, {r['threads']} thread{'s' * (r['threads'] > 1)}", f"{r['frames/s, one at a time']:.0f}", "60", verdict(r["frames/s, one at a time"], 60, at_least=True)),
        ("the same, in eights", f"{r['frames/s, in eights']:.0f}", "", ""),
        ("a frame, of that the network; floor of its convolutions", f"{r['ms a frame']:.1f} ms, {r['of that the network, ms']:.1f} ms; {r['floor, ms']:.1f} ms", "", ""),
    ]
    return table(("EyeSeg, 0.5 M parameters", "measured", "bar", ""), rows) + "\n\nmIoU, E1, F1, AUROC and gaze: [card](../weights/eyeseg-small.md). `python benchmarks/eyeseg.py --model eyeseg-small --threads 2 --out benchmarks/results_eyeseg.json`"


def tokens() -> str:
    r = read("glotok")
    back, drawn, histogram = r["reconstruction"], r["generation"], r["histogram"]
    rows = [
        ("reconstruction: PSNR, SSIM", f"{back['psnr_db']:.2f} dB, {back['ssim']:.3f}"),
        ("perceptual distance (0 to 4), cosine of the embeddings", f"{back['perceptual']:.3f}, {back['identity']:.3f}"),
        ("rFID", f"{back['rfid']:.2f}"),
        ("gFID of drawn faces (of as many training faces)", f"{drawn['gfid']:.2f} ({drawn['fid of training faces']:.2f})"),
        ("drawn faces, cosine to their own person (to another)", f"{drawn['cosine to own person']:.3f} ({drawn['cosine to another']:.3f})"),
        ("L_hist of the semantic book: random rows, highest logged, trained", f"{histogram['random rows']:.3f}, {histogram['highest logged']:.3f}, {histogram['trained']:.3f}"),
        *(
            (f"{name} book of {int(book['rows'])}: alive, perplexity; entropy, Gini, variation of the counts; variation of the density", f"{100 * book['alive']:.0f} %, {book['perplexity']:.0f}; {book['entropy']:.3f}, {book['gini']:.3f}, {book['variation']:.2f}; {book['density variation']:.2f}")
            for name, book in r["books"].items()
        ),
    ]  # fmt: skip
    steps = r["steps"]
    return table((f"GloTok, {r['images']} held-out faces ({r['held']})", "measured"), rows) + f"\n\n`recipes/glotok-small.yaml` on {r['trained']}: {steps['tokenizer']} steps, token model {steps['model']}. FID and perceptual distance are of mobilefacenet-small's features: compare within this table only. `python benchmarks/glotok.py RUN`"


def detection() -> str:
    r = read("aigi")
    conditions = list(r["conditions"])
    by_condition = [found["sources"] for found in r["conditions"].values()]
    rows = [(name, *(seen(name, sources[name]) for sources in by_condition), by_condition[0][name]["images"]) for name in by_condition[0]]
    rows.append(("attention entropy over ln 196", *(f"{r['conditions'][condition]['attention_entropy']:.4f}" for condition in conditions), ""))
    note = f"AP against the real faces of LFW, share called fake (of the real sources {', '.join(REAL)} the share alone). A classifier of codec, quality and size alone: {100 * r['metadata_accuracy']:.1f} %. Sources: [card](../weights/aigi-small.md). The entropy with plain concatenation, before TranX: [claims](claims/RESULTS.md)."
    return table(("aigi-small", *conditions, "n"), rows) + f"\n\n{note} `facefoundry aigi evaluate --real lfw=LFW --fake uiface=SET ... --out benchmarks/results_aigi.json`"


def seen(name: str, found: dict) -> str:
    """A source's cell: average precision (of generated ones) and the share called fake."""
    share = f"{100 * found['called_fake']:.1f} %"
    return share if name in REAL else f"{found['ap']:.3f}, {share}"


REAL = ("lfw", "london", "real_ae")
"""Sources of results_aigi.json that are photographs; the last ones went through the autoencoder of our generators."""


def scale() -> str:
    t, i = read("templates"), read("inspection")
    return "Templates of IJB-C's size, and the inspection of 500,000 embeddings, raw figures:\n\n```json\n" + json.dumps({"templates": t, "inspection": i}, indent=1) + "\n```\n\n`python benchmarks/templates.py`, `python benchmarks/inspection.py`"


def table(head: tuple, rows: list[tuple]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    parts = ["# Figures, measured by the scripts in this folder\n\n2 cores of an AMD EPYC (AVX-512 bf16), no accelerator, Python 3.11, the versions of `constraints.txt`, but torch 2.15 for all from \"Jobs\" on; those were taken beside other work on the second core."]
    for title, part in (("The demo", demo), ("Targets", targets), ("The honest number", honest), ("The honest curves", honest_curves), ("Sampling on the CPU", sampling), ("Decoder", decoder), ("Pair statistics", pairs), ("Jobs", jobs), ("Quality labels", quality), ("Styles", styles), ("Recognition", recognition), ("Privacy", privacy), ("Eyes", eyes), ("Tokens", tokens), ("Generated or real", detection), ("Scale", scale)):
        try:
            parts.append(f"## {title}\n\n{part()}")
        except FileNotFoundError as missing:
            logging.warning("%s left out: %s has not been measured", title, Path(missing.filename).name)
    (HERE / "RESULTS.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
