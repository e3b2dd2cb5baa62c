"""What the demo says about its numbers: the same sentences whichever way they came out, and the numbers themselves."""

from pathlib import Path

import pytest

from evaluation.protocols import protocol_title
from evaluation.schema import Rate
from pipelines.experiments.demo_text import DemoResults, summary_lines, write_introduction
from pipelines.reports.comparison import PairedCounts

PROTOCOLS = ("cam", "wsoleval-v1")


def rate(percent: float | None) -> Rate:
    if percent is None:
        return Rate(rate=None, correct=0, images=0, interval=None, interval_kind="")
    share = percent / 100
    return Rate(rate=share, correct=int(percent), images=100, interval=(share / 2, share), interval_kind="95 %")


def results(*, gap: int = 30, full: int | None = 40, both: int = 20) -> DemoResults:
    rates, pairs = {}, {}
    for protocol in PROTOCOLS:
        rates[protocol] = {
            ("gap", "cam"): rate(gap),
            ("full-method", "cam"): rate(full),
            ("full-method", "saliency"): rate(51),
            ("full-method", "cam*saliency"): rate(62),
            ("pseudo-maps", "pseudo-map"): rate(73),
            ("boxes", "centred-square"): rate(24),
        }
        lost, won = gap - both, (full or 0) - both
        counts = {"both": both, "only_first": lost, "only_other": won, "neither": 100 - both - lost - won}
        pairs[protocol] = PairedCounts(first="gap", other="full-method", localizer="cam", protocol=protocol, **counts)
    return DemoResults(images=100, rates=rates, pairs=pairs)


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
    ("gap", "full", "both", "said"),
    [
        (30, 40, 30, "+10.00 ± 5.88 percentage points, more than chance explains. The"),
        (30, 40, 10, "+10.00 ± 13.72 percentage points, which may be chance. The"),
        (40, 30, 30, "-10.00 ± 5.88 percentage points, more than chance explains. The"),
        (30, 30, 20, "+0.00 ± 8.77 percentage points, which may be chance. The"),
    ],
)
def test_a_difference_is_that_of_the_same_images(gap: int, full: int, both: int, said: str, tmp_path: Path) -> None:
    """Half the interval is 1.96 standard errors of a mean of 100 differences, each -1, 0 or 1."""
    text = " ".join(paragraphs(results(gap=gap, full=full, both=both), tmp_path))
    assert text.count(f"Image by image, full-method minus gap is {said}") == len(PROTOCOLS)


def test_the_last_lines_have_the_three_numbers() -> None:
    assert summary_lines(results(full=None)) == [
        f"{protocol_title(protocol)}: CAM of the full method nothing, CAM of gap 30 %, centred box 24 %"
        for protocol in PROTOCOLS
    ]
