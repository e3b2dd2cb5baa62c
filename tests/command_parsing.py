"""Parser of quoted command lines: would the click command take these arguments? Files are not looked at."""

from collections.abc import Sequence

import click

from pipelines.eval_cli import main as wsol_eval
from pipelines.pipeline_cli import main as wsol_pipeline
from pipelines.prep_cli import main as wsol_prep
from pipelines.train_cli import main as wsol_train

COMMANDS: dict[str, click.Command] = {
    "wsol-prep": wsol_prep,
    "wsol-train": wsol_train,
    "wsol-eval": wsol_eval,
    "wsol-pipeline": wsol_pipeline,
}


def refusal(program: str, words: Sequence[str], *, whole: bool = True) -> str | None:
    """Why the command would refuse the words, or None; whether files exist is not looked at.

    Not ``whole``: a piece of a command line, as texts quote it, may lack what is required.
    """
    command, words, name = COMMANDS[program], list(words), program
    context = click.Context(command, info_name=name, **command.context_settings)
    try:
        while isinstance(command, click.Group):
            if not words or words[0] in ("-h", "--help", "--version"):
                return None if words or not whole else f"{name}: a command is missing"
            name, command, words = command.resolve_command(context, words)
            assert command is not None
            context = click.Context(command, info_name=name, parent=context, **command.context_settings)
        if words in (["-h"], ["--help"], ["--version"]):
            return None
        values, left, _ = command.make_parser(context).parse_args(words)
        if left:
            return f"{name}: unexpected {' '.join(left)}"
        for parameter in command.get_params(context):
            value = values.get(parameter.name or "")
            given = value is not None and value != () and type(value).__name__ != "Sentinel"
            if not given:
                if parameter.required and whole:
                    return f"{name}: {parameter.get_error_hint(context)} is missing"
            elif not isinstance(parameter.type, click.Path):
                parameter.type_cast_value(context, value)
    except click.UsageError as error:
        return f"{name}: {error.format_message()}"
    return None


def spoken_options(command: click.Command | None = None) -> set[str]:
    """Every option of a command and of those in it; of all programs without one."""
    if command is None:
        return set().union(*map(spoken_options, COMMANDS.values()))
    found = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return found.union(*map(spoken_options, inner))
