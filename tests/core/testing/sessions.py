"""A session of pytest within a test, as the author of a plugin runs it."""

from __future__ import annotations

import pytest

import impasto.testing.suite  # noqa: F401 - what is imported before a session is not imported by each again

OPTIONS = ("-p", "impasto.testing.plugin", "-p", "no:cacheprovider", "--tb=native")


def run_session(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run the tests in the current folder without other plugins, and with Python's own tracebacks: both take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        return pytester.runpytest_inprocess(*OPTIONS, *args)
