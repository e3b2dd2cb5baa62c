"""The picture of rows and columns: where pictures stand, and that texts stay within their column."""

import numpy as np

from evaluation.drawing.picture_grid import GAP_PX, LINE_PX, picture_grid, with_title

SIDE = 120


def grey(level: int = 90) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), level, dtype=np.uint8)


def test_every_picture_stands_at_its_place() -> None:
    rows = [[(grey(10 * row + column), "") for column in range(2)] for row in range(3)]
    drawn = picture_grid(["", ""], rows)
    assert drawn.shape == (LINE_PX + 3 * (SIDE + LINE_PX), GAP_PX + 2 * (SIDE + GAP_PX), 3) and drawn.dtype == np.uint8
    for row in range(3):
        for column in range(2):
            top, left = LINE_PX + row * (SIDE + LINE_PX), GAP_PX + column * (SIDE + GAP_PX)
            assert (drawn[top : top + SIDE, left : left + SIDE] == 10 * row + column).all()
    assert (drawn == 255).all(axis=2).sum() == drawn.shape[0] * drawn.shape[1] - 6 * SIDE**2, "the rest is paper"


def test_captions_are_written_below_their_picture_and_stay_within_it() -> None:
    blank, short, long = (picture_grid(["", ""], [[(grey(), text), (grey(), "")]]) for text in ("", "id", "wide " * 40))
    strip = slice(LINE_PX + SIDE, None)
    own, neighbour = slice(0, GAP_PX + SIDE), slice(GAP_PX + SIDE, None)
    assert (blank[strip] == 255).all()
    assert (short[strip, own] < 100).any()
    assert (long[strip, own] < 100).sum() > (short[strip, own] < 100).sum()
    assert (long[strip, neighbour] == 255).all()


def test_headings_are_written_above_their_column() -> None:
    drawn = picture_grid(["", "map"], [[(grey(), ""), (grey(), "")]])
    dark_w = (drawn[:LINE_PX] < 100).any(axis=(0, 2))
    assert dark_w[GAP_PX + SIDE :].any() and not dark_w[: GAP_PX + SIDE].any()


def test_long_names_keep_their_ends() -> None:
    names = ["x" * 60, "x" * 60 + "1", "1" + "x" * 60]
    pictures = [picture_grid([name], [[(grey(), "")]]) for name in names]
    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])


def test_captions_in_other_scripts_are_drawn() -> None:
    plain, greek = (picture_grid([""], [[(grey(), text)]]) for text in ("????", "λέων"))
    assert not np.array_equal(plain, greek)


def test_a_title_covers_the_corner_and_nothing_else() -> None:
    for height, width in ((300, 400), (2400, 1600), (3, 2)):
        picture = np.full((height, width, 3), 128, dtype=np.uint8)
        titled = with_title(picture, "a class with a rather long name 0.98")
        assert titled.shape == picture.shape and (picture == 128).all()
        changed = (titled != 128).any(axis=2)
        assert changed[0, 0] and changed.any(axis=1).sum() <= max(25, min(height, width) // 12)
    short, long = (with_title(picture := np.full((300, 400, 3), 128, dtype=np.uint8), text) for text in ("a", "a" * 90))
    assert (short != picture).any(axis=2).any(axis=0).sum() < 30 < 350 < (long != picture).any(axis=2).any(axis=0).sum()
