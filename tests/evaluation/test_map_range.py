"""What 0 means in stored maps: raw and min-max scaled maps of one network, and the choice that scores them alike."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.maps import open_stored_maps
from pipelines.datasets import open_dataset
from pipelines.jobs.evaluation_set import load_evaluation_set
from tests.integration.eval_command import bump, evaluate, make_listed_data, metrics_of, result_of
from tests.pseudo_maps.shard_making import make_folder

SIDE = 56
NAMES = [f"{number}" for number in range(6)]


def unit_map(number: int) -> np.ndarray:
    """(SIDE, SIDE) float32 from 0 to 1, two thirds of it near a third of the range."""
    plateau_hw = 0.3 * (np.indices((SIDE, SIDE))[1] > 3)
    return np.clip(bump(centre_xy=(0.3 + number / 12, 0.5), side=SIDE) * 0.7 + plateau_hw, 0, 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    boxes = {name: [(4.0 + 3 * number, 9.0, 30.0 + 3 * number, 46.0)] for number, name in enumerate(NAMES)}
    return make_listed_data(tmp_path_factory.mktemp("range") / "data", boxes, size_wh=(SIDE, SIDE))


def save_maps(folder: Path, *, low: float, high: float) -> Path:
    folder.mkdir()
    for number, name in enumerate(NAMES):
        unit_hw = unit_map(number)
        unit_hw = (unit_hw - unit_hw.min()) / (unit_hw.max() - unit_hw.min())
        np.save(folder / f"{name}.npy", (low + (high - low) * unit_hw).astype(np.float32))
    return folder


def score(root: Path, maps: Path, out: Path, *words: str) -> tuple[list[float], str]:
    """Rates of GT-known Loc under cam and wsoleval-v1, and what the command says."""
    protocols = ("--protocol", "cam", "--protocol", "wsoleval-v1")
    result = evaluate("maps", maps, "--data", root, *protocols, "--panels", 0, "--out", out, *words)
    assert result.exit_code == 0, result.output
    metrics = metrics_of(out)
    rates = [result_of(metrics, "pseudo-map", name)["gt_known_loc"]["rate"] for name in ("cam", "wsoleval-v1")]
    return rates, result.stderr


def test_raw_and_scaled_maps_differ_under_cam_which_is_said_and_can_be_chosen(root: Path, tmp_path: Path) -> None:
    raw = save_maps(tmp_path / "raw", low=-4, high=6)
    scaled = save_maps(tmp_path / "scaled", low=0, high=1)
    of_raw, said_of_raw = score(root, raw, tmp_path / "a")
    of_scaled, said_of_scaled = score(root, scaled, tmp_path / "b")
    assert of_raw[0] != of_scaled[0] and of_raw[1] == of_scaled[1]
    assert "6 of 6 maps" in said_of_raw and "below 0" in said_of_raw and "--map-range" in said_of_raw
    assert "scaled" in said_of_scaled and "cam" in said_of_scaled and "--map-range" in said_of_scaled
    stretched, said = score(root, raw, tmp_path / "c", "--map-range", "min-max")
    assert stretched == of_scaled and "--map-range" not in said
    again = evaluate("maps", raw, "--data", root, "--protocol", "cam", "--out", tmp_path / "c")
    assert again.exit_code == 1, "the range decides the result"


def test_nothing_is_said_where_no_protocol_depends_on_it(root: Path, tmp_path: Path) -> None:
    maps = save_maps(tmp_path / "raw", low=-4, high=6)
    assert "--map-range" not in evaluate("maps", maps, "--data", root, "--protocol", "wsoleval-v2").stderr


def described(root: Path, folder: Path) -> str:
    images = load_evaluation_set(open_dataset(root, split="val")).images
    return open_stored_maps(folder, split="val").describe_zero(images)


def test_positive_maps_and_masks_tell_nothing(root: Path, tmp_path: Path) -> None:
    assert described(root, save_maps(tmp_path / "positive", low=0.5, high=2)) == ""
    masks = tmp_path / "masks"
    masks.mkdir()
    for number, name in enumerate(NAMES):
        np.save(masks / f"{name}.npy", (unit_map(number) > 0.5).astype(np.float32))
    assert described(root, masks) == ""


def test_saved_score_maps_are_known_to_be_scaled_and_pseudo_maps_are_not(root: Path, tmp_path: Path) -> None:
    for name, configuration in (("pseudo", {"map_size": 224}), ("saved", {"score_maps": {"localizer": "cam"}})):
        (tmp_path / name).mkdir()
        make_folder(tmp_path / name, configuration=configuration)
    assert described(root, tmp_path / "pseudo") == ""
    assert "scaled" in described(root, tmp_path / "saved")


@pytest.mark.parametrize("map_hw", [np.array([[np.nan, 1, 2]]), np.full((3, 3), 7), np.array(["a", "b"])])
def test_maps_that_cannot_be_stretched_stay_as_they_are(root: Path, tmp_path: Path, map_hw: np.ndarray) -> None:
    np.save(tmp_path / "0.npy", map_hw)
    image = load_evaluation_set(open_dataset(root, split="val")).images[0]
    (found,) = open_stored_maps(tmp_path, split="val", min_max=True).maps_of(image).whole.values()
    np.testing.assert_array_equal(found, map_hw)


@pytest.mark.parametrize("scale", [1e-300, 1, 1.5e308])
def test_maps_of_any_scale_are_stretched_to_the_same_range(root: Path, tmp_path: Path, scale: float) -> None:
    np.save(tmp_path / "0.npy", np.array([[-1, 0, 1]]) * scale)
    image = load_evaluation_set(open_dataset(root, split="val")).images[0]
    (found,) = open_stored_maps(tmp_path, split="val", min_max=True).maps_of(image).whole.values()
    assert found.tolist() == [[0, 0.5, 1]]
