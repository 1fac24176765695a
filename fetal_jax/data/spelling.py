"""Names that a person takes for one, and a program does not."""

import unicodedata
from collections.abc import Sequence

# Cyrillic letters, and a Greek one, that are drawn as Latin ones: unicode.org/reports/tr39
_LATIN = str.maketrans("авекмнорстухіјѕο", "abekmhopctyxijso")


def fold_spelling(name: str) -> str:
    """The same for names that differ by capitals, by letters drawn alike, or by unseen ones."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    return seen.translate(_LATIN)


def quote_alike(names: Sequence[str]) -> str:
    """Names in quotes, that one can tell apart: where the eye cannot, by the letters' numbers."""
    plain = {unicodedata.normalize("NFC", name).casefold() for name in names}
    return " and ".join(map(repr if len(plain) == 1 else ascii, names))
