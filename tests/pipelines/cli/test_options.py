"""Options made from the fields of dataclasses, and arguments made from the values of options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import pytest

from pipelines.cli.options import (
    ChoiceOrPrefixed,
    FileOrName,
    Network,
    Option,
    arguments,
    field_options,
    given_names,
    key_of,
    names_file,
    options_by_key,
)
from pipelines.cli.train_options import CONFIG_OPTIONS, TRAIN_OPTIONS
from tests.pipelines.test_command_options import described


@dataclass(frozen=True, kw_only=True)
class Inner:
    map_weight: float = field(default=1.0, metadata={"min": 0})
    """Factor of the ``map`` loss,
    in two lines."""
    kind: Literal["l2", "bce"] = "l2"
    """Distance."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    batch_norm: bool = True
    """Normalise."""
    compile: bool = False
    """Compile."""
    epochs: int = field(default=3, metadata={"min": 1})
    """Epochs to train."""
    limit: float | None = None
    """Largest norm."""
    arch: str = field(default="a", metadata={"choices": ("a", "b")})
    """Architecture."""
    names: tuple[str, ...] = ()
    """Names."""
    file: Path | None = None
    """A file."""
    hidden: int = 7
    """Not offered."""
    loss: Inner = field(default_factory=Inner)


OPTIONS = field_options(Outer, {"hidden": None, "loss.kind": {"name": "loss", "default": None, "default_text": "any"}})


def test_type_default_and_metadata_give_the_option() -> None:
    assert [described(option) for option in OPTIONS] == [
        "--batch-norm / --no-batch-norm: flag, default True",
        "--compile: flag, default False",
        "--epochs: integer from 1, default 3",
        "--limit: float",
        "--arch: one of a, b, default a",
        "--names: text, several",
        "--file: file or folder",
        "--map-weight: float from 0, default 1.0",
        "--loss: one of l2, bce",
    ]
    assert [option.field for option in OPTIONS[-3:]] == ["file", "loss.map_weight", "loss.kind"]


def test_the_docstring_under_a_field_is_the_help() -> None:
    helps = {key_of(option): option.help for option in OPTIONS}
    assert helps["epochs"] == "Epochs to train."
    assert helps["map-weight"] == "Factor of the map loss, in two lines."
    assert helps["loss"] == "Distance.  [default: any]"


def test_every_option_of_training_has_help_and_a_field_of_its_own() -> None:
    assert all(option.help for option in TRAIN_OPTIONS)
    fields = [option.field for option in CONFIG_OPTIONS]
    assert len(set(fields)) == len(fields) and "loss.map_weight" in fields and "perceptual" not in fields


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"batch-norm": False, "compile": True}, ["--no-batch-norm", "--compile"]),
        ({"batch-norm": True, "compile": False}, ["--batch-norm"]),
        ({"epochs": 5, "limit": None, "names": ("x", "y z")}, ["--epochs", "5", "--names", "x", "--names", "y z"]),
        ({"map-weight": 0.5, "file": Path("f")}, ["--map-weight", "0.5", "--file", "f"]),
    ],
)
def test_arguments_give_the_values_back(values: dict[str, Any], expected: list[str]) -> None:
    options = options_by_key(OPTIONS)
    made = list(arguments(options, values))
    assert made == expected
    context = click.Command("test", params=[*OPTIONS]).make_context("test", [*made])
    given = {key: context.params[option.name] for key, option in options.items() if option.name in given_names(context)}
    assert given == {key: value for key, value in values.items() if f"--{key}" in made or f"--no-{key}" in made}


def test_networks_of_timm_are_named_beside_choices_and_files(tmp_path: Path) -> None:
    arch = ChoiceOrPrefixed(("a", "b"), "timm:")
    assert [arch.convert(value, None, None) for value in ("b", "timm:x")] == ["b", "timm:x"]
    with pytest.raises(click.BadParameter, match="'c' is not one of a, b, timm:NAME"):
        arch.convert("c", None, None)
    network = Network()
    assert network.convert(str(tmp_path), None, None) == tmp_path
    assert network.convert("timm:x@/w.pth", None, None) == Path("timm:x@/w.pth")
    with pytest.raises(click.BadParameter, match="does not exist"):
        network.convert(str(tmp_path / "absent"), None, None)


def test_a_file_or_a_name() -> None:
    option = Option("--weights", type=FileOrName(("imagenet", "random")))
    assert names_file(option, "f.pt") and not names_file(option, "random")
    by_key = options_by_key(OPTIONS)
    assert names_file(by_key["file"], Path("f")) and not names_file(by_key["arch"], "a")
