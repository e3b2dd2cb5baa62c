"""Turns the words of ``wsol-pipeline table`` into a plan, its runs and its tables. Imports what it needs late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from evaluation.names import PROTOCOL_NAMES
from pipelines.cli.options import DATA_OPTION, LAYOUT_OPTION, TASK_OPTIONS, task_share
from pipelines.cli.terminal import CONTEXT_SETTINGS, common_options, ending_on_signals, wants_debug
from pipelines.eval_cli import run as evaluate_run
from pipelines.experiments.paper_table.rows import ROWS
from pipelines.train_cli import ARCH_NAMES
from pipelines.train_cli import main as train_program

if TYPE_CHECKING:
    from pipelines.experiments.paper_table.plan import Setting, TablePlan, TableRun

__all__ = ["table"]

PAPER_ARCHS = ("alexnet-gap", "googlenet-gap")
DEFAULT_SEEDS = (0, 1, 2)
DEFAULT_PROTOCOLS = ("cam", "wsoleval-v1")
OWN_OF_TRAINING = frozenset(
    {
        *("data", "layout", "maps", "out", "arch", "method", "no_map_loss", "no_triplet_loss"),
        *("seed", "device", "resume", "debug", "version"),
    }
)
"""Options of wsol-train that the table sets itself."""
OF_EVERY_EVALUATION = ("boxes", "blacklist", "limit", "bootstrap_samples", "jobs")
"""Options of every command of wsol-eval that the table passes on."""
OF_NETWORKS = ("precision", "workers")
"""Options of wsol-eval run that the table passes on."""


_Command = TypeVar("_Command", bound=Callable[..., Any])


def _listed(
    name: str, parameter: str, convert: Callable[..., Any], *, default: Sequence[object], text: str
) -> Callable[[_Command], _Command]:
    """An option of words joined by commas, that may be given several times; gives a tuple with each word once."""

    def separate(context: click.Context, option: click.Parameter, uses: tuple[str, ...]) -> tuple[Any, ...]:
        words = [word.strip() for use in uses for word in use.split(",") if word.strip()]
        if not words:
            raise click.BadParameter("expected at least one, found none", ctx=context, param=option)
        return tuple(dict.fromkeys(convert(word, option, context) for word in words))

    return click.option(
        name,
        parameter,
        multiple=True,
        default=(",".join(map(str, default)),),
        metavar="LIST",
        callback=separate,
        help=f"{text}, joined by commas or one at a time.",
    )


def _training_options() -> list[click.Option]:
    return [
        option
        for option in train_program.params
        if isinstance(option, click.Option) and option.name not in OWN_OF_TRAINING
    ]


def _options_of_run() -> list[click.Option]:
    """Options of wsol-eval run that the table passes on."""
    wanted = {*OF_EVERY_EVALUATION, *OF_NETWORKS}
    return [option for option in evaluate_run.params if isinstance(option, click.Option) and option.name in wanted]


def _evaluation_options() -> list[click.Option]:
    """Those that wsol-train does not have under the same name."""
    taken = {option.name for option in _training_options()}
    return [option for option in _options_of_run() if option.name not in taken]


def _with_derived_options(command: click.Command) -> click.Command:
    """The options of training and evaluation, between the table's own and those of every command."""
    common = {"debug", "version"}
    own = [option for option in command.params if option.name not in common]
    rest = [option for option in command.params if option.name in common]
    command.params = [*own, *_training_options(), *_evaluation_options(), *rest]
    return command


@_with_derived_options
@click.command(context_settings=CONTEXT_SETTINGS, params=[DATA_OPTION, LAYOUT_OPTION, *TASK_OPTIONS])
@click.option(
    "--maps",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the shards: of train, and of val for the row of the pseudo maps.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all runs (ARCH/ROW/seed-N) and of table.md, table.csv and table.html.",
)
@_listed("--archs", "archs", click.Choice(ARCH_NAMES).convert, default=PAPER_ARCHS, text="Architectures")
@_listed("--rows", "rows", click.Choice(tuple(ROWS)).convert, default=tuple(ROWS), text="Rows of the tables")
@_listed("--seeds", "seeds", click.IntRange(min=0).convert, default=DEFAULT_SEEDS, text="Seeds of every row")
@_listed(
    "--protocol",
    "protocols",
    click.Choice(PROTOCOL_NAMES).convert,
    default=DEFAULT_PROTOCOLS,
    text="Evaluation protocols, the main table's first",
)
@click.option(
    "--device",
    default="auto",
    help="auto (all GPUs, else the CPU), cpu, cuda:N, or several joined by commas: one run at a time on each.",
)
@click.option(
    "--only-report",
    is_flag=True,
    help="Make the tables of what is finished, and run nothing. Options that are not given are those of the runs.",
)
@click.option("--dry-run", is_flag=True, help="Print the lines that would be run and stop.")
@common_options
def table(device: str, task_index: int | None, task_count: int | None, **options: Any) -> None:
    """Train and evaluate the rows of the paper's Tables 1 and 2 and put them beside the paper's numbers.

    GAP, HaS, the method without either of its losses, and the method, with the same recipe and budget; beside them
    boxes that never look at the image, and the pseudo maps themselves. Options of wsol-train and wsol-eval are passed
    on. Given again, the command goes on: finished runs are kept, others go on from their checkpoints. Other settings
    than those of the runs in --out are refused before anything is run or written.
    """
    from pipelines.experiments.paper_table.plan import planned_runs

    only_report, dry_run = options["only_report"], options["dry_run"]
    if only_report and dry_run:
        raise click.UsageError("--only-report and --dry-run exclude each other")
    index, count = task_share(task_index=task_index, task_count=task_count)
    plan = _plan(_as_found(options) if only_report else options)
    runs = planned_runs(plan)
    if only_report:
        _check_report(plan, runs)
        _report(plan, runs, damaged={})
        click.echo(f"{plan.out}: {', '.join(_table_files())}")
        return
    _run(plan, runs, share=runs[index::count], device=device, dry_run=dry_run)


def _as_found(options: dict[str, Any]) -> dict[str, Any]:
    """The options, with those of the runs that are there where they were not typed."""
    from pipelines.experiments.paper_table.found import find_runs

    found = find_runs(options["out"], archs=ARCH_NAMES, protocols=PROTOCOL_NAMES)
    if found is None:
        return options
    typed = _typed_names()
    of_runs = {name: getattr(found, name) for name in ("archs", "rows", "seeds", "protocols", "limit")}
    return {**options, **{name: value for name, value in of_runs.items() if name not in typed}}


def _typed_names() -> set[str]:
    """Parameters of the running command that did not get their defaults."""
    context = click.get_current_context()
    unset = {ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP}
    return {name for name in context.params if context.get_parameter_source(name) not in unset}


def _check_report(plan: TablePlan, runs: list[TableRun]) -> None:
    """ValueError before anything is written when what was typed is not what the runs were made with."""
    from pipelines.experiments.paper_table.found import contradictions

    typed = _typed_names()
    names = {setting.option for settings in _all_settings(plan) for name, setting in settings.items() if name in typed}
    found = contradictions(plan, runs, options=[*sorted(names), *(["protocols"] if "protocols" in typed else [])])
    if found:
        raise ValueError(
            f"{_first_of(found)}; leave such options away and the report takes those of the runs. The tables are as "
            "they were"
        )


def _all_settings(plan: TablePlan) -> tuple[Mapping[str, Setting], ...]:
    return plan.training, plan.evaluation, plan.network_evaluation


def _first_of(sentences: Sequence[str]) -> str:
    more = f"; and so with {len(sentences) - 1} more of the runs" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}"


def _run(plan: TablePlan, runs: list[TableRun], *, share: list[TableRun], device: str, dry_run: bool) -> None:
    from pipelines.experiments.paper_table.plan import PSEUDO_MAP_NAME
    from pipelines.experiments.paper_table.runs import examine_folders, make_runs, show_lines
    from pipelines.jobs.network_maps import usable_devices

    try:
        devices = usable_devices(device)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    refused, damaged = examine_folders(runs)
    if refused:
        # Of all runs, not of this task's share alone: its tables show all of them.
        raise ValueError(f"{_first_of(list(refused.values()))}. Nothing was run, and the tables are as they were")
    names = {run.name for run in share}
    todo = [
        run
        for run in share
        if run.name not in damaged and (run.name != PSEUDO_MAP_NAME or plan.has_val_maps or run.is_finished)
    ]
    failures = {name: reason for name, reason in damaged.items() if name in names}
    if dry_run:
        show_lines(todo, devices=devices)
    else:
        for name, reason in failures.items():
            click.echo(f"{name}: not run: {reason}", err=True)
        if not all(run.is_trained for run in todo):
            _require_maps(plan)
        with ending_on_signals():
            failures |= make_runs(
                todo, devices=devices, debug=wants_debug(), finished=lambda: _report(plan, runs, damaged=damaged)
            )
        _report(plan, runs, damaged=damaged)
        click.echo(f"{plan.out}: {', '.join(_table_files())}")
    if failures:
        listed = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise RuntimeError(f"{len(failures)} of {len(share)} runs failed: {listed}")


def _require_maps(plan: TablePlan) -> None:
    """MapsMissingError now, not after days of training the rows that could do without maps.

    What to do about it (``--on-missing skip``) holds for all rows, and would be refused by those that are trained.
    """
    from pipelines.jobs.training import choose_records
    from pseudo_maps.shards import MapIndex

    training = plan.training
    if any(ROWS[row].uses_map for row in plan.rows):
        index = MapIndex(plan.maps, plan.train.split)
        choose_records(plan.train, index=index, on_missing=training["on_missing"].value, limit=training["limit"].value)


def _table_files() -> tuple[str, ...]:
    from pipelines.experiments.paper_table.page import TABLE_FILES

    return TABLE_FILES


def _report(plan: TablePlan, runs: list[TableRun], *, damaged: dict[str, str]) -> None:
    from pipelines.experiments.paper_table.page import write_tables
    from pipelines.experiments.paper_table.results import collect_results

    write_tables(collect_results(plan, runs, refused=damaged), plan.out)


def _plan(options: dict[str, Any]) -> TablePlan:
    from pipelines.datasets import open_dataset
    from pipelines.experiments.paper_table.plan import TablePlan

    training, of_run = dict(_settings(_training_options(), options)), dict(_settings(_options_of_run(), options))
    return TablePlan(
        data=options["data"],
        layout=options["layout"],
        train=open_dataset(options["data"], split="train", layout=options["layout"]),
        val=open_dataset(options["data"], split="val", layout=options["layout"]),
        maps=options["maps"],
        out=options["out"],
        archs=options["archs"],
        # In the paper's order, however they were typed.
        rows=tuple(row for row in ROWS if row in options["rows"]),
        seeds=options["seeds"],
        protocols=options["protocols"],
        training=training,
        evaluation={name: of_run[name] for name in OF_EVERY_EVALUATION},
        network_evaluation={name: of_run[name] for name in OF_NETWORKS},
    )


def _settings(derived: list[click.Option], options: dict[str, Any]) -> Iterator[tuple[str, Setting]]:
    """Each option with its value, and what is typed for it where it is not the default."""
    from pipelines.experiments.paper_table.plan import Setting

    for option in derived:
        name = str(option.name)
        value, default = options[name], option.to_info_dict()["default"]
        words: tuple[str, ...] = ()
        if value != default:
            if option.is_flag:
                words = ((option.opts if value else option.secondary_opts)[0],)
            else:
                words = (option.opts[0], str(value))
        yield name, Setting(option=option.opts[0], value=value, default=default, words=words)
