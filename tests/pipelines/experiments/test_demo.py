"""The demo as a program: the whole way on few small images, again, interrupted and resumed, and with a failing step."""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import pipelines.experiments.demo as experiment
from evaluation.protocols import protocol_title
from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.demo import DemoPlan
from pipelines.pipeline_cli import main
from pseudo_maps.shards import MapIndex
from tests.command_calls import invoke, run_with_steps, sigterm_when
from tests.pipelines.report_page import Page
from training.run_folder.files import LOCK_FILE

TINY = {
    "classes": 2,
    "train_per_class": 2,
    "val_per_class": 2,
    "size_px": (64, 80),
    "input_size_px": 64,
    "epochs": 2,
    "batch_size": 2,
    "shown_images": 2,
}
"""The demo draws 500 images of about 280 pixels, minutes of work; here it draws 8 small ones."""


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "DemoPlan", functools.partial(DemoPlan, **TINY))
        yield


def demo(out: Path, *words: str) -> tuple[int, str]:
    """Exit code and output, that of the steps included."""
    return run_with_steps(main, "demo", "--out", out, "--jobs", "1", *words, prog_name="wsol-pipeline")


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo that ran to its end, and its output. Copy the folder before changing anything."""
    out = tmp_path_factory.mktemp("demo") / "a b"
    code, output = demo(out)
    assert code == 0, output
    return out, output


def copy(finished: tuple[Path, str]) -> Path:
    """The finished demo moved aside and copied to its place, because the lines of its steps name the place."""
    out, _ = finished
    kept = out.with_name("kept")
    if not kept.exists():
        shutil.copytree(out, kept)
    shutil.rmtree(out)
    shutil.copytree(kept, out)
    return out


# --- what is made


def test_everything_is_there_and_the_end_says_where(finished: tuple[Path, str]) -> None:
    out, output = finished
    end = output.rpartition("Done in ")[2]
    made = ("data", "maps", "preview.png", "runs/gap", "runs/full-method", "evaluation", "report.html")
    for name in made:
        assert (out / name).exists() and f"  {out / name}  " in end
    assert len(MapIndex(out / "maps", "train")) == len(MapIndex(out / "maps", "val")) == 4
    with Image.open(out / "preview.png") as sheet:
        assert sheet.format == "PNG"
    configurations = [
        json.loads((out / "runs" / name / "finished.json").read_text())["configuration"]
        for name in ("gap", "full-method")
    ]
    differing = {key for key in configurations[0] if configurations[0][key] != configurations[1][key]}
    assert differing == {"method", "loss", "perceptual", "maps"}, "the same budget"


def test_the_numbers_at_the_end_and_in_the_report_are_those_that_were_measured(finished: tuple[Path, str]) -> None:
    out, output = finished
    text = " ".join((out / "introduction.txt").read_text(encoding="utf-8").split())
    shown = dict(re.findall(r"^  (.+): (CAM of the full method .*)$", output, flags=re.MULTILINE))
    assert list(shown) == [protocol_title(protocol) for protocol in ("cam", "wsoleval-v1")]
    for protocol, line in zip(("cam", "wsoleval-v1"), shown.values(), strict=True):
        rates = []
        for name, kind, localizer in (
            ("full-method", "results", "cam"),
            ("gap", "results", "cam"),
            ("boxes", "baselines", "centred-square"),
        ):
            metrics = json.loads((out / "evaluation" / name / "metrics.json").read_text())
            (found,) = [
                made for made in metrics[kind] if (made["localizer"], made["protocol"]) == (localizer, protocol)
            ]
            rates.append(f"{100 * found['gt_known_loc']['rate']:.0f} %")
        full, gap, box = rates
        assert line == f"CAM of the full method {full}, CAM of gap {gap}, centred box {box}"
        sentence = text[text.index(f"Under the protocol {protocol_title(protocol)}") :]
        assert f"(CAM) of full-method is right in {full} " in sentence and f"that of gap in {gap} " in sentence
        gained = float(re.search(r"full-method minus gap is ([+-][0-9.]+) ± ", sentence)[1])
        assert f"{gained:.0f} %" == f"{float(full[:-2]) - float(gap[:-2]):.0f} %"


def test_the_report_is_one_page_with_text_tables_curves_and_pictures(finished: tuple[Path, str]) -> None:
    text = (finished[0] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    for words in ("The images are generated", "64 x 64 pixels", "here F is the small", "How the numbers were computed"):
        assert words in text
    alternatives = [image["attrs"]["alt"] for image in page.all("img")]
    for start_of in ("Classification loss, by epoch", "Top-1 accuracy", "Saliency of full-method", "Accuracy against"):
        assert any(alt.startswith(start_of) for alt in alternatives), start_of
    (table,) = [table for table in page.all("table") if table["attrs"].get("class") == "cells"]
    for localizer in ("cam", "saliency", "cam*saliency", "pseudo-map", "centred-gaussian"):
        assert localizer in table["text"]
    assert all(
        value.startswith("data:")
        for element in page.elements
        for name, value in element["attrs"].items()
        if name in ("src", "srcset", "href")
    )
    assert 'class="warning"' not in text


def test_steps_are_counted_and_their_lines_can_be_typed(finished: tuple[Path, str]) -> None:
    output = finished[1]
    assert re.findall(r"^\[(\d+)/11\] ", output, flags=re.MULTILINE) == [str(number) for number in range(1, 12)]
    lines = [line[2:] for line in output.splitlines() if line.startswith("$ ")]
    assert [line.split()[0] for line in lines] == ["wsol-prep"] * 4 + ["wsol-train"] * 2 + ["wsol-eval"] * 5
    # A shell runs the shortest of them to the same end.
    (verify,) = [line for line in lines if line.startswith("wsol-prep verify ")]
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    typed = subprocess.run(verify, shell=True, capture_output=True, text=True, env=environment)
    assert typed.returncode == 0 and "train, val complete and undamaged" in typed.stdout


# --- again


def test_a_finished_demo_is_kept_whole(finished: tuple[Path, str]) -> None:
    out, output = finished
    before = states(out)
    code, again = demo(out)
    assert code == 0 and again.count("finished before, kept") == 11 and "$ " not in again
    assert states(out) == before
    assert again.rpartition("What was made")[2] == output.rpartition("What was made")[2]


def test_what_is_missing_is_made_again_to_the_same_bytes(finished: tuple[Path, str]) -> None:
    out = copy(finished)
    page = (out / "report.html").read_bytes()
    shutil.rmtree(out / "evaluation" / "boxes")
    (out / "report.html").unlink()
    code, output = demo(out)
    assert code == 0 and output.count("finished before, kept") == 9
    assert [line.split()[:3] for line in output.splitlines() if line.startswith("$ ")] == [
        ["$", "wsol-eval", "baseline"],
        ["$", "wsol-eval", "report"],
    ]
    assert (out / "report.html").read_bytes() == page


@pytest.mark.full
def test_a_training_interrupted_within_an_epoch_leads_to_the_same_report(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, one_torch_thread: None
) -> None:
    """After its first step; every other step is one of the trainer's tests."""
    from pipelines.train_cli import main as train
    from training.trainer import Trainer

    out = copy(finished)
    page = (out / "report.html").read_bytes()
    for name in ("runs/full-method", "evaluation/full-method"):
        shutil.rmtree(out / name)
    (out / "report.html").unlink()
    (line,) = [line for line in finished[1].splitlines() if line.startswith("$ wsol-train") and "full-method" in line]
    arguments = [word.replace(str(finished[0]), str(out)) for word in shlex.split(line)[2:]]
    train_step = Trainer.train_step

    def interrupted(trainer: Trainer, batches: list) -> None:
        train_step(trainer, batches)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        assert invoke(train, *arguments, prog_name="wsol-train").exit_code == 143
    code, output = demo(out)
    assert code == 0 and "at step 1\n" in output, output
    assert (out / "report.html").read_bytes() == page


def test_sigterm_while_training_ends_the_demo(finished: tuple[Path, str]) -> None:
    out = copy(finished)
    shutil.rmtree(out / "runs/full-method")
    # There as soon as the training begins, before its first step.
    with sigterm_when((out / "runs/full-method" / LOCK_FILE).exists):
        code, output = demo(out)
    assert code == 143, output
    assert "wsol-pipeline: stopped by SIGTERM; the same command resumes" in output and "Done" not in output
    assert not (out / "runs/full-method/finished.json").exists()


# --- what cannot be


def test_a_folder_that_holds_other_data_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("mine")
    code, output = demo(tmp_path)
    assert code == 1 and "wsol-pipeline: error: " in output and "Traceback" not in output
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "thesis.txt"]


def test_a_step_that_fails_ends_the_demo(tmp_path: Path) -> None:
    make_clsloc_dataset(
        tmp_path / "data", classes=2, train_per_class=2, val_per_class=2, size_px=TINY["size_px"], seed=0
    )
    next((tmp_path / "data" / "Data/CLS-LOC/train").rglob("*.JPEG")).write_bytes(b"")
    code, output = demo(tmp_path)
    assert code == 1 and "1 decode-error" in output
    assert (
        output.strip()
        .splitlines()[-1]
        .startswith("wsol-pipeline: error: maps of train: wsol-prep failed with exit code 1; its message is above")
    )
    assert "[2/11]" not in output and "Done" not in output and "Traceback" not in output


def test_debug_shows_the_traceback_of_a_step(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "train.manifest.json").write_text("no JSON")
    code, output = demo(tmp_path, "--debug")
    assert code == 1 and "train.manifest.json: " in output
    assert "Traceback (most recent call last)" in output


# --- bad usage


@pytest.mark.parametrize("words", [[], ["show"], ["demo", "--jobs", "0"], ["demo", "--out", __file__]])
def test_bad_usage_is_exit_2(words: list[str]) -> None:
    assert CliRunner().invoke(main, words, prog_name="wsol-pipeline").exit_code == 2


def test_the_demo_is_as_large_as_it_says() -> None:
    plan = DemoPlan()
    assert (plan.classes, plan.train_per_class, plan.val_per_class) == (10, 40, 10)
    assert plan.steps == plan.epochs * 400 // plan.batch_size
