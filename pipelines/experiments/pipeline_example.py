"""Example of a pipeline file: every key with its help and its default."""

import json
import textwrap

import click

from pipelines.experiments.pipeline_file import DATA, EVALUATION, PROPOSALS, TRAINING
from pipelines.experiments.pipeline_options import OptionKeys

_WIDTH = 120
_HEAD = """\
# A whole pipeline in one file: maps, trainings, evaluations, report. To run it, and to resume it:
#     wsol-pipeline run THIS_FILE
# Lines that begin with "#" and a key show its default, if there is one: remove the # to set another value.
# Relative paths start at the folder of this file.

# Folder of the results: maps/, runs/<name>/, evaluation/<name>/ and report.html.
out = "results"
"""
_RUNS = """\
# The runs, each with a name of its own and the options in which it differs. Without any such section there is one run.
[training.gap]
method = "gap"

[training.ours]
method = "saliency"
"""
_SET = {("data", "root"): "ILSVRC", ("proposals", "jobs"): -1}
"""Values that the example sets: a pipeline has the machine to itself, a command may not."""


def example_file() -> str:
    """A pipeline file in TOML: every key, with its help, commented out at its default."""
    parts = [
        _HEAD,
        _section("data", DATA, about="The splits train and val are used."),
        _section("proposals", PROPOSALS, about="Options of wsol-prep proposals."),
        _section("training", TRAINING, about="Options of wsol-train that all runs share."),
        _RUNS,
        _section(
            "evaluation",
            EVALUATION,
            about="Options of wsol-eval run; the maps are scored too, with the options that they share.",
        ),
    ]
    return "\n".join(parts)


def _section(name: str, keys: OptionKeys, *, about: str) -> str:
    lines = [f"[{name}]", f"# {about}", ""]
    for key, option in keys.options.items():
        lines += textwrap.wrap(
            _help(option), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        default, chosen = keys.default(key), _SET.get((name, key))
        if chosen is not None:
            lines.append(f"{key} = {json.dumps(chosen)}")
        elif default is None:
            lines.append(f"#{key} =")
        else:
            # Texts, numbers, truth values and arrays of them are written alike in JSON and TOML.
            lines.append(f"#{key} = {json.dumps(default)}")
        lines.append("")
    return "\n".join(lines)


def _help(option: click.Option) -> str:
    text, bracket, default = (option.help or "").partition("  [default:")
    if isinstance(option.type, click.Choice):
        text += f" One of: {', '.join(option.type.choices)}."
    return f"{text} {bracket.strip()}{default}".strip()
