"""``wsol-pipeline run`` as a user runs it: the whole way, again, with changed settings, killed and resumed."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.pipeline_cli import main
from tests.command_calls import run_with_steps, sigterm_when, start_program
from training.run_folder.files import LOCK_FILE

FILE = """\
out = "results"
[data]
root = "data"
[proposals]
map-size = 32
[training]
input-size = 64
epochs = 1
batch-size = 2
workers = 0
device = "cpu"
no-triplet-loss = true
[training.small]
[evaluation]
protocol = ["cam"]
jobs = 1
workers = 0
bootstrap-samples = 10
panels = 0
device = "cpu"
"""
RESULTS = ("runs/small/finished.json", "evaluation/small/metrics.json", "evaluation/maps/metrics.json", "report.html")


def finish(*words: object, code: int = 0) -> str:
    found, text = run_with_steps(main, "run", *words, prog_name="wsol-pipeline")
    assert found == code, text
    return text


def pipeline_file(folder: Path) -> Path:
    make_clsloc_dataset(folder / "data", classes=2, train_per_class=2, val_per_class=1, size_px=(64, 64))
    path = folder / "pipeline.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    file = pipeline_file(tmp_path_factory.mktemp("pipeline"))
    return file, finish(file)


def results(file: Path) -> dict[str, bytes]:
    return {name: (file.parent / "results" / name).read_bytes() for name in RESULTS}


def test_one_file_leads_from_images_to_a_report(finished: tuple[Path, str]) -> None:
    file, text = finished
    metrics = json.loads(results(file)["evaluation/small/metrics.json"])
    assert metrics["name"] == "small" and metrics["counts"]["scored"] == 2
    assert {one["localizer"] for one in metrics["results"]} == {"cam", "saliency", "cam*saliency"}
    assert b"small" in results(file)["report.html"]
    assert str(file.parent / "results" / "report.html") in text.rpartition("Done")[2]
    assert [line.split()[0] for line in text.splitlines() if line.startswith("[")] == [f"[{n}/6]" for n in range(1, 7)]


@pytest.mark.full
def test_data_without_boxes_end_in_a_report_too(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished[0].parent, tmp_path / "pipeline"))
    shutil.rmtree(folder / "data" / "Annotations")
    for path in (folder / "data").glob("LOC_*_solution.csv"):
        path.unlink()
    shutil.rmtree(folder / "results" / "evaluation")
    (folder / "results" / "finished-steps.json").unlink()
    file = folder / "pipeline.toml"
    file.write_text(FILE.replace("panels = 0", "panels = 1"))
    assert finish(file).count("so localization is not scored") == 2
    page = results(file)["report.html"]
    # One of the maps and three of the network.
    assert b"Localization was not scored" in page and page.count(b": predicted box") == 4


def test_finished_stages_are_kept(finished: tuple[Path, str]) -> None:
    file, _ = finished
    folder = file.parent / "results"

    def states() -> dict[Path, tuple[int, int]]:
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}

    before, bytes_before = states(), results(file)
    text = finish(file)
    assert states() == before
    kept, _, made = text.partition("\nDone")
    assert len(kept.splitlines()) == 6 and all(line.endswith(": finished before, kept") for line in kept.splitlines())
    assert "report.html" in made

    # A file that is gone is made again, and what reads it is asked.
    (folder / "evaluation" / "small" / "predictions.csv").unlink()
    text = finish(file)
    assert text.count("finished before, kept") == 4 and "$ wsol-eval run " in text and "$ wsol-eval report" in text
    assert results(file) == bytes_before


@pytest.mark.full
def test_without_the_record_every_command_is_asked_and_keeps_what_it_finds(finished: tuple[Path, str]) -> None:
    file, _ = finished
    before = results(file)
    record = file.parent / "results" / "finished-steps.json"
    content = record.read_bytes()
    record.unlink()
    text = finish(file)
    assert results(file) == before and "kept" not in text
    assert text.count("0 images to do") == 2 and "this run is finished" in text
    assert record.read_bytes() != content, "the report was written again"


@pytest.mark.parametrize(
    ("old", "new", "stage", "named"),
    [
        ("map-size = 32", "map-size = 16", "proposals", "map_size"),
        ("epochs = 1", "epochs = 2", "training", "epochs: 1 stored, 2 now"),
        ("device", "limit = 3\ndevice", "training", "other training images than these 3"),
        ('["cam"]', '["ts-cam"]', "evaluation", 'protocols: ["cam"] stored, ["ts-cam"] now'),
    ],
)
def test_a_stage_of_other_settings_is_refused_with_what_differs(
    finished: tuple[Path, str], old: str, new: str, stage: str, named: str
) -> None:
    file, _ = finished
    before = results(file)
    changed = file.with_name("changed.toml")
    changed.write_text(FILE.replace(old, new, 1))
    text = finish(changed, "--only", stage, code=1)
    assert named in text and "Traceback" not in text
    assert "another --out" in text or "another output folder" in text
    assert results(file) == before
    # Asked again as it was made, it is finished.
    assert "$ " not in finish(file, "--only", stage)


def begin_training_again(file: Path) -> tuple[Path, bytes]:
    """Remove the finished run; the folder of the run, and what it said when it was finished."""
    run = file.parent / "results" / "runs" / "small"
    before = (run / "finished.json").read_bytes()
    shutil.rmtree(run)
    return run, before


def test_a_terminated_pipeline_resumes_to_the_same_network(finished: tuple[Path, str]) -> None:
    file, _ = finished
    run, before = begin_training_again(file)
    # There as soon as the training begins, before its first step.
    with sigterm_when((run / LOCK_FILE).exists):
        finish(file, "--until", "training", code=143)
    assert not (run / "finished.json").exists()
    finish(file, "--until", "training")
    assert (run / "finished.json").read_bytes() == before


@pytest.mark.full
@pytest.mark.parametrize("whom", ["all", "pipeline alone"])
def test_a_killed_pipeline_resumes_to_the_same_network(finished: tuple[Path, str], whom: str) -> None:
    file, _ = finished
    run, before = begin_training_again(file)
    process = start_program("pipelines.pipeline_cli", "run", file, "--until", "training")
    while not (run / LOCK_FILE).exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    if whom == "all":
        # As a machine that goes down: nothing is left that could end in its own way.
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    # Not for the end of its training: the next one may have to wait for that.
    assert process.wait() == -signal.SIGKILL
    finish(file, "--until", "training")
    assert (run / "finished.json").read_bytes() == before
