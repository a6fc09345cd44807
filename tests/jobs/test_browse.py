"""The page of a dataset: its filters against a plain loop, its server, and the page in a real browser."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import threading
from urllib.parse import urlencode

import numpy as np
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode
from facefoundry.identity.dataset import FaceDataset
from facefoundry.jobs.browse import Catalogue, server
from facefoundry.jobs.run import run_job
from facefoundry.jobs.spec import load_job
from procedural import job_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    return run_job(load_job(job_file(root)), root / "out", workers=1).folder


@pytest.fixture(scope="module")
def running(folder):
    with server(folder) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def get(running, path: str, host: str | None = None) -> tuple[int, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", running.server_address[1], timeout=10)
    link.request("GET", path, headers={"Host": host} if host else {})
    answer = link.getresponse()
    return answer.status, answer.read()


def test_filters_are_a_plain_loop_over_the_records(folder):
    catalogue = Catalogue.open(folder)
    records = [record for part in ("data", "rejected") for record in FaceDataset.open(folder, part).records()]
    middle = float(np.median([record.scores["sdd_fiqa"] for record in records]))
    assert catalogue.rows(identity=2).tolist() == [row for row, record in enumerate(records) if record.identity == 2]
    assert catalogue.rows(reason="kept").tolist() == [row for row, record in enumerate(records) if record.dropped is None]
    assert catalogue.rows(reason="sdd_fiqa").tolist() == catalogue.rows(reason="dropped").tolist() == [row for row, record in enumerate(records) if record.dropped]
    assert catalogue.rows(score="sdd_fiqa", least=middle).tolist() == [row for row, record in enumerate(records) if np.float32(record.scores["sdd_fiqa"]) >= middle]
    down = catalogue.rows(score="sdd_fiqa", order="down", reason="kept")
    assert np.all(np.diff([records[row].scores["sdd_fiqa"] for row in down]) <= 0) and len(down) == 20
    assert catalogue.image(int(down[-1])) and np.array_equal(decode(catalogue.image(21)), decode(records[21].image))


def test_what_the_server_answers(running, folder):
    status, body = get(running, "/rows?" + urlencode({"reason": "kept", "identity": "", "start": "18"}))
    found = json.loads(body)
    assert (status, found["found"], found["start"], len(found["rows"])) == (200, 20, 18, 2)
    status, body = get(running, "/image/0")
    assert status == 200 and np.array_equal(decode(body), FaceDataset.open(folder).images([0])[0])


@pytest.mark.parametrize("path", ["/image/24", "/image/-1", "/image/../../etc/passwd", "/rows?identity=x", "/rows?score=nothing"])
def test_bad_requests_are_said(running, path):
    assert get(running, path)[0] == 400


def test_other_hosts_and_paths_get_nothing(running):
    assert get(running, "/", host="evil.example")[0] == 403
    assert get(running, "/manifest.json")[0] == 404


def test_no_dataset_and_a_taken_port_are_mistakes(tmp_path, running, folder):
    with pytest.raises(UserError, match="is no dataset folder"):
        server(tmp_path)
    with pytest.raises(UserError, match="cannot be used"):
        server(folder, running.server_address[1])


def test_the_page_fills_itself_in_a_real_browser(running):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    page = f"http://127.0.0.1:{running.server_address[1]}/"
    done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom", page], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("<figure") == 24 and "1–24 of 24" in done.stdout, done.stderr[-500:]
    assert done.stdout.count('class="gone"') == 4
