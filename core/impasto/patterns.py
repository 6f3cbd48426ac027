"""Patterns of text fields: the most steps that a match can take, found before any text is matched.

``re`` tries every way in which a text may match. It holds the interpreter meanwhile, so no thread and no time limit can
stop it, and a pattern such as ``(a+)+`` takes hours on a few dozen characters. The bound is the product of the choices
that the pattern's repeats and alternatives leave open. A repeat leaves none if what follows it can't begin with what
it repeats: ``[^/]+/``, ``[a-z]+(-[a-z]+)*``. Engines that do not backtrack (RE2) are no part of the standard library.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

import attrs

from .errors import BrokenPlugin
from .redact import printable

MOST_STEPS = 2e6
"""Steps of one match: at most about 0.1 s."""

LONGEST = 100_000
_SHORTEST = 64
"""Characters that a pattern must be able to match in time."""

_DEEPEST = 8
"""Groups in each other; each doubles the work of the bound."""

_TOKEN = re.compile(
    r"""(?P<atom>\\(?:[1-9]\d?|x..|u.{4}|U.{8}|N\{[^}]*\}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P=\w+\)|[^()|*+?\\[{])
    |(?P<nothing>\(\?\#[^)]*\)|\(\?[aiLmsu]+\))
    |(?P<look>\(\?<?[=!])
    |(?P<open>\((?:\?(?:P<\w+>|\(\w+\)|[:>]|(?P<scoped>[aiLmsu-]+:)))?)
    |(?P<close>\))|(?P<or>\|)
    |(?P<repeat>[*+?]|\{(?!\})(?P<low>\d*)(?P<comma>,(?P<high>\d*))?\})[?+]?
    |(?P<brace>\{)""",
    re.VERBOSE | re.DOTALL,
)
_REFERENCE = re.compile(r"\\[1-9]|\(\?P=")
_POSITIONS = ("^", "$", "\\A", "\\Z", "\\b", "\\B")
_DISJOINT = {frozenset(pair.split()) for pair in (r"\d \s", r"\w \s", r"\d \D", r"\s \S", r"\w \W", r"\d \W")}
_END = ""
"""Stands for the end of the text among the atoms that may follow."""


@attrs.frozen
class _Node:
    """An atom, or a group of alternatives, repeated ``low`` to ``high`` times."""

    atom: str | None = None
    branches: tuple[tuple[_Node, ...], ...] = ()
    looks: bool = False
    low: float = 1
    high: float = 1


Follow = frozenset[str] | None
"""The atoms that may come next; None if they are not known."""


def check_pattern(pattern: str, maximum: float | None) -> None:
    """Raise BrokenPlugin for a pattern that is invalid, or that could hold the process for a text of its field."""
    name = f"the pattern {printable(str(pattern))!r} of a text field"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError, TypeError) as error:
        raise BrokenPlugin(f"{name} is invalid: {error}") from None
    if (maximum or LONGEST) > (longest := longest_text(pattern)):
        time = f"long to match; give the field a maximum of at most {longest:,}, or" if longest else "hours to match;"
        rule = "repeat nothing that is repeated, or end each repeat with a character that it can't match"
        raise BrokenPlugin(f"{name} could take {time} {rule}")


@lru_cache(maxsize=512)
def longest_text(pattern: str) -> int:
    """Return the characters of the longest text that the pattern matches in time; 0 if that could take hours."""
    try:
        measure = _Measure(pattern)
    except RecursionError:
        return 0
    if measure.steps(_SHORTEST) > MOST_STEPS:
        return 0
    low, high = _SHORTEST, LONGEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure.steps(middle) <= MOST_STEPS else (low, middle - 1)
    return low


class _Measure:
    """The choices that a pattern leaves open."""

    def __init__(self, pattern: str) -> None:
        self._size = len(pattern)
        self._flags = "".join({*"".join(re.findall(r"\(\?([aiLmsux]+)\)", pattern))})
        self._has_scoped_flags = False
        tokens = [*_TOKEN.finditer(pattern)]
        is_read = "".join(token[0] for token in tokens) == pattern and "x" not in self._flags
        self._tokens = tokens[::-1] if is_read else []
        self._tree = self._alternatives(_DEEPEST) if is_read else ()

    def steps(self, size: int) -> float:
        """Return the most steps for a text of so many characters."""
        if not self._tree:  # in a form that is not understood, such as a verbose one
            return math.inf
        return self._choices(self._tree, size, frozenset({_END})) * (size + self._size)

    def _alternatives(self, left: int) -> tuple[tuple[_Node, ...], ...]:
        if left == 0:
            raise RecursionError("its groups are nested too deep")
        branches: list[list[_Node]] = [[]]
        while self._tokens and (kind := (token := self._tokens.pop()).lastgroup) != "close":
            text, nodes = token[0], branches[-1]
            if token["or"]:
                branches.append([])
            elif token["repeat"]:
                if nodes:
                    nodes[-1] = _repeated(nodes[-1], token)
            elif token["open"] or token["look"]:
                self._has_scoped_flags = self._has_scoped_flags or bool(token["scoped"])
                nodes.append(_Node(branches=self._alternatives(left - 1), looks=kind == "look"))
            elif not token["nothing"] and text not in _POSITIONS:
                nodes.append(_Node(atom=text))
        return tuple(map(tuple, branches))

    def _choices(self, branches: tuple[tuple[_Node, ...], ...], size: int, follow: Follow) -> float:
        each = [self._choices_in_turn(branch, size, follow) for branch in branches]
        firsts = [self._first(branch, None) for branch in branches]
        pairs = [(a, b) for i, a in enumerate(firsts) for b in firsts[:i]]
        return max(each) if all(self._are_disjoint(a, b) for a, b in pairs) else sum(each)

    def _choices_in_turn(self, nodes: tuple[_Node, ...], size: int, follow: Follow) -> float:
        product = 1.0
        for index, node in enumerate(nodes):
            product *= self._choices_of(node, size, self._first(nodes[index + 1 :], follow))
        return product

    def _choices_of(self, node: _Node, size: int, follow: Follow) -> float:
        counts = min(node.high - node.low + 1, size + 1)
        if node.atom is not None:
            own = None if _REFERENCE.match(node.atom) else frozenset({node.atom})
            return 1 if counts == 1 or self._are_disjoint(own, follow) else counts
        if node.looks:
            return self._choices(node.branches, size, None)
        if node.high <= 1:
            return self._choices(node.branches, size, follow) + (counts > 1)
        again = self._first((attrs.evolve(node, low=1, high=1),), None)
        if again is not None and follow is not None and self._choices(node.branches, size, again | follow) == 1:
            return 1 if counts == 1 or self._are_disjoint(again, follow) else size + 1
        inner = self._choices(node.branches, size, again)
        if inner == 1:
            return size + 1
        return math.inf if node.high * math.log(inner) > 600 else inner**node.high * counts

    def _first(self, nodes: tuple[_Node, ...], follow: Follow) -> Follow:
        """Return the atoms with which nodes may begin, and ``follow`` if they may be empty."""
        found: frozenset[str] = frozenset()
        for node in nodes:
            if node.atom is not None and _REFERENCE.match(node.atom):
                return None
            firsts = [frozenset({node.atom})] if node.atom is not None else []
            for branch in node.branches:
                if node.looks or (first := self._first(branch, frozenset({_END}))) is None:
                    return None
                firsts.append(first)
            found = found.union(*firsts)
            if node.low > 0 and _END not in found:
                return found
            found -= {_END}
        return None if follow is None else found | follow

    def _are_disjoint(self, some: Follow, others: Follow) -> bool:
        if some is None or others is None or self._has_scoped_flags:
            return False
        return all(self._is_disjoint(a, b) for a in some for b in others)

    def _is_disjoint(self, one: str, other: str) -> bool:
        if _END in (one, other):
            return True
        if frozenset({one, other}) in _DISJOINT:
            return True
        for members, atom in ((_members(one), other), (_members(other), one)):
            if members:
                matches = re.compile(f"(?{self._flags}){atom}" if self._flags else atom).match
                return not any(matches(each) for each in members)
        return False


def _repeated(node: _Node, token: re.Match[str]) -> _Node:
    """Return a node with the repeat behind it."""
    bounds = {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}
    text = token["repeat"]
    low, high = bounds.get(text, (int(token["low"] or 0), math.inf))
    if text not in bounds:
        high = int(token["high"] or 0) or math.inf if token["comma"] else low
    return (
        attrs.evolve(node, low=low, high=high)
        if node.high == 1 == node.low
        else _Node(branches=((node,),), low=low, high=high)
    )


def _members(atom: str) -> str:
    """Return the characters of an atom if it lists them; empty if it does not."""
    if len(atom) == 1:
        return "" if atom == "." else atom
    if atom[0] == "\\":
        return "" if atom[1].isalnum() else atom[1:]
    inner = atom[1:-1]
    if atom[0] != "[" or inner[0] == "^" or re.search(r"\\\w", inner):
        return ""
    found = ""
    for part in re.finditer(r"\\?(.)(?:-\\?(.))?", inner, re.DOTALL):
        start, end = ord(part[1]), ord(part[2] or part[1])
        if end - start > 255:
            return ""
        found += "".join(map(chr, range(start, end + 1)))
    return found
