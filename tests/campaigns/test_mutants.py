"""The mutation campaign changes what it says, and leaves types, messages and log lines alone."""

from __future__ import annotations

import ast

from tests.campaigns.mutants import changes

SOURCE = '''
def admit(count: int = 3, *, most: "int | None" = None) -> bool:
    """Refuse more than 5."""
    _log.info("count %d", 7)
    if count > 5 and not closed:
        raise ValueError(f"at most {5} of {count + 1}")
    total.value = min(count, 4)
    forget(count)
    return True
'''


def test_each_change_is_of_one_place_and_still_parses() -> None:
    found = list(changes("a.py", SOURCE))
    assert {(change.before, change.after) for change in found} == {
        ("3", "4"),
        ("count > 5 and not closed", "(count > 5 or not closed)"),
        ("count > 5", "(count >= 5)"),
        ("5", "6"),
        ("not closed", "(closed)"),
        ('raise ValueError(f"at most {5} of {count + 1}")', "pass"),
        ("total.value = min(count, 4)", "pass"),
        ("min", "max"),
        ("4", "5"),
        ("forget(count)", "pass"),
        ("True", "False"),
    }
    for change in found:
        changed = change.apply(SOURCE.encode()).decode()
        ast.parse(changed)
        assert changed != SOURCE
