"""Keys of a pipeline file: the options of a command, with the TOML values that each accepts.

A key is an option's long name without its dashes in front: ``batch-size`` or ``batch_size``.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import Option, arguments, names_file, options_by_key


class PipelineFileError(ValueError):
    """A pipeline file that cannot be used; the message names file, section, key, what was expected and found."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean batch-size?``, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class OptionKeys:
    """The options of a command, called ``program`` in messages, as keys of a file.

    ``reserved`` says by key why a file may not set this option.
    """

    def __init__(self, options: Iterable[Option], *, program: str, reserved: Mapping[str, str]) -> None:
        self.program = program
        self.reserved = reserved
        self.options = options_by_key(options, but=reserved)
        """By key the options that a file may set, in the order of the command's help."""

    def normalised(self, table: Mapping[str, Any], *, where: str) -> dict[str, Any]:
        """Values by key, with dashes and without empty arrays; ``where`` is file and section, for messages.

        PipelineFileError for a key that is unknown, reserved, or there twice, and for a value of the wrong kind.
        """
        values: dict[str, Any] = {}
        for written, value in table.items():
            key = written.replace("_", "-")
            if key in self.reserved:
                raise PipelineFileError(f"{where} {written}: cannot be set here: {self.reserved[key]}")
            if key not in self.options:
                raise PipelineFileError(f"{where} {written}: {self._unknown(key)}")
            if key in values:
                raise PipelineFileError(f"{where} {written}: given twice, with - and with _; keep one of them")
            _check(self.options[key], value, where=f"{where} {written}")
            if value != []:
                values[key] = value
        return values

    def arguments(self, values: Mapping[str, Any], *, folder: Path) -> list[str]:
        """The values of ``normalised`` as arguments of the command; relative paths start at ``folder``."""
        files = {key: str(folder / value) for key, value in values.items() if names_file(self.options[key], value)}
        return list(arguments(self.options, {**values, **files}))

    def missing_files(self, values: Mapping[str, Any], *, folder: Path) -> Iterator[tuple[str, Path]]:
        """Key and path of each file or folder that the values name and that does not exist."""
        for key, value in values.items():
            if names_file(self.options[key], value) and not (folder / value).exists():
                yield key, folder / value

    def default(self, key: str) -> Any:
        """The option's default as a TOML value; None when it has none."""
        option = self.options[key]
        value = option.to_info_dict()["default"]
        if option.is_flag:
            return bool(value)
        return [] if option.multiple else value

    def _unknown(self, key: str) -> str:
        for name, option in self.options.items():
            if f"--{key}" in option.secondary_opts:
                return f"unknown key; write {name} = false"
        return f"no option of {self.program}{suggestion(key, [*self.options, *self.reserved])}"


def _check(option: click.Option, value: Any, *, where: str) -> None:
    """PipelineFileError unless the option could have the value."""
    several = option.multiple or option.nargs > 1
    if several and not (isinstance(value, list) and (option.multiple or len(value) == option.nargs)):
        wanted = f"such as [{_shown(value)}]" if option.multiple else f"of {option.nargs} values"
        raise PipelineFileError(f"{where}: expected an array {wanted}, found {_shown(value)}")
    kinds, expected = _accepted(option)
    for one in value if several else [value]:
        if type(one) not in kinds:
            raise PipelineFileError(f"{where}: expected {expected}, found {_shown(one)}")
        if option.is_flag or isinstance(option.type, click.Path):
            continue
        try:
            option.type.convert(str(one), option, None)
        except click.BadParameter as error:
            near = suggestion(str(one), option.type.choices) if isinstance(option.type, click.Choice) else ""
            raise PipelineFileError(f"{where}: {error.message.rstrip('.')}{near}") from None


def _accepted(option: click.Option) -> tuple[tuple[type, ...], str]:
    """Types of TOML that an option's value may have (``bool`` is none of the numbers), and their name."""
    if option.is_flag:
        return (bool,), "true or false"
    # The range types derive from the plain ones.
    if isinstance(option.type, type(click.INT)):
        return (int,), "a whole number"
    if isinstance(option.type, type(click.FLOAT)):
        return (int, float), "a number"
    return (str,), "text in quotes"


def _shown(value: Any) -> str:
    # Texts, numbers, truth values and arrays are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False, default=str)
