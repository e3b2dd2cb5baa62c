"""Draws docs/pictures/preview.jpg: what `wsol-prep preview` shows of photographs, with the settings by default.

    python benchmarks/readme_picture.py --out docs/pictures/preview.jpg

The photographs are scikit-image's bundled ones. The file's comment holds the configuration of the maps, as JSON.
"""

import json
import tempfile
from pathlib import Path

import click
import skimage
from PIL import Image
from stage_pictures import JPEG_QUALITY, PHOTOGRAPHS

from pipelines.prep_cli import main as wsol_prep
from pseudo_maps.shards.manifest import read_manifest

SPLIT = "val"
PHOTOGRAPHS_SHOWN = 4


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data, maps, sheet = root / "data", root / "maps", root / "sheet.png"
        for photograph in PHOTOGRAPHS[:PHOTOGRAPHS_SHOWN]:
            folder = data / Path(photograph).stem
            folder.mkdir(parents=True)
            (folder / photograph).write_bytes((Path(skimage.__file__).parent / "data" / photograph).read_bytes())
        common = ("--data", data, "--split", SPLIT, "--out")
        # One column is as wide as README shows it, so that its text stays as large as it is.
        for words in (("proposals", *common, maps), ("preview", maps, *common, sheet, "--columns", 1)):
            wsol_prep([str(word) for word in words], standalone_mode=False)
        settings = json.dumps(read_manifest(maps, SPLIT).configuration, sort_keys=True)
        with Image.open(sheet) as picture:
            picture.save(out, format="JPEG", quality=JPEG_QUALITY, comment=settings)


if __name__ == "__main__":
    main()
