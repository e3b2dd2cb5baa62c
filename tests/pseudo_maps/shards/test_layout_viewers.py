"""The file as viewers meet it, read through HDF5's own calls."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5a, h5d, h5f, h5o, h5p, h5t, h5z

from pseudo_maps import shards
from pseudo_maps.shards import STATUS_OK, ShardWriter, make_provenance
from tests.pseudo_maps.shard_making import MAP_SIZE, make_row

FULL = np.full((MAP_SIZE, MAP_SIZE), 255, dtype=np.uint8)
ROWS = [
    make_row("n01_1", wnid="n01"),
    make_row("größer_2", wnid="n02", path="bilder/größer_2.JPEG"),
    make_row("n01_3", wnid="", label=-1),
]
IMAGE_STRINGS = {b"CLASS": b"IMAGE", b"IMAGE_VERSION": b"1.2", b"IMAGE_SUBCLASS": b"IMAGE_INDEXED"}


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "val-00000-of-00001.h5"
    with ShardWriter(target, rows=3, map_size=MAP_SIZE, provenance=make_provenance({"a": 1})) as writer:
        for number, row in enumerate(ROWS):
            writer.write(number, FULL - np.uint8(number) * np.eye(MAP_SIZE, dtype=np.uint8), row)
        writer.commit()
    return target


@pytest.fixture
def file(path):
    with h5py.File(path, "r") as opened:
        yield opened


def all_objects(file):
    found = {"/": file}
    file.visititems(lambda name, item: found.__setitem__("/" + name, item))
    return found


def string_attribute(item, name):
    """Value of an attribute, and the proof that it is a scalar or simple fixed-length string."""
    attribute = h5a.open(item.id, name)
    kind = attribute.get_type()
    assert isinstance(kind, h5t.TypeStringID), name
    assert not kind.is_variable_str(), name
    return item.attrs[name.decode()]


def test_objects(file):
    assert set(all_objects(file)) == {
        "/",
        "/palette",
        "/saliency",
        "/saliency/maps",
        "/saliency/row",
        "/saliency/y",
        "/saliency/x",
        "/images",
        "/by_name",
        "/by_name/n01",
        "/by_name/n01/n01_1",
        "/by_name/n02",
        "/by_name/n02/größer_2",
        "/by_name/unclassified",
        "/by_name/unclassified/n01_3",
    }


def test_no_string_attribute_has_variable_length(file):
    strings = 0
    for name, item in all_objects(file).items():
        for position in range(h5a.get_num_attrs(item.id)):
            kind = h5a.open(item.id, index=position).get_type()
            if isinstance(kind, h5t.TypeStringID):
                assert not kind.is_variable_str(), name
                strings += 1
            else:
                assert not isinstance(kind, h5t.TypeVlenID), name
    assert strings > 20


@pytest.mark.parametrize(
    "name", ["saliency/maps", "by_name/n01/n01_1", "by_name/n02/größer_2", "by_name/unclassified/n01_3"]
)
def test_image_attributes(file, name):
    item = file[name]
    for attribute, value in IMAGE_STRINGS.items():
        assert string_attribute(item, attribute) == value
    assert string_attribute(item, b"interpretation") == b"image"
    assert h5a.open(item.id, b"PALETTE").get_type().equal(h5t.STD_REF_OBJ)
    assert file[item.attrs["PALETTE"]] == file["palette"]


def test_palette(file):
    palette = file["palette"]
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    np.testing.assert_array_equal(palette[()], np.arange(256)[:, None].repeat(3, axis=1))
    for name, value in {
        b"CLASS": b"PALETTE",
        b"PAL_VERSION": b"1.2",
        b"PAL_TYPE": b"STANDARD8",
        b"PAL_COLORMODEL": b"RGB",
    }.items():
        assert string_attribute(palette, name) == value


def test_nexus_attributes(file):
    assert string_attribute(file, b"NX_class") == b"NXroot"
    assert string_attribute(file, b"default") == b"saliency"
    group = file["saliency"]
    assert string_attribute(group, b"NX_class") == b"NXdata"
    assert string_attribute(group, b"signal") == b"maps"
    assert string_attribute(group, b"axes").tolist() == [b"row", b"y", b"x"]
    assert string_attribute(file["saliency/maps"], b"long_name").startswith(b"pseudo saliency map")
    assert string_attribute(file, b"provenance").startswith(b'{"configuration":{"a":1},"package_version":')
    assert int(file.attrs["schema_version"]) == 1


def test_maps_storage(file):
    maps = file["saliency/maps"]
    assert maps.shape == (3, MAP_SIZE, MAP_SIZE) and maps.chunks == (1, MAP_SIZE, MAP_SIZE)
    assert maps.id.get_type().equal(h5t.STD_U8LE)
    properties = maps.id.get_create_plist()
    filters = [properties.get_filter(position) for position in range(properties.get_nfilters())]
    assert [code for code, *_ in filters] == [h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32]
    assert filters[0][2][0] == 4
    assert (maps.attrs["CLASS"], maps.compression_opts, maps.shuffle) == (b"IMAGE", 4, False)


def test_axes_are_numbers_and_no_scales(file):
    for name, length in (("row", 3), ("y", MAP_SIZE), ("x", MAP_SIZE)):
        axis = file["saliency"][name]
        np.testing.assert_array_equal(axis[()], np.arange(length))
        assert not axis.is_scale
        assert len(axis.attrs) == 0
    for item in all_objects(file).values():
        assert not {"DIMENSION_LIST", "REFERENCE_LIST"} & set(item.attrs)


def test_table_strings(file):
    table = file["images"]
    assert table.fletcher32 and table.chunks == (3,)
    kind = table.id.get_type()
    names = [kind.get_member_name(position) for position in range(kind.get_nmembers())]
    assert names == [
        b"row",
        b"image_id",
        b"path",
        b"wnid",
        b"label",
        b"height",
        b"width",
        b"peak",
        b"proposals",
        b"status",
    ]
    lengths = {}
    for position, name in enumerate(names):
        member = kind.get_member_type(position)
        if isinstance(member, h5t.TypeStringID):
            assert not member.is_variable_str()
            assert member.get_cset() == h5t.CSET_UTF8
            lengths[name] = member.get_size()
    expected = {name: max(len(getattr(row, name).encode()) for row in ROWS) for name in ("image_id", "path", "wnid")}
    assert lengths == {name.encode(): length for name, length in expected.items()} | {b"status": len(STATUS_OK)}


def test_a_column_of_empty_strings_has_length_one(tmp_path):
    target = tmp_path / "val-00000-of-00001.h5"
    with ShardWriter(target, rows=1, map_size=MAP_SIZE, provenance=make_provenance({})) as writer:
        writer.write(0, FULL, make_row("a", wnid="", path=""))
        writer.commit()
    with h5py.File(target) as file:
        assert file["images"].dtype["wnid"].itemsize == 1
        assert file["images"]["wnid"].tolist() == [b""]


def test_no_dataset_stores_times(file):
    for name, item in all_objects(file).items():
        assert h5o.get_info(item.id).mtime == 0, name


def test_virtual_datasets_point_into_their_own_file(file):
    for row, name in enumerate(["n01/n01_1", "n02/größer_2", "unclassified/n01_3"]):
        properties = file["by_name"][name].id.get_create_plist()
        assert properties.get_layout() == h5d.VIRTUAL
        assert properties.get_virtual_count() == 1
        assert properties.get_virtual_filename(0) == "."
        assert properties.get_virtual_dsetname(0) == "/saliency/maps"
        start, end = properties.get_virtual_srcspace(0).get_select_bounds()
        assert (start, end) == ((row, 0, 0), (row, MAP_SIZE - 1, MAP_SIZE - 1))


def test_virtual_datasets_survive_renaming(path, tmp_path):
    moved = tmp_path / "elsewhere" / "copy.h5"
    moved.parent.mkdir()
    path.rename(moved)
    with h5py.File(moved) as file:
        np.testing.assert_array_equal(file["by_name/n02/größer_2"][()], file["saliency/maps"][1])
        assert file["by_name/n02/größer_2"][()].any()


def test_by_name_can_be_left_out(tmp_path):
    target = tmp_path / "val-00000-of-00001.h5"
    with ShardWriter(target, rows=1, map_size=MAP_SIZE, provenance=make_provenance({}), by_name=False) as writer:
        writer.write(0, FULL, make_row("a"))
        writer.commit()
    with h5py.File(target) as file:
        assert set(file) == {"palette", "saliency", "images"}


def test_oldest_file_structures(path):
    # Byte 8 is the superblock's version; 'latest' writes 3, which leaves an open-for-write flag behind.
    assert path.read_bytes()[8] == 0
    properties = h5p.create(h5p.FILE_ACCESS)
    opened = h5f.open(str(path).encode(), h5f.ACC_RDONLY, fapl=properties)
    assert opened.get_create_plist().get_version()[0] == 0
    opened.close()


def test_the_format_document_reads_a_shard(tmp_path, monkeypatch, capsys):
    document = Path(shards.__file__).with_name("SHARD_FORMAT.md").read_text()
    code = document.split("```python\n")[1].split("```")[0]
    with ShardWriter(
        tmp_path / "val-00000-of-00003.h5", rows=2, map_size=MAP_SIZE, provenance=make_provenance({})
    ) as writer:
        writer.write(0, FULL, make_row("first", peak=0.25))
        writer.write(1, np.zeros_like(FULL), make_row("second", peak=0.0, status="timeout"))
        writer.commit()
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "SHARD_FORMAT.md", "exec"), {})
    assert capsys.readouterr().out == f"first ({MAP_SIZE}, {MAP_SIZE}) 0.25\n"
