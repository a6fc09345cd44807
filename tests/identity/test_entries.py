"""Sources of images: common roots, splits, tables, unsafe zips."""

import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facefoundry.core.errors import UserError
from facefoundry.identity.entries import EntrySource, identity_names
from facefoundry.identity.trees import MAX_FILE_BYTES, open_tree


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/1.jpg", "b/1.jpg"], ["a", "b"]),
        (["set/a/1.jpg", "set/b/1.jpg"], ["a", "b"]),
        (["x/set/a/1.jpg", "x/set/b/1.jpg"], ["a", "b"]),
        (["a/1.jpg", "a/2.jpg"], ["a", "a"]),
        (["set/a/1.jpg", "set/README.md", "LICENSE"], ["a", "", ""]),
        (["train/a/1.jpg", "test/b/1.jpg"], ["a", "b"]),
        (["a/session1/1.jpg", "b/session1/1.jpg"], ["a", "b"]),
        (["a/1.jpg", "b/1.jpg", "__MACOSX/a/._1.jpg"], ["a", "b", "__MACOSX"]),
        (["1.jpg", "2.jpg"], ["", ""]),
    ],
)
def test_identity_is_the_folder_below_the_common_root(files, expected):
    assert identity_names(files) == expected


@pytest.mark.parametrize("name", ["../a/1.png", "a/../../1.png", "/etc/1.png", "C:/a/1.png", "a\\..\\..\\1.png", "\\a\\1.png"])
def test_unsafe_paths_are_refused(tmp_path, make_zip, make_folder, picture, name):
    path = make_zip(tmp_path / "x.zip", {"a/0.png": picture(0), name: picture(1)})
    with pytest.raises(UserError, match="unsafe path"):
        EntrySource(path)
    with open_tree(make_folder(tmp_path / "x", {"a/0.png": b"0"})) as tree, pytest.raises(UserError, match="leads out"):
        tree.read(name)


def test_a_tree_reads_alike_from_folder_and_zip(tmp_path, make_folder, make_zip, people):
    files = {**people, "12:30/ö b.png": b"x"}  # a colon is no drive unless one letter stands before it
    for path in (make_folder(tmp_path / "x", files), make_zip(tmp_path / "x.zip", files)):
        with open_tree(path) as tree:
            assert tree.names() == sorted(files) and all(tree.read(name) == data for name, data in files.items())
            with pytest.raises(UserError, match="'none.png' in x") as caught:
                tree.read("none.png")
            assert str(tmp_path) not in str(caught.value)


def test_symbolic_links_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="symbolic link"):
        EntrySource(tmp_path / "x.zip")


def test_missing_empty_and_foreign_sources_are_user_errors(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "bad.parquet").write_text("no parquet")
    (tmp_path / "empty").mkdir()
    for name, message in (("none", "does not exist"), ("text.zip", "cannot be read as a zip"), ("empty", "no files"), ("bad.parquet", "not a Parquet")):
        with pytest.raises(UserError, match=message):
            len(EntrySource(tmp_path / name))


def test_a_damaged_zip_entry_is_one_problem_not_the_end(tmp_path, make_zip, people):
    path = make_zip(tmp_path / "x.zip", people)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF  # stored, not compressed: the checksum tells
    path.write_bytes(data)
    problems = [entry.problem for entry in EntrySource(path)]
    assert len(problems) == 6 and sum(problem is not None for problem in problems) == 1


def test_a_huge_entry_is_not_read(tmp_path, make_folder, people):
    root = make_folder(tmp_path / "x", people)
    with open(root / "ann" / "huge.png", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    entry = next(entry for entry in EntrySource(root) if entry.path.endswith("huge.png"))
    assert entry.data is None and "more than the limit" in entry.problem


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_imagefolder_table_names_the_identity(tmp_path, make_folder, picture, kind):
    rows = [{"file_name": "0.png", "identity": "zoe"}, {"file_name": "1.png", "identity": "yan"}, {"file_name": "gone.png", "identity": "zoe"}]
    root = make_folder(tmp_path / "x", {"0.png": picture(0), "1.png": picture(1)})
    if kind == "csv":
        (root / "metadata.csv").write_text("file_name,identity\n" + "\n".join(f"{row['file_name']},{row['identity']}" for row in rows))
    elif kind == "jsonl":
        (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")
    found = {entry.path: (entry.identity, entry.data is None) for entry in EntrySource(root)}
    assert found == {"0.png": ("zoe", False), "1.png": ("yan", False), "gone.png": ("zoe", True)}


def test_imagefolder_table_must_stay_in_its_folder(tmp_path, make_folder, picture):
    root = make_folder(tmp_path / "x", {"0.png": picture(0), "metadata.csv": b"file_name,identity\n../../secret.png,a\n"})
    with pytest.raises(UserError, match="leaves the folder"):
        list(EntrySource(root))


def test_foreign_parquet_with_class_labels(tmp_path, picture):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ann", "bob"])})
    rows = {"image": [{"bytes": picture(k), "path": None} for k in range(3)], "label": [1, 0, 1]}
    table = pa.Table.from_pydict(rows, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "x.parquet")
    entries = list(EntrySource(tmp_path / "x.parquet"))
    assert [entry.identity for entry in entries] == ["bob", "ann", "bob"]
    assert [entry.path for entry in entries] == ["x.parquet#0", "x.parquet#1", "x.parquet#2"]
    assert entries[2].data == picture(2)


def test_a_link_back_into_the_tree_does_not_loop(tmp_path, make_folder, people):
    root = make_folder(tmp_path / "x", people)
    (root / "ann" / "loop").symlink_to(root)
    assert len(EntrySource(root)) == 6
