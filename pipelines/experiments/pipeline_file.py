"""Pipeline file: one TOML file with the settings of data, proposals, training runs and evaluation.

The keys of the sections are the options of ``wsol-prep proposals``, ``wsol-train`` and ``wsol-eval run``; paths are
relative to the file. ``pipeline_plan`` makes the steps.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli.eval_options import RUN_OPTIONS
from pipelines.cli.options import DATA_OPTION, LAYOUT_OPTION, Option
from pipelines.cli.prep_options import PROPOSAL_OPTIONS
from pipelines.cli.train_options import TRAIN_OPTIONS
from pipelines.experiments.pipeline_options import OptionKeys, PipelineFileError, suggestion

if TYPE_CHECKING:
    from pipelines.datasets import Dataset


ONLY_RUN = "network"
"""Name of the training run of a file that names none."""
MAPS_NAME = "maps"
"""Name of the evaluation of the saliency maps themselves, which therefore no training run can have."""

_OF_THE_FILE = {
    **dict.fromkeys(("data", "layout"), "the section [data] sets it for all stages"),
    "out": "out, at the top of the file, is the folder of everything",
}
_BY_ONE_PROCESS = "one process makes all maps; in an array of tasks, run wsol-prep proposals first"

PROPOSALS = OptionKeys(
    PROPOSAL_OPTIONS,
    program="wsol-prep proposals",
    reserved={
        **_OF_THE_FILE,
        "split": "maps are made of train and of val",
        **dict.fromkeys(("task-index", "task-count"), _BY_ONE_PROCESS),
        "dry-run": "give --dry-run to wsol-pipeline run",
    },
)
TRAINING = OptionKeys(
    TRAIN_OPTIONS,
    program="wsol-train",
    reserved={
        **_OF_THE_FILE,
        "maps": "the maps are those of the stage before",
        "resume": "a run that was begun is always resumed",
    },
)
EVALUATION = OptionKeys(
    RUN_OPTIONS,
    program="wsol-eval run",
    reserved={
        **_OF_THE_FILE,
        "split": "networks learn from train and are scored on val",
        "name": "results have the names of the training runs",
        "threshold-from": "each run needs thresholds of its own; give it to wsol-eval",
    },
)
DATA = OptionKeys(
    (Option("--root", help=DATA_OPTION.help), LAYOUT_OPTION),
    program="the data set",
    reserved={"out": "it stands at the top of the file, before the first section"},
)
_SECTIONS = ("data", "proposals", "training", "evaluation")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class PipelineFile:
    """A checked pipeline file; options are by key as TOML has them."""

    path: Path
    out: Path
    data: Path
    layout: str | None
    proposals: Mapping[str, Any]
    runs: Mapping[str, Mapping[str, Any]]
    """By name of the training run; what all runs share is in each."""
    evaluation: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self.path.parent


def read_pipeline_file(path: Path) -> PipelineFile:
    """Read and check a pipeline file; nothing that it names has to exist yet.

    PipelineFileError when it is no TOML, when a section or key is unknown (the nearest name is suggested), missing or
    reserved, and when a value is not what its option takes.
    """
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PipelineFileError(f"{path}: expected UTF-8 text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise PipelineFileError(f"{path}: expected TOML: {error}") from None
    for name in content:
        if name not in ("out", *_SECTIONS):
            raise PipelineFileError(f"{path}: {_unknown_at_the_top(name)}")
    for name in _SECTIONS:
        if not isinstance(content.get(name, {}), dict):
            raise PipelineFileError(f"{path}: {name}: expected a section [{name}], found {content[name]!r}")
    out = content.get("out")
    if not isinstance(out, str) or not out:
        found = "nothing" if out is None else repr(out)
        raise PipelineFileError(
            f'{path}: out: expected the folder of the results, such as out = "results", found {found}'
        )
    data = DATA.normalised(content.get("data", {}), where=f"{path}: [data]")
    if not data.get("root"):
        raise PipelineFileError(f"{path}: [data] root: expected the folder of the data set, found nothing")
    return PipelineFile(
        path=path,
        out=path.parent / out,
        data=path.parent / data["root"],
        layout=data.get("layout"),
        proposals=PROPOSALS.normalised(content.get("proposals", {}), where=f"{path}: [proposals]"),
        runs=_runs(content.get("training", {}), path=path),
        evaluation=EVALUATION.normalised(content.get("evaluation", {}), where=f"{path}: [evaluation]"),
    )


def check_inputs(pipeline: PipelineFile) -> "tuple[Dataset, Dataset]":
    """The splits train and val, once everything that the pipeline reads is found: before hours of work.

    PipelineFileError when a file that a key names is missing; DatasetError when a split does not open.
    """
    from pipelines.datasets import open_dataset

    settings = [("[proposals]", PROPOSALS, pipeline.proposals), ("[evaluation]", EVALUATION, pipeline.evaluation)]
    settings += [(f"[training.{name}]", TRAINING, values) for name, values in pipeline.runs.items()]
    for where, keys, values in settings:
        for key, missing in keys.missing_files(values, folder=pipeline.folder):
            raise PipelineFileError(
                f"{pipeline.path}: {where} {key}: expected a file, found nothing at {missing}; relative paths start "
                "at the folder of the pipeline file"
            )
    layout = pipeline.layout or "auto"
    train, val = (open_dataset(pipeline.data, split=split, layout=layout) for split in ("train", "val"))
    return train, val


def _unknown_at_the_top(name: str) -> str:
    for section, keys in (("proposals", PROPOSALS), ("training", TRAINING), ("evaluation", EVALUATION)):
        if name.replace("_", "-") in keys.options:
            return f"{name}: a key of the section [{section}], found outside of it"
    expected = f"expected out and the sections {', '.join(f'[{known}]' for known in _SECTIONS)}"
    return f"{name}: unknown; {expected}{suggestion(name, ('out', *_SECTIONS))}"


def _runs(table: Mapping[str, Any], *, path: Path) -> dict[str, dict[str, Any]]:
    """Options of every run: those that all share, changed by the run's own."""
    known = {*TRAINING.options, *TRAINING.reserved}
    named = {name: own for name, own in table.items() if isinstance(own, dict) and name.replace("_", "-") not in known}
    shared = TRAINING.normalised(
        {key: value for key, value in table.items() if key not in named}, where=f"{path}: [training]"
    )
    runs = {}
    for name, own in named.items():
        where = f"{path}: [training.{name}]"
        if not _RUN_NAME.fullmatch(name):
            raise PipelineFileError(
                f"{where}: expected a name of letters, digits, '.', '_' and '-' that a folder can have, found {name!r}"
            )
        if name == MAPS_NAME:
            raise PipelineFileError(f"{where}: the saliency maps are scored under this name; choose another one")
        runs[name] = {**shared, **TRAINING.normalised(own, where=where)}
    return runs or {ONLY_RUN: shared}
