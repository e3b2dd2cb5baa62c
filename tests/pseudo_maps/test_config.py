import dataclasses
import json

import pytest

from pseudo_maps.config import MapConfig
from pseudo_maps.images import MAX_PIXELS
from pseudo_maps.proposals import PRESETS, ProposalConfig
from pseudo_maps.proposals.geodesic_config import DEFAULT_PRESET
from pseudo_maps.proposals.methods import METHODS
from pseudo_maps.proposals.selective_search import SelectiveSearchConfig

CHANGES = [
    {"map_size": 112},
    {"max_pixels": 1000},
    {"by_name": False},
    *({"proposals": dataclasses.replace(PRESETS["b1100"], **{name: value})} for name, value in [
        ("boundaries", "structured-forest"), ("boundary_model", "abc"), ("superpixels", 7), ("rounds", 2), ("seeds", 3),
        ("levels", 2), ("max_iou", 0.5), ("seed_proposals", False), ("working_size", 64),
    ]),
    {"proposals": SelectiveSearchConfig()},
    {"proposals": SelectiveSearchConfig(mode="quality")},
    {"proposals": SelectiveSearchConfig(working_size=64)},
]  # fmt: skip


def test_defaults_are_those_of_the_paper_and_the_manual() -> None:
    config = MapConfig()
    assert config.proposals == PRESETS[DEFAULT_PRESET] == PRESETS["b1100"]
    assert (config.weighting, config.map_size, config.by_name) == ("uniform", 224, True)
    assert config.max_pixels == MAX_PIXELS
    assert config.proposals.working_size == 500


def test_every_setting_shows_in_the_stored_configuration() -> None:
    # A resumed run is compared by this JSON alone: a setting that did not show would mix two kinds of maps.
    stored = [MapConfig().as_json(), *(MapConfig(**change).as_json() for change in CHANGES)]
    texts = [json.dumps(entry, sort_keys=True) for entry in stored]
    assert len(set(texts)) == len(texts)


def test_the_changes_above_leave_out_no_field() -> None:
    changed = {name for change in CHANGES for name in change}
    assert changed | {"weighting"} == {field.name for field in dataclasses.fields(MapConfig)}
    default = MapConfig().proposals
    varied = {
        field.name
        for change in CHANGES
        if isinstance(change.get("proposals"), ProposalConfig)
        for field in dataclasses.fields(ProposalConfig)
        if getattr(change["proposals"], field.name) != getattr(default, field.name)
    }
    assert varied == {field.name for field in dataclasses.fields(ProposalConfig)}


def test_both_methods_have_a_configuration_and_a_name() -> None:
    named = {MapConfig().method, MapConfig(proposals=SelectiveSearchConfig()).method}
    assert named == set(METHODS)
    assert MapConfig().method == MapConfig().as_json()["method"] == "geodesic"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"weighting": "loud"}, "weighting: expected one of uniform, objectness with method geodesic, found 'loud'"),
        (
            {"weighting": "objectness", "proposals": SelectiveSearchConfig()},
            "expected one of uniform with method selective-search, found 'objectness'",
        ),
        ({"map_size": 0}, "at least 1, found 0"),
        ({"map_size": -224}, "at least 1, found -224"),
        ({"max_pixels": 0}, "at least 1, found 224, 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MapConfig(**setting)


@pytest.mark.parametrize("change", [{}, *CHANGES, {"weighting": "objectness"}], ids=str)
def test_the_stored_configuration_gives_the_configuration_back(change: dict) -> None:
    config = MapConfig(**change)
    read = json.loads(json.dumps(config.as_json(), allow_nan=False))
    assert read == config.as_json(), "a resumed run compares them"
    assert MapConfig.from_json(read) == config


def test_a_stored_configuration_of_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method: expected one of geodesic, selective-search, found 'magic'"):
        MapConfig.from_json({**MapConfig().as_json(), "method": "magic"})
