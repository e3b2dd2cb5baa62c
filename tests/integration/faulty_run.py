"""A run of many images without files, to be killed: ``python -m tests.integration.faulty_run OUT JOBS [ADDRESS]``.

As ``wsol-prep proposals``, but for what makes a map, so that a try starts in a second and not in three.
"""

import sys
from pathlib import Path

from pseudo_maps.config import MapConfig
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.generation import RunConfig, generate_maps, plan_run

IMAGES, SHARD_SIZE = 120, 12
CONFIG = MapConfig(map_size=16)


def main(out: Path, jobs: int, scheduler: str | None) -> None:
    records = [ImageRecord(image_id=f"{number:03d}", path=f"slow-{number}") for number in range(IMAGES)]
    run = RunConfig(
        root=out,
        out=out,
        jobs=jobs,
        backend="loky" if scheduler is None else "dask",
        scheduler=scheduler,
        child_module="tests.integration.faulty_child",
    )
    plan = plan_run(records, split="val", configuration=CONFIG.as_json(), run=run, shard_size=SHARD_SIZE)
    seen = []
    summary = generate_maps(
        records, plan=plan, config=CONFIG, run=run, on_images=lambda done, failed, **_: seen.append((done, failed))
    )
    assert sum(done for done, _ in seen) == plan.images_to_do
    assert summary.counts == {"ok": IMAGES}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
