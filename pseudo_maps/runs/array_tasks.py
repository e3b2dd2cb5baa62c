"""Share of the shards of one task of an array, from its number or from SLURM's environment variables."""

from collections.abc import Mapping

_SLURM_INTEGERS = (
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_STEP",
)


def array_share(*, task_index: int | None, task_count: int | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Which share of the work this task does, ``(index, count)``: the shards with ``shard % count == index``.

    Explicit values win; otherwise SLURM's array variables are read; otherwise this task does everything, (0, 1).
    ValueError for an index without a count, an index outside ``0 <= index < count``, or a SLURM array with holes
    (``--array=3,7``), whose missing tasks would lose shards.
    """
    if (task_index is None) != (task_count is None):
        raise ValueError("--task-index and --task-count belong together: give both or none")
    if task_index is not None and task_count is not None:
        if not 0 <= task_index < task_count:
            raise ValueError(f"--task-index {task_index}: expected 0 <= index < --task-count {task_count}")
        return task_index, task_count
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return 0, 1
    values = {}
    for name in _SLURM_INTEGERS:
        text = environment.get(name, "1" if name.endswith("STEP") else "")
        if not text.isdecimal():
            raise ValueError(f"{name}: expected a whole number, found {text!r}; or give --task-index and --task-count")
        values[name] = int(text)
    task, first, last, step = (values[name] for name in _SLURM_INTEGERS)
    count = (last - first) // max(step, 1) + 1
    stated = environment.get("SLURM_ARRAY_TASK_COUNT", str(count))
    if step < 1 or (last - first) % step or (task - first) % step or not first <= task <= last or stated != str(count):
        raise ValueError(
            f"SLURM array {first}-{last}:{step} with {stated} tasks, this one {task}, has holes, so shards would be "
            "lost: use a regular range such as --array=0-63, or give --task-index and --task-count"
        )
    return (task - first) // step, count
