"""Pipeline files: what they may say, what they mean, and what their errors name."""

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from pipelines.cli.options import key_of
from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.pipeline_example import example_file
from pipelines.experiments.pipeline_file import (
    EVALUATION,
    ONLY_RUN,
    PROPOSALS,
    TRAINING,
    PipelineFile,
    check_inputs,
    read_pipeline_file,
)
from pipelines.experiments.pipeline_options import OptionKeys, PipelineFileError
from tests.command_parsing import COMMANDS

START = 'out = "results"\n[data]\nroot = "images"\n'
SECTIONS = {"proposals": PROPOSALS, "training": TRAINING, "evaluation": EVALUATION}


def read(folder: Path, text: str, *, start: str = START) -> PipelineFile:
    path = folder / "pipeline.toml"
    path.write_text(start + text, encoding="utf-8")
    return read_pipeline_file(path)


def arguments(keys: OptionKeys, table: dict[str, Any]) -> list[str]:
    return keys.arguments(keys.normalised(table, where="here"), folder=Path("/files"))


# --- what a file means


def test_the_least_file_leaves_everything_at_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == PipelineFile(
        path=tmp_path / "pipeline.toml",
        out=tmp_path / "results",
        data=tmp_path / "images",
        layout=None,
        proposals={},
        runs={ONLY_RUN: {}},
        evaluation={},
    )


def test_paths_start_at_the_folder_of_the_file_unless_they_are_absolute(tmp_path: Path) -> None:
    pipeline = read(tmp_path, "", start='out = "../there"\n[data]\nroot = "/somewhere"\nlayout = "imagenet"\n')
    assert (pipeline.out, pipeline.data, pipeline.layout) == (tmp_path / "../there", Path("/somewhere"), "imagenet")


def test_runs_have_what_is_shared_and_what_is_their_own(tmp_path: Path) -> None:
    pipeline = read(
        tmp_path,
        "[training]\nepochs = 3\nno-map-loss = true\n[training.a]\nepochs = 5\n[training.b]\nno_map_loss = false\n",
    )
    assert pipeline.runs == {"a": {"epochs": 5, "no-map-loss": True}, "b": {"epochs": 3, "no-map-loss": False}}
    assert TRAINING.arguments(pipeline.runs["a"], folder=tmp_path) == ["--epochs", "5", "--no-map-loss"]
    assert TRAINING.arguments(pipeline.runs["b"], folder=tmp_path) == ["--epochs", "3"]


@pytest.mark.parametrize(
    ("keys", "table", "expected"),
    [
        (PROPOSALS, {"jobs": -1}, ["--jobs", "-1"]),
        (TRAINING, {"map-ignore": [0.25, 0.75]}, ["--map-ignore", "0.25", "0.75"]),
        (PROPOSALS, {"by-name": False}, ["--no-by-name"]),
        (PROPOSALS, {"by-name": True}, ["--by-name"]),
        (PROPOSALS, {"boundary-model": "model.yml"}, ["--boundary-model", "/files/model.yml"]),
        (PROPOSALS, {"boundary-model": "/model.yml"}, ["--boundary-model", "/model.yml"]),
        (TRAINING, {"tensorboard": True, "batch_norm": False}, ["--tensorboard", "--no-batch-norm"]),
        (TRAINING, {"compile": "auto"}, ["--compile", "auto"]),
        (TRAINING, {"recipe": "paper", "lr": 0.01}, ["--recipe", "paper", "--lr", "0.01"]),
        (TRAINING, {"lr": 1, "warmup_epochs": 1e-5}, ["--lr", "1", "--warmup-epochs", "1e-05"]),
        (TRAINING, {"perceptual-weights": "random"}, ["--perceptual-weights", "random"]),
        (TRAINING, {"perceptual-weights": "f.pth"}, ["--perceptual-weights", "/files/f.pth"]),
        (EVALUATION, {"protocol": ["cam", "ts-cam"]}, ["--protocol", "cam", "--protocol", "ts-cam"]),
        (EVALUATION, {"scale": [1, 1.25], "flip": True}, ["--scale", "1", "--scale", "1.25", "--flip"]),
        (EVALUATION, {"localizer": [], "flip": False}, []),
        (EVALUATION, {"blacklist": "left-out.txt"}, ["--blacklist", "/files/left-out.txt"]),
    ],
)
def test_values_become_arguments_of_the_command(keys: OptionKeys, table: dict[str, Any], expected: list[str]) -> None:
    assert arguments(keys, table) == expected


# --- errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trainng]\n", r"trainng: unknown; expected out and the sections .*; did you mean training\?"),
        ("[training]\nbatchsize = 3\n", r"\[training\] batchsize: no option of wsol-train; did you mean batch-size\?"),
        ("[training]\nzzz = 3\n", r"\[training\] zzz: no option of wsol-train$"),
        ("[training.a]\nepoch = 3\n", r"\[training.a\] epoch: .* did you mean epochs\?"),
        ("[training]\nno-batch-norm = true\n", r"no-batch-norm: unknown key; write batch-norm = false"),
        ("[training]\nbatch-size = 1\nbatch_size = 1\n", r"batch_size: given twice"),
        (
            "[training]\nresume = true\n",
            r"\[training\] resume: cannot be set here: a run that was begun is always resumed",
        ),
        ("[training]\nepochs = '3'\n", r'epochs: expected a whole number, found "3"'),
        ("[training]\nepochs = 3.0\n", r"epochs: expected a whole number, found 3.0"),
        ("[training]\nepochs = true\n", r"epochs: expected a whole number, found true"),
        ("[training]\nlr = true\n", r"lr: expected a number, found true"),
        ("[training]\nlr = 2026-01-01\n", r"lr: expected a number, found \"2026-01-01\""),
        ("[training]\nepochs = 0\n", r"epochs: 0 is not in the range x>=1"),
        ("[training]\ntensorboard = 1\n", r"tensorboard: expected true or false, found 1"),
        ("[training]\narch = 'alexnetgap'\n", r"'alexnetgap' is not one of .*; did you mean alexnet-gap\?"),
        ("[training]\narch = ['alexnet-gap']\n", r"arch: expected text in quotes, found \[\"alexnet-gap\"\]"),
        ("[training.arch]\nepochs = 2\n", r"arch: expected text in quotes, found {\"epochs\": 2}"),
        ("[training.maps]\n", r"maps: cannot be set here: the maps are those of the stage before"),
        ("[training.'a/b']\n", r"\[training.a/b\]: expected a name of letters, digits"),
        ("[training]\nmap-ignore = [0.5]\n", r"map-ignore: expected an array of 2 values, found \[0\.5\]"),
        ("[training]\nmap-ignore = 0.5\n", r"map-ignore: expected an array of 2 values, found 0\.5"),
        ("[evaluation]\nprotocol = 'cam'\n", r'protocol: expected an array such as \["cam"\], found "cam"'),
        ("[evaluation]\nprotocol = ['cam', 'tscam']\n", r"'tscam' is not one of .*; did you mean ts-cam\?"),
        ("[evaluation]\nsplit = 'test'\n", r"\[evaluation\] split: cannot be set here"),
        ("[proposals]\ntask-index = 0\n", r"task-index: cannot be set here: one process makes all maps"),
        ("[proposals]\nepochs = 3\n", r"\[proposals\] epochs: no option of wsol-prep proposals"),
        ("layouts = 'auto'\n", r"\[data\] layouts: no option of the data set; did you mean layout\?"),
        ("layout = 'kaggle'\n", r"\[data\] layout: 'kaggle' is not one of 'auto'"),
        ("out = 'x'\n", r"\[data\] out: cannot be set here: it stands at the top of the file"),
    ],
)
def test_an_error_names_file_section_key_and_what_was_found(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PipelineFileError, match=message) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'pipeline.toml'}: ")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("", r"out: expected the folder of the results, .*, found nothing"),
        ("out = 3\n", r"out: expected the folder .*, found 3"),
        ("out = 'r'\n", r"\[data\] root: expected the folder of the data set, found nothing"),
        ("out = 'r'\n[data]\nroot = 7\n", r"\[data\] root: expected text in quotes, found 7"),
        ("data = 'x'\nout = 'r'\n", r"data: expected a section \[data\], found 'x'"),
        ("epochs = 3\n", r"epochs: a key of the section \[training\], found outside of it"),
        ("out = \n", r"expected TOML: .*line 1"),
    ],
)
def test_what_every_file_needs(tmp_path: Path, start: str, message: str) -> None:
    with pytest.raises(PipelineFileError, match=message):
        read(tmp_path, "", start=start)


def test_a_file_of_other_bytes_than_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PipelineFileError, match=f"{re.escape(str(path))}: expected UTF-8 text"):
        read_pipeline_file(path)


@pytest.mark.parametrize("keys", SECTIONS.values(), ids=SECTIONS)
def test_what_is_reserved_are_options_with_a_reason(keys: OptionKeys) -> None:
    assert all(keys.reserved.values())
    every = {key_of(one) for one in command_of(keys).params if isinstance(one, click.Option) and one.expose_value}
    assert set(keys.reserved) <= every and set(keys.options) | set(keys.reserved) == every


def command_of(keys: OptionKeys) -> click.Command:
    program, *name = keys.program.split()
    command = COMMANDS[program]
    return command.commands[name[0]] if isinstance(command, click.Group) else command


def test_what_is_not_there_is_found_before_anything_runs(tmp_path: Path) -> None:
    make_clsloc_dataset(tmp_path / "images", classes=1, train_per_class=1, val_per_class=1, size_px=(64, 64))
    check_inputs(read(tmp_path, ""))
    for text, named in (
        ("[proposals]\nboundary-model = 'm.yml'\n", "[proposals] boundary-model"),
        ("[training.a]\nperceptual-weights = 'f.pth'\n", "[training.a] perceptual-weights"),
        ("[evaluation]\nblacklist = 'b.txt'\n", "[evaluation] blacklist"),
    ):
        with pytest.raises(
            PipelineFileError, match=re.escape(f"{named}: expected a file, found nothing at {tmp_path}")
        ):
            check_inputs(read(tmp_path, text))
    with pytest.raises(ValueError, match="nowhere"):
        check_inputs(read(tmp_path, "", start="out = 'r'\n[data]\nroot = 'nowhere'\n"))
    (tmp_path / "train-only" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train-only" / "train" / "cat" / "1.png").write_bytes(b"only listed")
    with pytest.raises(ValueError, match="expected the folder 'val' beside 'train'"):
        check_inputs(read(tmp_path, "", start="out = 'r'\n[data]\nroot = 'train-only'\nlayout = 'imagefolder'\n"))


# --- the example


def uncommented(text: str) -> str:
    """The example with every default that has a value switched on."""
    return re.sub(r"(?m)^#([a-z-]+ = \S.*)$", r"\1", text)


def test_the_example_is_a_file_that_sets_next_to_nothing(tmp_path: Path) -> None:
    pipeline = read(tmp_path, example_file(), start="")
    assert pipeline.runs == {"gap": {"method": "gap"}, "ours": {"method": "saliency"}}
    assert (dict(pipeline.proposals), dict(pipeline.evaluation)) == ({"jobs": -1}, {})
    assert (pipeline.out, pipeline.data) == (tmp_path / "results", tmp_path / "ILSVRC")


def test_the_example_shows_every_key_and_its_default(tmp_path: Path) -> None:
    text = uncommented(example_file())
    read(tmp_path, text, start="")
    content = tomllib.loads(text)
    for name, keys in SECTIONS.items():
        shown = {key: value for key, value in content[name].items() if not isinstance(value, dict)}
        expected = {key: keys.default(key) for key in keys.options if keys.default(key) is not None}
        assert shown == expected | ({"jobs": -1} if name == "proposals" else {})
    for key in (key for keys in SECTIONS.values() for key in keys.options):
        assert re.search(rf"(?m)^#?{key} =", example_file()), key
    assert max(map(len, example_file().splitlines())) <= 120


def test_the_example_with_its_defaults_switched_on_means_the_same_as_without(tmp_path: Path) -> None:
    """The arguments of a default, parsed by the command itself, give the default."""
    pipeline = read(tmp_path, uncommented(example_file()), start="")
    for keys, values in ((PROPOSALS, pipeline.proposals), (EVALUATION, pipeline.evaluation)):
        context = command_of(keys).make_context(
            keys.program, keys.arguments(values, folder=tmp_path), resilient_parsing=True
        )
        for key in values:
            if key != "jobs" or keys is EVALUATION:
                assert context.params[keys.options[key].name] == keys.default(key), key
