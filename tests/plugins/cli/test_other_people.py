"""Other people's distributions, installed by pip: what is wrong with one breaks only itself, and is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from impasto.registry import COMMANDS, GROUPS, MIDDLEWARE, OPERATIONS, PROVIDERS, TRANSPORTS
from tests.distributions import ACME, pip_install, wheel

DEFECTS = {
    "fails": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "vanishes": ("import os; os._exit(7)", "ends the process when it is imported (exit code 7)"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "(signal 11)"),
    "wrong": ("operation = 'text'", "'defects/wrong' is a str, but must be an Operation"),
    "missing": ("import impasto_no_such_module", "No module named 'impasto_no_such_module'"),
    "prints": ("print('{}'); raise LookupError('told')", "LookupError: told"),
}
SLOW = ACME + "\nimport time\ntime.sleep(1.1)\n"
SLEEPS = """
import time, attrs
from impasto import Operation, WireRequest
from impasto_plugins.stability.stable_image_core import operation

@attrs.frozen
class Sleepy:
    hook: str
    sound: object = operation.dialect

    def __getattr__(self, name):
        def hook(*given):
            time.sleep(0.3 if name == self.hook else 0)
            return getattr(self.sound, name)(*given)
        return hook

HOOKS = {"packs": "transform_request", "reads": "normalize_response"}
packs, reads = (attrs.evolve(operation, id=f"sleeps/{name}", dialect=Sleepy(hook)) for name, hook in HOOKS.items())
"""
HANGS = "import threading\nthreading.Event().wait()\n"
OLD = """
from impasto import hookimpl

class Old:
    @hookimpl
    def middleware(self, operation):
        async def told(wire, next):
            print("old middleware around", operation.id)
            return await next(wire)
        return told

plugin = Old()
"""
FROM_TOMORROW = "from impasto import SomethingOfTomorrow"

Points = Mapping[str, Mapping[str, str]]


def operations(**modules: str) -> Points:
    return {OPERATIONS: {name.replace("_", "/", 1): f"{module}:paint" for name, module in modules.items()}}


@attrs.frozen
class Site:
    """A folder of distributions, and the variables of whoever uses them."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, code: int = 0, **variables: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "impasto_plugins.cli", *words],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        assert "Traceback" not in ran.stdout + ran.stderr
        return ran.stdout if code == 0 else ran.stdout + ran.stderr

    def findings(self, *words: str, code: int = 0, **variables: str) -> dict[str, tuple[str, str]]:
        payload = json.loads(self.run(*words, "doctor", "--json", code=code, **variables))["findings"]
        return {each["subject"]: (each["state"], each["text"]) for each in payload}


def installed(folder: Path, distributions: Mapping[str, tuple[Points, Mapping[str, str]]]) -> Site:
    wheels = [wheel(folder / "wheels", name, *parts) for name, parts in distributions.items()]
    pip_install(folder / "site", *wheels)
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("IMPASTO_", "STABILITY_"))}
    return Site(folder / "site", {**mine, "PYTHONPATH": str(folder / "site"), "COLUMNS": "200"})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    modules = {f"defects_{name}": source for name, (source, _) in DEFECTS.items()}
    broken = {OPERATIONS: {f"defects/{name}": f"defects_{name}:operation" for name in DEFECTS}}
    claims = {
        TRANSPORTS: {"https": "claims:nothing"},
        MIDDLEWARE: {"retry": "claims:nothing"},
        PROVIDERS: {"stability": "claims:nothing"},
        COMMANDS: {"doctor": "claims:nothing", "plugins": "claims:nothing"},
        OPERATIONS: {"stability/sd3-large": "claims:nothing"},
        "impasto.operation": {"acme/misspelt": "claims:nothing"},
    }
    return installed(
        tmp_path_factory.mktemp("others"),
        {
            "defects": (broken, modules),
            "Claims_All": (claims, {"claims": "raise AssertionError('imported')"}),
            "acme.sound": (operations(acme_paint="acme_sound"), {"acme_sound": ACME}),
            "slow": (operations(slow_paint="slow"), {"slow": SLOW}),
            "sleeps": (
                {OPERATIONS: {"sleeps/packs": "sleeps:packs", "sleeps/reads": "sleeps:reads"}},
                {"sleeps": SLEEPS},
            ),
            "old": ({MIDDLEWARE: {"old": "old:plugin"}}, {"old": OLD}),
            "newer": (operations(newer_paint="newer"), {"newer": FROM_TOMORROW}),
        },
    )


@pytest.fixture(scope="module")
def found(site: Site) -> dict[str, tuple[str, str]]:
    return site.findings(code=1)


@pytest.mark.parametrize("name", DEFECTS)
def test_doctor_names_each_that_does_not_import_whatever_it_does(found: dict[str, tuple[str, str]], name: str) -> None:
    state, text = found[f"{OPERATIONS} defects/{name}"]
    if text.startswith("defects 1.0: not tried"):
        assert name in ("missing", "prints", "wrong")
    assert state == "broken"
    assert text.startswith("defects 1.0: ")
    assert DEFECTS[name][1] in text


def test_the_others_are_as_they_were(found: dict[str, tuple[str, str]]) -> None:
    assert f"{OPERATIONS} acme/paint" not in found
    for group in (PROVIDERS, TRANSPORTS, MIDDLEWARE, COMMANDS):
        good, _, of, _ = found[group][1].split()
        assert good == of


@pytest.mark.parametrize("key", ['key_variable="ACME_KEY"', "key_variable=None"])
def test_a_provider_at_its_callers_own_address_is_said_to_need_one(tmp_path: Path, key: str) -> None:
    source = ACME.replace('base_url="https://api.acme.example"', 'base_url_variable="ACME_URL"')
    home = {"home": ({PROVIDERS: {"acme": "home:acme"}}, {"home": source.replace('key_variable="ACME_KEY"', key)})}
    site = installed(tmp_path, home)
    assert site.findings()["acme base URL"] == ("note", "each caller has its own: set ACME_URL or give api_base")
    assert site.findings(ACME_URL="https://a.example")["acme base URL"] == ("ok", "https://a.example")


def test_a_slow_one_is_said_to_be_slow(found: dict[str, tuple[str, str]]) -> None:
    state, text = found[f"{OPERATIONS} slow/paint"]
    assert state == "note"
    takes = re.match(r"slow 1\.0: takes (\d+\.\d) s", text)
    assert takes is not None, text
    assert float(takes[1]) >= 1.1


@pytest.mark.parametrize(("name", "hook"), [("packs", "transform_request"), ("reads", "normalize_response")])
def test_a_hook_that_blocks_the_loop_is_said_to(found: dict[str, tuple[str, str]], name: str, hook: str) -> None:
    message = f"sleeps 1.0: {hook} takes 0.3 s and blocks the event loop meanwhile"
    assert found[f"{OPERATIONS} sleeps/{name}"] == ("note", message)


def test_one_that_hangs_is_given_up(tmp_path: Path) -> None:
    site = installed(tmp_path, {"hangs": (operations(hangs_paint="hangs"), {"hangs": HANGS})})
    code = (
        "import impasto_plugins.cli.checks.imports as p; p.LONGEST_SECONDS = 0.5\n"
        "import impasto_plugins.cli.main as m; m.main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"], env=site.environment, capture_output=True, check=False
    )
    payload = {each["subject"]: each["text"] for each in json.loads(ran.stdout)["findings"]}
    assert payload[f"{OPERATIONS} hangs/paint"] == "hangs 1.0: takes more than 0.5 s to import"


def test_names_that_every_model_needs_stay_impastos_own(site: Site, found: dict[str, tuple[str, str]]) -> None:
    for group, name in (
        (TRANSPORTS, "https"),
        (MIDDLEWARE, "retry"),
        (PROVIDERS, "stability"),
        (COMMANDS, "doctor"),
    ):
        message = f"Claims_All 1.0: '{name}' of Claims_All 1.0 is reserved for impasto's own plugin"
        assert found[f"{group} {name}"] == ("broken", message)
    assert found["impasto.operation"] == (
        "note",
        f"unknown group; the groups are {', '.join(GROUPS)}",
    )


def test_of_a_model_that_two_claim_neither_is_paid_until_one_is_chosen(site: Site) -> None:
    words = ("generate", "stability/sd3-large", "a fox", "--emulator", "-o", str(site.folder / "large.png"))
    result = site.run(*words, code=2)
    assert "'stability/sd3-large' is declared by Claims_All and impasto; uninstall one of them, or remove" in result
    site.run("--plugins", "acme-sound, old", *words)


def test_a_plugin_for_a_newer_impasto_fails_alone(site: Site, found: dict[str, tuple[str, str]]) -> None:
    message = (
        "'newer/paint' of newer 1.0 failed to load (newer:paint): ImportError: cannot import name 'SomethingOfTomorrow'"
    )
    assert message in found[f"{OPERATIONS} newer/paint"][1]
    assert message in site.run("describe", "newer/paint", code=2)
    assert f"{MIDDLEWARE} old" not in found
    code = """
import asyncio, impasto
async def main():
    async with impasto.Client(transport="emulator", middleware=["old"]) as client:
        await client.run("stability/stable-image-core", prompt="a fox")
asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], env=site.environment, capture_output=True, check=True, text=True)
    assert ran.stdout == "old middleware around stability/stable-image-core\n"


def test_a_file_that_was_changed_after_it_was_installed_is_told(site: Site, found: dict[str, tuple[str, str]]) -> None:
    state, text = found["acme.sound 1.0"]
    assert state == "ok"
    assert text.startswith("4 files as installed, sha256 ")
    rows = json.loads(site.run("plugins", "--json"))
    before = {row["distribution"]: (row["files"], row["sha256"]) for row in rows}
    assert before["acme.sound"] == (text, before["acme.sound"][1])
    module, other = site.folder / "acme_sound.py", site.folder / "old.py"
    source = module.read_text()
    try:
        module.write_text(source + "# one line more\n")
        other.rename(site.folder / "gone.py")
        after = {row["distribution"]: row["files"] for row in json.loads(site.run("plugins", "--json"))}
        assert site.findings("--plugins", "acme-sound", code=1)["acme.sound 1.0"][0] == "broken"
    finally:
        module.write_text(source)
        (site.folder / "gone.py").rename(other)
    assert after["acme.sound"].startswith("its files differ from those that were installed: acme_sound.py (changed);")
    assert "old.py (missing)" in after["old"]
    assert after["slow"] == before["slow"][0]


def test_a_forbidden_plugin_is_never_imported_and_its_error_says_how_to_allow_it(site: Site) -> None:
    found = site.findings(code=1, IMPASTO_PLUGINS="Acme_Sound,Claims.All, not-there")
    assert found["defects 1.0"][0] == "note"
    assert found["defects 1.0"][1].startswith("not allowed: IMPASTO_PLUGINS allows acme-sound, claims-all, not-there; ")
    assert found["not-there"][0] == "note"
    assert not [subject for subject in found if " defects/" in subject]


def test_one_switch_turns_all_of_them_off(site: Site) -> None:
    assert "acme/paint" in site.run("--plugins", "acme-sound", "models")
    result = site.run("--plugins", "none", "models")
    assert "acme/paint" not in result
    assert "stability/sd3-large" in result
    message = (
        "'acme/paint' belongs to acme.sound 1.0, which is not allowed: IMPASTO_PLUGINS allows none; add acme-sound"
    )
    assert message in site.run("--plugins", "none", "describe", "acme/paint", code=2)
    rows = json.loads(site.run("plugins", "--json", IMPASTO_PLUGINS=""))
    states = {row["distribution"]: row["state"] for row in rows}
    assert states.pop("impasto") == "declared"
    assert set(states.values()) == {"not allowed"}


@pytest.mark.parametrize("names", ["a b", "acme,none", "-acme", "acme,,b"])
def test_a_list_that_is_none_is_refused(site: Site, names: str) -> None:
    assert "; give names, or none or all alone" in site.run("--plugins", names, "models", code=2)
