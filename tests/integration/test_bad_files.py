"""Twelve kinds of files that are not what they should be, each with its status, and no harm to the others."""

import dataclasses
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudo_maps.config import MapConfig
from pseudo_maps.map_making import make_map
from pseudo_maps.proposals import PRESETS
from pseudo_maps.reading import LIMIT_VARIABLE
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.generation import RunConfig, generate_maps, plan_run
from pseudo_maps.shards import MapIndex
from pseudo_maps.shards.verify import verify_folder
from tests.integration.limits import bound_by_permissions

CONFIG = MapConfig(proposals=dataclasses.replace(PRESETS["b650"], working_size=48), map_size=24)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, size=(height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def sixteen_bits() -> bytes:
    grey = np.random.default_rng(3).integers(0, 65536, size=(40, 60), dtype=np.uint16)
    return encoded(Image.fromarray(grey), "PNG")


def header_of(width: int, height: int) -> bytes:
    """A small PNG file whose header states a large picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


FILES: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "truncated JPEG": (lambda: encoded(noise(60, 40), "JPEG")[:1500], "decode-error"),
    "zero bytes": (lambda: b"", "decode-error"),
    "text": (lambda: b"<html>404</html>", "decode-error"),
    "PNG named JPEG": (lambda: encoded(noise(60, 40), "PNG"), "ok"),
    "CMYK": (lambda: encoded(noise(60, 40).convert("CMYK"), "JPEG"), "ok"),
    "16-bit PNG": (sixteen_bits, "ok"),
    "animated GIF": (
        lambda: encoded(noise(60, 40), "GIF", save_all=True, append_images=[noise(60, 40).rotate(9)]),
        "decode-error",
    ),
    "1x1": (lambda: encoded(noise(1, 1), "JPEG"), "ok"),
    "1x5000": (lambda: encoded(noise(1, 5000), "JPEG"), "ok"),
    "30000x30000 header": (lambda: header_of(30_000, 30_000), "decode-error"),
    "missing": (lambda: None, "missing"),
}
"""Content (None is no file) and status. The twelfth kind, a file without permission, has a test of its own."""


def write_files(root: Path) -> list[ImageRecord]:
    """A good image before each of the others."""
    root.mkdir()
    records = []
    for number, name in enumerate(FILES):
        for kind, content in (("good", encoded(noise(50 + number, 40), "JPEG")), (name, FILES[name][0]())):
            path = f"{number:02d} {kind}.JPEG"
            if content is not None:
                (root / path).write_bytes(content)
            records.append(ImageRecord(image_id=f"{number:02d}/{kind}", path=path))
    return records


def maps_of(records: list[ImageRecord], *, root: Path, out: Path) -> MapIndex:
    run = RunConfig(root=root, out=out, backend="sequential")
    plan = plan_run(records, split="val", configuration=CONFIG.as_json(), run=run, shard_size=16)
    generate_maps(records, plan=plan, config=CONFIG, run=run)
    return MapIndex(out, "val")


def test_each_kind_has_its_status_and_the_good_images_their_maps(tmp_path: Path) -> None:
    records = write_files(tmp_path / "data")
    found = maps_of(records, root=tmp_path / "data", out=tmp_path / "maps")
    good = [record for record in records if record.image_id.endswith("/good")]
    alone = maps_of(good, root=tmp_path / "data", out=tmp_path / "good")
    for record in records:
        kind = record.image_id.partition("/")[2]
        if kind == "good":
            assert found.row(record.image_id) == alone.row(record.image_id)
            assert found.read_uint8(record.image_id).tobytes() == alone.read_uint8(record.image_id).tobytes()
        else:
            assert found.status(record.image_id) == FILES[kind][1], kind
        assert found.read_uint8(record.image_id).any() == (found.status(record.image_id) == "ok")
    assert verify_folder(tmp_path / "maps", expected_ids={"val": [record.image_id for record in records]}) == []


def test_the_smallest_limit_on_pixels_is_by_the_header(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(header_of(70, 60))
    record = ImageRecord(image_id="a", path="a")
    run = RunConfig(root=tmp_path / "data", out=tmp_path / "maps", backend="sequential")
    config = dataclasses.replace(CONFIG, max_pixels=70 * 60 - 1)
    plan = plan_run([record], split="val", configuration=config.as_json(), run=run)
    summary = generate_maps([record], plan=plan, config=config, run=run)
    assert summary.counts == {"decode-error": 1}
    assert summary.log_path is not None and "70x60 pixels, more than the limit of 4199" in summary.log_path.read_text()


def test_a_file_without_permission_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in the process for the images, whose reads have no thread of their own.
    monkeypatch.setenv(LIMIT_VARIABLE, "inf")
    (tmp_path / "a.jpg").write_bytes(encoded(noise(60, 40), "JPEG"))
    (tmp_path / "a.jpg").chmod(0o000)
    with bound_by_permissions():
        made = make_map(ImageRecord(image_id="a", path="a.jpg"), root=str(tmp_path), config=CONFIG)
    assert made.row.status == "unreadable" and "Permission denied" in made.message and not made.map_uint8.any()
