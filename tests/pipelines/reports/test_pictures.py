"""Pictures of several runs: side by side where they show the same images, below one another where they do not."""

import base64
import json
from pathlib import Path

import pytest

from evaluation.drawing.panels import CaptionedPicture, Column, PanelRow, Panels
from evaluation.schema import write_json
from pipelines.reports import evaluation_report
from pipelines.reports.evaluation_report import write_report
from tests.pipelines.report_page import Page, comparable_runs, report
from tests.pipelines.reports.test_trainings import make_log


def draw(run: Path, *, localizers: tuple[str, ...], images: tuple[str, ...] = ("one", "two")) -> None:
    """Pictures that say for themselves what they are, in place of JPEG."""
    shown = ("centred-gaussian", *localizers)
    panels = Panels(
        protocol="cam",
        columns=tuple(Column(localizer=name, is_baseline=name == shown[0]) for name in shown),
        rows=tuple(
            PanelRow(
                image=CaptionedPicture(caption=image, jpeg=f"{run.name} {image}".encode()),
                predictions=tuple(
                    CaptionedPicture(caption=f"IoU 0.{number}", jpeg=f"{run.name} {image} {name}".encode())
                    for number, name in enumerate(shown)
                ),
            )
            for image in images
        ),
    )
    (run / "panels").mkdir(exist_ok=True)
    write_json(run / "panels" / "examples.json", panels)


def cells(page: Page) -> list[dict[str, str]]:
    return [image["attrs"] for image in page.all("img") if "td" in image["parents"]]


def test_the_same_images_stand_side_by_side_and_the_baseline_once(tmp_path: Path) -> None:
    gap, ours = comparable_runs(tmp_path)
    draw(gap, localizers=("cam",))
    draw(ours, localizers=("cam", "saliency"))
    text, page = report(tmp_path, gap, ours)
    heading = text[text.index('<table class="cells">') :]
    heading = heading[: heading.index("</thead>")]
    order = ["image", "cam", "gap", "cam", "ours", "saliency", "ours", "centred-gaussian", "baseline"]
    places = []
    for word in order:
        places.append(heading.index(f">{word}<", places[-1] if places else 0))
    assert [attrs["alt"] for attrs in cells(page)][:4] == [
        "one, cam, gap: IoU 0.1",
        "one, cam, ours: IoU 0.1",
        "one, saliency, ours: IoU 0.2",
        "one, centred-gaussian, baseline: IoU 0.0",
    ]
    assert len(cells(page)) == 8, "two images"
    start = "data:image/jpeg;base64,"
    shown = [base64.b64decode(attrs["src"].removeprefix(start)).decode() for attrs in cells(page)]
    assert shown[4:] == ["gap two cam", "ours two cam", "ours two saliency", "gap two centred-gaussian"]


def test_other_images_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    gap, ours = comparable_runs(tmp_path)
    draw(gap, localizers=("cam",))
    draw(ours, localizers=("cam",), images=("one", "three"))
    _, page = report(tmp_path, gap, ours)
    captions = [attrs["alt"].split(":")[0] for attrs in cells(page)]
    assert captions == [
        f"{image}, {localizer}"
        for run, images in (("gap", ("one", "two")), ("ours", ("one", "three")))
        for image in images
        for localizer in (f"cam, {run}", "centred-gaussian, baseline")
    ]
    captioned = [caption["text"] for caption in page.all("caption")]
    assert captioned.count("Boxes of the protocol CAM (20 % of the maximum), by localizer and network or maps") == 2


def test_a_damaged_file_of_pictures_is_named(tmp_path: Path) -> None:
    gap, _ = comparable_runs(tmp_path)
    draw(gap, localizers=("cam",))
    (gap / "panels" / "examples.json").write_text("<svg onload=alert(1)>")
    with pytest.raises(ValueError, match=r"examples\.json: expected the pictures of an evaluation"):
        report(tmp_path, gap)


def test_captions_of_pictures_are_text(tmp_path: Path) -> None:
    gap, _ = comparable_runs(tmp_path)
    draw(gap, localizers=("<script>",), images=('"><img src=x>',))
    text, page = report(tmp_path, gap)
    assert text.count("<script") == 1 and "<img src=x>" not in text, "the page's own script alone"
    assert cells(page)[0]["alt"] == '"><img src=x>, <script>, gap: IoU 0.1'


# --- what else a page can carry


def test_title_and_introduction_stand_above_everything_as_text(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    words = "# What\nOne <b>line</b>\nand another.\n \n\n# Why\n\nBecause."
    write_report(comparable_runs(tmp_path), out, title="A & B", introduction=words)
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert page.all("title")[0]["text"] == page.all("h1")[0]["text"] == "A & B"
    assert [heading["text"] for heading in page.all("h2")][:3] == ["What", "Why", "Results by protocol"]
    assert "One <b>line</b> and another." in [paragraph["text"] for paragraph in page.all("p")]
    assert "<b>" not in text


def test_training_runs_are_drawn_between_the_tables_and_the_protocols(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    folders = [make_log(tmp_path / "runs" / "gap"), make_log(tmp_path / "runs" / "full", saliency=True)]
    write_report(comparable_runs(tmp_path), out, training=folders)
    page = Page(out.read_text(encoding="utf-8"))
    charts = [image["attrs"]["alt"] for image in page.all("img") if "svg" in image["attrs"]["src"][:20]]
    assert [alt.split(",")[0] for alt in charts[:3]] == [
        "Classification loss",
        "Top-1 accuracy while training",
        "Saliency of full while training",
    ]


def test_trainings_on_other_images_are_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_report, "training_charts", lambda histories: [])
    out = tmp_path / "page.html"
    folders = [make_log(tmp_path / "runs" / "gap"), make_log(tmp_path / "runs" / "full")]

    evaluated = comparable_runs(tmp_path / "evaluated")

    def warnings() -> str:
        write_report(evaluated, out, training=folders)
        return " ".join(one["text"] for one in Page(out.read_text(encoding="utf-8")).all("section"))

    for folder, images in zip(folders, (38, 37), strict=True):
        (folder / "finished.json").write_text(json.dumps({"images": images, "images_sha256": str(images)}))
    words = "Not all runs learned from the same images: gap (38 images), against full (37 images)."
    assert words in warnings()
    (folders[1] / "finished.json").write_text("{")
    assert "Not all runs learned" not in warnings()


def test_trainings_in_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    folders = [make_log(tmp_path / "table" / row / "seed-0", saliency=True) for row in ("gap", "ours")]
    for folder in folders:
        (folder / "finished.json").write_text(json.dumps({"images_sha256": folder.parent.name}))
    write_report(comparable_runs(tmp_path / "evaluated"), out, training=folders)
    text = out.read_text(encoding="utf-8")
    assert "learned from the same images: gap/seed-0, against ours/seed-0." in text
    assert "Saliency of ours/seed-0 while training" in text
    with pytest.raises(ValueError, match="gap/seed-0: expected every training run once, found it 2 times"):
        write_report(comparable_runs(tmp_path / "again"), out, training=[folders[0], folders[0]])
