"""Reading .obj files: vertices, polygons by group, texture coordinates. Lines, materials and normals are passed over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError


@dataclass(frozen=True, kw_only=True, eq=False)
class Obj:
    """Attributes:
        vertex_V3: float64.
        polygons: vertex numbers of each group's polygons, in the file's order; "" is the nameless group.
        uv_U2: texture coordinates, v upwards as in the file; (0, 2) if there are none.
        uv_polygons: rows of `uv_U2` of the same polygons' corners; empty lists where a corner has none.
    """

    vertex_V3: np.ndarray
    polygons: dict[str, list[list[int]]]
    uv_U2: np.ndarray
    uv_polygons: dict[str, list[list[int]]]

    def triangles(self, groups: list[str] | None = None) -> np.ndarray:
        """Return all polygons (of some groups) as fans of triangles, (T, 3) int."""
        names = list(self.polygons) if groups is None else groups
        return np.array([(p[0], p[i], p[i + 1]) for name in names for p in self.polygons[name] for i in range(1, len(p) - 1)], int).reshape(-1, 3)

    def uv_of_vertices(self) -> np.ndarray:
        """Return one texture coordinate a vertex, (V, 2); at a seam the last named wins, without any it is 0."""
        uv_V2 = np.zeros((len(self.vertex_V3), 2))
        for name, polygons in self.polygons.items():
            for corners, rows in zip(polygons, self.uv_polygons[name]):
                if rows:
                    uv_V2[corners] = self.uv_U2[rows]
        return uv_V2


def read_obj(path: Path, *, by: str = "g") -> Obj:
    """Read an .obj file; polygons are grouped by its groups ("g") or its materials ("usemtl").

    Raises:
        UserError: it is missing, or a line does not hold the numbers it should; the line is named.
    """
    lines = _lines(path)
    vertices: list[list[float]] = []
    uvs: list[list[float]] = []
    polygons: dict[str, list[list[int]]] = {}
    uv_polygons: dict[str, list[list[int]]] = {}
    group = ""
    for number, line in enumerate(lines, start=1):
        key, *values = line.split() or [""]
        try:
            if key == "v":
                vertices.append(_numbers(values, 3))
            elif key == "vt":
                uvs.append(_numbers(values, 2))
            elif key == by:
                group = " ".join(values)
            elif key == "f":
                corners = [corner.split("/") for corner in values]
                polygons.setdefault(group, []).append([_place(corner[0], len(vertices)) for corner in corners])
                named = all(len(corner) > 1 and corner[1] for corner in corners)
                uv_polygons.setdefault(group, []).append([_place(corner[1], len(uvs)) for corner in corners] if named else [])
        except ValueError as error:
            raise UserError(f"{path}, line {number}: '{line.strip()[:60]}' is not a line of an .obj file ({error}); export the mesh again") from error
    return Obj(vertex_V3=np.array(vertices, float).reshape(-1, 3), polygons=polygons, uv_U2=np.array(uvs, float).reshape(-1, 2), uv_polygons=uv_polygons)


def read_vertices(path: Path) -> np.ndarray:
    """Return the vertices alone, (V, 3) float64, ten times as fast: for the many files of one mesh's shapes.

    Raises:
        UserError: as `read_obj`; the line is not named.
    """
    rows = [line[2:] for line in _lines(path) if line.startswith("v ")]
    try:
        return np.array(" ".join(rows).split(), np.float64).reshape(len(rows), 3)
    except ValueError as error:
        raise UserError(f"{path}: its vertices are not three numbers a line ({error}); export the mesh again") from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; expected an .obj file") from error


def _numbers(values: list[str], count: int) -> list[float]:
    if len(values) < count:
        raise ValueError(f"{len(values)} numbers, expected {count}")
    return [float(value) for value in values[:count]]


def _place(text: str, count: int) -> int:
    """Numbers count from 1; negative ones from the end of what has been read."""
    number = int(text)
    if number == 0 or abs(number) > count:
        raise ValueError(f"{number} names nothing of {count}")
    return number - 1 if number > 0 else count + number
