"""The image decoder: formats, colours, orientation and decoding at reduced scale."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pseudo_maps.images import decode_image
from tests.pseudo_maps.image_making import encode, frames, jpeg, picture, png, png_chunk


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


# --- what is read


def test_result_states_the_file_and_holds_contiguous_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(jpeg())
    decoded = decode_image(path)
    assert (decoded.file_height, decoded.file_width) == (60, 80)
    assert decoded.rgb_hwc.shape == (60, 80, 3) and decoded.rgb_hwc.dtype == np.uint8
    assert decoded.rgb_hwc.flags.c_contiguous and decoded.rgb_hwc.flags.writeable
    np.testing.assert_array_equal(decode_image(str(path)).rgb_hwc, decoded.rgb_hwc)
    np.testing.assert_array_equal(decode_image(path.read_bytes()).rgb_hwc, decoded.rgb_hwc)


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_keep_every_value(image_format: str) -> None:
    np.testing.assert_array_equal(decode_image(encode(picture(), image_format)).rgb_hwc, picture())


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 2}),
        ("JPEG", {"restart_marker_rows": 1}),
        ("WEBP", {}),
    ],
)
def test_lossy_formats_come_close(image_format: str, options: dict) -> None:
    decoded = decode_image(encode(picture(), image_format, quality=95, **options))
    assert mean_difference(decoded.rgb_hwc, picture()) < 2.5


@pytest.mark.parametrize(
    ("sampling", "progressive"), [("4:4:4", False), ("4:4:4", True), ("4:2:0", False), ("4:2:2", True)]
)
def test_plain_jpegs_equal_an_independent_decode(tmp_path: Path, sampling: str, progressive: bool) -> None:
    path = tmp_path / "plain.jpg"
    options = {"subsampling": sampling, "progressive": progressive}
    path.write_bytes(encode(picture(121, 163), "JPEG", quality=90, **options))
    other = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]
    assert np.abs(decode_image(path).rgb_hwc.astype(int) - other).max() <= 2


def test_cmyk_jpeg_comes_out_in_its_own_colours_not_inverted() -> None:
    encoded = encode(picture(), "JPEG", mode="CMYK", quality=95)
    assert b"Adobe" in encoded, "Pillow writes CMYK the inverted way of Adobe"
    assert mean_difference(decode_image(encoded).rgb_hwc, picture()) < 2.5


@pytest.mark.parametrize(("image_format", "tolerance"), [("JPEG", 2), ("PNG", 0), ("TIFF", 0)])
def test_grey_pictures_get_three_equal_channels(image_format: str, tolerance: int) -> None:
    grey = picture()[..., 0]
    rgb = decode_image(encode(grey, image_format, mode="L", quality=95)).rgb_hwc
    assert (rgb == rgb[..., :1]).all() and np.abs(rgb[..., 0].astype(int) - grey).max() <= tolerance


def test_16_bit_grey_keeps_its_upper_byte() -> None:
    values = np.array([[0, 255, 256, 0x7FFF], [0x8000, 0x80FF, 0xFF00, 0xFFFF]], dtype=">u2")
    expected = [[0, 0, 1, 0x7F], [0x80, 0x80, 0xFF, 0xFF]]
    files = {
        "png": png(values[..., None], colour_type=0, bits=16),
        "ppm": b"P5 4 2 65535\n" + values.tobytes(),
        "tiff": encode(values.astype("<u2"), "TIFF", mode="I;16"),
    }
    for name, encoded in files.items():
        rgb = decode_image(encoded).rgb_hwc
        assert rgb[..., 1].tolist() == expected, name
        assert (rgb == rgb[..., :1]).all() and rgb.flags.c_contiguous and rgb.flags.writeable, name


def test_16_bit_colour_keeps_its_upper_byte() -> None:
    values = np.random.default_rng(3).integers(0, 65536, size=(5, 7, 3)).astype(">u2")
    decoded = decode_image(png(values, colour_type=2, bits=16))
    np.testing.assert_array_equal(decoded.rgb_hwc, values >> 8)


@pytest.mark.parametrize("transparency", [b"", bytes([0, 128, 255]), bytes([255, 0])])
def test_palette_colours_come_out_whatever_their_transparency(transparency: bytes) -> None:
    palette = np.array([[250, 10, 20], [30, 240, 40], [50, 60, 230]], dtype=np.uint8)
    indices = np.array([[0, 1, 2, 2], [2, 0, 0, 1]], dtype=np.uint8)
    extra = png_chunk(b"PLTE", palette.tobytes())
    extra += png_chunk(b"tRNS", transparency) if transparency else b""
    decoded = decode_image(png(indices[..., None], colour_type=3, bits=8, extra=extra))
    np.testing.assert_array_equal(decoded.rgb_hwc, palette[indices])


@pytest.mark.parametrize(("colour_type", "channels"), [(6, 4), (4, 2)])
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_is_dropped_without_compositing(colour_type: int, channels: int, bits: int) -> None:
    upper = np.random.default_rng(4).integers(0, 256, size=(6, 5, channels)).astype(np.uint8)
    upper[..., -1] = np.arange(30).reshape(6, 5) % 3 * 100  # a third of it wholly transparent
    samples = upper if bits == 8 else (upper.astype(">u2") << 8).astype(">u2")
    decoded = decode_image(png(samples, colour_type=colour_type, bits=bits))
    np.testing.assert_array_equal(decoded.rgb_hwc, np.broadcast_to(upper[..., : max(1, channels - 1)], (6, 5, 3)))


def test_one_bit_pictures_are_black_and_white() -> None:
    bits = np.packbits([[0, 1, 1, 0, 1, 0, 0, 1]], axis=1)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, 1, 0, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(b"\0" + bits.tobytes())) + png_chunk(b"IEND", b"")
    decoded = decode_image(b"\x89PNG\r\n\x1a\n" + header + body)
    assert decoded.rgb_hwc[0, :, 2].tolist() == [0, 255, 255, 0, 255, 0, 0, 255]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("enough_px", [None, 1, 500])
def test_extreme_shapes(shape: tuple[int, int], image_format: str, enough_px: int | None) -> None:
    decoded = decode_image(encode(picture(*shape), image_format), enough_px=enough_px)
    assert (decoded.file_height, decoded.file_width) == shape
    # One pixel is the short side, so nothing may be reduced.
    assert decoded.rgb_hwc.shape == (*shape, 3)


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    turned, plain = decode_image(jpeg(exif=exif)), decode_image(jpeg())
    assert (turned.file_height, turned.file_width) == (60, 80)
    np.testing.assert_array_equal(turned.rgb_hwc, plain.rgb_hwc)


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(40)),
        b"Exif\0\0MM\0*\x7f\xff\xff\xff",
        b"Exif\0\0" + b"\xff" * 300,
    ],
)
def test_broken_exif_does_no_harm(block: bytes) -> None:
    np.testing.assert_array_equal(decode_image(jpeg(exif=block)).rgb_hwc, decode_image(jpeg()).rgb_hwc)


def test_first_picture_of_a_stereo_jpeg_is_read() -> None:
    first, second = frames(2)
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        assert image.format == "MPO" and image.n_frames == 2
    decoded = decode_image(buffer.getvalue())
    assert mean_difference(decoded.rgb_hwc, picture(seed=0)) < 2.5
    assert decode_image(buffer.getvalue(), enough_px=40).rgb_hwc.shape == (30, 40, 3)


@pytest.mark.parametrize("appended", [b"\0" * 512, b"\xff\xda" * 20, bytes(range(256)) * 8])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_bytes_after_the_end_do_no_harm(appended: bytes, image_format: str) -> None:
    encoded = encode(picture(), image_format)
    np.testing.assert_array_equal(decode_image(encoded + appended).rgb_hwc, decode_image(encoded).rgb_hwc)


# --- reduced scale


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (333, 500), (301, 403), (97, 1001), (640, 640)])
@pytest.mark.parametrize("enough_px", [40, 62, 63, 100, 125, 160, 224, 249, 250, 251, 500])
def test_reduction_is_the_largest_that_leaves_enough(shape: tuple[int, int], enough_px: int) -> None:
    encoded = encode(np.zeros((*shape, 3), dtype=np.uint8), "JPEG")
    decoded = decode_image(encoded, enough_px=enough_px)
    longest = max(shape)
    step = next((step for step in (8, 4, 2) if longest >= step * enough_px), 1)
    assert (decoded.file_height, decoded.file_width) == shape
    assert decoded.rgb_hwc.shape == (-(-shape[0] // step), -(-shape[1] // step), 3)
    assert max(decoded.rgb_hwc.shape) >= min(enough_px, longest)


@pytest.mark.parametrize(("enough_px", "step"), [(200, 2), (100, 4), (50, 8)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_reduced_decoding_is_close_to_averaging_areas(enough_px: int, step: int, mode: str) -> None:
    noise = np.random.default_rng(8).normal(0, 12, size=(320, 400, 1))
    textured = (picture(320, 400) * 0.8 + 25 + noise).clip(0, 255).astype(np.uint8)
    encoded = encode(textured, "JPEG", mode=mode, quality=95)
    full = decode_image(encoded).rgb_hwc.astype(float)
    averaged = full.reshape(320 // step, step, 400 // step, step, 3).mean(axis=(1, 3))
    reduced = decode_image(encoded, enough_px=enough_px).rgb_hwc
    assert reduced.shape == averaged.shape
    assert mean_difference(reduced, averaged) < 1.5
    # A picked pixel instead of a mean would be off by the noise.
    assert mean_difference(full[::step, ::step], averaged) > 4


def test_other_files_and_none_are_decoded_at_full_size() -> None:
    large = picture(300, 400)
    assert decode_image(encode(large, "PNG"), enough_px=50).rgb_hwc.shape == (300, 400, 3)
    assert decode_image(encode(large, "JPEG")).rgb_hwc.shape == (300, 400, 3)


@pytest.mark.parametrize("enough_px", [0, -5])
def test_enough_pixels_means_at_least_one(enough_px: int) -> None:
    with pytest.raises(ValueError, match="enough_px must be at least 1"):
        decode_image(jpeg(), enough_px=enough_px)


# --- real images


@pytest.mark.real_data
def test_real_images_decode_and_equal_an_independent_decode(real_data: Path) -> None:
    paths = sorted((real_data / "ilsvrc10/Data/CLS-LOC/val").glob("*.JPEG"))[::5]
    assert len(paths) == 100
    for path in paths:
        other = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1]
        assert mean_difference(decode_image(path).rgb_hwc, other) < 0.5, path
