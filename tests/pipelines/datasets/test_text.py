"""Text files of a data set: what is accepted, and that every refusal names the file and the line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.datasets import DatasetError
from pipelines.datasets.clsloc import read_solution_csv
from pipelines.datasets.text import (
    check_ids,
    describe,
    parse_count,
    parse_number,
    path_fault,
    read_lines,
    read_synset_mapping,
)

SOURCE = Path("list.txt")
HEADER = "ImageId,PredictionString\n"


@pytest.mark.parametrize(
    ("encoded", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\nb", ["a", "b"]),
        ("a\u2028b\nc\x85d\n".encode(), ["a\u2028b", "c\x85d"]),
        (b"", []),
    ],
)
def test_read_lines(tmp_path, encoded, lines):
    path = tmp_path / "list.txt"
    path.write_bytes(encoded)
    assert read_lines(path) == lines


def test_read_lines_names_the_line_that_is_not_utf8(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"good\ngood\nb\xe9d\n")
    with pytest.raises(DatasetError, match=r"list\.txt, line 3: expected UTF-8 .*xe9"):
        read_lines(path)


def test_read_lines_refuses_an_empty_line_inside_and_a_missing_file(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a\n\nb\n")
    with pytest.raises(DatasetError, match=r"line 2: .*empty line"):
        read_lines(path)
    with pytest.raises(DatasetError, match=r"other\.txt: no such file"):
        read_lines(tmp_path / "other.txt")


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ("../secret", r"the path part '\.\.'"),
        ("a/../b", r"the path part '\.\.'"),
        ("a/..", r"the path part '\.\.'"),
        ("./a", r"the path part '\.'"),
        ("a//b", "the path part ''"),
        ("a/", "the path part ''"),
        ("/etc/passwd", "an absolute path"),
        ("a\\b", "a backslash"),
        ("a\0b", "a control character"),
        ("a\tb", "a control character"),
        ("", "an empty name"),
        ("a\udce9", "not UTF-8"),
    ],
)
def test_check_ids_names_the_unsafe_line(bad, fault):
    with pytest.raises(DatasetError, match=rf"list\.txt, line 12: .*{fault}"):
        check_ids(["good", "fine/too", bad], source=SOURCE, first_line=10)


@pytest.mark.parametrize(
    "good", ["a", "n01440764/n01440764_1", "a..b/c.", ".hidden", "a b", "\u00e9\u3000x", "-", "..."]
)
def test_check_ids_accepts_plain_relative_paths(good):
    check_ids(["first", good], source=SOURCE)


def test_check_ids_names_both_lines_of_a_duplicate():
    with pytest.raises(DatasetError, match=r"line 4: .*'b' already on line 2"):
        check_ids(["a", "b", "c", "b"], source=SOURCE)


@given(st.lists(st.text(alphabet="ab./\\\0\n\u00e9", max_size=6), max_size=4, unique=True))
def test_the_quick_check_agrees_with_the_careful_one(ids):
    faulty = any(path_fault(image_id) for image_id in ids)
    if faulty:
        with pytest.raises(DatasetError):
            check_ids(ids, source=SOURCE)
    else:
        check_ids(ids, source=SOURCE)


@given(st.text(alphabet="ab./", max_size=8))
def test_a_path_without_fault_stays_below_its_root(text):
    if path_fault(text) is None:
        root = Path("/root/of/data")
        assert root in (root / text).parents
        assert ".." not in (root / text).parts


@pytest.mark.parametrize(("text", "number"), [("3", 3.0), ("-1.5", -1.5), ("1e2", 100.0), ("+.5", 0.5)])
def test_parse_number(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-inf", "1_0", "1e999", "\u0663", "0x10", "1,0"])
def test_parse_number_refuses(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("007", 7), ("-1", None), ("1.0", None), ("\u00b2", None), ("1" * 10, None)]
)
def test_parse_count(text, count):
    assert parse_count(text) == count


def test_describe_cuts_long_text():
    assert len(describe("x" * 10_000)) < 100


def test_synset_mapping(tmp_path):
    path = tmp_path / "LOC_synset_mapping.txt"
    path.write_text("n2 crane, a bird\nn1\n")
    classes = read_synset_mapping(path)
    assert classes.wnids == ("n2", "n1")
    assert classes.words == ("crane, a bird", "n1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("n1 a\nn1 b\n", "line 2: .*already on line 1"),
        ("n1 a\n../n2 b\n", "line 2: .*path part"),
    ],
)
def test_synset_mapping_refuses(tmp_path, text, message):
    path = tmp_path / "LOC_synset_mapping.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_synset_mapping(path)


def test_solution_csv(tmp_path):
    path = tmp_path / "LOC_val_solution.csv"
    path.write_text(HEADER + "b,n1 1 2 3 4 n1 5 6.5 7 8 \na,n2 -1 0 9 9\n")
    rows = read_solution_csv(path, split="val")
    assert list(rows) == ["b", "a"]
    assert rows["b"].names == ("n1", "n1")
    assert rows["b"].corners == ((1, 2, 3, 4), (5, 6.5, 7, 8))


def test_solution_csv_of_train_gets_the_class_folder(tmp_path):
    path = tmp_path / "LOC_train_solution.csv"
    path.write_text(HEADER + "n1_7,n1 1 2 3 4 \nn1/n1_8,n1 1 2 3 4 \n")
    assert list(read_solution_csv(path, split="train")) == ["n1/n1_7", "n1/n1_8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the header"),
        ("a,n1 1 2 3 4\n", "line 1: expected the header"),
        (HEADER + "a,n1 1 2 3\n", "line 2: .*found 4 fields"),
        (HEADER + "a,n1 1 2 3 4 5\n", "line 2: .*found 6 fields"),
        (HEADER + "a,\n", "line 2: .*found 0 fields"),
        (HEADER + "a n1 1 2 3 4\n", "line 2: .*a comma"),
        (HEADER + "a,n1 1 2 3 4\nb,n1 1 2 x 4\n", "line 3: expected a number .*'x'"),
        (HEADER + "a,n1 1 2 nan 4\n", "line 2: expected a number .*'nan'"),
        (HEADER + "a,n1 1 2 3 4\na,n1 1 2 3 4\n", "line 3: .*already on line 2"),
        (HEADER + "../a,n1 1 2 3 4\n", "line 2: .*path part"),
    ],
)
def test_solution_csv_refuses(tmp_path, text, message):
    path = tmp_path / "LOC_val_solution.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        read_solution_csv(path, split="val")
    assert str(path) in str(caught.value)
