"""Turns the options of a click command into the keys of a file's section, and a key's value into words of a command.

A key is an option's long name without its dashes in front: ``batch-size`` or ``batch_size``. What a value may be (a
whole number, one of several names, ...) is read from the option itself, so a file can say what the command line can.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

__all__ = ["OptionKeys", "PipelineFileError", "suggestion"]

PLAIN_NAMES: Mapping[str, tuple[str, ...]] = {"perceptual-weights": ("imagenet", "random")}
"""Options that take a file or one of these names; other files are known by their type."""


class PipelineFileError(ValueError):
    """A pipeline file that cannot be used; the message names file, section, key, what was expected and found."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean batch-size?``, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class OptionKeys:
    """The options of one command as keys of a file.

    Parameters
    ----------
    command
        Command whose options are meant; its arguments and what all commands share (``--debug``) are no keys.
    program
        How the command is called, for messages.
    barred
        By key, why a file may not set this option.
    """

    def __init__(self, command: click.Command, *, program: str, barred: Mapping[str, str]) -> None:
        self.program = program
        self.barred = barred
        found = {
            _key_of(option): option
            for option in command.params
            if isinstance(option, click.Option) and option.expose_value
        }
        self.options: Mapping[str, click.Option] = {key: found[key] for key in found if key not in barred}
        """By key the options that a file may set, in the order of the command's help."""

    def normalised(self, table: Mapping[str, Any], *, where: str) -> dict[str, Any]:
        """Values by key, with the dashes of the command line and without empty arrays.

        Parameters
        ----------
        table
            As it was read.
        where
            File and section, for messages.

        Raises
        ------
        PipelineFileError
            A key that is unknown, that the file may not set, or that stands there twice; or a value of the wrong kind.
        """
        values: dict[str, Any] = {}
        for written, value in table.items():
            key = written.replace("_", "-")
            if key in self.barred:
                raise PipelineFileError(f"{where} {written}: cannot be set here: {self.barred[key]}")
            if key not in self.options:
                raise PipelineFileError(f"{where} {written}: {self._unknown(key)}")
            if key in values:
                raise PipelineFileError(f"{where} {written}: stands there twice, with - and with _; keep one of them")
            _check(self.options[key], value, where=f"{where} {written}")
            if value != []:
                values[key] = value
        return values

    def words(self, values: Mapping[str, Any], *, folder: Path) -> list[str]:
        """The values of ``normalised`` as words of the command line; relative paths are meant from ``folder``."""
        words = []
        for key, value in values.items():
            option = self.options[key]
            if option.is_flag:
                # "--no-map-loss = false" is said by silence; "--by-name = false" has a flag of its own.
                words += [option.opts[0]] if value else option.secondary_opts[:1]
                continue
            for one in value if option.multiple else [value]:
                words += [f"--{key}", str(folder / one) if _is_path(option, key, one) else str(one)]
        return words

    def missing_files(self, values: Mapping[str, Any], *, folder: Path) -> list[tuple[str, Path]]:
        """Key and path of each file or folder that the values name and that is not there."""
        named = [
            (key, folder / one)
            for key, value in values.items()
            for one in (value if self.options[key].multiple else [value])
            if _is_path(self.options[key], key, one)
        ]
        return [(key, path) for key, path in named if not path.exists()]

    def default(self, key: str) -> Any:
        """What the command takes when the key is not set, as the file would say it; None when nothing says it."""
        option = self.options[key]
        value = option.to_info_dict()["default"]
        if option.is_flag:
            return bool(value)
        return [] if option.multiple else value

    def _unknown(self, key: str) -> str:
        for name, option in self.options.items():
            if f"--{key}" in option.secondary_opts:
                return f"unknown key; write {name} = false"
        return f"no option of {self.program}{suggestion(key, [*self.options, *self.barred])}"


def _key_of(option: click.Option) -> str:
    return max(option.opts, key=len).removeprefix("--")


def _is_path(option: click.Option, key: str, value: Any) -> bool:
    return isinstance(option.type, click.Path) or (key in PLAIN_NAMES and value not in PLAIN_NAMES[key])


def _check(option: click.Option, value: Any, *, where: str) -> None:
    """PipelineFileError unless the option could have the value."""
    if option.multiple:
        if not isinstance(value, list):
            raise PipelineFileError(
                f"{where}: expected an array such as [{_shown(value)}], found {_kind(value)} {_shown(value)}"
            )
    for one in value if option.multiple else [value]:
        _check_one(option, one, where=where)


def _check_one(option: click.Option, value: Any, *, where: str) -> None:
    kinds, expected = _accepted(option)
    if type(value) not in kinds:
        raise PipelineFileError(f"{where}: expected {expected}, found {_kind(value)} {_shown(value)}")
    if option.is_flag or isinstance(option.type, click.Path):
        return
    try:
        option.type.convert(str(value), option, None)
    except click.BadParameter as error:
        near = suggestion(str(value), option.type.choices) if isinstance(option.type, click.Choice) else ""
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


def _kind(value: Any) -> str:
    names = {bool: "the truth value", int: "the number", float: "the number", str: "the text", list: "the array"}
    return "a table" if isinstance(value, dict) else names.get(type(value), "the date or time")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"of {', '.join(value)}" if value else "without keys"
    if isinstance(value, list):
        return f"[{', '.join(_shown(one) for one in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
