"""`facefoundry browse`: a page on this machine that shows a dataset face by face, filtered by identity, score, pose and dropped reason.

The server listens on the loopback only and answers to its own name only (a page elsewhere cannot reach it through DNS); it serves three things:
the page, rows as JSON, and the image of a row by its number. No path comes from the browser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ..core.errors import UserError
from ..core.images import encode_png
from ..identity.dataset import FaceDataset
from .page import render

PAGE_ROWS = 120
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Catalogue:
    """The rows of a dataset, kept ones first, with what they can be filtered by.

    Attributes:
        parts: the kept and the rejected faces.
    """

    parts: tuple[FaceDataset, FaceDataset]

    @classmethod
    def open(cls, folder: Path) -> Catalogue:
        """Read everything but the images.

        Raises:
            UserError: no dataset there.
        """
        return cls((FaceDataset.open(folder), FaceDataset.open(folder, "rejected")))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @cached_property
    def identity_N(self) -> np.ndarray:
        return np.concatenate([part.identity_N for part in self.parts])

    @cached_property
    def reasons(self) -> list[str]:
        """Why a row was dropped, its first word; "" for a kept one."""
        return [str(reason or "").split()[0].rstrip(":") if reason else "" for reason in self._column("dropped")]

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Each score over all rows, float64, NaN where a row has none; yaw and pitch among them where the style says a pose."""
        found: dict[str, np.ndarray] = {}
        for row, scores in enumerate(self._column("scores")):
            for score in scores or ():
                found.setdefault(score["name"], np.full(len(self), np.nan))[row] = score["value"]
        for row, style in enumerate(self._column("style")):
            for name, value in zip(("yaw_deg", "pitch_deg"), (style or {}).get("pose_deg") or ()):
                found.setdefault(name, np.full(len(self), np.nan))[row] = value
        return dict(sorted(found.items()))

    def rows(self, *, identity: int | None = None, reason: str | None = None, score: str | None = None, least: float | None = None, most: float | None = None, order: str = "") -> np.ndarray:
        """Return the numbers of the rows that fit, in the order asked for.

        Args:
            identity: only this person.
            reason: "kept", "dropped", or the first word of a reason; None = all.
            score: which score `least` and `most` (inclusive) are about; rows without it do not fit a bound.
            order: "" = as stored, else "up" or "down" by `score`.

        Raises:
            UserError: an unknown score.
        """
        if score is not None and score not in self.scores:
            raise UserError(f"the dataset has no score '{score}'; it has: {', '.join(self.scores) or 'none'}")
        fits_N = np.ones(len(self), bool)
        if identity is not None:
            fits_N &= self.identity_N == identity
        if reason is not None:
            words = np.array(self.reasons)
            fits_N &= words == "" if reason == "kept" else words != "" if reason == "dropped" else words == reason
        value_N = self.scores[score] if score is not None else np.zeros(len(self))
        for bound, outside in ((least, np.less), (most, np.greater)):
            if bound is not None:
                fits_N &= ~(outside(value_N, bound) | np.isnan(value_N))
        found = np.flatnonzero(fits_N)
        if not order or score is None:
            return found
        value_F = value_N[found] * (-1 if order == "down" else 1)
        return found[np.argsort(value_F, kind="stable")]  # NaN is last either way

    def facts(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Return what the page shows of rows."""
        names, reasons = self._column("face_id"), self._column("dropped")
        return [
            {"row": int(row), "face_id": names[row], "identity": int(self.identity_N[row]), "dropped": reasons[row], "scores": {name: round(float(value_N[row]), 4) for name, value_N in self.scores.items() if np.isfinite(value_N[row])}}
            for row in rows
        ]  # fmt: skip

    def image(self, row: int) -> bytes:
        """Return the image of a row as PNG."""
        kept = len(self.parts[0])
        part, place = (self.parts[0], row) if row < kept else (self.parts[1], row - kept)
        return encode_png(part.images([place])[0])

    def summary(self) -> dict[str, Any]:
        """Return what the page offers to filter by."""
        reasons, counts = np.unique([reason for reason in self.reasons if reason] or [""], return_counts=True)
        return {
            "images": len(self), "kept": len(self.parts[0]), "identities": len(np.unique(self.identity_N)), "scores": {name: [round(float(np.nanmin(value)), 4), round(float(np.nanmax(value)), 4)] for name, value in self.scores.items()},
            "reasons": {str(reason): int(count) for reason, count in zip(reasons, counts) if reason},
        }  # fmt: skip

    def _column(self, name: str) -> list[Any]:
        cache = self.__dict__.setdefault("_columns", {})
        if name not in cache:
            cache[name] = [value for part in self.parts for value in part.table.column(name).to_pylist()]
        return cache[name]


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page of a dataset, not running yet; port 0 takes a free one.

    Raises:
        UserError: no dataset there, or the port is taken.
    """
    catalogue = Catalogue.open(folder)
    page = render("browse.html.j2", {"title": folder.resolve().name, "summary": catalogue.summary(), "page_rows": PAGE_ROWS})

    class Handler(_Handler):
        pass

    Handler.catalogue, Handler.page = catalogue, page
    try:
        return ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}); give another --port, or 0 for any") from error


class _Handler(BaseHTTPRequestHandler):
    catalogue: Catalogue
    page: bytes

    def do_GET(self) -> None:
        """Answer with the page, rows or an image."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in (LOOPBACK, "localhost"):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this machine only")
            return
        parts = urlsplit(self.path)
        try:
            if parts.path == "/":
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.page)
            elif parts.path == "/rows":
                self._send(HTTPStatus.OK, "application/json", json.dumps(self._rows(parse_qs(parts.query))).encode())
            elif parts.path.startswith("/image/"):
                self._send(HTTPStatus.OK, "image/png", self.catalogue.image(self._row(parts.path.removeprefix("/image/"))), cache=True)
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"no such page")
        except (UserError, ValueError) as error:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain; charset=utf-8", str(error).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of every request."""

    def _rows(self, query: dict[str, list[str]]) -> dict[str, Any]:
        asked = {key: values[0] for key, values in query.items() if values[0] != ""}
        numbers = {key: kind(asked[key]) for key, kind in (("identity", int), ("least", float), ("most", float)) if key in asked}
        found = self.catalogue.rows(**numbers, reason=asked.get("reason"), score=asked.get("score"), order=asked.get("order", ""))
        start = max(0, int(asked.get("start", 0)))
        return {"found": len(found), "start": start, "rows": self.catalogue.facts(found[start : start + PAGE_ROWS])}

    def _row(self, text: str) -> int:
        row = int(text)
        if not 0 <= row < len(self.catalogue):
            raise UserError(f"row {row} is not in the dataset, which has {len(self.catalogue)} rows")
        return row

    def _send(self, status: HTTPStatus, kind: str, body: bytes, *, cache: bool = False) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "max-age=3600" if cache else "no-store")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
