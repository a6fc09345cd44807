"""A Hub for tests: a small HTTP server on loopback that speaks what `create_repo`, `repo_info`, `update_repo_settings` and `upload_folder` need.

Parquet files take the LFS way (batch, PUT, commit), others the regular one, like the real Hub without Xet.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """`files`: the repository; `events`: what was asked for, in order; `refuse`: status that the next commit gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.events: list[str] = []
        self.tokens: set[str | None] = set()
        self.private, self.gated, self.exists, self.refuse = True, False, False, 0


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Serve for the time of the block."""
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words) -> None:
        """Nothing: tests are quiet."""

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            return self._answer([{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for name, data in self.server.files.items()])
        self._note("info")
        self._answer({"id": "me/faces", "sha": COMMIT, "private": self.server.private, "gated": self.server.gated, "siblings": [{"rfilename": name} for name in self.server.files]})

    def do_PUT(self) -> None:
        body = self._body()
        if self.path.startswith("/lfs/"):
            assert hashlib.sha256(body).hexdigest() == self.path.removeprefix("/lfs/")
            self.server.objects[self.path.removeprefix("/lfs/")] = body
            return self._answer({})
        settings = json.loads(body)
        self._note(f"settings {json.dumps(settings, sort_keys=True)}")
        self.server.gated = settings.get("gated", self.server.gated)
        self.server.private = settings.get("visibility", "private" if self.server.private else "public") == "private"
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        name = self.path.split("?")[0]
        if name == "/api/repos/create":
            asked = json.loads(body)
            self._note(f"create {asked.get('visibility')}")
            self.server.exists, exists = True, self.server.exists
            return self._answer({"url": f"{self.server.url}/datasets/me/faces", "name": "me/faces"}, 409 if exists else 200)
        if name == "/api/validate-yaml":
            return self._answer({"warnings": [], "errors": []})
        if name.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            return self._answer({"transfer": "basic", "objects": [{**entry, "actions": {"upload": {"href": f"{self.server.url}/lfs/{entry['oid']}"}}} for entry in objects]})
        if "/preupload/" in name:
            paths = [file["path"] for file in json.loads(body)["files"]]
            return self._answer({"files": [{"path": path, "uploadMode": "lfs" if path.endswith(".parquet") else "regular", "shouldIgnore": False} for path in paths]})
        if "/commit/" in name:
            return self._commit([json.loads(line) for line in body.splitlines()])
        self._answer({"error": f"unknown {name}"}, 404)

    def _commit(self, lines: list[dict]) -> None:
        if self.server.refuse:
            return self._answer({"error": "this token may not write"}, self.server.refuse)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.server.files[value["path"]]
        self._note("commit " + ("gated" if self.server.gated else "private" if self.server.private else "PUBLIC"))
        self._answer({"commitUrl": f"{self.server.url}/datasets/me/faces/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": None, "success": True})

    def _note(self, event: str) -> None:
        self.server.events.append(event)
        self.server.tokens.add(self.headers.get("authorization"))

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: dict | list, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
