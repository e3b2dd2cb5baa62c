"""Click options made from the fields of configuration dataclasses, and the options that several commands share."""

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import os
import sys
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipelines.datasets import LAYOUT_NAMES
from training.networks.registry import TIMM_PREFIX

EXISTING = click.Path(exists=True, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)


_BOUNDS = ("min", "max", "above", "below")


class Option(click.Option):
    """An option that knows the configuration field it sets (``loss.map_weight``), and whether results depend on it.

    One on which they do not depend may change when a command is resumed.
    """

    def __init__(self, *declarations: Any, field: str = "", decides: bool = True, **settings: Any) -> None:
        super().__init__([*declarations], **settings)
        self.field, self.decides = field, decides


class FileOrName(click.ParamType[str]):
    """A file, one of several names, or a network of timm; whether the file exists is not checked."""

    name = "text"

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)


class ChoiceOrPrefixed(click.Choice[str]):
    """One of several words, or anything that begins with ``prefix``, such as ``timm:``."""

    def __init__(self, choices: Collection[str], prefix: str) -> None:
        super().__init__(tuple(choices))
        self.prefix = prefix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word as it is."""
        if value not in self.choices and not str(value).startswith(self.prefix):
            self.fail(f"{value!r} is not one of {', '.join(self.choices)}, {self.prefix}NAME", param, ctx)
        return str(value)


class Network(click.Path):
    """A checkpoint, the folder of a run, or a network of timm: ``timm:NAME``."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; what begins with ``timm:`` need not exist."""
        return Path(value) if str(value).startswith(TIMM_PREFIX) else Path(str(super().convert(value, param, ctx)))


class NewFile(click.Path):
    """A file to write, whose name ends in one of ``suffixes`` if any are given."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; a name that ends otherwise is bad usage."""
        path = Path(str(super().convert(value, param, ctx)))
        if self.suffixes and path.suffix.lower() not in self.suffixes:
            self.fail(f"{path}: expected a name that ends in {' or '.join(self.suffixes)}", param, ctx)
        return path


def names_file(option: click.Option, value: Any) -> bool:
    """Whether this value of an option is the path of a file or folder."""
    kind = option.type
    is_name = isinstance(kind, FileOrName) and (value in kind.names or str(value).startswith(TIMM_PREFIX))
    return isinstance(kind, click.Path | FileOrName) and not is_name


DATA_OPTION = Option(
    "--data",
    required=True,
    type=EXISTING_FOLDER,
    help="Root of the data set: images in one folder per class, or an unpacked data set (see --layout).",
)
LAYOUT_OPTION = Option("--layout", type=click.Choice(LAYOUT_NAMES), default="auto", help="Layout of the data set.")
TASK_OPTIONS = (
    Option("--task-index", type=int, help="Index of this array task.  [default: SLURM's, else 0]", decides=False),
    Option("--task-count", type=int, help="Number of array tasks.  [default: SLURM's, else 1]", decides=False),
)


def field_options(
    owner: type, changes: Mapping[str, Mapping[str, Any] | None], *, decides: bool = True, prefix: str = ""
) -> list[Option]:
    """One option for each field of a configuration dataclass, and of the dataclasses in it.

    The type of the field gives the type of the option: ``bool`` a flag, or a pair of flags where the default is True;
    ``Literal`` or ``choices`` in the field's metadata a choice; a number with ``min`` or ``above``, ``max`` or
    ``below`` in the metadata a range; a tuple an option that may be given several times. The docstring under the field
    is the help text.

    ``changes`` holds by path of a field (``loss.map_weight``) other settings of ``Option``, ``name``, bounds, and
    ``default_text``, shown in place of the default; or None where the field has no option.
    """
    options = []
    hints = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        path = f"{prefix}{field.name}"
        kind, change = hints[field.name], changes.get(path, {})
        if change is None:
            continue
        if dataclasses.is_dataclass(kind):
            options += field_options(typing.cast(type, kind), changes, decides=decides, prefix=f"{path}.")
            continue
        bounds = {key: value for key, value in change.items() if key in _BOUNDS}
        settings = {**_of_type(kind, field, bounds), "help": _field_help(owner)[field.name]}
        settings |= {key: value for key, value in change.items() if key not in _BOUNDS}
        name = settings.pop("name", field.name.replace("_", "-"))
        if default_text := settings.pop("default_text", ""):
            settings["help"] += f"  [default: {default_text}]"
        flags = f"--{name}/--no-{name}" if kind is bool and settings["default"] else f"--{name}"
        options.append(Option(flags, field=path, decides=decides, **settings))
    return options


def _of_type(kind: Any, field: "dataclasses.Field[Any]", bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the option that follow from a field's type, default and metadata."""
    default = None if field.default is dataclasses.MISSING else field.default
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (one for one in typing.get_args(kind) if one is not type(None))
    settings: dict[str, Any] = {"default": default}
    if typing.get_origin(kind) is tuple:
        kind, settings = typing.get_args(kind)[0], {"multiple": True, "default": default or None}
    if kind is bool:
        return {**settings, "is_flag": True}
    return {**settings, "type": _param_type(kind, {**field.metadata, **bounds})}


def _param_type(kind: Any, metadata: Mapping[str, Any]) -> Any:
    choices = metadata.get("choices") or (typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ())
    if "prefix" in metadata:
        return ChoiceOrPrefixed(choices, metadata["prefix"])
    if choices:
        return click.Choice(tuple(choices))
    if kind is Path:
        return click.Path(path_type=Path)
    low, high = metadata.get("min", metadata.get("above")), metadata.get("max", metadata.get("below"))
    if (low, high) == (None, None) or kind is str:
        return kind
    span = click.IntRange if kind is int else click.FloatRange
    return span(low, high, min_open="above" in metadata, max_open="below" in metadata)


@functools.cache
def _classes(module: str) -> Mapping[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _field_help(owner: type) -> Mapping[str, str]:
    """The docstrings under the fields of a dataclass, each as one line."""
    return {
        field.target.id: " ".join(str(below.value.value).replace("``", "").split())
        for field, below in itertools.pairwise(_classes(owner.__module__)[owner.__name__].body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def key_of(option: click.Parameter) -> str:
    """The long name of an option without its dashes: ``batch-size``."""
    return max(option.opts, key=len).removeprefix("--")


def given_names(context: click.Context) -> set[str]:
    """Parameters of a command that were given a value explicitly."""
    unset = {ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP}
    return {name for name in context.params if context.get_parameter_source(name) not in unset}


def arguments(options: Mapping[str, click.Option], values: Mapping[str, Any]) -> Iterator[str]:
    """Command-line arguments that give the options, by key, these values; None leaves an option at its default."""
    for key, value in values.items():
        option = options[key]
        if option.is_flag:
            # A flag without an opposite is switched off by leaving it away.
            yield from option.opts[:1] if value else option.secondary_opts[:1]
        elif value is not None:
            for one in value if option.multiple else [value]:
                yield from (f"--{key}", *map(str, one if option.nargs > 1 else [one]))


def options_by_key(options: Iterable[Option], *, but: Collection[str] = ()) -> dict[str, Option]:
    """Options by key, in order, without some of them."""
    return {key_of(option): option for option in options if key_of(option) not in but}


@contextlib.contextmanager
def as_usage_error() -> Iterator[None]:
    """Let a value that an option cannot have end the command as bad usage."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def task_share(*, task_index: int | None, task_count: int | None) -> tuple[int, int]:
    """Index and count of this array task, from the two options (UsageError) or from SLURM's variables (ValueError)."""
    from pseudo_maps.runs.array_tasks import array_share

    try:
        return array_share(task_index=task_index, task_count=task_count, environment=os.environ)
    except ValueError as error:
        if task_index is None and task_count is None:
            raise
        raise click.UsageError(str(error)) from None
