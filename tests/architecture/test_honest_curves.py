"""The pure parts of the honest curves' benchmark: nested subsets, real rows of an asked size, mixtures, refilled filters, GAP, resumed units."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import facefoundry
import numpy as np
import pytest
from facefoundry.identity.sources import Faces
from filelock import FileLock
from filelock import Timeout as FileLockTimeout

BENCHMARKS = Path(facefoundry.__file__).resolve().parent / "benchmarks"


@pytest.fixture
def sides(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("honest_sides")


@pytest.fixture
def cells(sides):
    return importlib.import_module("honest_cells")


@pytest.fixture
def curves(cells):
    return importlib.import_module("honest_curves")


def faces_of(counts: list[int], prefix: str = "p") -> Faces:
    """People with so many images; the first pixel of an image says whose it is, the second which."""
    label_N = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    place_N = np.concatenate([np.arange(count) for count in counts])
    image_NHWC = np.zeros((len(label_N), 112, 112, 3), np.uint8)
    image_NHWC[:, 0, 0, 0], image_NHWC[:, 0, 0, 1] = label_N, place_N
    return Faces(image_NHWC=image_NHWC, identity_N=label_N, names=tuple(f"{prefix}{i:03d}" for i in range(len(counts))), paths=tuple(f"{prefix}{i:03d}/{k}" for i, k in zip(label_N, place_N)))


def marks(faces: Faces) -> list[tuple[int, int]]:
    return [(int(image[0, 0, 0]), int(image[0, 0, 1])) for image in faces.image_NHWC]


def test_smaller_sets_are_the_first_people_and_first_images(sides):
    pool = faces_of([4] * 6)
    large, small = sides.first(pool, 5, 3), sides.first(pool, 2, 2)
    assert marks(small) == [(0, 0), (0, 1), (1, 0), (1, 1)] and set(marks(small)) < set(marks(large))
    later = sides.first(pool, 2, 1, start=3)
    assert marks(later) == [(3, 0), (4, 0)] and later.identity_N.tolist() == [0, 1] and later.names == ("p003", "p004")
    with pytest.raises(SystemExit, match="larger pool"):
        sides.first(pool, 7, 1)


@pytest.mark.parametrize(("counts", "total", "expected"), [([9, 4, 2, 1], 10, [4, 3, 2, 1]), ([9, 4, 2, 1], 16, [9, 4, 2, 1]), ([5, 5, 5], 7, [3, 2, 2]), ([3, 3], 6, [3, 3])])
def test_cap_reaches_the_count_exactly(sides, counts, total, expected):
    assert sides.capped(np.array(counts), total).tolist() == expected


def test_real_rows_of_asked_size(sides):
    real = faces_of([1, 6, 3, 9, 2])
    found = sides.real_like(real, 3, 9)
    assert found.names == ("p003", "p001", "p002") and np.bincount(found.identity_N).tolist() == [3, 3, 3]  # most images first
    assert np.bincount(sides.real_like(real, 4, 10).identity_N).tolist() == [3, 3, 2, 2]
    assert marks(sides.real_like(real, 3, 9)) == marks(sides.real_subset(real, 3, 3))
    with pytest.raises(SystemExit, match="were asked for"):
        sides.real_like(real, 2, 16)


def test_nobody_of_one_half_is_a_person_of_the_other(sides, cells):
    cell = cells.Cell.parse("id3+rendered 5x2")
    assert cell.shares() == [("id3", 0, 3), ("rendered", 3, 2)]  # the generators draw the same people: the second takes others
    mixed = sides.joined([sides.first(faces_of([2] * 5, "a"), 3, 2), sides.first(faces_of([2] * 5, "b"), 2, 2, start=3)])
    assert mixed.identity_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and len(set(mixed.names)) == 5
    assert marks(mixed)[-1] == (4, 1) and mixed.paths[0] == "0-a000/0"


def test_refill_keeps_both_counts(sides):
    pool = faces_of([4, 4])
    kept_N = np.array([True, False, True, True, False, False, False, True])
    found, short = sides.refilled(pool, kept_N, 2, 2)
    assert marks(found) == [(0, 0), (0, 2), (1, 3), (1, 0)] and short == 1  # the second person has one image that passed


def test_cells_are_read_and_written(cells):
    for text in ("real 500x3", "id3 300x8 filtered", "uiface+id3 1000x3"):
        assert str(cells.Cell.parse(text)) == text
    assert str(cells.Cell.parse("id3 300x8 filtered").real_side) == "real 300x8"
    with pytest.raises(SystemExit, match="is no cell"):
        cells.Cell.parse("gan 10x3")


def test_order_is_worth_first_and_whole(cells):
    every = [(str(cell), seed) for cell, seed in cells.units()]
    assert len(every) == len(set(every)) and {seed for _, seed in every} == {0, 1, 2}
    assert every[0] == ("id3 1000x3", 0) and not [text for text, _ in every if text.startswith("real ")]  # real sides go with what is compared with them
    assert {str(cell) for cell, _ in cells.units(only="^morphface")} == {"morphface 1000x3"}


def test_pools_are_as_large_as_the_cells_to_come(cells, tmp_path):
    sides = cells.Sides(tmp_path, to_come=[cells.Cell.parse(text) for text in ("id3 10x3", "uiface+id3 40x2", "id3 5x8 filtered", "real 90x3")])
    assert sides.pools() == {("id3", False): (40, 3), ("id3", True): (5, 16), ("uiface", False): (20, 2)}


def test_standing_pool_serves_every_smaller_one(sides, tmp_path, monkeypatch):
    minted = []

    def mint(spec, folder, workers):
        minted.append(folder.name)
        folder.mkdir(parents=True)
        (folder / "report.json").write_text("{}")

    monkeypatch.setattr(sides, "run_job", mint)
    with pytest.raises(sides.NoPool):
        sides.standing_pool("rendered", (10, 3), tmp_path)
    found = sides.mint_pool("rendered", (40, 3), tmp_path, "dlib")
    assert sides.mint_pool("rendered", (40, 2), tmp_path, "dlib") == sides.standing_pool("rendered", (10, 3), tmp_path) == found and len(minted) == 1
    assert sides.mint_pool("rendered", (10, 8), tmp_path, "dlib") != found and len(minted) == 2
    (found / "report.json").unlink()  # not finished: gone on with
    with pytest.raises(sides.NoPool):
        sides.standing_pool("rendered", (40, 3), tmp_path)
    with sides.pool_lock(tmp_path, "rendered", 0), pytest.raises(FileLockTimeout):  # in other hands
        sides.standing_pool("rendered", (40, 3), tmp_path)


def test_unit_without_pool_is_said_and_left(curves, cells, tmp_path, capsys):
    todo = [(cells.Cell.parse("rendered 4x2"), 0)]
    curves.work_through(todo, cells.Sides(tmp_path), SimpleNamespace(work=tmp_path), float("inf"))
    assert "rendered 4x2" in capsys.readouterr().out and not (tmp_path / "scores").exists()  # nor is its real side


def test_key_of_a_source_is_that_of_its_images(sides):
    assert sides.source_key("rendered") != sides.source_key("lcm") and len(sides.source_key("rendered")) == 8


def test_gap_and_summary(sides, curves):
    assert sides.gap(0.84, 0.80) == pytest.approx(0.05)
    real = {"0": {"accuracy": 0.84}, "1": {"accuracy": 0.80}}
    found = curves.summary({"0": {"accuracy": 0.80}, "2": {"accuracy": 0.76}}, real)
    assert found["gap"] == {"seeds": ["0"], "values": [pytest.approx(0.05)], "mean": pytest.approx(0.05), "sd": None}  # over common seeds only
    assert found["mean"]["accuracy"] == pytest.approx(0.78) and found["sd"]["accuracy"] == pytest.approx(np.std([0.80, 0.76], ddof=1))


def test_steps_are_a_matter_of_size_alone(curves):
    assert [curves.steps_for(images) for images in (600, 3000, 12000)] == [450, 562, 2250]


def test_finished_unit_is_never_repeated_and_real_goes_first(curves, cells, tmp_path, monkeypatch):
    trained = []

    def train(faces, recipe, folder):
        trained.append((folder.name.split("_")[0], recipe.seed, recipe.steps, len(faces)))
        return {"accuracy": 0.8 + 0.01 * recipe.seed}

    monkeypatch.setattr(curves, "score_of", train)
    todo = [(cells.Cell.parse("lcm 4x2"), seed) for seed in (0, 1)]
    monkeypatch.setattr(curves, "units", lambda: todo)
    monkeypatch.setattr(cells, "_load", lambda path: faces_of([5, 4, 3, 2]))
    monkeypatch.setattr(cells, "standing_pool", lambda source, least, work: tmp_path)
    sides, options = cells.Sides(tmp_path), SimpleNamespace(work=tmp_path, out=tmp_path / "out.json", plot=tmp_path / "plot.png")
    assert curves.run_beside_real(*todo[0], sides, tmp_path) == "done" and curves.run_beside_real(*todo[0], sides, tmp_path) == "stood"
    curves.work_through(todo, sides, options, float("inf"))
    assert trained == [("real", 0, 450, 8), ("lcm", 0, 450, 8), ("real", 1, 450, 8), ("lcm", 1, 450, 8)]
    row = json.loads(options.out.read_text())["cells"]["real 4x2"]
    assert row["mean"]["accuracy"] == pytest.approx(0.805) and row["facts"] == {"identities": 4, "images": 8, "fewest": 2, "median": 2.0, "most": 2, "alone": 0}
    curves.report(tmp_path, sides, options.out, options.plot)
    assert options.plot.is_file()


def test_unit_in_other_hands_is_left(curves, cells, tmp_path, monkeypatch):
    cell, sides = cells.Cell.parse("real 4x2"), cells.Sides(tmp_path)
    path = curves.score_path(tmp_path, sides.key(cell), 0, curves.steps_for(cell.images))
    path.parent.mkdir()
    with FileLock(path.with_suffix(".lock")):
        assert curves.run_unit(cell, 0, sides, tmp_path) == "busy"
