"""The options of all commands, frozen: other people's scripts call them, and changing one breaks those scripts.

``command_options.txt`` holds name, type, choices, bounds, default and kind of every option. After a change that is
meant, write it anew and read the difference: ``python -m tests.pipelines.test_command_options``.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pseudo_maps import __version__
from tests.command_calls import invoke
from tests.command_parsing import COMMANDS

FROZEN = Path(__file__).with_name("command_options.txt")


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and those in it, by what is typed to call them."""
    yield name, command
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            yield from commands(command.commands[inner], f"{name} {inner}")


ALL = dict(pair for name, command in COMMANDS.items() for pair in commands(command, name))


def parameters(name: str) -> list[click.Parameter]:
    command = ALL[name]
    return command.get_params(click.Context(command, info_name=name, **command.context_settings))


def takes(kind: click.ParamType) -> str:
    """What an option accepts: ``one of a, b``, ``integer from 1``, ``existing folder``."""
    if isinstance(kind, click.Choice):
        return f"one of {', '.join(kind.choices)}"
    if isinstance(kind, click.Path):
        what = {(True, True): "file or folder", (True, False): "file", (False, True): "folder"}
        return f"{'existing ' if kind.exists else ''}{what[kind.file_okay, kind.dir_okay]}"
    if isinstance(kind, click.IntRange | click.FloatRange):
        low = "" if kind.min is None else f" {'above' if kind.min_open else 'from'} {kind.min:g}"
        high = "" if kind.max is None else f" {'below' if kind.max_open else 'to'} {kind.max:g}"
        return f"{kind.name.removesuffix(' range')}{low}{high}"
    return kind.name


def described(parameter: click.Parameter) -> str:
    """One line: names, what it takes, and its default."""
    names = ", ".join(parameter.opts) + "".join(f" / {other}" for other in parameter.secondary_opts)
    is_flag = getattr(parameter, "is_flag", False)
    parts = ["flag" if is_flag else takes(parameter.type)]
    if parameter.nargs == -1 or getattr(parameter, "multiple", False):
        parts.append("several")
    elif parameter.nargs > 1:
        parts.append(f"{parameter.nargs} values")
    if getattr(parameter, "_flag_needs_value", False):
        parts.append("or without a value")
    default = parameter.to_info_dict()["default"]
    if parameter.required:
        parts.append("required")
    elif is_flag:
        parts.append(f"default {bool(default)}")
    elif default is not None:
        parts.append(f"default {' '.join(default) if isinstance(default, tuple) else default}")
    return f"{names}: {', '.join(parts)}"


def frozen_text() -> str:
    """What the options are now; a command's own order is not frozen, except that of its arguments."""
    blocks = []
    for name in ALL:
        found = parameters(name)
        arguments = [described(one) for one in found if isinstance(one, click.Argument)]
        options = sorted(described(one) for one in found if isinstance(one, click.Option))
        blocks.append("\n".join([name, *(f"  {line}" for line in (*arguments, *options))]))
    return "\n\n".join(blocks) + "\n"


def test_the_options_of_all_commands_are_frozen() -> None:
    assert frozen_text() == FROZEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ALL)
def test_help_and_version_of_every_command(name: str) -> None:
    program, *words = name.split()
    short, long = (invoke(COMMANDS[program], *words, option, prog_name=program) for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    assert short.output.startswith(f"Usage: {name}")
    for parameter in parameters(name):
        for spelled in (*parameter.opts, *parameter.secondary_opts):
            assert spelled in (short.output if spelled.startswith("-") else short.output.lower())
    version = invoke(COMMANDS[program], *words, "--version", prog_name=program)
    assert (version.exit_code, version.output) == (0, f"{__version__}\n")


@pytest.mark.parametrize("name", ALL)
def test_help_shows_every_default_that_there_is(name: str) -> None:
    context = click.Context(ALL[name], info_name=name, **ALL[name].context_settings)
    for parameter in parameters(name):
        if not isinstance(parameter, click.Option) or parameter.is_flag:
            continue
        default = parameter.to_info_dict()["default"]
        if default is not None and default != ():
            _, shown = parameter.get_help_record(context) or ("", "")
            text = ", ".join(default) if isinstance(default, tuple) else default
            assert f"[default: {text}" in shown, parameter.name


if __name__ == "__main__":
    FROZEN.write_text(frozen_text(), encoding="utf-8")
