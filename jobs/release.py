"""release.json: which tool, from which weights, on what kind of machine, and when a dataset was released.

The manifest has no time and no machine, so that one job gives one manifest; this file holds them. The machine's name is left out: it says
nothing about the data and something about its owner.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.files import json_bytes
from .plan import plan_path, read_plan

RELEASE = "release.json"


def release(folder: Path, manifest: Mapping[str, Any], *, repo: str, published: str) -> dict[str, Any]:
    """Return what release.json holds.

    Args:
        manifest: the manifest as it will lie beside it; its SHA-256 ties both together.
        repo: owner/name on the Hub.
        published: date, YYYY-MM-DD.

    Returns:
        tool (name, version, git commit), repository, date, SHA-256 of the manifest and of its list of files, rows, machine; of a job also fingerprint, SHA-256 of weights and
        other files it used, device and versions.
    """
    return {
        "tool": {"name": "facefoundry", "version": manifest.get("versions", {}).get("facefoundry"), "git_commit": git_commit(Path(__file__).resolve().parents[1])},
        "repository": repo,
        "date": published,
        "shards_sha256": shards_digest(manifest),
        "manifest_sha256": hashlib.sha256(json_bytes(manifest)).hexdigest(),
        "rows": manifest["rows"],
        "machine": {"system": platform.system(), "architecture": platform.machine(), "python": ".".join(map(str, sys.version_info[:3]))},
        **_of_job(folder),
    }


def shards_digest(manifest: Mapping[str, Any]) -> str:
    """Return one SHA-256 over the list of Parquet files in a manifest: the same rows, whatever the card says."""
    return hashlib.sha256(json_bytes(manifest["shards"])).hexdigest()


def git_commit(folder: Path) -> str | None:
    """Return the commit of a checkout ("…+changes" if files differ from it); None if `folder` is not the root of one (an installed package)."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    if root is None or Path(root) != folder or (commit := _git(folder, "rev-parse", "HEAD")) is None:
        return None
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _of_job(folder: Path) -> dict[str, Any]:
    if not plan_path(folder).is_file():
        return {}
    plan = read_plan(folder)
    return {"fingerprint": plan.fingerprint, "materials_sha256": plan.materials, "device": plan.device, "versions": plan.versions}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
