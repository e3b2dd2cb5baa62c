"""Two values of JSON are told apart key by key, with what each says."""

import pytest

from evaluation.results.json_differences import value_differences


def test_equal_values_have_no_differences() -> None:
    value = {"a": [1, {"b": None}], "c": "d"}
    assert value_differences(value, {"c": "d", "a": [1, {"b": None}], "e": None}) == []


@pytest.mark.parametrize(
    ("there", "now", "lines"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, ["a.b: 1 there, 3 now"]),
        ({"a": 1}, {"b": "x"}, ["a: 1 there, nothing now", 'b: nothing there, "x" now']),
        ({"a": 1}, {"a": True}, ["a: 1 there, true now"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: [1, 2] there, [2, 1] now"]),
        (1, 2, ["all: 1 there, 2 now"]),
    ],
)
def test_each_difference_is_a_line(there: object, now: object, lines: list[str]) -> None:
    assert value_differences(there, now) == lines


def test_a_digest_is_shown_where_nothing_else_of_its_object_differs() -> None:
    before = {"data": {"images": 2, "sha256": "1f"}, "maps": {"sha256": "aa", "format": "npy"}}
    assert value_differences(before, {**before, "data": {"images": 3, "sha256": "2e"}}) == [
        "data.images: 2 there, 3 now"
    ]
    assert value_differences(before, {**before, "maps": {"sha256": "bb", "format": "npy"}}) == [
        'maps.sha256: "aa" there, "bb" now'
    ]


def test_long_values_are_cut() -> None:
    (line,) = value_differences("x" * 1000, "y")
    assert line.startswith('all: "xxx') and line.endswith('... there, "y" now') and len(line) < 150
