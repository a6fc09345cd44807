"""Packages that offer something by entry points, as an installer would leave them: a module and its dist-info folder."""

from __future__ import annotations

from pathlib import Path


def install(site: Path, package: str, points: dict[str, dict[str, str]], **modules: str) -> None:
    """Put a package into `site`: entry points by group and name, modules by name and text."""
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items()) for group, entries in points.items()))
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
