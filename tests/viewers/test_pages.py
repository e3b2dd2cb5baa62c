"""Our pages in a real browser: what a reader filters and sorts, that nothing is cut off, and that all can be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.experiments.paper_table.page import write_tables
from pipelines.experiments.paper_table.results import collect_results
from pipelines.reports.evaluation_report import write_report
from pipelines.reports.preview_page import write_preview_page
from tests.pipelines.report_page import comparable_runs
from tests.pipelines.table_runs import make_plan, runs_by_name, write_finished
from tests.viewers.chromium import Browser, find_chromium
from tests.world import World

pytestmark = [pytest.mark.viewers, pytest.mark.timeout(300)]

SHOWN = "[...document.querySelectorAll('form.filter ~ div tbody tr')].filter(row => !row.hidden)"
CHOOSE = "(select => (select.value = {value!r}, select.dispatchEvent(new Event('input', {{ bubbles: true }}))))"
OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
PAGES = ("report.html", "table.html", "maps.html")
CONTRASTS = """(() => {
  const rgba = text => { const n = text.match(/[0-9.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const luminance = rgb => rgb.slice(0, 3).map(value => value / 255)
    .map(value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4)
    .reduce((sum, value, channel) => sum + value * [.2126, .7152, .0722][channel], 0);
  const paper = element => {
    for (; element; element = element.parentElement) {
      const colour = rgba(getComputedStyle(element).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0, 1] : [255, 255, 255, 1];
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const ink = luminance(rgba(element.closest("svg") ? style.fill : style.color)), ground = luminance(paper(element));
    const ratio = (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
    found.push([ratio, texts.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
})()"""
"""Contrast of every text with what it stands on, as WCAG 2 defines it, and the text."""


@pytest.fixture(scope="module")
def pages(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one page of each kind, named as in ``PAGES``."""
    folder = tmp_path_factory.mktemp("pages")
    write_report(comparable_runs(folder, charts=True), folder / "report.html")
    plan = make_plan(folder)
    runs = runs_by_name(plan)
    for name, correct in (("alexnet-gap gap seed 0", 100), ("alexnet-gap ours seed 0", 130), ("pseudo-map", 140)):
        write_finished(runs[name], correct=correct)
    write_tables(collect_results(plan, list(runs.values())), plan.out)
    (plan.out / "table.html").rename(folder / "table.html")
    write_preview_page(world.maps, data=world.data, split="val", out=folder / "maps.html")
    return folder


@pytest.fixture(scope="module", params=[1400, 500])
def window(request: pytest.FixtureRequest, pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    with Browser(program, folder=tmp_path_factory.mktemp("browser"), width=request.param, height=900) as browser:
        yield browser


@pytest.fixture
def browser(window: Browser, pages: Path) -> Browser:
    """A window that shows the report."""
    window.open((pages / "report.html").as_uri())
    return window


def choose(browser: Browser, name: str, value: str) -> list[str]:
    """Names of the images that are left when a reader chooses a value of a filter."""
    browser.evaluate(f"{CHOOSE.format(value=value)}(document.querySelector('form.filter').elements[{name!r}])")
    shown: list[str] = browser.evaluate(f"{SHOWN}.map(row => row.cells[0].textContent)")
    assert browser.evaluate("document.querySelector('form.filter output').value") == f"{len(shown)} images"
    return shown


def test_images_are_filtered_by_verdict_and_class(browser: Browser) -> None:
    assert len(choose(browser, "verdict", "")) == 200
    right = choose(browser, "verdict", "correct")
    assert {f"image{number}" for number in range(150)} == set(right), "right in one run or the other"
    assert choose(browser, "verdict", "no box") == []
    choose(browser, "verdict", "")
    assert set(choose(browser, "class", "7")) == {f"image{number}" for number in range(7, 200, 20)}
    choose(browser, "class", "")


def test_a_heading_sorts_its_column_up_and_down(browser: Browser) -> None:
    images = (
        "[...document.querySelectorAll('#classes ~ .scroll tbody tr')].map(row => Number(row.cells[2].textContent))"
    )
    click = "document.querySelectorAll('#classes ~ .scroll thead button')[2].click()"
    browser.evaluate(click)
    up = browser.evaluate(images)
    browser.evaluate(click)
    assert up == sorted(up) and browser.evaluate(images) == sorted(up, reverse=True)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_loads_nothing(window: Browser, pages: Path, name: str) -> None:
    window.open((pages / name).as_uri())
    assert not window.evaluate(OVERFLOWS) and not window.errors
    assert window.evaluate("performance.getEntriesByType('resource').length") == 0, "nothing is loaded"


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_text_stands_out_from_what_it_is_on(window: Browser, pages: Path, name: str, colours: str) -> None:
    window.use_colours(colours)
    window.open((pages / name).as_uri())
    assert window.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (colours == "dark")
    found = window.evaluate(CONTRASTS)
    assert len(found) > 30
    assert [text for text in found if text[0] < 4.5] == []
