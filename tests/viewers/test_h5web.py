"""What H5Web draws of a shard, in a real browser, compared with the map pixel by pixel."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest

from tests.viewers.chromium import Browser, find_chromium
from tests.viewers.conftest import CORNER_ID, MAP_SIZE_PX, ViewedShard
from tests.viewers.h5web_page import PageUnavailableError, built_page, served

pytest.importorskip("silx", reason="needs the extra 'viewers'")
pytestmark = [pytest.mark.viewers, pytest.mark.timeout(900)]

CANVAS = "[...document.querySelectorAll('canvas')].map(c => c.getBoundingClientRect().toJSON())[0]"
FLIP_Y = '[aria-label="Flip Y"]'
PLAIN_VARIATION = 5.0
"""Standard deviation of colour values up to which a picture counts as blank."""
MIDDLES = (np.arange(MAP_SIZE_PX) + 0.5) / MAP_SIZE_PX


@pytest.fixture(scope="module")
def page(shard: ViewedShard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, str]]:
    """A browser, and the address of the page that shows the shard."""
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    try:
        built = built_page()
    except PageUnavailableError as error:
        pytest.skip(f"H5Web cannot be built: {error}")
    folder = tmp_path_factory.mktemp("h5web")
    with (
        served(built, shard=shard.path, folder=folder) as url,
        Browser(program, folder=tmp_path_factory.mktemp("chromium"), width=1500, height=900) as browser,
    ):
        yield browser, url


def opened(page: tuple[Browser, str], path: str) -> Browser:
    """The browser, showing the object at ``path``."""
    browser, url = page
    browser.open(f"{url}?path={quote(path)}")
    return browser


def drawn_map(browser: Browser) -> npt.NDArray[np.float64]:
    """(H, W) float from 0 to 1: the colours in the middle of each pixel of the drawn map, read off the colour scale."""
    for _ in range(30):
        box = browser.wait_for(CANVAS)
        # The map is drawn as large as its square fits, in the middle.
        side = min(box["width"], box["height"])
        top, left = box["top"] + (box["height"] - side) / 2, box["left"] + (box["width"] - side) / 2
        rows, columns = ((start + MIDDLES * side).astype(int) for start in (top, left))
        colours_hw3 = browser.screenshot_rgb()[rows][:, columns].astype(np.float64)
        if colours_hw3.std(axis=(0, 1)).max() > PLAIN_VARIATION:
            break
        time.sleep(0.2)
    else:
        raise AssertionError("the map is blank")
    scale_k3 = 255 * matplotlib.colormaps["viridis"](np.linspace(0, 1, 256))[:, :3]
    distances_hwk = np.linalg.norm(colours_hw3[:, :, None] - scale_k3, axis=-1)
    return distances_hwk.argmin(axis=-1) / 255


DRAWING_LIMIT_S = 20.0


def check_same(drawn_hw: npt.NDArray[np.float64], map_hw: npt.NDArray[np.uint8]) -> None:
    """The drawn map is ``map_hw`` between its minimum and maximum, and none of its mirror images."""
    low, high = float(map_hw.min()), float(map_hw.max())
    expected = (map_hw - low) / (high - low)
    # Lines of the grid and pixels beside an edge are off; a hundredth is three colours of 256.
    errors = np.abs(drawn_hw - expected)
    assert np.median(errors) < 0.01 and (errors > 0.05).mean() < 0.1
    for mirrored in (expected[::-1], expected[:, ::-1], expected[::-1, ::-1]):
        assert np.abs(drawn_hw - mirrored).mean() > 3 * errors.mean()


def check_drawn(browser: Browser, map_hw: npt.NDArray[np.uint8], *, turned: bool = False) -> None:
    """``check_same`` of what is drawn once the page has got there: after a click the old picture stays for a while."""
    give_up = time.monotonic() + DRAWING_LIMIT_S
    while True:
        drawn_hw = drawn_map(browser)
        try:
            check_same(drawn_hw[::-1] if turned else drawn_hw, map_hw)
            return
        except AssertionError:
            if time.monotonic() > give_up:
                raise
        time.sleep(0.2)


def flip_y(browser: Browser, *, to: bool) -> None:
    """Turn the y axis unless it is turned already: the browser remembers the switch from page to page."""
    state = f"document.querySelector('{FLIP_Y}')?.ariaPressed"
    if browser.wait_for(state) != str(to).lower():
        browser.click(FLIP_Y)
    browser.wait_for(f"{state} === '{str(to).lower()}'")


def test_the_root_shows_the_first_map_upside_down_and_flip_y_turns_it(page, shard):
    browser = opened(page, "/")
    browser.wait_for("document.body.innerText.includes('NX Heatmap')")
    expected = shard.map_of(CORNER_ID)
    flip_y(browser, to=False)
    check_drawn(browser, expected, turned=True)
    text = browser.text()
    assert "pseudo saliency map, 255 at the peak of each image" in text
    assert {"x", "y", "by_name", "images", "saliency"} <= set(text.split())
    flip_y(browser, to=True)
    check_drawn(browser, expected)
    assert browser.errors == []


@pytest.mark.parametrize("image_id", ["chat/chelsea.png", "größe/astronaut.png"])
def test_a_picture_under_its_name_is_the_map_of_that_image(page, shard, image_id):
    path = f"/by_name/{Path(image_id).with_suffix('')}"
    browser = opened(page, path)
    browser.wait_for("document.body.innerText.includes('Heatmap')")
    flip_y(browser, to=True)
    check_drawn(browser, shard.map_of(image_id))
    assert browser.errors == []


def test_the_table_shows_its_texts(page, shard):
    browser = opened(page, "/images")
    browser.wait_for("document.body.innerText.includes('größe/astronaut.png')")
    text = browser.text()
    for row in shard.rows:
        assert row.image_id in text and row.status in text
    assert browser.errors == []


def test_the_page_is_built_from_exact_versions():
    package = json.loads(Path(__file__).with_name("h5web").joinpath("package.json").read_text(encoding="utf-8"))
    for name, version in (package["dependencies"] | package["devDependencies"]).items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
