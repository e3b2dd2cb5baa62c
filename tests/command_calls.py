"""Turns the words of a command line into the result of its click command, called in this process."""

import click
from click.testing import CliRunner, Result


def invoke(command: click.Command, *words: object, prog_name: str) -> Result:
    """Exit code and output of a command; what it raises but for its exit is raised, so that a test shows where."""
    result = CliRunner().invoke(command, [str(word) for word in words], prog_name=prog_name)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
