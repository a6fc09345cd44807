"""The command line: its names are frozen, its mistakes are short, its start is quick."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import typer
from facefoundry.jobs.cli import app, main
from procedural import job_file

SURFACE = {
    "demo": ["--out", "--identities", "--per-identity", "--generator", "--workers", "--json"],
    "plan": ["job", "--set", "--json"],
    "run": ["job", "--out", "--set", "--workers", "--json"],
    "status": ["folder", "--json"],
    "verify": ["folder", "--json"],
    "report": ["folder", "--json"],
    "ingest": ["source", "--out", "--align", "--title", "--origin", "--json"],
    "schema": ["kind", "--out"],
    "preview": ["job", "--images", "--per-identity", "--out", "--set", "--json"],
    "estimate": ["job", "--batches", "--workers", "--price", "--on", "--set", "--json"],
    "retry-failed": ["folder", "--workers", "--json"],
    "merge": ["folders", "--out", "--title", "--max-cosine", "--drop-close", "--json"],
    "diff": ["first", "second", "--json"],
    "export": ["dataset", "--out", "--format", "--quality", "--json"],
    "browse": ["dataset", "--port", "--open"],
    "doctor": ["--json"],
    "export-onnx": ["recogniser", "--out", "--json"],
    "import-weights": ["kind", "files", "--out", "--bgr", "--json"],
    "centres": ["faces", "--out", "--embedder", "--json"],
    "candidates": ["--out", "--count", "--generator", "--embedder", "--steps", "--seed", "--max-cosine", "--json"],
    "publish": ["folder", "--repo", "--card", "--public", "--dry-run", "--json"],
    "sign": ["folder", "--certificate", "--key", "--algorithm", "--timestamps", "--check", "--json"],
    "distill": ["recipe", "--data", "--out", "--set", "--embedder", "--json"],
    "inspect": ["dataset", "--out", "--embedder", "--match", "--centres", "--leak", "--fmr", "--reference", "--looks", "--pose", "--draws", "--all-pairs", "--seed", "--json"],
    "quality": ["faces", "--out", "--model", "--worst", "--json"],
    "score": ["recogniser", "--pairs", "--images", "--flip", "--out", "--groups", "--align", "--mark", "--json"],
    "leaderboard": ["subtask", "--edition", "--submission", "--lists", "--value", "--gender", "--ddof", "--json"],
    "benchmark bins": ["recogniser", "files", "--flip", "--json"],
    "benchmark rfw": ["recogniser", "root", "--flip", "--json"],
    "benchmark scface": ["recogniser", "root", "--subjects", "--splits", "--align", "--flip", "--json"],
    "benchmark tinyface": ["recogniser", "root", "--align", "--flip", "--json"],
    "benchmark ijb": ["recogniser", "root", "--flip", "--norms", "--detector", "--json"],
    "benchmark mini": ["faces", "--pairs", "--out", "--seed", "--pose", "--json"],
    "privacy train": ["method", "recipe", "--data", "--out", "--set", "--json"],
    "styles fit": ["faces", "--out", "--head", "--json"],
    "styles prior": ["codes", "--out", "--least-images", "--json"],
    "privacy evaluate": ["--method", "--weights", "--data", "--out", "--attacker", "--judge", "--generator", "--settings", "--json"],
    "privacy compare": ["folders", "--out", "--json"],
    "eyeseg train": ["recipe", "--out", "--photos", "--set", "--json"],
    "eyeseg predict": ["sources", "--out", "--model", "--faces", "--pictures", "--json"],
    "aigi train": ["recipe", "--real", "--fake", "--out", "--set", "--most", "--json"],
    "aigi detect": ["faces", "--out", "--model", "--column", "--threshold", "--pictures", "--json"],
    "aigi evaluate": ["--real", "--fake", "--model", "--most", "--out", "--json"],
    "tokenizer train": ["recipe", "--data", "--out", "--set", "--json"],
    "tokenizer encode": ["faces", "--weights", "--out", "--rows", "--json"],
    "tokenizer decode": ["tokens", "--weights", "--out", "--rows", "--json"],
    "tokenizer sample": ["--weights", "--out", "--people", "--per", "--seed", "--top-k", "--temperature", "--json"],
    "train quality": ["recipe", "--data", "--out", "--set", "--json"],
    "train decoder": ["recipe", "--data", "--out", "--set", "--json"],
    "train fan": ["recipe", "--data", "--out", "--set", "--json"],
    "train afa": ["recipe", "--data", "--out", "--set", "--json"],
    "normalise": ["source", "--weights", "--out", "--shrink", "--rows", "--json"],
    "attack": ["--data", "--weights", "--strengths", "--attack", "--steps", "--probes", "--pairs", "--seed", "--json"],
    "train generator": ["recipe", "--data", "--out", "--set", "--embedder", "--styles", "--json"],
    "gallery styles": ["job", "--identities", "--styles", "--own", "--out", "--set", "--json"],
    "gallery identities": ["job", "--identities", "--draws", "--out", "--set", "--json"],
    "gallery trajectory": ["job", "--identities", "--noises", "--out", "--set", "--json"],
    "gallery stages": ["job", "--identities", "--noises", "--out", "--set", "--json"],
    "gallery attention": ["job", "--identity", "--image", "--out", "--set", "--json"],
    "gallery interpolation": ["job", "--pairs", "--steps", "--out", "--set", "--json"],
    "gallery worst": ["dataset", "--number", "--per-person", "--pose", "--out", "--embedder", "--json"],
    "gallery nearest": ["dataset", "--real", "--number", "--chart-only", "--figures", "--match", "--out", "--embedder", "--json"],
    "gallery build": ["--out", "--real", "--json"],
    "head build": ["--out", "--components", "--people", "--seed", "--json"],
    "head show": ["head", "--landmarks", "--out", "--json"],
    "head convert": ["head", "--out", "--landmarks", "--json"],
    "head albedo": ["--london", "--out", "--components", "--size", "--json"],
    "train recogniser": ["recipe", "--data", "--out", "--set", "--json"],
    "submit datacv": ["recogniser", "--test", "--board", "--out", "--split", "--training", "--json"],
    "submit frcsyn write": ["proposed", "--baseline", "--subtask", "--lists", "--images", "--calibration", "--out", "--edition", "--training", "--align", "--official", "--json"],
    "submit frcsyn check": ["submission", "--lists", "--edition", "--official", "--json"],
    "submit frcsyn score": ["submission", "--lists", "--edition", "--gender", "--ddof", "--official", "--json"],
    "submit frcsyn report": ["submission", "--lists", "--subtask", "--out", "--edition", "--images", "--gender", "--ddof", "--official", "--json"],
    "submit sdfr export": ["recogniser", "--out", "--task", "--json"],
    "submit sdfr scores": ["model", "--samples", "--out", "--task", "--json"],
    "submit sdfr rank": ["table", "--json"],
}
"""What scripts of users rely on: change it only with a line in the release notes."""


def surface(command, path: str = "") -> dict[str, list[str]]:
    if hasattr(command, "commands"):
        return {key: value for name, inner in command.commands.items() for key, value in surface(inner, f"{path} {name}".strip()).items()}
    names = [param.opts[0] if param.opts[0].startswith("--") else param.name for param in command.params]
    return {path: [name for name in names if name != "--help"]}


def test_names_and_options_are_frozen():
    assert surface(typer.main.get_command(app)) == SURFACE


def test_every_verb_speaks_json():
    """But `schema`, which writes nothing else, and `browse`, which serves until it is stopped."""
    assert {verb for verb, options in surface(typer.main.get_command(app)).items() if "--json" not in options} == {"schema", "browse"}


def test_options_of_all_verbs_are_frozen():
    assert surface(typer.main.get_command(app), "")  # the verbs
    names = [param.opts[0] for param in typer.main.get_command(app).params if param.name != "help"]
    assert names == ["--quiet", "--install-completion", "--show-completion"]


def test_quiet_leaves_results_and_mistakes(monkeypatch, capsys, tmp_path):
    from facefoundry.core.progress import console

    monkeypatch.setattr(console, "quiet", False)
    path = job_file(tmp_path)
    code, out, err = call(monkeypatch, capsys, "--quiet", "plan", str(path))
    assert code == 0 and "24" in out and console.quiet
    assert "error" in call(monkeypatch, capsys, "-q", "plan", str(tmp_path / "none.yaml"))[2]
    call(monkeypatch, capsys, "plan", str(path))
    assert not console.quiet  # not remembered


def call(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["facefoundry", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_every_verb_has_help(monkeypatch, capsys):
    for verb in SURFACE:
        code, out, _ = call(monkeypatch, capsys, *verb.split(), "--help")
        assert code == 0
        assert "Usage" in out


def test_users_mistake_has_no_trace_and_code_2(monkeypatch, capsys, tmp_path):
    path = job_file(tmp_path, per_identity="-1")
    code, out, err = call(monkeypatch, capsys, "plan", str(path))
    assert (code, out) == (2, "")
    assert "line 4: 'per_identity' is -1" in err
    assert "Traceback" not in err


def test_unknown_verb_and_option(monkeypatch, capsys):
    assert call(monkeypatch, capsys, "rum")[0] == 2
    assert call(monkeypatch, capsys, "plan", "a.yaml", "--sett", "a=b")[0] == 2


def test_plan_as_json(monkeypatch, capsys, tmp_path):
    code, out, _ = call(monkeypatch, capsys, "plan", str(job_file(tmp_path)), "--set", "per_identity=5", "--json")
    assert code == 0
    assert json.loads(out)["images"] == 30


def test_run_status_verify_report(monkeypatch, capsys, tmp_path):
    path, out_folder = job_file(tmp_path), tmp_path / "out"
    code, out, _ = call(monkeypatch, capsys, "run", str(path), "--out", str(out_folder), "--workers", "1")
    assert code == 0
    for word in ("20 kept, 4 rejected", "AUC by blocks", "mean cosine to anchor", "report.html", "contact_sheet.png", "load_dataset"):
        assert word in out
    assert json.loads(call(monkeypatch, capsys, "status", str(out_folder), "--json")[1])["state"] == "finished"
    assert "3 of 3 shards" in call(monkeypatch, capsys, "status", str(out_folder))[1]
    assert json.loads(call(monkeypatch, capsys, "verify", str(out_folder), "--json")[1])["ok"]
    assert json.loads(call(monkeypatch, capsys, "report", str(out_folder), "--json")[1])["counts"]["kept"] == 20
    shard = next((out_folder / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    code, out, _ = call(monkeypatch, capsys, "verify", str(out_folder))
    assert code == 1
    assert shard.name in out


def test_no_job_in_the_folder(monkeypatch, capsys, tmp_path):
    for verb in ("status", "report"):
        code, _, err = call(monkeypatch, capsys, verb, str(tmp_path))
        assert code == 2
        assert "holds no job" in err


def test_help_is_quick_and_light():
    program = "import sys; sys.argv = ['facefoundry', '--help']; from facefoundry.jobs.cli import main\ntry: main()\nexcept SystemExit: pass\nprint('LOADED', *[m for m in ('torch', 'numpy', 'datasets', 'numba', 'matplotlib') if m in sys.modules])"
    begin_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    seconds = time.perf_counter() - begin_s
    assert done.stdout.splitlines()[-1].strip() == "LOADED"
    assert seconds < 4.0  # 0.3 s on an idle core; a loaded test machine gets room
