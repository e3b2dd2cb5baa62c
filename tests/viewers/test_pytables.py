"""What PyTables, and so ViTables, makes of a shard."""

import warnings

import numpy as np
import pytest

from pseudo_maps.shards.layout import STRING_FIELDS, TABLE_FIELDS

tables = pytest.importorskip("tables", reason="needs the extra 'viewers'")
pytestmark = [
    pytest.mark.viewers,
    # Raised as an error it would keep PyTables from reading the node.
    pytest.mark.filterwarnings("ignore:Unsupported type for attribute 'PALETTE':tables.DataTypeWarning"),
]


@pytest.fixture
def file(shard):
    with tables.open_file(shard.path) as opened:
        yield opened


def test_every_array_is_read(file, shard):
    np.testing.assert_array_equal(file.root.saliency.maps.read(), shard.maps_nhw)
    np.testing.assert_array_equal(file.root.saliency.maps[1:3, 5], shard.maps_nhw[1:3, 5])
    np.testing.assert_array_equal(file.root.palette.read()[:, 1], np.arange(256))
    for name, length in zip(("row", "y", "x"), shard.maps_nhw.shape, strict=True):
        np.testing.assert_array_equal(file.get_node("/saliency", name).read(), np.arange(length))


def test_pictures_under_their_names_are_images(file, shard):
    pictures = {node._v_pathname: node for node in file.walk_nodes("/by_name", "ImageArray")}
    assert list(pictures) == [
        "/by_name/a-corner/disc",
        "/by_name/chat/broken",
        "/by_name/chat/chelsea",
        "/by_name/größe/astronaut",
    ]
    for picture, expected_hw in zip(pictures.values(), shard.maps_nhw, strict=True):
        np.testing.assert_array_equal(picture.read(), expected_hw)


def test_the_table_is_a_table_with_readable_strings(file, shard):
    table = file.root.images
    assert isinstance(table, tables.Table)
    assert tuple(table.colnames) == TABLE_FIELDS
    for name in TABLE_FIELDS[1:]:
        column = table.col(name).tolist()
        found = [value.decode() for value in column] if name in STRING_FIELDS else column
        assert found == [getattr(row, name) for row in shard.rows], name
    assert table.col("row").tolist() == [0, 1, 2, 3]
    assert [row["image_id"].decode() for row in table.where('status != b"ok"')] == ["chat/broken.png"]


def test_nothing_is_warned_of_but_the_palette_reference(shard):
    # PyTables knows no object references; HDFView needs this one, and the pictures are read without it.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with tables.open_file(shard.path) as file:
            nodes = list(file.walk_nodes("/"))
            for node in nodes:
                for name in node._v_attrs._v_attrnames:
                    node._v_attrs[name]
                if isinstance(node, tables.Leaf):
                    node.read()
    assert not any(isinstance(node, tables.UnImplemented) for node in nodes)
    messages = {str(warning.message).partition(" in node ")[0] for warning in caught}
    assert messages == {"Unsupported type for attribute 'PALETTE'"}


def test_attributes_are_texts(file):
    assert file.root._v_attrs["default"] == b"saliency"
    assert file.root.saliency._v_attrs["axes"].tolist() == [b"row", b"y", b"x"]
    assert file.root.saliency.maps.attrs["interpretation"] == b"image"
