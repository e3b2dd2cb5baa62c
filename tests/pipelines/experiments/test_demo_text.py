"""What the demo says about its figures: the same words whichever way they came out, and the figures themselves."""

from dataclasses import replace

import pytest

from evaluation.schema import Rate
from pipelines.experiments.demo_text import DemoResults, introduction, summary_lines

PROTOCOLS = ("cam", "wsoleval-v1")


def rate(percent: float | None) -> Rate:
    if percent is None:
        return Rate(rate=None, correct=0, images=0, interval=None, interval_kind="")
    share = percent / 100
    return Rate(rate=share, correct=int(percent), images=100, interval=(share / 2, share), interval_kind="95 %")


def results(*, gap: float | None = 30, full: float | None = 40) -> DemoResults:
    rates = {}
    for protocol in PROTOCOLS:
        rates |= {
            ("gap", "cam", protocol): rate(gap),
            ("full-method", "cam", protocol): rate(full),
            ("full-method", "saliency", protocol): rate(51),
            ("full-method", "cam*saliency", protocol): rate(62),
            ("pseudo-maps", "pseudo-map", protocol): rate(73),
            ("boxes", "centred-square", protocol): rate(24),
        }
    return DemoResults(images=100, rates=rates)


def words(made: DemoResults) -> str:
    return introduction(made, train_images=400, arch="alexnet-gap", input_size_px=96, epochs=8)


def test_every_figure_is_said_under_its_protocol() -> None:
    text = words(results())
    for protocol in PROTOCOLS:
        (sentence,) = [part for part in text.split("\n\n") if part.startswith(f"Under the protocol {protocol} ")]
        assert "of gap localize 30 % (95 % interval 15 to 30) of the 100 validation images" in sentence
        assert "those of full-method 40 % (95 % interval 20 to 40)" in sentence
        for figure in ("51 %", "62 %", "73 %", "24 %"):
            assert figure in sentence


@pytest.mark.parametrize(("gap", "full", "shown"), [(30, 40, True), (30, 30, False), (40, 30, False)])
def test_the_effect_is_claimed_only_where_it_is(gap: float, full: float, shown: bool) -> None:
    text = words(results(gap=gap, full=full))
    assert ("is above the baseline under every protocol, as in the paper" in text) == shown
    assert ("is not above the baseline under every protocol" in text) != shown


def test_one_protocol_without_it_is_enough_to_claim_nothing() -> None:
    made = results()
    mixed = replace(made, rates={**made.rates, ("full-method", "cam", "cam"): rate(10)})
    assert made.shows_the_effect and not mixed.shows_the_effect


def test_the_last_lines_have_the_three_figures() -> None:
    assert summary_lines(results(full=None)) == [
        f"{protocol}: CAM of the full method nothing, CAM of gap 30 %, centred box 24 %" for protocol in PROTOCOLS
    ]
