import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pseudo_maps.shards import (
    parse_shard_name,
    quantise_map,
    shard_name,
)
from pseudo_maps.shards.layout import by_name_links
from tests.pseudo_maps.shard_making import make_row


@given(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True), st.integers(1, 2_000_000), st.data())
def test_shard_names_read_back(split, count, data):
    index = data.draw(st.integers(0, count - 1))
    assert parse_shard_name(shard_name(split, index, count)) == (split, index, count)


@pytest.mark.parametrize(
    "name",
    [
        "val-00001-of-00001.h5",
        "val-0-of-1.h5",
        "val-000000-of-00001.h5",
        "val-00000-of-00001.h5.sha256",
        ".val-00000-of-00001.h5",
        "-00000-of-00001.h5",
        "a/b-00000-of-00001.h5",
        "val-00000-of-00001.h5\n",
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="not a shard's name"):
        parse_shard_name(name)


@pytest.mark.parametrize(("split", "index"), [("val", 3), ("val", -1), ("a/b", 0), ("", 0), (".x", 0)])
def test_shard_name_refuses(split, index):
    with pytest.raises(ValueError, match="expected"):
        shard_name(split, index, 3)


def test_quantise_by_hand():
    # 255 * .1 / .4 = 63.75 up; 255 * .2 / .4 = 127.5 half to even is 128; 255 * .002 / .4 = 1.275 down.
    stored, peak = quantise_map(np.array([[0.1, 0.2], [0.4, 0.002]], dtype=np.float32) * np.float32(1))
    assert stored.tolist() == [[64, 128], [255, 1]]
    assert peak == np.float32(0.4)
    assert quantise_map(np.array([[1, 510]], dtype=np.float32))[0].tolist() == [[0, 255]]  # 0.5 is even at 0
    assert quantise_map(np.array([[3, 510]], dtype=np.float32))[0].tolist() == [[2, 255]]  # 1.5 is even at 2


finite = st.floats(0, float(np.finfo(np.float32).max), width=32)


@given(hnp.arrays(np.float32, (3, 4), elements=finite))
def test_quantised_maps_reach_255_and_are_off_by_half_a_step(map_hw):
    stored, peak = quantise_map(map_hw)
    assert stored.dtype == np.uint8
    assert peak == map_hw.max()
    if peak == 0:
        assert not stored.any()
    else:
        assert stored.max() == 255
        error = np.abs(stored * (peak / 255) - map_hw.astype(np.float64))
        assert (error <= peak / 255 * 0.5000001).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([[np.nan]], np.float32),
        np.array([[np.inf]], np.float32),
        np.array([[-1e-9, 1]], np.float32),
        np.ones((2, 2), np.float64),
        np.ones(4, np.float32),
        np.ones((0, 3), np.float32),
    ],
)
def test_quantise_refuses(values):
    with pytest.raises(ValueError, match="map: "):
        quantise_map(values)


# Writing and reading


def test_by_name_links():
    ids = [
        ("n01/n01_5.JPEG", "n01"),
        ("other/n01_5.png", "n01"),
        ("n01_5", ""),
        ("folder/.", "a/b"),
        ("..", "."),
        ("deep/er/x", "a_b"),
        ("deep/x", "a_b"),
        ("x~6", "a_b"),
    ]
    links = list(by_name_links([make_row(image_id, wnid=wnid) for image_id, wnid in ids]))
    assert links == [
        (0, "n01", "n01_5"),
        (1, "n01", "n01_5~1"),
        (2, "unclassified", "n01_5"),
        (3, "a_b", "_"),
        (4, "_", "__"),
        (5, "a_b", "x"),
        (6, "a_b", "x~6"),
        (7, "a_b", "x~6~7"),
    ]


text = st.text(alphabet="ab./~1_", min_size=1, max_size=4)


@given(st.lists(st.tuples(text, text), max_size=12, unique_by=lambda pair: pair[0]))
def test_by_name_links_are_unique_and_legal(pairs):
    links = list(by_name_links([make_row(image_id, wnid=wnid) for image_id, wnid in pairs]))
    assert [row for row, _, _ in links] == list(range(len(pairs)))
    assert len({(group, link) for _, group, link in links}) == len(pairs)
    for _, group, link in links:
        assert group not in ("", ".", "..") and link not in ("", ".", "..")
        assert "/" not in group + link
