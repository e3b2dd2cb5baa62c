"""Numbers with their nouns for messages."""


def counted(number: int, noun: str, *, plural: str = "") -> str:
    """The number and the noun, in its singular for 1; ``plural`` where an s at the end does not make it.

    Examples
    --------
    >>> counted(1, "image"), counted(1200, "image"), counted(0, "box", plural="boxes")
    ('1 image', '1200 images', '0 boxes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
