"""The page of a report in a real browser: what a reader filters and sorts, and that nothing is cut off."""

from collections.abc import Iterator

import pytest

from pipelines.reports.evaluation_report import write_report
from tests.pipelines.report_page import comparable_runs
from tests.viewers.chromium import Browser, find_chromium

pytestmark = [pytest.mark.viewers, pytest.mark.timeout(300)]

SHOWN = "[...document.querySelectorAll('form.filter ~ div tbody tr')].filter(row => !row.hidden)"
CHOOSE = "(select => (select.value = {value!r}, select.dispatchEvent(new Event('input', {{ bubbles: true }}))))"
OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module", params=[1400, 500])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    folder = tmp_path_factory.mktemp("report")
    write_report(comparable_runs(folder, charts=True), folder / "report.html")
    with Browser(program, folder=folder, width=request.param, height=900) as browser:
        browser.open((folder / "report.html").as_uri())
        yield browser


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


def test_nothing_is_wider_than_the_window_and_no_script_is_refused(browser: Browser) -> None:
    assert not browser.evaluate(OVERFLOWS) and not browser.errors
    assert browser.evaluate("performance.getEntriesByType('resource').length") == 0, "nothing is loaded"
