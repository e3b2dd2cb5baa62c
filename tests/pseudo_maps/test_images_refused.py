"""Damaged, foreign and oversized image files: every one is refused by an error that names it."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudo_maps.images import MAX_PIXELS, ImageDecodeError, decode_image, read_image_size
from tests.pseudo_maps.image_making import encode, frames, jpeg, picture, png, png_chunk

ENCODERS: dict[str, Callable[[], bytes]] = {
    "jpeg": jpeg,
    "jpeg progressive": lambda: jpeg(progressive=True),
    "jpeg grey": lambda: encode(picture()[..., 0], "JPEG", mode="L"),
    "jpeg grey with thumbnail": lambda: encode(picture()[..., 0], "JPEG", mode="L", exif=b"Exif\0\0" + jpeg()),
    "jpeg cmyk": lambda: encode(picture(), "JPEG", mode="CMYK"),
    "png": lambda: encode(picture(), "PNG"),
    "png palette": lambda: encode(picture(), "PNG", mode="P"),
    "png 16 bits": lambda: png(picture()[..., :1].astype(">u2"), colour_type=0, bits=16),
    "bmp": lambda: encode(picture(), "BMP"),
    "ppm": lambda: encode(picture(), "PPM"),
    "tiff": lambda: encode(picture(), "TIFF"),
    "tiff lzw": lambda: encode(picture(), "TIFF", compression="tiff_lzw"),
    "webp": lambda: encode(picture(), "WEBP"),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("enough_px", [None, 20])
def test_truncated_files_are_refused_at_any_length(name: str, enough_px: int | None) -> None:
    encoded = ENCODERS[name]()
    decode_image(encoded, enough_px=enough_px)
    lengths = {len(encoded) - missing for missing in range(1, 41)}
    lengths |= {round(len(encoded) * fraction) for fraction in np.linspace(0.02, 0.98, 25)}
    for length in sorted(lengths):
        with pytest.raises(ImageDecodeError, match=r"^image bytes: "):
            decode_image(encoded[:length], enough_px=enough_px)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.JPEG"
    path.write_bytes(jpeg()[:-500])
    with pytest.raises(ImageDecodeError, match=r"cut\.JPEG: damaged or truncated image: "):
        decode_image(path)
    path.write_bytes(encode(picture(), "PNG")[:-3])
    with pytest.raises(ImageDecodeError, match=r"cut\.JPEG: .*the file ends before the chunk IEND"):
        decode_image(path)


def test_a_grey_jpeg_without_its_end_marker_is_refused() -> None:
    # Whether Pillow alone notices depends on the bits left over in the last coded byte, hence many pictures.
    for seed in range(30):
        encoded = encode(picture(seed=seed)[..., 0], "JPEG", mode="L")
        assert encoded.endswith(b"\xff\xd9")
        for missing in (1, 2):
            with pytest.raises(ImageDecodeError, match=r"truncated image: .*(marker is missing|is truncated)"):
                decode_image(encoded[:-missing])


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_changed_bytes_in_a_png_never_change_pixels_in_silence(mode: str) -> None:
    encoded = encode(picture(), "PNG", mode=mode)
    whole = decode_image(encoded).rgb_hwc
    for position in [*range(60), *range(60, len(encoded), 23)]:
        changed = bytearray(encoded)
        changed[position] ^= 0x10
        try:
            found = decode_image(bytes(changed)).rgb_hwc
        except ImageDecodeError:
            continue
        np.testing.assert_array_equal(found, whole, err_msg=f"byte {position}")
    changed = bytearray(encoded)
    changed[-13] ^= 1  # the last byte of the checksum of the pixels; IEND takes twelve
    with pytest.raises(ImageDecodeError, match="checksum"):
        decode_image(bytes(changed))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.filterwarnings("error")
def test_random_damage_raises_only_the_promised_error(name: str) -> None:
    encoded = ENCODERS[name]()
    rng = np.random.default_rng(7)
    outcomes = []
    for _ in range(150):
        damaged = bytearray(encoded)
        for position in rng.integers(0, rng.choice([200, len(encoded)]), size=rng.choice([1, 3, 10])):
            damaged[position] = rng.integers(256)
        try:
            decoded = decode_image(bytes(damaged), max_pixels=10**6)
        except ImageDecodeError as error:
            assert str(error).startswith("image bytes: ")
            outcomes.append(False)
        else:
            assert decoded.rgb_hwc.shape == (decoded.file_height, decoded.file_width, 3)
            outcomes.append(True)
    assert not all(outcomes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>404 not found</html>", "not an image .*expected one of JPEG.*found b'<html>40'"),
        (b"\0" * 1000, "not an image"),
        (b"\xff\xd8", "not an image"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.JPEG"
    path.write_bytes(content)
    with pytest.raises(ImageDecodeError, match=rf"x\.JPEG: {message}"):
        decode_image(path)


@pytest.mark.parametrize("count", [1, 3])
def test_gif_is_refused_animated_or_not(count: int) -> None:
    buffer = io.BytesIO()
    first, *others = frames(count)
    first.save(buffer, "GIF", save_all=True, append_images=others)
    with pytest.raises(ImageDecodeError, match="format GIF is not read"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_animations_and_sequences_are_refused(image_format: str) -> None:
    buffer = io.BytesIO()
    first, *others = frames(3)
    first.save(buffer, image_format, save_all=True, append_images=others)
    with pytest.raises(ImageDecodeError, match="animation or image sequence of 3 frames"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(ImageDecodeError, match=rf"pixel mode {mode} has no defined range"):
        decode_image(encode(picture()[..., 0], "TIFF", mode=mode))


def enlarge_jpeg_header(encoded: bytes, side: int) -> bytes:
    frame = encoded.index(b"\xff\xc0")
    return encoded[: frame + 5] + struct.pack(">HH", side, side) + encoded[frame + 9 :]


def test_an_absurd_header_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_load(*_: object) -> None:
        pytest.fail("pixels were decoded")

    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 100)) + png_chunk(b"IEND", b"")
    plain, small = jpeg(), encode(picture(), "PNG")
    monkeypatch.setattr(Image.Image, "convert", refuse_to_load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse_to_load)
    for encoded in (enlarge_jpeg_header(plain, 30_000), b"\x89PNG\r\n\x1a\n" + header + body):
        with pytest.raises(ImageDecodeError, match="900000000 pixels"):
            decode_image(encoded)
    with pytest.raises(ImageDecodeError, match=f"exceeds limit of {MAX_PIXELS} pixels"):
        decode_image(enlarge_jpeg_header(plain, 13_378), max_pixels=10**9)
    # Pillow only warns of this one, and that warning would fail the test.
    with pytest.raises(ImageDecodeError, match="10000x10000 pixels, more than the limit of 99999999"):
        decode_image(enlarge_jpeg_header(plain, 10_000), max_pixels=99_999_999)
    with pytest.raises(ImageDecodeError, match="the header states 80x60 pixels, more than the limit of 4799"):
        decode_image(small, max_pixels=4799)


def test_exactly_the_pixel_limit_is_read() -> None:
    assert decode_image(encode(picture(), "PNG"), max_pixels=4800).rgb_hwc.shape == (60, 80, 3)


def test_files_that_cannot_be_opened_raise_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode_image(tmp_path / "missing.JPEG")
    with pytest.raises(IsADirectoryError):
        decode_image(tmp_path)


def test_a_fifo_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.JPEG")
    (tmp_path / "link.JPEG").symlink_to("/dev/zero")
    for name in ("fifo.JPEG", "link.JPEG"):
        with pytest.raises(ImageDecodeError, match=rf"{name}: not a regular file$"):
            decode_image(tmp_path / name)
        assert read_image_size(tmp_path / name) is None


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.JPEG"
    path.touch()
    os.truncate(path, 60 * 10**9)
    with pytest.raises(ImageDecodeError, match=rf"{path}: 60000000000 bytes, more than the limit of \d+$"):
        decode_image(path)
