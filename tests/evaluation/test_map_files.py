"""Map files of other tools: forms, depths, and what is no map."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.map_files import read_map

RAMP = np.arange(12).reshape(3, 4)


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (3, 4, 1), (1, 1, 3, 4), (1, 3, 4, 1)])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_axes_of_length_one_around_a_map_are_dropped(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    path = tmp_path / f"map.{suffix}"
    array = RAMP.reshape(shape).astype(np.float16)
    np.save(path, array) if suffix == "npy" else np.savez_compressed(path, array)
    found = read_map(path)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, RAMP)


@pytest.mark.parametrize("shape", [(3, 1), (1, 4), (2, 3, 4)])
def test_other_axes_stay(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "map.npy", np.ones(shape))
    assert read_map(tmp_path / "map.npy").shape == shape


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [("png", np.uint8), ("png", np.uint16), ("png", np.bool_)]
    + [("tif", dtype) for dtype in (np.uint8, np.uint16, np.int32, np.float32, np.float64, np.bool_)],
)
def test_pictures_keep_their_depth(tmp_path: Path, suffix: str, dtype: type) -> None:
    wanted = (RAMP * 21).astype(dtype)
    Image.fromarray(wanted).save(tmp_path / f"map.{suffix}")
    np.testing.assert_array_equal(read_map(tmp_path / f"map.{suffix}"), wanted)


def test_grey_colours_are_a_map(tmp_path: Path) -> None:
    Image.fromarray(np.repeat((RAMP * 20).astype(np.uint8)[..., None], 3, axis=2)).save(tmp_path / "map.png")
    np.testing.assert_array_equal(read_map(tmp_path / "map.png"), RAMP * 20)


def test_the_pages_of_a_tiff_are_a_stack(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((3, 4), number, dtype=np.float32)) for number in range(3)]
    pages[0].save(tmp_path / "maps.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_map(tmp_path / "maps.tif")[:, 0, 0], [0, 1, 2])


def colours(path: Path) -> None:
    pixels = np.zeros((3, 4, 3), dtype=np.uint8)
    pixels[1, 1, 0] = 9
    Image.fromarray(pixels).save(path)


def transparent(path: Path) -> None:
    pixels = np.zeros((3, 4, 4), dtype=np.uint8)
    pixels[1, 1, 3] = 9
    Image.fromarray(pixels).save(path)


def wrong_checksum(path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint8)).save(path)
    content = path.read_bytes()
    at = content.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", content[at : at + 4])
    end = at + 8 + length
    assert zlib.crc32(content[at + 4 : end]) == struct.unpack(">I", content[end : end + 4])[0]
    path.write_bytes(content[:end] + b"\0\0\0\0" + content[end + 4 :])


def cut_off(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-100])


def jpeg(path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint8)).save(path, format="JPEG")


@pytest.mark.parametrize("spoil", [colours, transparent, wrong_checksum, cut_off, jpeg])
def test_a_picture_that_is_no_map_or_damaged_is_refused(tmp_path: Path, spoil: object) -> None:
    spoil(tmp_path / "map.png")  # type: ignore[operator]
    with pytest.raises(ValueError, match="expected a plain numeric array or a grey picture"):
        read_map(tmp_path / "map.png")


def test_an_archive_of_several_arrays_names_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "map.npz", cam=RAMP, scores=RAMP)
    with pytest.raises(ValueError, match="an archive of one array, found cam, scores"):
        read_map(tmp_path / "map.npz")


def test_a_pickle_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "map.npz", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_map(tmp_path / "map.npz")
