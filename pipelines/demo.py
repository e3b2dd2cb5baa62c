"""Turns nothing but a folder name into a generated data set, its saliency maps and a picture of them."""

import functools
import shlex
from pathlib import Path

import click

from pipelines.prep_cli import main as wsol_prep
from pipelines.synthetic import make_clsloc_dataset

__all__ = ["run_demo"]

PREVIEWED_IMAGES = 8


def run_demo(out: Path, *, jobs: int, debug: bool = False) -> None:
    """Generate images, make and verify their maps, and draw a contact sheet; finished steps are kept.

    The steps are the commands that a user would type, and are shown as such; ``debug`` gives each ``--debug``.
    """
    run = functools.partial(_run, extra=("--debug",) if debug else ())
    data, maps, sheet = out / "data", out / "maps", out / "preview.png"
    click.secho(f"Generating a small CLS-LOC data set in {data}", bold=True)
    make_clsloc_dataset(data)
    for split in ("train", "val"):
        run("proposals", "--data", data, "--split", split, "--out", maps, "--jobs", jobs)
    run("verify", maps, "--data", data)
    run("preview", maps, "--data", data, "--split", "val", "--count", PREVIEWED_IMAGES, "--out", sheet)
    click.secho("\nDone. What was made:", bold=True)
    click.echo(f"  {data}  generated images with boxes and masks, laid out like ILSVRC")
    click.echo(f"  {maps}  saliency maps in HDF5 shards; open one in HDFView, silx view or H5Web")
    click.echo(f"  {sheet}  image, map, overlay and box of {PREVIEWED_IMAGES} images (true boxes in green)")


def _run(*words: object, extra: tuple[str, ...]) -> None:
    arguments = [str(word) for word in words]
    click.secho(f"\n$ wsol-prep {shlex.join(arguments)}", bold=True)
    # click's standalone mode would end the process; without it a failure comes back as the exit code.
    code = wsol_prep.main([*arguments, *extra], prog_name="wsol-prep", standalone_mode=False)
    if code:
        raise click.exceptions.Exit(int(code))
