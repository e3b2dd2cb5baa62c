"""Classes of a network found among those of a data set, by name and never by number alone."""

import pytest

from training.class_names import NO_NAMES, ClassMatch, ClassNames, check_class_names, match_classes, stored_names

ORDER = ("n01", "n02", "n03")
TRAINED = ClassNames(ORDER, ("tench, Tinca tinca", "crane", "crane"))


def match(trained: ClassNames, data: ClassNames, *, classes: int | None = None) -> ClassMatch:
    return match_classes(trained, data, classes=classes or len(trained.wnids or trained.words), source="it.pt")


def names(*wnids: str) -> ClassNames:
    return ClassNames(wnids, wnids)


@pytest.mark.parametrize(
    ("trained", "data"),
    [(TRAINED, TRAINED), (TRAINED, names(*ORDER)), (ClassNames((), TRAINED.words), TRAINED)],
)
def test_the_same_names_in_the_same_order_need_no_word(trained: ClassNames, data: ClassNames) -> None:
    assert match(trained, data) == (None, "")


@pytest.mark.parametrize(
    ("trained", "data", "columns"),
    [
        (names(*ORDER), names("n03", "n01", "n02"), (2, 0, 1)),
        (TRAINED, names("n03", "n01", "n02"), (2, 0, 1)),
        (names(*ORDER), names("n03", "n01"), (2, 0)),
        # Folders sorted as text, and lists that number their classes.
        (names("0", "1", "10", "2"), names("0", "1", "2", "10"), (0, 1, 3, 2)),
        (names(*sorted(map(str, range(11)))), names(*map(str, range(11))), (0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2)),
        # An early checkpoint, with words alone.
        (ClassNames((), ("cat", "dog")), ClassNames(("n2", "n1"), ("dog", "cat")), (1, 0)),
        # Class folders named by words.
        (names("cat", "dog"), ClassNames(("n2", "n1"), ("dog", "cat")), (1, 0)),
    ],
)
def test_another_order_or_fewer_classes_are_matched_by_name(
    trained: ClassNames, data: ClassNames, columns: tuple[int, ...]
) -> None:
    found = match(trained, data)
    assert found.columns == columns
    assert all(name in found.note or word in found.note for name, word in zip(*data, strict=True) if len(columns) < 5)
    assert ("among" in found.note) == (len(columns) < len(trained.words))


@pytest.mark.parametrize(
    ("trained", "data"),
    [
        (names(*ORDER), names("n01", "n02", "n04")),
        (names(*ORDER), names("n01", "n02", "n03", "n04")),
        (names(*ORDER), names("0", "1")),
        # Words that two classes share tell nothing about their order.
        (ClassNames((), TRAINED.words), ClassNames(("a", "b", "c"), ("crane", "crane", "tench, Tinca tinca"))),
    ],
)
def test_a_class_that_the_network_does_not_know_is_refused_with_both_orders(
    trained: ClassNames, data: ClassNames
) -> None:
    with pytest.raises(ValueError, match=r"it\.pt.*the network's order.* is .*that of the data ") as caught:
        match(trained, data)
    lacking = set(data.wnids) - set(trained.wnids)
    assert all(name in str(caught.value) for name in lacking)


def test_without_names_the_numbers_of_classes_are_compared() -> None:
    assert match(NO_NAMES, names("a", "b"), classes=2) == (None, "")
    with pytest.raises(ValueError, match="3 classes, but the data has 2"):
        match(NO_NAMES, names("a", "b"), classes=3)


@pytest.mark.parametrize("trained_is_numbered", [False, True])
def test_lists_that_number_their_classes_count_as_the_same_order_and_it_is_said(trained_is_numbered: bool) -> None:
    pair = (names(*ORDER), names("0", "1", "2"))
    found = match(*reversed(pair)) if trained_is_numbered else match(*pair)
    assert found.columns is None and "n01" in found.note and "numbers" in found.note


def test_names_of_a_state_are_those_that_it_has() -> None:
    assert stored_names({}) == NO_NAMES
    assert stored_names({"class_names": ["a"], "class_wnids": ["n1"]}) == (("n1",), ("a",))


@pytest.mark.parametrize("given", [ORDER, TRAINED.words, ("Schleie", "Kran", "Kranich"), ("n01 tench", "n02 a", "n03")])
def test_names_in_the_order_of_the_checkpoint_pass(given: tuple[str, ...]) -> None:
    check_class_names(given, TRAINED, source="names.txt")


@pytest.mark.parametrize(
    "given", [("n02", "n01", "n03"), ("crane", "tench, Tinca tinca", "crane"), ("n03 crane", "n02", "n01")]
)
def test_names_in_another_order_are_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"names\.txt, line \d: .*order"):
        check_class_names(given, TRAINED, source="names.txt")
