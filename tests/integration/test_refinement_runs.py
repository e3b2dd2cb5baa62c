"""``wsol-prep refine`` killed at some moment, and given again."""

from pathlib import Path

import pytest

from tests.integration.eval_command import wait_until
from tests.integration.prep_command import files, prep, start_prep
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_torch_thread")

OPTIONS = ("--device", "cpu", "--max-failed", "10")
"""Activations of an untrained network may be negative everywhere."""


def test_a_killed_run_resumes_to_the_same_bytes(world: World, tmp_path: Path) -> None:
    words = ("refine", world.maps, "--data", world.data, "--split", "val", "--with", world.network, *OPTIONS)
    assert prep(*words, "--out", tmp_path / "whole", "--workers", 0).exit_code == 0
    killed = tmp_path / "killed"
    process = start_prep(*words, "--out", killed, "--workers", 1)
    wait_until(lambda: any(killed.glob("*.h5")), process=process)
    process.kill()
    process.wait()
    assert len(list(killed.glob("*.h5"))) < 4
    result = prep(*words, "--out", killed, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert files(killed) == files(tmp_path / "whole")
