"""Plugins of third parties under their suite: the sound ones pass, each defect is caught by its check, in time."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from blockbuster import BlockBuster

from tests.core.testing import (
    address_plugin,
    job_plugin,
    json_defects,
    json_plugin,
    native_plugin,
    prediction_plugin,
    resolver_plugin,
    state_defects,
    stream_plugin,
    waiting_defects,
)
from tests.core.testing.form_plugin import Defect
from tests.core.testing.sessions import run_session
from tests.distributions import install

pytest_plugins = ["pytester"]

PLUGINS = {
    address_plugin: address_plugin.DEFECTS,
    json_plugin: {**json_defects.DEFECTS, **state_defects.DEFECTS, **waiting_defects.DEFECTS},
    job_plugin: job_plugin.DEFECTS,
    native_plugin: native_plugin.DEFECTS,
    prediction_plugin: prediction_plugin.DEFECTS,
    resolver_plugin: resolver_plugin.DEFECTS,
    stream_plugin: stream_plugin.DEFECTS,
}
CASES = [(plugin, name) for plugin, defects in PLUGINS.items() for name in defects]
LONGEST = 10.0
"""Seconds in which a check must find its defect."""


def run(pytester: pytest.Pytester, plugin: ModuleType, *args: str, defect: Defect | None = None) -> pytest.RunResult:
    name = plugin.MODEL.partition("/")[2]
    package = f"acme_{name}"
    (pytester.path / "site" / package).mkdir()
    changes = {} if defect is None else defect.changes
    suite, source = plugin.SUITE, plugin.SOUND
    for before, after in changes.items():
        assert before in source or before == job_plugin.FIRST_LINE, f"{before!r} is not in the plugin"
        source = source.replace(before, after)
    suite = suite.replace(job_plugin.FIRST_LINE, changes.get(job_plugin.FIRST_LINE, job_plugin.FIRST_LINE))
    (pytester.path / "site" / package / "__init__.py").write_text(source)
    (pytester.path / f"test_{name}.py").write_text(suite)
    return run_session(pytester, "-q", *args)


@pytest.fixture(autouse=True)
def site(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where the plugins are installed for the tests that run inside, and for the processes that they start."""
    folder = pytester.mkdir("site")
    for plugin in PLUGINS:
        name = plugin.MODEL.partition("/")[2]
        own = {"impasto.operations": {plugin.MODEL: f"acme_{name}:{name}"}}
        install(folder, f"acme-{name}", getattr(plugin, "POINTS", own), {})
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture(autouse=True)
def logger_stays() -> Iterator[None]:
    """One of the defects sets the level of the logger, for every test that follows in this process."""
    logger = logging.getLogger("impasto")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def blocking_is_possible(nothing_blocks_the_loop: BlockBuster) -> Iterator[None]:
    """Other people's tests have no guard of ours: the kit alone finds what blocks."""
    nothing_blocks_the_loop.deactivate()
    yield
    nothing_blocks_the_loop.activate()


AUTHORS = {
    "IMPASTO_POLL_INTERVAL": "a while",
    "IMPASTO_PLUGINS": "none-of-these",
    "ACME_KEY": "sk-of-the-author",
    "ACME_API_BASE": "http://127.0.0.1:9",
    "STABILITY_API_BASE": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "http://127.0.0.1:9",
    "LC_ALL": "tr_TR.ISO8859-9",
    "PYTHONASYNCIODEBUG": "1",
    "PYTHONWARNINGS": "error",
    "SSL_CERT_FILE": "/nonexistent",
    "GITHUB_PASSWORD_FILE": "/nonexistent",
    "AWS_PROFILE": "of-the-author",
}


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.MODEL)
def test_a_sound_plugin_passes_in_its_authors_environment(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, plugin: ModuleType
) -> None:
    for name, value in AUTHORS.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    ran = run(pytester, plugin, "-rf")
    assert ran.ret == 0, "\n".join(ran.outlines)
    after = {**os.environ, "PYTEST_CURRENT_TEST": before["PYTEST_CURRENT_TEST"]}
    assert {name for name in before if before[name] != after.get(name)} == set()


@pytest.mark.parametrize(("plugin", "name"), CASES, ids=[f"{plugin.MODEL}: {name}" for plugin, name in CASES])
def test_a_defect_is_caught(pytester: pytest.Pytester, plugin: ModuleType, name: str) -> None:
    defect = PLUGINS[plugin][name]
    began = time.monotonic()
    ran = run(pytester, plugin, "-k", defect.check, defect=defect)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED, "\n".join(ran.outlines + ran.errlines)
    assert defect.says in ran.stdout.str(), ran.stdout.str()[-2000:]
    assert time.monotonic() - began < LONGEST


DECLARATIONS = {
    "native_n is not declared": (
        native_plugin,
        {'native_n = ("count", 8)': "native_n = None"},
        "nothing_else",
        "count is sent for n, which is native here: declare native_n = ('count', its maximum)",
    ),
    "files in objects of their own": (
        native_plugin,
        {'"pictures": "pictures[]"': '"pictures": "images.0.data"'},
        "every_parameter_arrives",
        "if its files stand in objects of their own, declare their places and values in translated",
    ),
    "limits are not declared": (
        json_plugin,
        {'"seed": (0, 2**31 - 1), ': ""},
        "limits_choices_and_defaults",
        "seed: declare its documented limits in limits, such as (0, 1_000) or (1, None); None, in place of both,",
    ),
    "limits that are none": (
        json_plugin,
        {'"seed": (0, 2**31 - 1), ': '"seed": None, '},
        "limits_choices_and_defaults",
        "seed: the class has 0 to 2147483647, limits has any to any",
    ),
    "requests that a rule forbids": (
        json_plugin,
        {"golden = None": "def requests(self):\n        yield {'prompt': 'x', 'seed': -1}"},
        "request_is_as_it_was_reviewed",
        "requests() yields a call with prompt, seed, which is refused: acme/ink: seed:",
    ),
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_declaration_that_is_wrong_is_named_with_the_way_out(pytester: pytest.Pytester, name: str) -> None:
    plugin, changes, check, says = DECLARATIONS[name]
    suite = plugin.SUITE
    for before, after in changes.items():
        assert before in suite
        suite = suite.replace(before, after)
    changed = ModuleType("changed")
    vars(changed).update(MODEL=plugin.MODEL, SOUND=plugin.SOUND, SUITE=suite)
    ran = run(pytester, changed, "-k", check)
    assert says in ran.stdout.str(), ran.stdout.str()[-2000:]


FILTERED = '"nothing": Scenario(answers=(answer(200, {}),), error=impasto.ContentFiltered, billed="no"), '


@pytest.mark.parametrize(("scenario", "code"), [("", pytest.ExitCode.TESTS_FAILED), (FILTERED, pytest.ExitCode.OK)])
def test_an_answer_of_nothing_is_free_only_if_its_author_says_so(
    pytester: pytest.Pytester, scenario: str, code: pytest.ExitCode
) -> None:
    reads = "if not body: raise ContentFiltered('filtered', billed='no')\n        entries = body.get"
    changed = ModuleType("changed")
    vars(changed).update(
        MODEL=native_plugin.MODEL,
        SOUND=native_plugin.SOUND.replace("entries = body.get", reads),
        SUITE=native_plugin.SUITE.replace("scenarios = {", f"scenarios = {{{scenario}"),
    )
    ran = run(pytester, changed, "-k", "without_a_result")
    assert ran.ret == code, ran.stdout.str()


def test_an_emulator_may_know_some_of_a_resolvers_models(pytester: pytest.Pytester) -> None:
    says_not_found = """(404, "application/json", b'{"message": "unknown model"}') if b"prompt" in body"""
    changes = {'(200, "image/png", png(8, 8)) if b"prompt" in body': says_not_found}
    defect = Defect(changes=changes, check="emulator_behaves", says="")
    ran = run(pytester, resolver_plugin, "-rs", "-k", defect.check, defect=defect)
    assert (ran.ret, ran.parseoutcomes().get("skipped")) == (0, 1), ran.stdout.str()
    assert "a resolver finds the model, and the emulator does not know it" in ran.stdout.str()
