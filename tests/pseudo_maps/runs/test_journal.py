import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from pseudo_maps.files import host_name
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import ImageDeath, MadeImage
from pseudo_maps.runs.journal import ShardJournal, remove_journals_of_finished_shards, shard_digest
from pseudo_maps.shards import compress_map, make_provenance
from pseudo_maps.shards.outcomes import row_of

RECORDS = [ImageRecord(image_id=f"n/{n}", path=f"n/{n}.png", wnid="n", label=1) for n in range(3)]
DIGEST = shard_digest(RECORDS, provenance=make_provenance({"working_size": 500}))
DEATH = ImageDeath(index=2, status="timeout", message="took longer", killed=False)
GONE = 4194305
"""Above the kernel's largest process id."""


def image(index: int, *, status: str = "ok", message: str = "") -> MadeImage:
    row = row_of(RECORDS[index], height=3, width=4, peak=0.1 * index, proposals=index, status=status)
    return MadeImage(index=index, row=row, chunk=compress_map(np.full((2, 2), index, dtype=np.uint8)), message=message)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return tmp_path / "val-00000-of-00002.h5"


def journal(shard: Path, *, digest: str = DIGEST) -> ShardJournal:
    return ShardJournal(shard, digest=digest)


def written(shard: Path, *events: MadeImage | ImageDeath, digest: str = DIGEST) -> Path:
    """A journal of another process; its path."""
    before = set(shard.parent.iterdir())
    with journal(shard, digest=digest) as other:
        for event in events:
            other.add(event)
    (path,) = set(shard.parent.iterdir()) - before
    return path


def of_process(path: Path, *, host: str = host_name(), process: int = GONE) -> Path:
    """The journal under the name of a process of another host or number."""
    return path.rename(path.with_name(path.name.replace(f".{host_name()}.{os.getpid()}.", f".{host}.{process}.")))


def test_nothing_is_written_before_the_first_record(shard: Path) -> None:
    with journal(shard) as empty:
        state = empty.read()
    assert (state.finished, state.deaths) == ({}, {}) and list(shard.parent.iterdir()) == []


def test_what_several_processes_wrote_is_read_together(shard: Path) -> None:
    written(shard, image(0), DEATH)
    written(shard, image(1, status="missing", message="no file"), dataclasses.replace(DEATH, status="crashed"))
    with journal(shard) as third:
        state = third.read()
    assert state.finished == {0: image(0), 1: image(1, status="missing", message="no file")}
    assert {row: [death.status for death in deaths] for row, deaths in state.deaths.items()} in (
        {2: ["timeout", "crashed"]},
        {2: ["crashed", "timeout"]},
    )


def test_an_image_that_was_finished_after_a_death_is_finished(shard: Path) -> None:
    written(shard, DEATH, image(2))
    with journal(shard) as later:
        assert later.read().deaths == {} and later.read().finished == {2: image(2)}


def test_a_torn_end_is_dropped_and_nothing_before_it(shard: Path) -> None:
    path = written(shard, image(0), image(1))
    whole = path.read_bytes()
    first = len(written(shard.with_name("val-00001-of-00002.h5"), image(0)).read_bytes())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with journal(shard) as later:
            assert later.read().finished == ({0: image(0)} if length >= first else {})


def test_the_journal_of_another_shard_or_configuration_is_not_used(shard: Path) -> None:
    written(shard, image(0), digest=shard_digest(RECORDS, provenance=make_provenance({"working_size": 300})))
    written(shard, image(0), digest=shard_digest(RECORDS[::-1], provenance=make_provenance({"working_size": 500})))
    written(shard.with_name("val-00001-of-00002.h5"), image(0))
    with journal(shard) as later:
        assert later.read().finished == {}


def test_failed_images_and_deaths_are_tried_again_when_asked_for(shard: Path) -> None:
    written(shard, image(0), image(1, status="missing"), DEATH)
    with journal(shard) as later:
        state = later.read(retry_failed=True)
    assert list(state.finished) == [0] and state.deaths == {}


def test_a_committed_shard_needs_no_journal_of_anyone(shard: Path) -> None:
    of_process(written(shard, image(0)), host="other.host")
    kept = written(shard.with_name("val-00001-of-00002.h5"), image(0))
    with journal(shard) as own:
        own.add(image(1))
        own.remove_all()
        own.add(image(2))
    assert list(shard.parent.iterdir()) == [kept]


def test_journals_beside_finished_shards_are_removed_unless_their_process_runs(shard: Path) -> None:
    gone = of_process(written(shard, image(0)))
    running = written(shard, image(1))
    unfinished = of_process(written(shard.with_name("val-00001-of-00002.h5"), image(0)))
    other = shard.with_name(".notes.journal")
    other.touch()
    shard.touch()
    remove_journals_of_finished_shards(shard.parent)
    assert set(shard.parent.iterdir()) == {running, unfinished, other, shard}
    assert not gone.exists()


def test_the_digest_depends_on_all_that_decides_a_shard() -> None:
    provenance = make_provenance({"working_size": 500})
    variants = [
        (RECORDS, provenance),
        (RECORDS[:2], provenance),
        ([*RECORDS[:2], dataclasses.replace(RECORDS[2], label=2)], provenance),
        ([*RECORDS[:2], dataclasses.replace(RECORDS[2], path="n/2.jpg")], provenance),
        (RECORDS, {**provenance, "package_version": "0.0.0"}),
    ]
    assert len({shard_digest(records, provenance=stated) for records, stated in variants}) == len(variants)
