"""Edit distance, and the error rates of written words."""

from collections.abc import Sequence
from typing import Any, NamedTuple

Tokens = Sequence[Any]


class ErrorRates(NamedTuple):
    """How often words were written wrongly."""

    words: float  # the share of words that equal none of their references
    tokens: float  # edits per token of the closest references


def edit_distance(first: Tokens, second: Tokens) -> int:
    """The fewest insertions, deletions and substitutions that turn one sequence into the other.

    Source: Levenshtein (1966), by the algorithm of Wagner and Fischer (1974).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(second) + 1))  # distances from the part of `first` read so far
    for n, token in enumerate(first, 1):
        diagonal, row[0] = row[0], n
        for m, other in enumerate(second, 1):
            replaced = diagonal + (token != other)
            diagonal, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, replaced)
    return row[-1]


def error_rates(written: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> ErrorRates:
    """Word and token error rates, where a word may have several references.

    A word is right if it equals any of its references. Its edits are counted from the closest one,
    and from the longest of those if there are several.

    Args:
      written: what was written, one sequence of tokens per word.
      references: at least one per word.

    Returns:
      the wrong words over all words, and all edits over all tokens of the references that they were
      counted from.

    Raises:
      ValueError: if there are no words, or not as many lists of references as words.

    >>> error_rates(["abc", "xd"], [["abd", "abc"], ["d"]])
    ErrorRates(words=0.5, tokens=0.25)
    """
    wrong = edits = tokens = 0
    for word, accepted in zip(written, references, strict=True):
        distance, length = min((edit_distance(word, one), -len(one)) for one in accepted)
        wrong, edits, tokens = wrong + (distance > 0), edits + distance, tokens - length
    if not written:
        raise ValueError("there must be a word")
    return ErrorRates(wrong / len(written), edits / max(tokens, 1))
