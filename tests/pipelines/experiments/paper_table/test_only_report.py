"""``--only-report`` reports the existing runs, and never replaces a table by one that contradicts them."""

from pathlib import Path

import pytest

import pipelines.pipeline_cli as pipeline_cli
from pipelines.cli.options import given_names
from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.paper_table.plan import TablePlan, find_runs
from tests.pipelines.experiments.paper_table.test_table import table
from tests.pipelines.table_runs import runs_by_name, write_finished

MADE_WITH = "--archs alexnet-gap --rows gap,ours --seeds 4 --protocol wsoleval-v1,cam --limit 2 --epochs 7".split()


def plan_of(*words: object) -> TablePlan:
    """The plan that the command makes of these arguments."""
    with pipeline_cli.table.make_context("table", [str(word) for word in words]) as context:
        return pipeline_cli._table_plan(context.params, given=given_names(context))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[object, ...]:
    """Options that name a data set, maps and a folder with a finished table of ``MADE_WITH``."""
    data = make_clsloc_dataset(tmp_path / "data", classes=1, train_per_class=3, val_per_class=3, size_px=(64, 64))
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "val.manifest.json").write_text("{}")
    words = ("--data", data, "--maps", maps, "--out", tmp_path / "out")
    for run in runs_by_name(plan_of(*words, *MADE_WITH)).values():
        write_finished(run, correct=100)
    assert table(*words, *MADE_WITH, "--only-report").exit_code == 0
    return words


def tables(folders: tuple[object, ...]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(str(folders[-1])).glob("table.*")}


def test_a_report_without_the_options_of_the_runs_is_the_one_with_them(folders: tuple[object, ...]) -> None:
    before = tables(folders)
    assert len(before) == 3
    text = before["table.md"].decode()
    assert "All 4 runs are finished." in text and "2 images to train on" in text and "--limit 2" in text
    assert "## googlenet-gap" not in text and text.index("**Protocol MaxBoxAcc (") < text.index("**Protocol CAM (")
    assert table(*folders, "--only-report").exit_code == 0
    assert tables(folders) == before


def test_a_report_takes_what_is_typed_where_it_contradicts_nothing(folders: tuple[object, ...]) -> None:
    assert table(*folders, "--only-report", "--seeds", "4,5", "--rows", "gap", "--epochs", 7).exit_code == 0
    text = tables(folders)["table.md"].decode()
    assert "3 of 4 runs are finished" in text and "- alexnet-gap gap seed 5: missing" in text


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("--epochs 2", "(--epochs: 7 "),
        ("--limit 3", "(--limit: 2 "),
        ("--protocol cam", "(protocol.wsoleval-v1: "),
    ],
)
def test_a_report_of_other_settings_is_refused(folders: tuple[object, ...], typed: str, named: str) -> None:
    before = tables(folders)
    result = table(*folders, "--only-report", *typed.split())
    assert result.exit_code == 1 and named in result.output and "leave such options out" in result.output
    assert tables(folders) == before


def test_a_report_with_other_data_is_refused(folders: tuple[object, ...], tmp_path: Path) -> None:
    before = tables(folders)
    other = make_clsloc_dataset(tmp_path / "other", classes=2, train_per_class=1, val_per_class=1, size_px=(64, 64))
    result = table("--data", other, *folders[2:], "--only-report")
    assert result.exit_code == 1 and "(--data: " in result.output and "2 images, sha256 " in result.output
    assert tables(folders) == before


def test_other_settings_are_refused_before_anything_is_run_or_written(folders: tuple[object, ...]) -> None:
    before = tables(folders)
    settings = "--archs alexnet-gap --rows gap --seeds 4 --protocol cam,wsoleval-v1 --limit 2 --epochs 2".split()
    for more in ([], ["--dry-run"]):
        result = table(*folders, *settings, "--device", "cpu", *more)
        assert result.exit_code == 1
        assert "seed-4 was made with other settings (--epochs: 7 " in result.output
        assert result.output.count("\n") == 1 and result.output.endswith("the tables are unchanged\n")
    assert tables(folders) == before


def test_the_options_of_the_runs_are_found_in_their_records(folders: tuple[object, ...]) -> None:
    out = Path(str(folders[-1]))
    expected = {
        "archs": ("alexnet-gap",),
        "rows": ("gap", "ours"),
        "seeds": (4,),
        "protocol": ("wsoleval-v1", "cam"),
        "limit": 2,
    }
    assert find_runs(out) == expected
    (out / "alexnet-gap" / "ours" / "seed-4" / "table-run.json").write_text("[]")
    assert find_runs(out) == {**expected, "rows": ("gap",)}
    assert find_runs(out / "alexnet-gap") == {}
    (out / "alexnet-gap").rename(out / "timm-x")
    record = out / "timm-x" / "gap" / "seed-4" / "table-run.json"
    record.write_text(record.read_text().replace("alexnet-gap", "timm:x"))
    assert find_runs(out) == {**expected, "archs": ("timm:x",), "rows": ("gap",)}
