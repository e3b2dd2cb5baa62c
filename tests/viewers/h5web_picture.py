"""Draws docs/pictures/h5web.png: a map of a photograph, under its own name, as H5Web shows it in Chromium.

    python -m tests.viewers.h5web_picture --out docs/pictures/h5web.png

The photographs are scikit-image's bundled ones.
"""

import argparse
import tempfile
from pathlib import Path

import skimage

from tests.integration.prep_command import prep
from tests.viewers.chromium import Browser, find_chromium
from tests.viewers.h5web_page import built_page, served

PHOTOGRAPHS = {"cat": "chelsea.png", "cup": "coffee.png", "person": "astronaut.png", "rocket": "rocket.jpg"}
SHOWN = "/by_name/cat/chelsea"
FLIP_Y = '[aria-label="Flip Y"]'


def main() -> None:
    """Make the maps, open their shard, turn the y axis, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    program = find_chromium()
    if program is None:
        parser.error("Chromium is not installed")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for class_name, file_name in PHOTOGRAPHS.items():
            (root / "images" / class_name).mkdir(parents=True)
            content = (Path(skimage.__file__).parent / "data" / file_name).read_bytes()
            (root / "images" / class_name / file_name).write_bytes(content)
        result = prep("proposals", "--data", root / "images", "--split", "val", "--out", root / "maps")
        if result.exit_code:
            parser.error(result.output)
        (root / "served").mkdir()
        (root / "browser").mkdir()
        with (
            served(built_page(), shard=root / "maps" / "val-00000-of-00001.h5", folder=root / "served") as url,
            Browser(program, folder=root / "browser", width=1500, height=900) as browser,
        ):
            browser.open(f"{url}?path={SHOWN}")
            browser.click(FLIP_Y)
            browser.wait_for(f"document.querySelector('{FLIP_Y}').ariaPressed === 'true'")
            browser.evaluate("document.activeElement.blur()")
            browser.wait_for("document.querySelector('canvas') !== null")
            # Two frames: one draws the map, the next is on the screen.
            browser.evaluate("window.frames_drawn = 0")
            browser.evaluate("requestAnimationFrame(() => requestAnimationFrame(() => { window.frames_drawn = 2 }))")
            browser.wait_for("window.frames_drawn === 2")
            options.out.write_bytes(browser.screenshot_png())
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
