"""The suite for other people's plugins: a sound one passes, and each of many defects is caught by the check for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.testing.form_plugin import CARRIER, DEFECTS, MODEL, OIL, SOUND, SUITE, Defect
from tests.core.testing.sessions import run_session
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
    return run_session(pytester, "-q", *args)


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


GATEWAY = "gateway_serves_it"
PATIENT = """media_types = ("image/png",)
    seconds = 60.0
"""


def test_the_gateway_is_skipped_without_its_extra(pytester: pytest.Pytester, acme: Path) -> None:
    (acme.parent / "sitecustomize.py").write_text("import sys\nsys.modules['yaml'] = None\n")
    patient = Defect(changes={'media_types = ("image/png",)': PATIENT}, check=GATEWAY, says="")
    ran = run(pytester, acme, "-rs", "-k", GATEWAY, defect=patient)
    assert (ran.ret, ran.parseoutcomes()["skipped"]) == (0, 1), ran.stdout.str()
    ran.stdout.fnmatch_lines(["*impasto serve needs yaml: pip install 'impasto[[]gateway[]]'*"])


WITH_ANOTHER_SETTING = f"""{PATIENT}
    def drop_in_settings(self, url):
        return {{"api_base": url, "api_key": KEY, "no_such_setting": KEY}}
"""
GATEWAYS = [
    Defect(
        changes={'media_types = ("image/png",)': WITH_ANOTHER_SETTING},
        check=GATEWAY,
        says="impasto serve ended with 2:*no_such_setting",
    ),
    Defect(
        changes={'media_types = ("image/png",)': PATIENT, "response.status == 200": "False"},
        check=GATEWAY,
        says="the gateway answered HTTP 502:*HTTP 200",
    ),
]


@pytest.mark.parametrize("defect", GATEWAYS, ids=lambda defect: defect.says)
def test_the_gateways_own_words_are_in_the_failure(pytester: pytest.Pytester, acme: Path, defect: Defect) -> None:
    ran = run(pytester, acme, "-k", defect.check, defect=defect)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    ran.stdout.fnmatch_lines([f"*{defect.says}*"])
    assert not any(line.startswith("E ") and "sk-canary" in line for line in ran.outlines)


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_caught(pytester: pytest.Pytester, acme: Path, defect: Defect) -> None:
    ran = run(pytester, acme, "-k", defect.check, defect=defect)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED, "\n".join(ran.outlines + ran.errlines)
    assert defect.says in ran.stdout.str()
