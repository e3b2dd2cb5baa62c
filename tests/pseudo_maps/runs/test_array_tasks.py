import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudo_maps.runs.array_tasks import array_share


def slurm(task: int, *, first: int, last: int, step: int = 1, count: int | None = None) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "MAX": last, "STEP": step}
    if count is not None:
        values["COUNT"] = count
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def share(environment: dict[str, str], *, index: int | None = None, count: int | None = None) -> tuple[int, int]:
    return array_share(task_index=index, task_count=count, environment=environment)


def test_without_array_one_task_does_everything() -> None:
    assert share({}) == (0, 1)
    assert share({"SLURM_JOB_ID": "17", "HOME": "/root"}) == (0, 1)


@given(
    first=st.integers(0, 1000), step=st.integers(1, 9), tasks=st.integers(1, 12), shards=st.integers(1, 60), stated=...
)
def test_the_tasks_of_a_regular_array_take_every_shard_once(
    first: int, step: int, tasks: int, shards: int, stated: bool
) -> None:
    ids = range(first, first + tasks * step, step)
    taken = []
    for task in ids:
        environment = slurm(task, first=ids[0], last=ids[-1], step=step, count=tasks if stated else None)
        index, count = share(environment)
        taken += [shard for shard in range(shards) if shard % count == index]
    assert sorted(taken) == list(range(shards))


@given(ids=st.sets(st.integers(0, 12), min_size=1), step=st.integers(1, 6), shards=st.integers(1, 30))
def test_whatever_the_array_no_shard_is_lost_silently(ids: set[int], step: int, shards: int) -> None:
    # --array takes any list of numbers; SLURM tells every task the first, the last, a step and how many.
    shares, refused = [], 0
    for task in ids:
        try:
            shares.append(share(slurm(task, first=min(ids), last=max(ids), step=step, count=len(ids))))
        except ValueError:
            refused += 1
    if not refused:
        taken = [shard for index, count in shares for shard in range(shards) if shard % count == index]
        assert sorted(taken) == list(range(shards))
    if step == 1:
        # What SLURM says of a list of numbers: all of its tasks stop, or none.
        assert refused == (0 if sorted(ids) == list(range(min(ids), max(ids) + 1)) else len(ids))


@pytest.mark.parametrize(("task", "first", "last"), [(3, 3, 7), (7, 3, 7), (5, 2, 5)])
def test_an_array_with_holes_is_refused_with_the_way_out(task: int, first: int, last: int) -> None:
    # As of sbatch --array=2,5, which repeats two tasks of 0-7: the shares would be those of another division.
    with pytest.raises(ValueError, match=r"holes.*--array=0-63.*--task-index and --task-count"):
        share(slurm(task, first=first, last=last, count=2))


def test_explicit_values_win_over_a_slurm_array_even_with_holes() -> None:
    assert share(slurm(7, first=3, last=7, count=2), index=1, count=2) == (1, 2)


@given(index=st.integers(-3, 12), count=st.integers(-3, 10))
def test_explicit_values_are_taken_exactly_when_the_index_is_inside(index: int, count: int) -> None:
    if index in range(count):
        assert share({}, index=index, count=count) == (index, count)
    else:
        with pytest.raises(ValueError, match=f"--task-index {index}: .*--task-count {count}"):
            share({}, index=index, count=count)


@pytest.mark.parametrize(("index", "count"), [(0, None), (None, 4)])
def test_half_an_explicit_share_is_refused(index: int | None, count: int | None) -> None:
    with pytest.raises(ValueError, match="belong together"):
        share(slurm(0, first=0, last=3), index=index, count=count)


@pytest.mark.parametrize("name", ["ID", "MIN", "MAX", "STEP"])
@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", " 1"])
def test_a_variable_that_is_no_number_is_named(name: str, text: str) -> None:
    environment = slurm(1, first=0, last=3) | {f"SLURM_ARRAY_TASK_{name}": text}
    with pytest.raises(ValueError, match=f"SLURM_ARRAY_TASK_{name}: expected a whole number, found {text!r}"):
        share(environment)


@pytest.mark.parametrize("name", ["MIN", "MAX"])
def test_a_missing_bound_is_an_error_and_a_missing_step_is_one(name: str) -> None:
    environment = slurm(2, first=1, last=3, count=3)
    del environment["SLURM_ARRAY_TASK_STEP"]
    assert share(environment) == (1, 3)
    del environment[f"SLURM_ARRAY_TASK_{name}"]
    with pytest.raises(ValueError, match=name):
        share(environment)


@pytest.mark.parametrize(
    "environment",
    [
        slurm(9, first=0, last=3),
        slurm(1, first=2, last=3),
        slurm(1, first=0, last=3, step=0),
        slurm(3, first=3, last=2),
    ],
    ids=["after the last", "before the first", "step zero", "no tasks"],
)
def test_contradicting_variables_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="SLURM array"):
        share(environment)
