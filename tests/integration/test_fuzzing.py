"""Damaged files of every kind that is read: each is refused by its own error, in one line that names the file, or fine.

Mutations are drawn from the kind, a number and nothing else. ``WSOL_FUZZ_TRIALS`` sets the trials of each kind, and
``WSOL_FUZZ_FIRST`` the first number, to draw others.
"""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from evaluation.images import EvaluationImage
from evaluation.maps import open_stored_maps
from evaluation.results.journal import ResultJournal
from evaluation.schema import MetricsError, read_metrics
from pipelines.datasets import DatasetError
from pipelines.datasets.annotation_xml import read_annotation_xml
from pipelines.datasets.clsloc import read_solution_csv
from pipelines.experiments.pipeline_file import PipelineFileError, read_pipeline_file
from pipelines.experiments.steps import StepRecord
from pseudo_maps.images import ImageDecodeError, decode_image, read_image_size
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import ShardError, ShardReader
from pseudo_maps.shards.manifest import Manifest, ManifestError, agree_on_manifest, read_manifest
from tests.evaluation.example_metrics import metrics
from tests.evaluation.scores_making import random_images
from tests.pseudo_maps.image_making import encode, jpeg, picture
from tests.pseudo_maps.shard_making import CONFIGURATION, make_shard
from training.run_folder.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from training.run_folder.files import read_finished
from training.run_folder.metrics_log import MetricsLog

TRIALS = int(os.environ.get("WSOL_FUZZ_TRIALS", "20"))
FIRST = int(os.environ.get("WSOL_FUZZ_FIRST", "0"))

PIPELINE = """out = "results"
[data]
root = "data"
[proposals]
preset = "b1100"
jobs = 2
[training]
epochs = 3
lr = 1e-3
[training.gap]
method = "gap"
[evaluation]
protocol = ["cam", "wsoleval-v1"]
"""
ANNOTATION = """<annotation><filename>a</filename><size><width>500</width><height>375</height></size>
<object><name>n01440764</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>300</xmax><ymax>200</ymax></bndbox></object>
</annotation>"""
SOLUTION = "ImageId,PredictionString\nval_1,n01440764 1 2 30 40 \nval_2,n01443537 5 6 70 80 n01443537 1 1 2 2 \n"
RECORD = '{"version": "1", "steps": {"a": {"settings": {}}}}'
WORDS = (b"null", b"NaN", b"-1", b"9" * 400, b"[" * 5000, b"{}", b"\0", b"\xff\xfe", b'"', b"1e999", b"../../x", b"\n")
"""What a text may have in it that nobody expects."""


class Kind(NamedTuple):
    """A kind of file: how one is made, how it is read, and the errors that refuse it."""

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    refused: tuple[type[Exception], ...] = ()


def read_shard(path: Path) -> None:
    with ShardReader(path) as reader:
        for row in range(len(reader.rows)):
            reader.read_uint8(row)
        assert len(reader.table) == len(reader.rows)


def read_picture(path: Path) -> None:
    read_image_size(path)
    decode_image(path, enough_px=20)


def read_journal(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ResultJournal(path.parent, config={"a": [1]}).done() <= {0}


def read_stored_map(path: Path) -> None:
    record = ImageRecord(image_id=path.stem, path=f"{path.stem}.png")
    image = EvaluationImage(index=0, record=record, boxes_xyxy=np.zeros((0, 4)), frame_wh=None, blacklisted=False)
    open_stored_maps(path.parent, split="val").maps_of(image)


def write_manifest(path: Path) -> None:
    numbers = {"images": 3, "shards": 1, "shard_size": 16}
    agree_on_manifest(path.parent, Manifest(split="val", ids_sha256="0" * 64, configuration=CONFIGURATION, **numbers))


KINDS: dict[str, Kind] = {
    "shard": Kind("val-00000-of-00001.h5", lambda path: make_shard(path, ["a", "b"]), read_shard, (ShardError,)),
    "manifest": Kind(
        "val.manifest.json", write_manifest, lambda path: read_manifest(path.parent, "val"), (ManifestError,)
    ),
    "jpeg": Kind("a.JPEG", lambda path: path.write_bytes(jpeg()), read_picture, (ImageDecodeError,)),
    "png": Kind("a.png", lambda path: path.write_bytes(encode(picture(), "PNG")), read_picture, (ImageDecodeError,)),
    "tiff": Kind("a.tif", lambda path: path.write_bytes(encode(picture(), "TIFF")), read_picture, (ImageDecodeError,)),
    "webp": Kind("a.webp", lambda path: path.write_bytes(encode(picture(), "WEBP")), read_picture, (ImageDecodeError,)),
    "npy": Kind("a.npy", lambda path: np.save(path, np.ones((9, 9))), read_stored_map, (ValueError,)),
    "npz": Kind("a.npz", lambda path: np.savez(path, np.ones((9, 9))), read_stored_map, (ValueError,)),
    "annotation": Kind("a.xml", lambda path: path.write_text(ANNOTATION), read_annotation_xml, (DatasetError,)),
    "solution": Kind(
        "s.csv",
        lambda path: path.write_text(SOLUTION),
        lambda path: read_solution_csv(path, split="val"),
        (DatasetError,),
    ),
    "pipeline": Kind("p.toml", lambda path: path.write_text(PIPELINE), read_pipeline_file, (PipelineFileError,)),
    "record": Kind(
        "r.json", lambda path: path.write_text('{"version": "1", "steps": {"a": {"settings": {}}}}'), StepRecord
    ),
    "metrics": Kind("metrics.json", lambda path: path.write_text(json.dumps(metrics())), read_metrics, (MetricsError,)),
    "journal": Kind(
        "000000000.batch",
        lambda path: ResultJournal(path.parent, config={"a": [1]}).add(random_images(2)),
        read_journal,
    ),
    "journal settings": Kind(
        "config.json", lambda path: ResultJournal(path.parent, config={"a": [1]}), read_journal, (ValueError,)
    ),
    "checkpoint": Kind(
        "checkpoint-00000001.pt",
        lambda path: save_checkpoint(path, {"step": 1, "config": {"lr": 0.1}}),
        load_checkpoint,
        (CheckpointError,),
    ),
    "finished": Kind(
        "finished.json", lambda path: path.write_text('{"epochs": 3}'), lambda path: read_finished(path.parent)
    ),
    "log": Kind(
        "metrics.jsonl",
        lambda path: path.write_text('{"event": "train", "step": 1, "total": 0.5}\n' * 5),
        lambda path: MetricsLog(path.parent, resume_step=3),
    ),
}


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """Content with one to three changes: a part of it is gone, doubled, or replaced by an odd word or another byte."""
    for _ in range(int(generator.integers(1, 4))):
        first, last = sorted(generator.integers(len(content) + 1, size=2).tolist())
        word = WORDS[generator.integers(len(WORDS))]
        part, last = [
            (b"", last),
            (b"", len(content)),
            (content[first:last] * 2, last),
            (word, first),
            (word, first + 4),
            (generator.bytes(1), first + 1),
            (b"\xff" * 4, first + 4),
        ][generator.integers(7)]
        content = content[:first] + part + content[last:]
    return content


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_refused_in_one_line_or_read(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    path = tmp_path / kind.name
    kind.make(path)
    kind.read(path)
    whole = path.read_bytes()
    path.chmod(0o644)
    for number in range(FIRST, FIRST + TRIALS):
        path.write_bytes(mutated(whole, np.random.default_rng([number, *name.encode()])))
        try:
            kind.read(path)
        except kind.refused as error:
            assert str(path) in str(error) and "\n" not in str(error), f"trial {number}: {error}"
        except Exception as error:
            raise AssertionError(f"trial {number} of {name}: {type(error).__name__}: {error}") from error
