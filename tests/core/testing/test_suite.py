"""The suite for other people's plugins: a sound one passes, and each of many defects is caught by the check for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.testing.form_plugin import CARRIER, DEFECTS, MODEL, OIL, SOUND, SUITE, Defect
from tests.distributions import install

pytest_plugins = ["pytester"]


@pytest.fixture
def acme(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where the plugin is installed for the tests that run inside, and for the processes that they start."""
    site = pytester.mkdir("site")
    points = {
        "impasto.operations": {
            MODEL: "acme_watercolour.watercolour:watercolour",
            "acme/oil": "acme_watercolour.oil:oil",
        },
        "impasto.transports": {"acme-https": "acme_watercolour.carrier:Carrier"},
    }
    install(site, "acme-watercolour", points, {})
    package = site / "acme_watercolour"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "oil.py").write_text(OIL)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the processes that the checks start
    return package


def run(pytester: pytest.Pytester, package: Path, *args: str, defect: Defect | None = None) -> pytest.RunResult:
    for name, source in {"watercolour.py": SOUND, "carrier.py": CARRIER}.items():
        (package / name).write_text(source if defect is None else defect.made_in(source))
    pytester.makepyfile(test_watercolour=SUITE if defect is None else defect.made_in(SUITE))
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "-q", *args)


def test_a_sound_plugin_passes_once_its_request_was_reviewed(pytester: pytest.Pytester, acme: Path) -> None:
    first = run(pytester, acme)
    first.stdout.fnmatch_lines(["*acme-watercolour.txt does not exist: run pytest --impasto-update and review it*"])
    assert first.parseoutcomes()["failed"] == 1
    assert run(pytester, acme, "--impasto-update").ret == 0
    golden = (pytester.path / "golden" / "acme-watercolour.txt").read_text()
    assert 'name="paper"\n\nrough' in golden
    assert "paper: one of rough, smooth (default smooth)" in golden
    assert run(pytester, acme).ret == 0


def test_fields_without_a_description_are_reported_and_fail_nothing(pytester: pytest.Pytester, acme: Path) -> None:
    ran = run(pytester, acme, "-rs", "-k", "says_what_it_does")
    assert (ran.ret, ran.parseoutcomes()["skipped"]) == (0, 1)
    ran.stdout.fnmatch_lines(["*no description: prompt, seed, paper, sketch, codes; give each field description=*"])


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_caught(pytester: pytest.Pytester, acme: Path, defect: Defect) -> None:
    ran = run(pytester, acme, "-k", defect.check, defect=defect)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED, "\n".join(ran.outlines + ran.errlines)
    assert defect.says in ran.stdout.str()
