"""What the demo says about its numbers: the same sentences whichever way they came out, and the numbers themselves."""

from pathlib import Path

import pytest

from evaluation.protocols import protocol_title
from evaluation.schema import Rate
from pipelines.experiments.demo_text import DemoResults, summary_lines, write_introduction

PROTOCOLS = ("cam", "wsoleval-v1")


def rate(percent: float | None) -> Rate:
    if percent is None:
        return Rate(rate=None, correct=0, images=0, interval=None, interval_kind="")
    share = percent / 100
    return Rate(rate=share, correct=int(percent), images=100, interval=(share / 2, share), interval_kind="95 %")


def results(*, gap: float | None = 30, full: float | None = 40) -> DemoResults:
    rates = {}
    for protocol in PROTOCOLS:
        rates[protocol] = {
            ("gap", "cam"): rate(gap),
            ("full-method", "cam"): rate(full),
            ("full-method", "saliency"): rate(51),
            ("full-method", "cam*saliency"): rate(62),
            ("pseudo-maps", "pseudo-map"): rate(73),
            ("boxes", "centred-square"): rate(24),
        }
    return DemoResults(images=100, rates=rates)


def paragraphs(made: DemoResults, folder: Path) -> list[str]:
    """Those of the introduction, each as one line."""
    out = folder / "introduction.txt"
    write_introduction(out, made, train_images=400, arch="alexnet-gap", input_size_px=96, epochs=8)
    return [" ".join(part.split()) for part in out.read_text(encoding="utf-8").split("\n\n")]


def test_every_number_is_said_under_its_protocol(tmp_path: Path) -> None:
    text = paragraphs(results(), tmp_path)
    for protocol in PROTOCOLS:
        (sentence,) = [part for part in text if part.startswith(f"Under the protocol {protocol_title(protocol)} ")]
        assert "of full-method is right in 40 % (20 to 40) of the 100 validation images" in sentence
        assert "that of gap in 30 % (15 to 30)" in sentence
        for number in ("51 %", "62 %", "73 %", "24 %"):
            assert number in sentence


@pytest.mark.parametrize(
    ("gap", "full", "said"),
    [
        (10, 40, "that of gap in 10 % (5 to 10), 30 points lower. The"),
        (30, 40, "that of gap in 30 % (15 to 30), 10 points lower with intervals that overlap. The"),
        (40, 30, "that of gap in 40 % (20 to 40), 10 points higher with intervals that overlap. The"),
        (30, 30, "that of gap in 30 % (15 to 30), the same. The"),
    ],
)
def test_a_difference_is_said_with_what_it_is_worth(gap: float, full: float, said: str, tmp_path: Path) -> None:
    assert " ".join(paragraphs(results(gap=gap, full=full), tmp_path)).count(said) == len(PROTOCOLS)


def test_the_last_lines_have_the_three_numbers() -> None:
    assert summary_lines(results(full=None)) == [
        f"{protocol_title(protocol)}: CAM of the full method nothing, CAM of gap 30 %, centred box 24 %"
        for protocol in PROTOCOLS
    ]
