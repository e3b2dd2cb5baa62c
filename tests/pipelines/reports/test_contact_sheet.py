"""The contact sheet: where pictures stand, what they show, and which images are chosen."""

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from evaluation.drawing.picture_grid import GAP_PX, LINE_PX
from evaluation.protocols import get_protocol
from pipelines.datasets import DatasetError, load_boxes, open_dataset, scale_boxes
from pipelines.reports.contact_sheet import CELL_PX, contact_sheet
from pseudo_maps.images import decode_image
from pseudo_maps.shards import MapIndex, shard_name
from pseudo_maps.wording import counted
from tests.integration.prep_command import prep, val_id
from tests.pseudo_maps.shard_making import make_shard
from tests.world import copy_of

IMAGES = 8
ROW_PX = (CELL_PX + LINE_PX, 4 * (CELL_PX + GAP_PX))
"""Height and width of one image's pictures with their captions."""
GREEN, RED = (0, 200, 64), (255, 64, 32)


def read_png(path: Path) -> np.ndarray:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return np.asarray(image)


def cells(sheet: np.ndarray, place: int, *, columns: int) -> list[np.ndarray]:
    """The four pictures of the image at ``place``: image, map, overlay, boxes."""
    height, width = ROW_PX
    row, column = divmod(place, columns)
    top = LINE_PX + row * height
    strip = sheet[top : top + CELL_PX, GAP_PX + column * width :]
    return [strip[:, k * (CELL_PX + GAP_PX) :][:, :CELL_PX] for k in range(4)]


def written_px(sheet: np.ndarray, *, column: int, row: int = 0) -> int:
    """Width of the caption below a picture, 0 without one."""
    top, left = LINE_PX + row * ROW_PX[0] + CELL_PX, GAP_PX + column * (CELL_PX + GAP_PX)
    dark = np.nonzero((sheet[top : top + LINE_PX, left : left + CELL_PX] < 128).any(axis=(0, 2)))[0]
    return int(np.ptp(dark)) + 1 if len(dark) else 0


def colour_share(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((picture == colour).all(axis=2).mean())


# --- the sheet


@pytest.mark.parametrize(
    ("count", "columns", "shown", "grid"), [(12, 2, 8, (4, 2)), (5, 3, 5, (2, 3)), (1, 4, 1, (1, 1))]
)
def test_the_sheet_has_a_place_for_every_image(
    data: Path, maps: Path, tmp_path: Path, count: int, columns: int, shown: int, grid: tuple[int, int]
) -> None:
    out = tmp_path / "new folder" / "sheet.png"
    result = prep("preview", maps, "--data", data, "--out", out, "--count", count, "--columns", columns)
    assert (result.exit_code, result.output) == (0, f"{counted(shown, 'image')} on {out}\n")
    assert read_png(out).shape == (LINE_PX + grid[0] * ROW_PX[0], GAP_PX + grid[1] * ROW_PX[1], 3)


def test_the_pictures_show_image_map_overlay_and_boxes(data: Path, maps: Path, tmp_path: Path) -> None:
    wanted = [val_id(5), val_id(1)]
    contact_sheet(maps, data=data, split="val", out=tmp_path / "a.png", image_ids=wanted, columns=1)
    sheet = read_png(tmp_path / "a.png")
    dataset, index = open_dataset(data, split="val"), MapIndex(maps, "val")
    records = {record.image_id: record for record in dataset.records}
    boxes = load_boxes(dataset, image_ids=wanted)
    for place, name in enumerate(wanted):
        image, heat, overlay, boxed = cells(sheet, place, columns=1)
        decoded = decode_image(data / records[name].path).rgb_hwc
        shrinks = min(decoded.shape[:2]) >= CELL_PX
        squeezed = cv2.resize(
            decoded, (CELL_PX, CELL_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        np.testing.assert_array_equal(image, squeezed)
        stored = index.read_uint8(name)
        brightness = cv2.resize(heat.astype(np.float32).mean(axis=2), stored.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.corrcoef(brightness.ravel(), stored.ravel())[0, 1] > 0.95
        np.testing.assert_allclose(overlay, (image.astype(float) + heat) / 2, atol=0.6)
        (truth,) = scale_boxes(boxes[name], width=CELL_PX, height=CELL_PX, file_width=CELL_PX, file_height=CELL_PX)
        rows, columns = np.nonzero((boxed == GREEN).all(axis=2))
        found = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        assert np.abs(found - truth).max() <= 2.5
        assert colour_share(boxed, RED) > 0.001
        changed = (boxed != image).any(axis=2)
        assert changed.mean() < 0.1, "boxes are lines, not areas"


def test_different_images_have_different_pictures(data: Path, maps: Path, tmp_path: Path) -> None:
    contact_sheet(maps, data=data, split="val", out=tmp_path / "a.png", columns=3)
    sheet = read_png(tmp_path / "a.png")
    good = [cells(sheet, place, columns=3) for place in (0, 1, 4, 5, 6, 7)]
    for kind in range(4):
        pictures = {cell[kind].tobytes() for cell in good}
        assert len(pictures) == len(good)
        assert all(cell[kind].std() > 5 for cell in good), "blank"


def test_headings_and_captions_are_written(data: Path, maps: Path, tmp_path: Path) -> None:
    contact_sheet(maps, data=data, split="val", out=tmp_path / "a.png", count=1)
    sheet = read_png(tmp_path / "a.png")
    assert (sheet[:LINE_PX] < 128).any()
    identifier, peak, proposals, box = (written_px(sheet, column=column) for column in range(4))
    assert identifier > proposals > peak > 0 < box, "ILSVRC2012_val_00000001, 123 proposals, peak 0.12, IoU 0.12"


def test_failed_images_have_their_status_below_the_missing_map_and_no_box(
    data: Path, maps: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.png"
    ids = [val_id(3), val_id(4)]
    result = prep("preview", maps, "--data", data, "--out", out, "--ids", ",".join(ids), "--columns", 1)
    assert (result.exit_code, result.output) == (0, f"2 images on {out}\n")
    sheet = read_png(out)
    for place in range(2):
        for picture in cells(sheet, place, columns=1):
            assert np.unique(picture).tolist() == [200]
    widths = [written_px(sheet, column=1, row=row) for row in range(2)]
    assert widths[0] > 1.3 * widths[1] > 0, "decode-error is a longer word than missing"


def test_an_image_that_ended_a_process_before_is_not_decoded(
    data: Path, maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = MapIndex.row
    monkeypatch.setattr(MapIndex, "row", lambda index, name: replace(row(index, name), status="timeout"))
    monkeypatch.setattr("pipelines.reports.map_pictures.decode_image", pytest.fail)
    assert contact_sheet(maps, data=data, split="val", out=tmp_path / "a.png", image_ids=[val_id(5)]) == 1


def test_worst_shows_failed_images_and_then_the_lowest_peaks(data: Path, maps: Path, tmp_path: Path) -> None:
    index = MapIndex(maps, "val")
    rows = {number: index.row(val_id(number)) for number in (1, 2, 5, 6, 7, 8)}
    order = [3, 4, *sorted(rows, key=lambda number: rows[number].peak)]
    for count in (1, 4):
        expected = [val_id(number) for number in order[:count]]
        contact_sheet(maps, data=data, split="val", out=tmp_path / "ids.png", image_ids=expected)
        result = prep("preview", maps, "--data", data, "--out", tmp_path / "worst.png", "--worst", "--count", count)
        assert result.exit_code == 0
        assert (tmp_path / "worst.png").read_bytes() == (tmp_path / "ids.png").read_bytes()
        result = prep("preview", maps, "--data", data, "--out", tmp_path / "number.png", "--worst", count)
        assert result.output == f"{counted(count, 'image')} on {tmp_path / 'number.png'}\n"
        assert (tmp_path / "number.png").read_bytes() == (tmp_path / "ids.png").read_bytes()


def test_ids_come_one_by_one_with_commas_and_from_a_file(data: Path, maps: Path, tmp_path: Path) -> None:
    one, two, three = (val_id(number) for number in (5, 1, 2))
    listed = tmp_path / "ids.txt"
    listed.write_text(f"{one}\n{two}\n{three}\n")
    sheets = []
    for words in (
        ["--ids", one, "--ids", two, "--ids", three],
        ["--ids", f"{one},{two}, {three}"],
        ["--ids-file", listed],
        ["--ids", f"{one},{two}", "--ids-file", listed],
    ):
        result = prep("preview", maps, "--data", data, "--out", tmp_path / "a.png", *words)
        assert result.output == f"3 images on {tmp_path / 'a.png'}\n"
        sheets.append((tmp_path / "a.png").read_bytes())
    assert len(set(sheets)) == 1


def test_an_id_with_a_comma_is_one_id(tmp_path: Path) -> None:
    root = tmp_path / "data" / "cats, dogs"
    root.mkdir(parents=True)
    for name in ("a,b.png", "c.png"):
        noise = np.random.default_rng(len(name)).integers(0, 256, size=(375, 500, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / name)
    words = ["--data", tmp_path / "data", "--split", "val"]
    (tmp_path / "m").mkdir()
    make_shard(tmp_path / "m" / shard_name("val", 0, 1), ["cats, dogs/a,b.png", "cats, dogs/c.png"])
    out = tmp_path / "a.png"
    result = prep("preview", tmp_path / "m", *words, "--out", out, "--ids", "cats, dogs/a,b.png")
    assert result.output == f"1 image on {out}\n"
    result = prep("preview", tmp_path / "m", *words, "--out", out, "--ids", "cats, dogs/a,c.png")
    assert result.exit_code == 1 and "'cats' has no map" in result.output
    # A table of another program beside the images is said and left alone.
    (tmp_path / "data" / "boxes.csv").write_text("image,width,boxes\nc.png,50,1 2 3 4\n")
    result = prep("preview", tmp_path / "m", *words, "--out", out)
    assert result.exit_code == 0 and "no ground truth is drawn: " in result.output and "boxes.csv" in result.output


def test_without_a_choice_the_images_are_spread_over_the_split(data: Path, maps: Path, tmp_path: Path) -> None:
    contact_sheet(maps, data=data, split="val", out=tmp_path / "spread.png", count=2)
    contact_sheet(maps, data=data, split="val", out=tmp_path / "ids.png", image_ids=[val_id(1), val_id(IMAGES)])
    assert (tmp_path / "spread.png").read_bytes() == (tmp_path / "ids.png").read_bytes()


def test_the_red_box_follows_the_threshold(data: Path, maps: Path, tmp_path: Path) -> None:
    def red_box(threshold: float) -> np.ndarray:
        words = ["--ids", val_id(1), "--threshold", threshold]
        assert prep("preview", maps, "--data", data, "--out", tmp_path / "a.png", *words).exit_code == 0
        rows, columns = np.nonzero((cells(read_png(tmp_path / "a.png"), 0, columns=1)[3] == RED).all(axis=2))
        return np.array([columns.min(), rows.min(), columns.max(), rows.max()])

    stored = MapIndex(maps, "val").read_uint8(val_id(1))
    for threshold in (0.3, 0.8):
        expected = get_protocol("cam").box_in_image(stored, image_wh=(CELL_PX, CELL_PX), threshold=threshold)
        assert expected is not None and np.abs(red_box(threshold) - expected).max() <= 2
    assert not np.array_equal(red_box(0.3), red_box(0.8))


def test_an_unfinished_folder_can_be_looked_at(data: Path, maps: Path, tmp_path: Path) -> None:
    copy = copy_of(maps, tmp_path / "maps")
    (copy / "val-00001-of-00003.h5").unlink()
    assert contact_sheet(copy, data=data, split="val", out=tmp_path / "a.png") == IMAGES - 3


# --- what cannot be drawn


def test_an_unknown_id_is_named(data: Path, maps: Path, tmp_path: Path) -> None:
    result = prep("preview", maps, "--data", data, "--out", tmp_path / "a.png", "--ids", "nobody")
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert "'nobody' has no map in" in result.output and not (tmp_path / "a.png").exists()


def test_maps_of_other_data_are_refused(maps: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "cats"
    other.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(other / "tom.png")
    with pytest.raises(DatasetError, match="no image of split val"):
        contact_sheet(maps, data=tmp_path / "other", split="val", out=tmp_path / "a.png")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_folder_without_maps_is_one_line(data: Path, tmp_path: Path, split: str) -> None:
    (tmp_path / "empty").mkdir()
    result = prep("preview", tmp_path / "empty", "--data", data, "--split", split, "--out", tmp_path / "a.png")
    assert result.exit_code == 1 and result.output.count("\n") == 1 and "no shard of the split" in result.output
