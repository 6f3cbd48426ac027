"""``impasto[bedrock]`` absent and present: each in an interpreter of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("aiobotocore", "botocore", "boto3", "pybase64"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""

RUN = """
import asyncio, json, sys
import impasto
from tests.images import png

SMALL = {"emulator": {"image_scale": 0.05}}

async def outcome(model, **settings):
    async with impasto.Client(**settings) as client:
        try:
            result = await client.run(model, prompt="a lighthouse")
            return len(result.artifacts)
        except impasto.ImpastoError as error:
            return f"{type(error).__name__}: {error.message}"

async def main():
    keys = {
        "aws_region": "us-west-2",
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
        "bedrock_endpoint": "http://127.0.0.1:9",
    }
    bedrock = "bedrock/stability.stable-image-core-v1:1"
    told = {
        "bedrock": await outcome(bedrock, **keys, retry=impasto.Retry(attempts=1)),
        "bedrock, emulated": await outcome(bedrock, transport="emulator", providers=SMALL),
        "direct, emulated": await outcome("stability/stable-image-core", transport="emulator", providers=SMALL),
        "described": impasto.Client().describe(bedrock).title,
        "loaded": sorted({name.partition(".")[0] for name in sys.modules} & {"aiobotocore", "botocore", "pybase64"}),
    }
    print(json.dumps(told))

asyncio.run(main())
"""


def report_of(code: str, *, expect: int = 0) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == expect, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_bedrock_without_its_extra_names_the_command_that_installs_it() -> None:
    answer = report_of(WITHOUT + RUN)
    for route in ("bedrock", "bedrock, emulated"):
        message = str(answer[route])
        assert message.startswith("MissingExtra: ")
        assert "pip install 'impasto[bedrock]'" in message
    assert answer["direct, emulated"] == 1
    assert answer["described"] == "Stable Image Core"
    assert answer["loaded"] == []


def test_bedrock_works_with_its_extra() -> None:
    answer = report_of(RUN)
    assert str(answer["bedrock"]).startswith("NotSent: ")
    assert (answer["bedrock, emulated"], answer["direct, emulated"]) == (1, 1)
    assert answer["loaded"] == ["aiobotocore", "botocore", "pybase64"]


@pytest.mark.parametrize(
    "code",
    [
        "import impasto",
        "from impasto import Client; Client().models()",
        "from impasto import Client; Client().describe('bedrock/stability.stable-image-core-v1:1')",
        "import impasto_plugins.stability.inpaint",
        "import impasto_plugins.transports.https",
        "import impasto_plugins.emulator.server.server",
    ],
)
def test_nothing_else_imports_botocore(code: str) -> None:
    wanted = '{"aiobotocore", "botocore", "pybase64"}'
    listed = f"import json, sys; print(json.dumps({{'loaded': sorted(set(sys.modules) & {wanted})}}))"
    assert report_of(f"{code}\n{listed}") == {"loaded": []}
