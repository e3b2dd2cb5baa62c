"""Time to list a CLS-LOC tree as large as ILSVRC's training split, without any image.

python benchmarks/dataset_listing.py --images 1281167
"""

import resource
import tempfile
import time
from pathlib import Path

import click

from pipelines.datasets import open_dataset

CLASSES = 1000
BYTES_PER_UNIT_OF_MAXRSS = 1024


def write_lists(root: Path, *, images: int) -> None:
    """Make the two text files that name classes and images, as Kaggle's tree has them."""
    wnids = [f"n{number:08d}" for number in range(CLASSES)]
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} thing of kind {wnid}\n" for wnid in wnids))
    lists, pictures = root / "ImageSets" / "CLS-LOC", root / "Data" / "CLS-LOC" / "train"
    lists.mkdir(parents=True)
    pictures.mkdir(parents=True)
    with (lists / "train_cls.txt").open("w") as file:
        for number in range(images):
            wnid = wnids[number * CLASSES // images]
            file.write(f"{wnid}/{wnid}_{number} {number + 1}\n")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--images", type=click.IntRange(min=CLASSES), default=1_281_167)
def main(images: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_lists(root, images=images)
        start = time.perf_counter()
        dataset = open_dataset(root, split="train")
        elapsed_s = time.perf_counter() - start
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_UNIT_OF_MAXRSS / 1e6
    print(f"{len(dataset.records)} images of {len(dataset.class_wnids)} classes: {elapsed_s:.2f} s, {memory_mb:.0f} MB")


if __name__ == "__main__":
    main()
