"""What is imported when, seen from a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import POINTS
from tests.distributions import install

HEAVY = ("aiohttp", "aiobotocore", "botocore", "PIL", "click", "yaml", "importlib.metadata", "cattrs", "pluggy")
OPERATION_MODULES = {value.partition(":")[0] for value in POINTS["impasto.operations"].values()}

FAKE = """
import asyncio, zlib, struct
import impasto


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 1, 0, 0, 0, 0))
PNG += chunk(b"IDAT", zlib.compress(bytes(9 * 64))) + chunk(b"IEND", b"")


class Fake:
    @impasto.hookimpl
    async def send(self, wire):
        with wire.call.sending(paid=True):
            return impasto.WireResponse(status=200, headers={"content-type": "image/png"}, body=PNG)


async def main(model, **params):
    async with impasto.Client(api_key="sk-test", transport=Fake()) as client:
        return await client.run(model, **params)

"""


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded once it ran the code."""
    ran = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def ours(modules: set[str]) -> set[str]:
    """First-party plugins among the modules: ``stability``, ``transports`` and the like."""
    return {name.split(".")[1] for name in modules if name.startswith("impasto_plugins.")}


def test_importing_impasto_imports_nothing_but_itself() -> None:
    bare, loaded = modules_after(""), modules_after("import impasto")
    assert {name for name in loaded - bare if name.partition(".")[0] not in sys.stdlib_module_names} == {"impasto"}
    assert not set(HEAVY) & loaded
    assert "asyncio" not in loaded


@pytest.mark.parametrize("code", ["impasto.Client(api_key='sk-test')", "impasto.Client", "impasto.InvalidRequest"])
def test_making_a_client_imports_no_plugin_and_nothing_heavy(code: str) -> None:
    loaded = modules_after(f"import impasto; {code}")
    assert ours(loaded) == set()
    assert not {"aiohttp", "botocore", "PIL", "click", "importlib.metadata"} & loaded


def test_listing_models_imports_no_plugin() -> None:
    loaded = modules_after("import impasto; assert impasto.Registry().names('impasto.operations')")
    assert ours(loaded) == set()
    assert not {"aiohttp", "botocore", "PIL", "click"} & loaded


@pytest.mark.parametrize(
    ("model", "params", "module"),
    [
        ("stability/sd3.5-large", "prompt='x'", "impasto_plugins.stability.sd3"),
        ("stability/erase", "image=PNG", "impasto_plugins.stability.erase"),
    ],
)
def test_the_first_call_imports_that_models_module_and_no_other(model: str, params: str, module: str) -> None:
    loaded = modules_after(FAKE + f"assert asyncio.run(main({model!r}, {params})).artifacts[0].data == PNG")
    assert loaded & OPERATION_MODULES == {module}
    assert ours(loaded) == {"stability", "bedrock", "images", "middleware"}
    assert not {"aiohttp", "botocore", "PIL", "click"} & loaded, "the transport is the caller's, and nothing decodes"


def test_no_operation_module_imports_anything_heavy() -> None:
    loaded = modules_after("\n".join(f"import {module}" for module in sorted(OPERATION_MODULES)))
    assert loaded >= OPERATION_MODULES
    assert not {"aiohttp", "botocore", "PIL", "click"} & loaded


def test_the_pytest_plugin_imports_nothing_heavy() -> None:
    for value in POINTS.get("pytest11", {}).values():
        loaded = modules_after(f"import {value}")
        assert not {"aiohttp", "botocore", "PIL", "click"} & loaded


def test_help_of_the_command_imports_no_model_and_nothing_heavy() -> None:
    loaded = modules_after(
        "import sys; sys.argv = ['impasto', '--help']\n"
        "from impasto_plugins.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert "impasto_plugins.cli.main" in loaded
    assert not OPERATION_MODULES & loaded
    assert not {"aiohttp", "botocore", "PIL", "cattrs", "pluggy"} & loaded


NEW_OPERATION = '''
"""A new operation of a vendor that is known: one module."""

import attrs
from impasto import File, Operation
from impasto.fields import number
from impasto_plugins.stability import fields
from impasto_plugins.stability.direct import direct
from impasto_plugins.stability.provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """What it takes."""

    image: File = fields.image(fields.EDITABLE)
    amount: float | None = number(0, 1, default=0.5)


operation = Operation(
    id="stability/sharpen",
    title="Sharpen",
    params=Params,
    target="/v2beta/stable-image/edit/sharpen",
    provider=stability,
    dialect=direct,
    price=in_credits(2),
    max_bytes=fields.REQUEST_BYTES,
)
'''


def test_a_new_operation_is_one_module_and_one_line(tmp_path: Path) -> None:
    points = {"impasto.operations": {"stability/sharpen": "sharpen:operation"}}
    install(tmp_path, "sharpen", points, {"sharpen": NEW_OPERATION})
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
        + FAKE
        + """
assert asyncio.run(main("stability/sharpen", image=PNG, amount=0.3)).cost.usd == 0.02
try:
    asyncio.run(main("stability/sharpen", image=PNG, amount=2))
except impasto.InvalidRequest as error:
    assert "amount: must be a number from 0 to 1, not 2" in str(error)
else:
    raise AssertionError("not checked")
client = impasto.Client()
assert "stability/sharpen" in client.models()
assert [field.name for field in client.describe("stability/sharpen").fields] == ["image", "amount"]
"""
    )
    assert "sharpen" in modules_after(code)
