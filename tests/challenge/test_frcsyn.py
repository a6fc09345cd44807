"""FRCSyn: lists, labels, threshold, submissions and figures; on made-up lists, and on the organisers' files where they are."""

from __future__ import annotations

import zipfile
from pathlib import Path

import facefoundry
import numpy as np
import pytest

from facefoundry.challenge.frcsyn import fit_threshold, load_comparisons, parse_comparison
from facefoundry.challenge.frcsyn_labels import DATABASES, database
from facefoundry.challenge.frcsyn_rules import check_training_data, subtasks
from facefoundry.challenge.frcsyn_scores import gap, score_submission
from facefoundry.challenge.frcsyn_submission import FileKey, format_file, read_submission, validate, write_submission
from facefoundry.core.errors import UserError

DATA = Path(facefoundry.__file__).resolve().parent.parent / "shared" / "data" / "frcsyn"
LISTS, EXAMPLE = DATA / "comparison_files_1st_edition.zip", DATA / "submission_example_1st_edition.zip"
needs_data = pytest.mark.skipif(not (LISTS.is_file() and EXAMPLE.is_file()), reason=f"the organisers' files are not in {DATA}")
RACES = ("African", "Asian", "Caucasian", "Indian")


def small_list():
    """A BUPT-like list, 20 mated and 20 non-mated pairs a race."""
    lines = []
    for race in RACES:
        for k in range(20):
            lines.append(f"{race}/m.{race}{k}/1-FaceId-0_align.jpg;{race}/m.{race}{k}/2-FaceId-0_align.jpg")
            lines.append(f"{race}/m.{race}{k}/1-FaceId-0_align.jpg;{race}/m.{race}{k + 1}/2-FaceId-0_align.jpg")
    return "\r\n".join(lines) + "\r\n"


@pytest.fixture
def lists():
    return {"bupt": parse_comparison(small_list(), DATABASES["bupt"])}


def good_scores(comparison, seed=0):
    return np.where(comparison.same_P, 0.6, 0.1) + 0.05 * np.random.default_rng(seed).standard_normal(len(comparison))


@pytest.fixture
def tree(lists, tmp_path):
    path = tmp_path / "submission"
    files = {FileKey("1.1", "bupt", system): (good_scores(lists["bupt"], seed), 0.35) for seed, system in enumerate(("baseline", "proposed"))}
    write_submission(path, files)
    return path


# --- lists and labels

@needs_data
def test_official_lists_match_the_published_table():
    found = load_comparisons(LISTS)
    assert sorted(found) == ["agedb", "bupt", "cfp-fp", "rof"]
    for key, comparison in found.items():
        facts, wanted = comparison.facts(), DATABASES[key]
        assert (facts["pairs"], facts["mated"], facts["non_mated"]) == (wanted.pairs, wanted.mated, wanted.non_mated)
        assert (facts["identities"], facts["repeated"]) == (wanted.identities, wanted.repeated)
    assert sum(len(comparison) for comparison in found.values()) == 42_600
    # The table counts 15,917 and 18,294 images with the CR of the line end kept on the second path; without it:
    assert (found["bupt"].facts()["images"], found["agedb"].facts()["images"]) == (15_826, 12_212)
    races = found["bupt"].race_P
    for race in RACES:
        assert (found["bupt"].same_P[races == race].sum(), (races == race).sum()) == (1000, 2000)
    assert all(first.split("/")[0] == second.split("/")[0] for first, second in found["bupt"].paths)


@needs_data
def test_official_lists_read_the_same_from_a_folder_and_have_the_known_hash(tmp_path):
    import hashlib

    with zipfile.ZipFile(LISTS) as archive:
        archive.extractall(tmp_path)
        for name in archive.namelist():
            if name.endswith(".txt"):
                key = name.split("/")[1].removesuffix("_comparison.txt")
                assert hashlib.sha256(archive.read(name)).hexdigest() == DATABASES[key].sha256
    from_folder, from_zip = load_comparisons(tmp_path), load_comparisons(LISTS)
    assert all(np.array_equal(from_folder[key].same_P, from_zip[key].same_P) for key in from_zip)


@pytest.mark.parametrize(
    ("key", "first", "second", "same"),
    [
        ("bupt", "African/m.1/1_align.jpg", "African/m.1/2_align.jpg", True),
        ("bupt", "African/m.1/1_align.jpg", "African/m.2/1_align.jpg", False),
        ("agedb", "166_charlton_heaston_6311_A_37.jpg", "166_charlton_heaston_6304_A_50.jpg", True),
        ("agedb", "1_AnnBee_6311_A_37.jpg", "2_AnnCee_6311_A_37.jpg", False),
        ("cfp-fp", "468/frontal/04.jpg", "468/profile/01.jpg", True),
        ("cfp-fp", "46/frontal/04.jpg", "468/profile/04.jpg", False),
        ("rof", r"neutral\ann\000022.jpg", r"sunglasses\ann_wearing_sunglasses\000002.jpg", True),
        ("rof", r"neutral\ann\000022.jpg", r"masked\bob_wearing_mask\000002.jpg", False),
    ],
)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_labels_from_paths(key, first, second, same, end):
    comparison = parse_comparison(f"{first};{second}{end}", database(key))
    assert comparison.same_P.tolist() == [same]
    assert "\\" not in comparison.paths[0][0] and not comparison.paths[0][1].endswith("\r")


@pytest.mark.parametrize("text", ["", "a/b/c.jpg\n", "a/b/c.jpg;a/b/d.jpg;1\n", "a/b/c.jpg;\n", "b/c.jpg;b/d.jpg\n"])
def test_bad_lists(text):
    with pytest.raises(UserError):
        parse_comparison(text, database("bupt"))


def test_bad_archives(tmp_path):
    with pytest.raises(UserError, match="did you mean 'bupt'"):
        database("buptt")
    for names, message in (({"../bupt_comparison.txt": "x"}, "unsafe path"), ({"a.txt": "x"}, "no comparison list"), ({"s/megaface_comparison.txt": "x"}, "known database")):
        path = tmp_path / "lists.zip"
        with zipfile.ZipFile(path, "w") as out:
            for name, text in names.items():
                out.writestr(name, text)
        with pytest.raises(UserError, match=message):
            load_comparisons(path)
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("s/bupt_comparison.txt", small_list())
    with pytest.raises(UserError, match="80 mated and 80 non-mated pairs, expected 4000 and 4000"):
        load_comparisons(path)
    assert len(load_comparisons(path, official=False)["bupt"]) == 160
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("t/bupt_comparison.txt", small_list()[: len(small_list()) // 2])
    with pytest.raises(UserError, match="differ"):
        load_comparisons(path, official=False)


def test_rules_table():
    assert list(subtasks(1)) == ["1.1", "1.2", "2.1", "2.2"] and list(subtasks(2)) == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]
    row = subtasks(2)["2.3"]
    assert check_training_data(row, synthetic_images=500_000, real=["CASIA-WebFace"]) == []
    assert len(check_training_data(row, synthetic_images=500_001, real=["FFHQ"])) == 2
    assert len(check_training_data(subtasks(1)["1.1"], synthetic_images=1, generator="UIFace")) == 1
    with pytest.raises(UserError, match="edition 3"):
        subtasks(3)


# --- threshold

def people(count=40, shots=6, seed=0):
    rng = np.random.default_rng(seed)
    embed = (rng.standard_normal((count, 1, 16)) + 0.6 * rng.standard_normal((count, shots, 16))).reshape(-1, 16)
    return embed / np.linalg.norm(embed, axis=1, keepdims=True), np.repeat(np.arange(count), shots)


def test_threshold_separates_and_is_deterministic():
    embed, identity = people()
    fitted = fit_threshold(embed, identity, pairs=2000)
    assert fitted == fit_threshold(embed, identity, pairs=2000) and fitted != fit_threshold(embed, identity, pairs=2000, seed=1)
    assert fitted.pairs == 2000 and fitted.accuracy > 0.95 and 0.2 < fitted.threshold < 0.7


def test_threshold_draws_non_mated_pairs_within_a_race():
    # Two races on orthogonal axes: across races cosines are 0, within a race about 0.5.
    rng = np.random.default_rng(0)
    embed = 0.3 * rng.standard_normal((200, 16))
    embed[:100, 0] += 1
    embed[100:, 1] += 1
    embed /= np.linalg.norm(embed, axis=1, keepdims=True)
    identity, race = np.arange(200) // 4, np.arange(200) // 100
    within = fit_threshold(embed, identity, pairs=1000, race_N=race)
    assert within.accuracy < fit_threshold(embed, identity, pairs=1000).accuracy - 0.1


def test_threshold_bad_input():
    embed, identity = people(4)
    with pytest.raises(UserError, match="two training identities"):
        fit_threshold(embed[:6], identity[:6])
    with pytest.raises(UserError, match="no training identity has two images"):
        fit_threshold(embed[::6], identity[::6])
    embed[3, 0] = np.nan
    with pytest.raises(UserError, match="training image 3"):
        fit_threshold(embed, identity)


# --- submissions

def test_file_agrees_with_itself_after_rounding():
    text = format_file(np.array([0.123456784, 0.1234567849, 0.12345679, -1.0]), 0.1234567850001).decode()
    assert text == "0.12345678,0\r\n0.12345678,0\r\n0.12345679,1\r\n-1.00000000,0\r\n"
    with pytest.raises(UserError, match="pair 1 is nan.*fallback"):
        format_file(np.array([0.1, np.nan]), 0.5)


def test_tree_and_zip_read_back_alike_and_zip_bytes_repeat(lists, tree, tmp_path):
    files = {FileKey("1.1", "bupt", system): (good_scores(lists["bupt"], seed), 0.35) for seed, system in enumerate(("baseline", "proposed"))}
    for name in ("a.zip", "b.zip"):
        write_submission(tmp_path / name, files)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    from_tree, from_zip = read_submission(tree), read_submission(tmp_path / "a.zip")
    assert from_tree.files.keys() == from_zip.files.keys() == files.keys() and not from_tree.problems
    for key in files:
        assert np.array_equal(from_tree.files[key].score_P, from_zip.files[key].score_P)
        assert np.allclose(from_tree.files[key].score_P, files[key][0], atol=1e-8)
        assert np.array_equal(from_tree.files[key].decision_P, files[key][0] >= 0.35)


def test_good_submission_passes(lists, tree):
    report = validate(tree, lists, required=["1.1"])
    assert report.ok and all("not in the submission" in problem.message for problem in report.warnings)


def edit(tree, change, system="proposed"):
    file = tree / "1.1" / "bupt" / f"{system}.txt"
    lines = file.read_bytes().decode().split("\r\n")[:-1]
    file.write_bytes("".join(line + "\r\n" for line in change(lines)).encode())


def flip_all(lines):
    return [f"{-float(line.split(',')[0])},{1 - int(line[-1])}" for line in lines]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "159 lines, expected 160"),
        (lambda lines: [*lines, lines[0]], "161 lines"),
        (lambda lines: ["score,decision", *lines], "line 1: 'score,decision'"),
        (lambda lines: [lines[0][:-1] + "2", *lines[1:]], "line 1"),
        (lambda lines: [lines[0].split(",")[0], *lines[1:]], "line 1"),
        (lambda lines: [lines[0], "nan,0", *lines[2:]], "line 2: score nan .*fallback"),
        (lambda lines: [lines[0], "inf,1", *lines[2:]], "line 2: score inf"),
        (lambda lines: ["0.99,0", *lines[1:]], "no single threshold"),
        (lambda lines: ["0.5,1"] * len(lines), "all scores are equal"),
        (flip_all, "upside down"),
        (lambda lines: [], "0 lines"),
    ],
)
def test_validator_finds_errors(lists, tree, change, message):
    import re

    edit(tree, change)
    report = validate(tree, lists)
    assert [problem.where for problem in report.errors] == ["1.1/bupt/proposed.txt"]
    assert re.search(message, report.errors[0].message)


def test_validator_warns_and_checks_the_tree(lists, tree):
    edit(tree, lambda lines: [line[:-1] + "0" for line in lines])
    assert validate(tree, lists).ok
    assert any("all decisions are 0" in problem.message for problem in validate(tree, lists).warnings)
    (tree / "notes.md").write_text("x")
    assert any(problem.where == "notes.md" for problem in validate(tree, lists).warnings)
    (tree / "1.1" / "bupt" / "baseline.txt").unlink()
    assert any("needed for GAP" in problem.message for problem in validate(tree, lists).errors)
    assert not validate(tree, lists, required=["2.1"]).ok
    with pytest.raises(UserError, match="unknown sub-task '9'"):
        validate(tree, lists, required=["9"])


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (lambda paths, same: range(len(paths))[::-1], "from the last line to the first"),
        (lambda paths, same: sorted(range(len(paths)), key=paths.__getitem__), "sorted by path"),
        (lambda paths, same: np.argsort(~same, kind="stable"), "mated pairs first"),
    ],
)
def test_wrong_orders_are_recognised(tree, order, said):
    lines = np.random.default_rng(0).permutation(small_list().split("\r\n")[:-1])
    comparison = parse_comparison("\r\n".join(lines), DATABASES["bupt"])
    scores = good_scores(comparison)[np.array(order(comparison.paths, comparison.same_P))]
    write_submission(tree, {FileKey("1.1", "bupt", "proposed"): (scores, 0.35), FileKey("1.1", "bupt", "baseline"): (good_scores(comparison), 0.35)})
    (error,) = validate(tree, {"bupt": comparison}).errors
    assert error.where == "1.1/bupt/proposed.txt" and said in error.message and "wrong order" in error.message


def test_decisions_name_their_lines(lists, tree):
    edit(tree, lambda lines: [*lines[:6], "0.99,0", *lines[7:]])
    assert "line 7: score 0.99 has 0" in validate(tree, lists).errors[0].message


def test_back_slashes_doubles_and_a_copied_baseline(lists, tree, tmp_path):
    (tree / "1.1" / "bupt" / "proposed.txt").write_bytes((tree / "1.1" / "bupt" / "baseline.txt").read_bytes())
    assert any("same scores as the baseline" in problem.message for problem in validate(tree, lists).warnings)
    path = tmp_path / "x.zip"
    content = (tree / "1.1" / "bupt" / "proposed.txt").read_bytes()
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as out:
        for name in ("1.1/bupt/baseline.txt", "1.1/bupt/baseline.txt"):
            out.writestr(name, content)
        out.writestr("1.1\\bupt\\proposed.txt", content)
    messages = {problem.where: problem.message for problem in validate(path, lists).errors}
    assert "twice" in messages["1.1/bupt/baseline.txt"] and "back-slashes" in messages["1.1\\bupt\\proposed.txt"]


def test_a_second_subtask_leaves_the_first_in_the_zip(lists, tmp_path):
    path = tmp_path / "entry.zip"
    for name, seed in (("1.1", 0), ("1.2", 1), ("1.1", 2)):
        write_submission(path, {FileKey(name, "bupt", system): (good_scores(lists["bupt"], seed), 0.35) for system in ("baseline", "proposed")})
    found = read_submission(path).files
    assert {key.subtask for key in found} == {"1.1", "1.2"}
    assert np.allclose(found[FileKey("1.1", "bupt", "proposed")].score_P, good_scores(lists["bupt"], 2), atol=1e-8)
    (tmp_path / "not.zip").write_bytes(b"my notes")
    with pytest.raises(UserError, match="cannot be read as a zip"):
        write_submission(tmp_path / "not.zip", {FileKey("1.1", "bupt", "proposed"): (good_scores(lists["bupt"]), 0.35)})
    assert (tmp_path / "not.zip").read_bytes() == b"my notes"


def test_threshold_loss_is_what_the_best_threshold_would_add(lists, tree):
    comparison = lists["bupt"]
    write_submission(tree, {FileKey("1.1", "bupt", "proposed"): (good_scores(comparison, 1), 0.58)})  # too strict: half the mated pairs refused
    score = score_submission(tree, lists)["1.1"].proposed
    assert score.average_best == 1.0 and score.threshold_loss == pytest.approx(1 - score.average) and score.threshold_loss > 0.1


def test_gender_table_names_file_and_line(tmp_path):
    from facefoundry.challenge.frcsyn_scores import read_gender_table

    path = tmp_path / "g.csv"
    path.write_text("subject,gender\nm.1,f\nm.2,m\n")
    assert read_gender_table(path) == {"m.1": "f", "m.2": "m"}
    for text, message in (("m.1,f\nm.1,m\n", "g.csv, line 2"), ("m.1\n", "line 1"), ("m.1,f\n", "holds 1 values")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_gender_table(path)


def test_lf_line_ends_are_accepted(lists, tree):
    file = tree / "1.1" / "bupt" / "proposed.txt"
    before = read_submission(tree).files[FileKey("1.1", "bupt", "proposed")]
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    assert np.array_equal(read_submission(tree).files[FileKey("1.1", "bupt", "proposed")].score_P, before.score_P)
    assert validate(tree, lists).ok


def test_a_folder_around_the_tree_is_explained(lists, tree):
    report = validate(tree.parent, lists)
    assert not report.ok and any("zip the contents" in problem.message for problem in report.errors)


def test_submission_zip_with_paths_leading_out(lists, tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("1.1/../../x.txt", "0.5,1")
    with pytest.raises(UserError, match="unsafe path"):
        validate(path, lists)


# --- figures

def test_figures_against_counting_by_hand(lists, tree):
    comparison = lists["bupt"]
    edit(tree, lambda lines: [line[:-1] + "0" if k % 40 == 0 else line for k, line in enumerate(lines)])  # four mated pairs refused: one a race
    edit(tree, lambda lines: [line[:-1] + "1" if k in (1, 3) else line for k, line in enumerate(lines)])  # two African non-mated accepted
    score = score_submission(tree, {"bupt": comparison})["1.1"]
    expected = {"African": 37 / 40, "Asian": 39 / 40, "Caucasian": 39 / 40, "Indian": 39 / 40}
    assert score.proposed.accuracy == pytest.approx(expected)
    values = list(expected.values())
    assert score.proposed.average == pytest.approx(np.mean(values)) and score.proposed.deviation == pytest.approx(np.std(values))
    assert score.proposed.trade_off == pytest.approx(np.mean(values) - np.std(values))
    assert score.gap == pytest.approx((1 - np.mean(values)) / np.mean(values)) and score.ddof == 0 and "4 races" in score.groups
    sample = score_submission(tree, {"bupt": comparison}, ddof=1)["1.1"]
    assert sample.proposed.deviation == pytest.approx(np.std(values, ddof=1))
    assert score.proposed.fnmr_pooled == score.proposed.fnmr_macro == 0 and score.proposed.auc_pooled == 1


def test_eight_groups_need_gender(lists, tree):
    subjects = sorted(set(lists["bupt"].subject_P.tolist()))
    gender = {subject: "female" if k % 2 else "male" for k, subject in enumerate(subjects)}
    score = score_submission(tree, lists, gender=gender)["1.1"]
    assert len(score.proposed.accuracy) == 8 and score.groups.startswith("8 groups")
    gender.popitem()
    with pytest.raises(UserError, match="lacks 1 subjects"):
        score_submission(tree, lists, gender=gender)


def test_gap_of_dcface():
    assert gap(94.62, 89.56) == pytest.approx(0.0565, abs=5e-5) and np.isnan(gap(1.0, 0.0))


def test_incomplete_submission_has_no_figures(lists, tree):
    edit(tree, lambda lines: lines[:-1])
    with pytest.raises(UserError, match="159 lines, expected 160"):
        score_submission(tree, lists)
    (tree / "1.1" / "bupt" / "proposed.txt").unlink()
    with pytest.raises(UserError, match="no complete sub-task"):
        score_submission(tree, lists)


@needs_data
def test_official_example_is_valid_and_random():
    lists = load_comparisons(LISTS)
    report = validate(EXAMPLE, lists, required=list(subtasks(1)))
    assert report.ok and len(report.warnings) == 20
    assert all("no better than chance" in problem.message for problem in report.warnings)
    for content in read_submission(EXAMPLE).files.values():
        assert np.array_equal(content.decision_P, content.score_P >= 0.5)
    scores = score_submission(EXAMPLE, lists)
    assert list(scores) == ["1.1", "1.2", "2.1", "2.2"]
    first = scores["1.1"]
    assert first.proposed.average == pytest.approx(0.510875) and first.baseline.average == pytest.approx(0.50525)
    assert (first.proposed.fnmr_pooled * 4000) == int(first.proposed.fnmr_pooled * 4000)
    assert scores["2.1"].proposed.deviation is None and set(scores["2.1"].proposed.accuracy) == set(lists)
