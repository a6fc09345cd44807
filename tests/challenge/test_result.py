"""The figures of a result: against counting, and their CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from facefoundry.challenge.embedding import Mark
from facefoundry.challenge.result import Trials, evaluate, fnmr_at, groups_of_people, people_of
from facefoundry.challenge.tables import csv_text, latex_text
from facefoundry.challenge.verification import kfold_accuracy
from facefoundry.core.errors import UserError
from facefoundry.core.stats import auc, eer, fnmr_at_fmr


def trials(seed=0, count=400, **more):
    rng = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    score = np.clip(np.where(same, 0.5, 0.1) + 0.2 * rng.standard_normal(count), -1, 1)
    paths = [(f"p{k % 40}/1.jpg", f"p{k % 40 if same[k] else (k + 7) % 40}/2.jpg") for k in range(count)]
    return Trials(name="made up", system="a_b", score_P=score, same_P=same, paths=paths, **more)


def test_figures_equal_core_stats():
    data = trials(fold_P=np.arange(400) // 40, people_P2=None)
    values = evaluate(data, draws=50)
    assert values["auc"]["value"] == auc(data.score_P, data.same_P) and values["eer"]["value"] == eer(data.score_P, data.same_P)
    assert values["accuracy"]["value"] == kfold_accuracy(data.score_P, data.same_P, data.fold_P).mean
    for row in values["fnmr_at_fmr"]:
        assert row["resolved"] == (row["fmr"] * 200 >= 1)
        if row["resolved"]:
            assert row["fnmr"] == fnmr_at_fmr(data.score_P, data.same_P, row["fmr"]) and row["low"] <= row["fnmr"] <= row["high"]
    for name in ("accuracy", "auc", "eer"):
        assert values[name]["low"] <= values[name]["value"] <= values[name]["high"] and values[name]["high"] - values[name]["low"] > 0.005
    det = values["det"]
    assert all(np.diff(det["fmr"]) > 0) and all(np.diff(det["fnmr"]) <= 0) and det["fmr"][-1] == 1.0 and det["fnmr"][-1] == 0.0
    assert json.loads(json.dumps(values)) == values  # nothing but plain numbers


def test_fnmr_on_a_grid_equals_the_single_rate():
    data = trials(3)
    mated, non_mated = np.sort(data.score_P[data.same_P]), np.sort(data.score_P[~data.same_P])
    rates = np.array([0.005, 0.01, 0.0137, 0.1, 0.5, 1.0])
    assert fnmr_at(mated, non_mated, rates).tolist() == [fnmr_at_fmr(data.score_P, data.same_P, rate) for rate in rates]


def test_drawing_people_widens_the_interval():
    # 40 people in 200 mated pairs each their own level of difficulty: pairs are far from independent.
    rng = np.random.default_rng(0)
    person = np.arange(400) % 20
    same = np.arange(400) % 2 == 0
    score = np.where(same, 0.5, 0.0) + 0.3 * rng.standard_normal(20)[person] + 0.02 * rng.standard_normal(400)
    people = np.stack([person, np.where(same, person, (person + 3) % 20)], 1)
    narrow, wide = (evaluate(Trials(name="x", system="s", score_P=score, same_P=same, people_P2=one), draws=150)["auc"] for one in (None, people))
    assert wide["high"] - wide["low"] > 1.3 * (narrow["high"] - narrow["low"])


def test_threshold_loss_groups_and_marks():
    data = trials()
    decision = data.score_P >= 0.6  # far too strict
    group = np.where(np.arange(400) < 200, "a", "b")
    marks = {"p1/1.jpg": Mark(reason="gone", absent=True), "p2/1.jpg": Mark(reason="no face was found", absent=False)}
    values = evaluate(trials(decision_P=decision, group_P=group, marks=marks), draws=20)
    assert values["threshold"]["accuracy"] == values["accuracy"]["value"] == np.mean(decision == data.same_P)
    assert values["threshold"]["loss"] > 0.05 and values["threshold"]["loss"] == pytest.approx(values["threshold"]["best_accuracy"] - values["threshold"]["accuracy"])
    assert values["threshold"]["fnmr"] == np.mean(~decision[data.same_P]) and values["threshold"]["lowest_accepted"] >= 0.6 > values["threshold"]["highest_refused"]
    for row, part in zip(values["groups"], (slice(0, 200), slice(200, 400))):
        assert row["accuracy"] == np.mean((decision == data.same_P)[part]) and row["trials"] == 200
        assert row["fmr"] == np.mean(decision[part][~data.same_P[part]])
    assert values["failure_to_acquire"]["images"] == 1 and len(values["failure_to_acquire"]["marked"]) == 2
    assert evaluate(trials(), draws=5)["threshold"] is None


def test_hardest_trials():
    data = trials()
    values = evaluate(data, draws=5)
    mated = np.sort(data.score_P[data.same_P])[:12]
    assert [row["score"] for row in values["hardest"]["mated"]] == mated.tolist()
    assert [row["score"] for row in values["hardest"]["non_mated"]] == np.sort(data.score_P[~data.same_P])[::-1][:12].tolist()
    first = values["hardest"]["mated"][0]
    assert tuple(first["images"]) == data.paths[first["pair"] - 1]


def test_people_and_groups():
    data = trials()
    people = people_of(data.paths, data.same_P)
    assert people.shape == (400, 2) and people_of(data.paths, ~data.same_P) is None
    table = {f"p{k}": "even" if k % 2 == 0 else "odd" for k in range(40)}
    assert set(groups_of_people(table, people)) == {"even", "across groups"}  # mated people here are even, the others pair even with odd
    table.pop("p3")
    with pytest.raises(UserError, match="lacks 1 people, e.g. p3"):
        groups_of_people(table, people)


def test_csv_and_latex_carry_the_same_numbers():
    values = evaluate(trials(decision_P=trials().score_P > 0.3), draws=20)
    rows = {row["figure"]: row for row in csv.DictReader(io.StringIO(csv_text(values)))}
    assert float(rows["auc"]["value"]) == values["auc"]["value"] and float(rows["threshold loss"]["value"]) == values["threshold"]["loss"]
    assert rows["FNMR@FMR=0.0001"]["value"] == ""
    text = latex_text([values])
    assert r"a\_b" in text and f"{100 * values['auc']['value']:.2f}" in text and text.count(r"\\") == 2 and "--" in text
