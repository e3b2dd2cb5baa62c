import pytest

from pseudo_maps.wording import counted


@pytest.mark.parametrize(
    ("number", "phrase"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1_281_167, "1281167 images")]
)
def test_one_is_singular(number: int, phrase: str) -> None:
    assert counted(number, "image") == phrase


def test_a_plural_of_its_own() -> None:
    assert (counted(1, "box", plural="boxes"), counted(2, "box", plural="boxes")) == ("1 box", "2 boxes")
