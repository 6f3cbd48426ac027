"""The example providers of real APIs, built and installed, through every entrance, against their own stand-ins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from tests.architecture.sources import ROOT
from tests.distributions import pip_install

EXAMPLES = ROOT / "examples"
NAMES = ("impasto-openai", "impasto-bfl", "impasto-nova", "impasto-imagen")
GPT, FLUX, NOVA = "openai/gpt-image-1", "bfl/flux-2-pro", "bedrock/amazon.nova-canvas-v1:0"
REVISED = "a lighthouse, in the evening light"
GEMINI, VERTEX = "gemini/imagen-4.0-generate-001", "vertex_ai/imagen-4.0-generate-001"

CONFIG = """
model_list:
  - {model_name: gpt, provider_params: {model: openai/gpt-image-1}}
  - {model_name: flux, provider_params: {model: bfl/flux-2-pro}}
  - {model_name: nova, provider_params: {model: "bedrock/amazon.nova-canvas-v1:0", aws_region_name: eu-west-1}}
  - {model_name: nova-variation, provider_params: {model: "bedrock/amazon.nova-canvas-v1:0/image-variation"}}
  - {model_name: gemini, provider_params: {model: gemini/imagen-4.0-generate-001}}
  - {model_name: vertex, provider_params: {model: vertex_ai/imagen-4.0-generate-001, location: us-east4}}
general_settings: {plugins: [impasto-openai, impasto-bfl, impasto-nova, impasto-imagen]}
"""

PYTHON = """
import asyncio, base64, json, os
import impasto
from impasto_openai.stand_in import paint

GPT, FLUX = "openai/gpt-image-1", "bfl/flux-2-pro"
IMAGE = paint("x", 0)

async def main():
    said = {}
    async with impasto.Client(transport="emulator", poll_interval=0.05) as client:
        gpt = await client.run(GPT, prompt="a lighthouse", n=3, quality="low")
        flux = await client.run(FLUX, prompt="a lighthouse", n=2, seed=7)
        edit = await client.run(GPT, prompt="combine", image=[IMAGE, IMAGE])
        combined = await client.run(FLUX, prompt="combine", input_image=[IMAGE, IMAGE])
        nova = await client.run("bedrock/amazon.nova-canvas-v1:0", text="a lighthouse", n=7)
        area = {"image": IMAGE, "maskPrompt": "the lamp"}
        inpainted = await client.run("bedrock/amazon.nova-canvas-v1:0/inpainting", text="a window", **area)
        imagen = [
            await client.run(f"{way}/imagen-4.0-generate-001", prompt="a lighthouse", n=6)
            for way in ("gemini", "vertex_ai")
        ]
        results = (gpt, flux, edit, combined, nova, inpainted, *imagen)
        said["different"] = len({each.data for each in nova.artifacts})
        said["run"] = [len(each.artifacts) for each in results]
        said["usd"] = [round(each.cost.usd, 6) for each in (gpt, flux)]
    return said

print(json.dumps(asyncio.run(main())))
"""

DROP_IN = """
import json
import impasto
from impasto_openai.stand_in import paint

image = paint("x", 0)
gpt = impasto.image_generation("a lighthouse", "openai/gpt-image-1", n=2, size="1024x1024", quality="low")
edit = impasto.image_edit([image, image], "combine", "openai/gpt-image-1")
flux = impasto.image_generation("a lighthouse", "bfl/flux-2-pro", size="1024x1536")
combined = impasto.image_edit([image, image], "combine", "bfl/flux-2-pro")
canvas = "bedrock/amazon.nova-canvas-v1:0"
nova = impasto.image_generation("a lighthouse", canvas, n=2, size="1536x1024", aws_region_name="eu-west-1")
varied = impasto.image_edit([image, image], "combine", f"{canvas}/image-variation")
gemini = impasto.image_generation("a lighthouse", "gemini/imagen-4.0-generate-001", n=2, size="1792x1024")
vertex = impasto.image_generation("a lighthouse", "vertex_ai/imagen-4.0-generate-001", location="us-east4")
others = (nova, varied, gemini, vertex)
print(json.dumps({
    "images": [len(each.data) for each in (gpt, edit, flux, combined, *others)],
    "usage": [gpt.usage.input_tokens, gpt.usage.output_tokens, gpt.usage.total_tokens],
    "warnings": [each.warnings for each in (gpt, edit, flux, combined, *others)],
    "revised": [each.data[0].revised_prompt for each in (gemini, vertex)],
}, default=list))
"""

GATEWAY = """
import io, json, sys
import openai
from impasto_openai.stand_in import paint

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="any", max_retries=0)
image = paint("x", 0)
files = [("a.png", image), ("b.png", image)]
gpt = client.images.generate(model="gpt", prompt="a lighthouse", n=2, size="1024x1024", quality="low")
edit = client.images.edit(model="gpt", prompt="combine", image=files)
flux = client.images.generate(model="flux", prompt="a lighthouse", size="1024x1536")
combined = client.images.edit(model="flux", prompt="combine", image=files)
nova = client.images.generate(model="nova", prompt="a lighthouse", n=2, size="1536x1024")
varied = client.images.edit(model="nova-variation", prompt="combine", image=files)
gemini = client.images.generate(model="gemini", prompt="a lighthouse", n=2, size="1792x1024")
vertex = client.images.generate(model="vertex", prompt="a lighthouse")
others = (nova, varied, gemini, vertex)
try:
    client.images.generate(model="gpt", prompt="forbidden")
    refusal = None
except openai.BadRequestError as error:
    refusal = error.code
print(json.dumps({
    "images": [len(each.data) for each in (gpt, edit, flux, combined, *others)],
    "usage": [gpt.usage.input_tokens, gpt.usage.output_tokens, gpt.usage.total_tokens],
    "refusal": refusal,
    "revised": [each.data[0].revised_prompt for each in (gemini, vertex)],
}))
"""

STAND_INS = """
import asyncio, sys
import impasto_bfl.stand_in, impasto_imagen.stand_in, impasto_nova.stand_in, impasto_openai.stand_in

async def main():
    async with (
        impasto_openai.stand_in.serving() as openai,
        impasto_bfl.stand_in.serving() as bfl,
        impasto_nova.stand_in.serving() as nova,
        impasto_imagen.stand_in.serving() as google,
    ):
        print(openai.url, bfl.url, nova.url, google.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(openai.charges, bfl.charges, nova.charges, google.charges, flush=True)

asyncio.run(main())
"""


@attrs.frozen
class Site:
    """A folder of somebody who installed the examples."""

    folder: Path
    environment: dict[str, str]

    def python(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def impasto(self, *words: str) -> str:
        return self.python("-m", "impasto_plugins.cli", *words)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("providers") / "site"
    pip_install(site, *(EXAMPLES / name for name in NAMES))
    return site


@pytest.fixture
def site(packages: Path, tmp_path: Path) -> Site:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("IMPASTO_", "PYTEST_"))}
    return Site(tmp_path, {**mine, "PYTHONPATH": str(packages), "IMPASTO_POLL_INTERVAL": "0.05"})


@pytest.mark.parametrize("name", NAMES)
def test_its_own_tests_pass(site: Site, name: str) -> None:
    del site.environment["IMPASTO_POLL_INTERVAL"]  # the suite checks the plugin's own
    folder = EXAMPLES / name
    words = ("-q", "-p", "no:cacheprovider", "-c", str(folder / "pyproject.toml"))
    report = site.python("-m", "pytest", *words, str(folder / "tests"))
    passed = re.search(r"^(\d+) passed", report, re.MULTILINE)
    assert passed
    assert int(passed[1]) > 40


def test_the_client_runs_them_against_their_stand_ins(site: Site) -> None:
    payload = json.loads(site.python("-c", PYTHON))
    assert payload == {
        "different": 7,  # two requests, whose images differ although the provider's own seed is always 12
        "run": [3, 2, 1, 1, 7, 1, 6, 6],
        "usd": [round(2 * 5e-6 + 3 * 272 * 40e-6, 6), 0.06],
    }


def test_the_command_line_has_their_emulators(site: Site) -> None:
    for model in (GPT, FLUX):
        out = f"{model.partition('/')[0]}.png"
        report = site.impasto(
            "generate", model, "a lighthouse", "--emulator", "-p", "output_format=png", "-o", out, "--json"
        )
        assert json.loads(report)["cost"]["usd"] > 0
        assert (site.folder / out).read_bytes().startswith(b"\x89PNG")
    site.impasto("generate", VERTEX, "a lighthouse", "--emulator", "-o", "vertex.png")
    assert (site.folder / "vertex.png").read_bytes().startswith(b"\x89PNG")
    site.impasto("try", GPT, FLUX, NOVA, f"{NOVA}/inpainting", f"{NOVA}/image-variation", GEMINI, "--out", "tried")
    assert len([*(site.folder / "tried").glob("*.png")]) == 6  # a JPEG of FLUX, and the sketch
    rows = json.loads(site.impasto("plugins", "--json"))
    ours = {(row["group"], row["name"]) for row in rows if row["distribution"] in NAMES}
    assert {("impasto.operations", "bfl/*"), ("impasto.emulators", "openai")} <= ours
    site.impasto("doctor")


def test_every_entrance_carries_their_images_usage_and_prices(site: Site) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STAND_INS],
        env=site.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as stand_ins:
        assert stand_ins.stdout is not None
        openai, bfl, nova, google = stand_ins.stdout.readline().split()
        keys = {"OPENAI_API_BASE": openai, "OPENAI_API_KEY": "k", "BFL_API_BASE": bfl, "BFL_API_KEY": "k"}
        keys |= {"AWS_BEDROCK_RUNTIME_ENDPOINT": nova, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        keys |= {"AWS_REGION": "eu-west-1", "GEMINI_API_BASE": google, "GEMINI_API_KEY": "k"}
        keys |= {"VERTEX_AI_API_BASE": google, "GOOGLE_CLOUD_PROJECT": "my-project"}
        keys |= {"GOOGLE_APPLICATION_CREDENTIALS": str(site.folder / "credentials.json")}
        user = {"client_id": "c", "client_secret": "s", "refresh_token": "refresh-1", "token_uri": f"{google}/token"}
        (site.folder / "credentials.json").write_text(json.dumps(user))
        site = attrs.evolve(site, environment={**site.environment, **keys})
        payload = json.loads(site.python("-c", DROP_IN))
        assert payload["images"] == [2, 1, 1, 1, 2, 1, 2, 1]
        assert payload["usage"] == [2, 544, 546]
        assert payload["warnings"] == [[]] * 8
        assert payload["revised"] == [None, REVISED]
        assert _gateway(site) == {
            "images": [2, 1, 1, 1, 2, 1, 2, 1],
            "usage": [2, 544, 546],
            "refusal": "moderation_blocked",
            "revised": [None, REVISED],
        }
        rows = [
            {"id": "gpt", "model": GPT, "prompt": "a lighthouse", "n": 2, "quality": "low", "size": "1024x1024"},
            {"id": "flux", "model": FLUX, "prompt": "a lighthouse", "seed": 7},
            {"id": "nova", "model": NOVA, "text": "a lighthouse", "n": 6},
            {"id": "gemini", "model": GEMINI, "prompt": "a lighthouse", "n": 5},
            {"id": "vertex", "model": VERTEX, "prompt": "a lighthouse"},
        ]
        (site.folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        site.impasto("batch", "run", "rows.jsonl", "--out", "images")
        status = json.loads(site.impasto("batch", "status", "images", "--json"))
        assert (status["state"], status["done"]) == ("complete", 15)
        lines = map(json.loads, (site.folder / "images" / "results.jsonl").read_text().splitlines())
        images = {each["custom_id"]: each["response"]["body"]["data"][0] for each in lines}
        assert [images[name].get("revised_prompt") for name in ("gemini", "vertex")] == [None, REVISED]
        tokens, flux, imagen = 2 * 5e-6 + 544 * 40e-6, 0.03, 6 * 0.04  # one request for both images of gpt
        assert status["cost_usd"] == pytest.approx(tokens + flux + imagen)
        charges = stand_ins.communicate(timeout=60)[0].split()
    assert charges == [str(3 + 3 + 2), str((2 + 2 + 1) * 3), str(3 + 3 + 6), str(3 + 3 + 6)]


def _gateway(site: Site) -> object:
    (site.folder / "config.yaml").write_text(CONFIG)
    words = ("-m", "impasto_plugins.cli", "serve", "--config", "config.yaml", "--port", "0", "--no-auth")
    with subprocess.Popen(
        [sys.executable, *words], cwd=site.folder, env=site.environment, stdout=subprocess.PIPE, text=True
    ) as gateway:
        assert gateway.stdout is not None
        try:
            return json.loads(site.python("-c", GATEWAY, gateway.stdout.readline().split()[-1]))
        finally:
            gateway.terminate()
