"""The page about maps: what it needs, which images it shows, and its numbers."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.results.predictions import read_predictions
from pipelines.eval_cli import main as evaluate
from pipelines.reports.preview_page import described_configuration, write_preview_page
from pseudo_maps.config import MapConfig
from pseudo_maps.proposals.selective_search import SelectiveSearchConfig
from pseudo_maps.shards import MapIndex, shard_name
from tests.command_calls import invoke
from tests.integration.prep_command import prep, subprocess_run, val_id
from tests.pipelines.report_page import Page
from tests.pseudo_maps.shard_making import make_shard
from tests.world import copy_of

NAMES = ("image", "map", "overlay", "box")


class Groups(Page):
    """A page with the ids and pictures below each heading."""

    def __init__(self, text: str) -> None:
        self.groups: dict[str, list[tuple[str, dict[str, str]]]] = {}
        super().__init__(text)
        heading = ""
        for element in self.elements:
            if element["tag"] == "h2":
                heading = element["text"]
            elif element["tag"] == "figure" and element["attrs"].get("class") == "map":
                self.groups.setdefault(heading, []).append(("", {}))
            elif element["tag"] == "b" and heading in self.groups:
                self.groups[heading][-1] = (element["text"], self.groups[heading][-1][1])
            elif element["tag"] == "img" and heading in self.groups:
                self.groups[heading][-1][1][element["attrs"]["alt"].split(" of ")[0]] = element["attrs"]["src"]

    def ids(self, heading: str) -> list[str]:
        return [name for name, _ in self.groups.get(heading, [])]


def make_page(data: Path, maps: Path, out: Path, **options: object) -> tuple[str, Groups]:
    write_preview_page(maps, data=data, split="val", out=out, **options)
    text = out.read_text(encoding="utf-8")
    return text, Groups(text)


@pytest.fixture(scope="module")
def whole(data: Path, maps: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Groups]:
    """The page as it is without options."""
    return make_page(data, maps, tmp_path_factory.mktemp("whole") / "a.html")


def picture(uri: str) -> np.ndarray:
    kind, content = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        return np.asarray(image)


def words(page: Page) -> str:
    (body,) = page.all("body")
    return re.sub(r"\s+", " ", body["text"])


def test_the_command_writes_the_page(data: Path, maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    result = prep("preview", maps, "--data", data, "--html", out, "--count", 3, "--worst", 2)
    assert (result.exit_code, result.output) == (0, f"7 images on {out}\n")
    both = prep("preview", maps, "--data", data, "--html", tmp_path / "b.html", "--out", tmp_path / "b.png")
    assert both.exit_code == 0 and both.output.count("images on") == 2
    assert (tmp_path / "b.png").exists() and (tmp_path / "b.html").exists()


def test_the_page_needs_nothing_but_itself(data: Path, maps: Path, whole: tuple[str, Groups]) -> None:
    text, page = whole
    assert "<script" not in text and "http://" not in text and "https://" not in text
    assert all(element["attrs"]["src"].startswith("data:image/jpeg;base64,") for element in page.all("img"))
    assert not page.all("link", "a", "iframe")
    assert str(maps) not in text and str(data) not in text


def test_the_same_maps_give_the_same_page(data: Path, maps: Path, whole: tuple[str, Groups], tmp_path: Path) -> None:
    first, _ = whole
    other = copy_of(maps, tmp_path / "moved")
    second, _ = make_page(data, other, tmp_path / "b.html")
    assert first == second
    third, page = make_page(data, maps, tmp_path / "c.html", seed=1, count=2)
    assert third != first and "drawn with the random seed 1" in words(page)


def test_random_failed_and_worst_images_stand_under_their_headings(data: Path, maps: Path, tmp_path: Path) -> None:
    _, page = make_page(data, maps, tmp_path / "a.html", count=4, worst=2)
    index = MapIndex(maps, "val")
    good = [name for name in index if index.status(name) == "ok"]
    assert list(page.groups) == ["A random sample", "Images without a map", "Lowest peaks"]
    assert len(page.ids("A random sample")) == 4 and set(page.ids("A random sample")) <= set(good)
    assert page.ids("Images without a map") == [val_id(3), val_id(4)]
    assert page.ids("Lowest peaks") == sorted(good, key=index.peak)[:2]
    assert all(set(pictures) == set(NAMES) for _, pictures in page.groups["Lowest peaks"])
    assert all(pictures == {} for _, pictures in page.groups["Images without a map"])


def test_chosen_images_stand_in_place_of_the_random_sample(data: Path, maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    result = prep("preview", maps, "--data", data, "--html", out, "--ids", f"{val_id(5)},{val_id(3)}", "--worst", 1)
    assert result.output == f"4 images on {out}\n"
    page = Groups(out.read_text(encoding="utf-8"))
    assert page.ids("Chosen images") == [val_id(5), val_id(3)] and "A random sample" not in page.groups
    assert "random seed" not in words(page)


def test_pictures_keep_the_shape_of_the_image(data: Path, maps: Path, tmp_path: Path) -> None:
    _, page = make_page(data, maps, tmp_path / "a.html", image_ids=[val_id(1), val_id(2)])
    index = MapIndex(maps, "val")
    for name, pictures in page.groups["Chosen images"]:
        row = index.row(name)
        shapes = {kind: picture(uri).shape for kind, uri in pictures.items()}
        assert len(set(shapes.values())) == 1 and max(shapes["image"]) == 192
        assert shapes["image"][0] / shapes["image"][1] == pytest.approx(row.height / row.width, rel=0.01)
        decoded = {kind: picture(uri).astype(int) for kind, uri in pictures.items()}
        mean = (decoded["image"] + decoded["map"]) / 2
        assert np.abs(decoded["overlay"] - mean).mean() < 8
        changed = np.abs(decoded["box"] - decoded["image"]).max(axis=2) > 60
        assert 0.002 < changed.mean() < 0.2, "boxes are lines"


def test_boxes_are_as_right_as_the_evaluator_finds_them(data: Path, maps: Path, tmp_path: Path) -> None:
    ids = [val_id(number) for number in (1, 2, 5, 6, 7, 8)]
    done = invoke(
        evaluate, "maps", maps, "--data", data, "--protocol", "cam", "--out", tmp_path / "s", prog_name="wsol-eval"
    )
    assert done.exit_code == 0, done.output
    rows = read_predictions(tmp_path / "s" / "predictions.csv")
    overlaps = {row["image_id"]: float(row["iou"] or 0) for row in rows if row["localizer"] == "pseudo-map"}
    right = sum(overlaps[image_id] >= 0.5 for image_id in ids)
    _, page = make_page(data, maps, tmp_path / "a.html", image_ids=ids, worst=0)
    assert f"The box is right (IoU at least .5) in {right} of 6 maps with ground truth." in words(page)
    shown = re.findall(r"IoU (\d\.\d\d)", words(page))
    assert [float(text) for text in shown] == pytest.approx([overlaps[image_id] for image_id in ids], abs=0.0051)


def test_failed_images_show_their_status(whole: tuple[str, Groups]) -> None:
    _, page = whole
    places = [element["text"] for element in page.all("div") if element["attrs"].get("class") == "none failed"]
    assert places == ["decode-error", "missing"]
    cells = [element["text"] for element in page.all("th", "td")]
    rows = [cells[start : start + 3] for start in range(0, len(cells), 3)]
    assert [val_id(3), "decode-error", f"Data/CLS-LOC/val/{val_id(3)}.JPEG"] in rows
    assert ["ok", "6", "75.00 %"] in rows and ["missing", "1", "12.50 %"] in rows


def test_the_numbers_are_on_the_page(maps: Path, whole: tuple[str, Groups]) -> None:
    _, page = whole
    text = words(page)
    index = MapIndex(maps, "val")
    peaks = [index.peak(name) for name in index if index.status(name) == "ok"]
    assert f"mean {np.mean(peaks):.2f}, lowest {min(peaks):.2f}, highest {max(peaks):.2f}" in text
    assert "share of pixels at half the peak or above; all maps" in text
    bars = [element["text"] for element in page.all("title")][1:]
    assert sum(int(re.search(r": (\d+) maps?$", bar)[1]) for bar in bars) == 3 * 6, "three charts of six maps"
    charts = [element["attrs"] for element in page.all("svg")]
    assert len(charts) == 3 and all(chart["role"] == "img" and "mean" in chart["aria-label"] for chart in charts)
    for setting in ("working_size", "package version", "map_size"):
        assert setting in text


def test_an_incomplete_folder_says_so(data: Path, maps: Path, whole: tuple[str, Groups], tmp_path: Path) -> None:
    assert "Missing:" not in words(whole[1])
    copy = copy_of(maps, tmp_path / "maps")
    (copy / "val-00000-of-00003.h5").unlink()
    _, page = make_page(data, copy, tmp_path / "b.html")
    assert "Missing: 1 of 3 shards." in words(page)


def test_names_from_the_data_stay_text(tmp_path: Path) -> None:
    root = tmp_path / "data" / "<b>cats & dogs"
    root.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, size=(375, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / '"><img src=x>.png')
    (tmp_path / "m").mkdir()
    make_shard(tmp_path / "m" / shard_name("val", 0, 1), ['<b>cats & dogs/"><img src=x>.png'])
    text, page = make_page(tmp_path / "data", tmp_path / "m", tmp_path / "a.html")
    assert "<img src=x>" not in text and "<b>cats" not in text
    assert page.ids("A random sample") == ['<b>cats & dogs/"><img src=x>.png']


def test_an_unknown_id_leaves_no_page(data: Path, maps: Path, tmp_path: Path) -> None:
    result = prep("preview", maps, "--data", data, "--html", tmp_path / "a.html", "--ids", "nobody")
    assert result.exit_code == 1 and "'nobody' has no map in" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MapConfig(), "geodesic object proposals, from directed-sobel boundaries, computed on images scaled to"),
        (MapConfig(weighting="objectness"), "500 pixels, weighted by objectness; "),
        (
            MapConfig(proposals=SelectiveSearchConfig()),
            "an average of the boxes of selective-search, computed on images",
        ),
    ],
)
def test_the_configuration_is_told_in_words(config: MapConfig, expected: str) -> None:
    assert expected in described_configuration(config.as_json())


def test_settings_of_another_version_are_told_as_far_as_they_go() -> None:
    told = described_configuration({"method": "new"})
    assert told.startswith("Each map is an average of the boxes of new, weighted by an unknown rule; it is stored")


def test_the_page_needs_neither_torch_nor_matplotlib(data: Path, maps: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pipelines.prep_cli import main\n"
        "main(sys.argv[1:], standalone_mode=False); print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess_run(program, "preview", maps, "--data", data, "--html", tmp_path / "a.html")
    assert done.stdout.endswith("set()\n"), done.stderr
