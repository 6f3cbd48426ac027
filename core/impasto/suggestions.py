"""Suggestions for misspelt names: the one mechanism behind every "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 120
"""Characters of a word that are compared; a form may hold megabytes."""

_SHORTEST = 3
"""Characters of a text that is looked for inside another one."""

_ALIKE = 0.65
"""The least share of letters in common: ``sd4`` leads to ``sd3``, and ``steps`` not to ``style``."""


def closest(word: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """Return at most ``limit`` of the names, the likeliest first.

    What stands before a slash, the provider, only decides between equals. A name is likely if it has the word among
    its parts (``core`` in ``stable-image-core``), if one contains the other, or if their spelling is alike; case and
    punctuation do not count. Give only names that would be accepted.
    """
    from difflib import SequenceMatcher  # only on the way to an error

    provider, _, rest = word[:_LONGEST].rpartition("/")
    parts, wanted = _parts(rest), _letters(rest)
    matcher = SequenceMatcher(b=wanted, autojunk=False)
    ranked: list[tuple[int, bool, float, str]] = []
    for name in names:
        before, _, after = name.rpartition("/")
        letters = _letters(after)
        matcher.set_seq1(letters)
        ratio = matcher.ratio()
        if letters == wanted != "":
            rank = 0
        elif len(wanted) > 1 and parts in _parts(after):
            rank = 1
        elif len(wanted) >= _SHORTEST and wanted in letters:
            rank = 2
        elif (
            ratio >= _ALIKE
            or (not wanted and provider and before == provider)
            or (len(letters) >= _SHORTEST and letters in wanted)
        ):
            rank = 3
        else:
            continue
        ranked.append((rank, before != provider, -ratio, name))
    return [name for *_, name in sorted(ranked)[:limit]]


def _parts(text: str) -> str:
    """Return the words of a text, each between dashes."""
    return "-" + "".join(each if each.isalnum() else "-" for each in text.strip().casefold()) + "-"


def _letters(text: str) -> str:
    return "".join(each for each in text.casefold() if each.isalnum())
