"""The verb that scores single faces."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from facefoundry.core.images import encode_png
from facefoundry.core.seeds import numpy_rng
from facefoundry.jobs.cli import main
from facefoundry.quality.model import load_quality
from facefoundry.recognition.embedder import load_embedder


@pytest.fixture
def faces(tmp_path):
    """Two people, one of them with a comma in the name."""
    rng = numpy_rng(0, "faces")
    for person in ("ann", "b, jr"):
        for number in range(2):
            path = tmp_path / "set" / person / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)))
    return tmp_path / "set"


def test_scores_are_the_models(faces, tmp_path, monkeypatch, capsys):
    from facefoundry.identity.sources import load_faces

    monkeypatch.setattr(sys, "argv", ["facefoundry", "quality", str(faces), "--out", str(tmp_path / "q.csv"), "--worst", "1", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    read = load_faces(faces)
    expected_N = load_quality("quality-small", load_embedder)(read.image_NHWC)
    with open(tmp_path / "q.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(read.paths) and [row["identity"] for row in rows] == ["ann", "ann", "b, jr", "b, jr"]
    assert np.allclose([float(row["quality"]) for row in rows], expected_N, atol=0.006)
    found = json.loads(capsys.readouterr().out)
    assert list(found["worst"]) == [read.paths[int(np.argmin(expected_N))]] and found["images"] == 4
