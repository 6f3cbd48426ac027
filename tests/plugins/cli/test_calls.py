"""generate, edit and resume, against the emulator over a real socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from impasto import Problem
from impasto.registry import OPERATIONS
from impasto_plugins.emulator import Emulator
from tests.distributions import install
from tests.images import drawn, png
from tests.plugins.cli.conftest import Process, Run

CORE = ("generate", "stability/stable-image-core", "a", "lighthouse")


@pytest.fixture
def picture(environment: dict[str, str]) -> str:
    """A picture in the working folder."""
    Path("in.png").write_bytes(png(128, 96))
    return "in.png"


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_generate_saves_the_picture_and_prints_its_name(run: Run, impasto_emulator: Emulator) -> None:
    result = run(*CORE, "-p", "seed=7", "-p", "aspect_ratio=16:9")
    assert result.exit_code == 0
    assert result.stdout == "stable-image-core-7.png\n"
    assert result.stderr == ""
    with Image.open("stable-image-core-7.png") as image:
        assert image.width > image.height
    (sent,) = impasto_emulator.requests
    assert sent.fields == {"prompt": "a lighthouse", "aspect_ratio": "16:9", "seed": "7"}


def test_a_name_of_its_own_never_falls_on_a_file_that_is_there(run: Run) -> None:
    names = [run(*CORE, "-p", "seed=7").stdout.strip() for _ in range(3)]
    assert names == ["stable-image-core-7.png", "stable-image-core-7-2.png", "stable-image-core-7-3.png"]
    assert files() == sorted(names)


def test_n_pictures_get_numbered_names_and_counted_seeds(run: Run) -> None:
    result = run(*CORE, "-n", "3", "-o", "x.png", "-p", "seed=5", "--json")
    payload = json.loads(result.stdout)
    assert [(each["path"], each["seed"]) for each in payload["files"]] == [
        ("x-1.png", 5),
        ("x-2.png", 6),
        ("x-3.png", 7),
    ]
    assert payload["cost"]["credits"] == 9
    assert files() == ["x-1.png", "x-2.png", "x-3.png"]


def test_json_is_one_object_and_nothing_else(run: Run) -> None:
    result = run(*CORE, "--json", "-o", "x.png")
    payload = json.loads(result.stdout)
    assert result.stderr == ""
    assert set(payload) == {"model", "files", "cost", "warnings", "errors", "request_id", "seconds"}
    (file,) = payload["files"]
    assert file["bytes"] == Path("x.png").stat().st_size
    assert file["media_type"] == "image/png"
    assert file["finish_reason"] == "SUCCESS"


@pytest.mark.parametrize(
    ("name", "sent", "format"),
    [
        ("x.webp", "webp", "WEBP"),
        ("x.jpg", "jpeg", "JPEG"),
        ("x.JPEG", "jpeg", "JPEG"),
        ("x.png", None, "PNG"),
        ("x", None, "PNG"),
    ],
)
def test_the_ending_asks_for_the_format(
    run: Run, impasto_emulator: Emulator, name: str, sent: str | None, format: str
) -> None:
    assert run(*CORE, "-o", name).exit_code == 0
    assert impasto_emulator.requests[0].fields.get("output_format") == sent
    with Image.open(name) as image:
        assert image.format == format


def test_a_format_against_the_ending_is_refused(run: Run, impasto_emulator: Emulator) -> None:
    result = run(*CORE, "-o", "x.png", "-p", "output_format=webp")
    assert result.exit_code == 2
    assert "output_format: is webp, but the name 'x.png' selects png" in result.stderr
    assert not impasto_emulator.requests


@pytest.mark.parametrize("name", ["x.gif", "x.TIFF", "x.bmp"])
def test_an_ending_that_no_model_makes_is_refused(run: Run, impasto_emulator: Emulator, name: str) -> None:
    result = run(*CORE, "-o", name)
    assert result.exit_code == 2
    assert (
        f"-o: {name!r} names a format that the model can't produce; end it in .png, .jpg, .jpeg or .webp"
        in result.stderr
    )
    assert not impasto_emulator.requests


def test_a_file_is_overwritten_only_when_asked(run: Run, impasto_emulator: Emulator) -> None:
    Path("x.png").write_text("precious")
    result = run(*CORE, "-o", "x.png")
    assert result.exit_code == 2
    assert "-o: 'x.png' already exists" in result.stderr
    assert Path("x.png").read_text() == "precious"
    assert not impasto_emulator.requests
    assert run(*CORE, "-o", "x.png", "-f").exit_code == 0
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("out", "why"), [("no/x.png", "the folder 'no'"), (".", "is a folder")])
def test_nothing_is_sent_if_it_can_not_be_saved(run: Run, impasto_emulator: Emulator, out: str, why: str) -> None:
    result = run(*CORE, "-o", out)
    assert result.exit_code == 2
    assert why in result.stderr
    assert not impasto_emulator.requests


def test_all_problems_are_told_at_once(run: Run, impasto_emulator: Emulator) -> None:
    result = run(
        "generate", "stability/sd3", "x", "-n", "11", "-p", "seed=1e3", "-p", "cfg_scale=0.5",
        "-p", "sed=1", "-p", "prompt=y", "-p", "strange", "--json",
    )  # fmt: skip
    assert result.exit_code == 2
    payload = json.loads(result.stdout)["error"]
    assert payload["billed"] == "no"
    assert {each["field"] for each in payload["problems"]} == {"n", "seed", "cfg_scale", "sed", "prompt", "'strange'"}
    for problem in payload["problems"]:
        assert str(Problem(**problem)) in result.stderr
    assert "Nothing was sent." in result.stderr
    assert not impasto_emulator.requests


def test_an_unknown_model_is_told_with_the_closest(run: Run) -> None:
    result = run("generate", "stability/sd3.5-larg", "x")
    assert result.exit_code == 2
    assert "stability/sd3.5-large" in result.stderr


def test_a_missing_key_names_its_variable(run: Run, impasto_emulator: Emulator) -> None:
    result = run(*CORE, STABILITY_API_KEY=None)
    assert result.exit_code == 2
    assert "STABILITY_API_KEY" in result.stderr
    assert not impasto_emulator.requests
    assert run(*CORE, "-n", "3", STABILITY_API_KEY=None).stderr == result.stderr, "it is told once"


def test_the_emulator_option_needs_no_key(run: Run, impasto_emulator: Emulator) -> None:
    result = run(*CORE, "--emulator", STABILITY_API_KEY=None, STABILITY_API_BASE=None)
    assert result.exit_code == 0
    assert Path(result.stdout.strip()).is_file()
    assert not impasto_emulator.requests, "it has one of its own"
    assert run(*CORE, "--emulator", "--api-base", "https://api.example.com").exit_code == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [("--timeout", "0"), ("--timeout", "nan"), ("--api-base", "ftp://x"), ("--api-base", "http://example.com")],
)
def test_wrong_settings_end_with_2(run: Run, option: str, value: str) -> None:
    result = run(*CORE, option, value)
    assert result.exit_code == 2
    assert option.removeprefix("--").replace("-", "_") in result.stderr


def test_a_refusal_of_the_provider_ends_with_1(run: Run) -> None:
    result = run("generate", "stability/stable-image-core", "[content_moderation]")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "content_moderation (HTTP 403)" in result.stderr
    assert files() == []


def test_a_blurred_picture_is_kept_and_told(run: Run) -> None:
    result = run("generate", "stability/stable-image-core", "[content_filtered]", "-o", "x.png")
    assert result.exit_code == 1
    assert files() == ["x-filtered.png"]
    assert "saved in x-filtered.png" in result.stderr


def test_images_are_saved_if_others_fail(run: Run, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=403, name="content_moderation", times=1)
    result = run(*CORE, "-n", "3", "-o", "x.png", "--json")
    payload = json.loads(result.stdout)
    assert result.exit_code == 1
    (failure,) = payload["errors"]
    assert failure["type"] == "ContentFiltered"
    assert (
        files()
        == sorted(each["path"] for each in payload["files"])
        == sorted({"x-1.png", "x-2.png", "x-3.png"} - {f"x-{failure['index'] + 1}.png"})
    )
    assert f"Error: {failure['index'] + 1} of 3: " in result.stderr


def test_one_failure_of_all_images_is_reported_once(run: Run, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=402, name="payment_required")
    result = run(*CORE, "-n", "3")
    assert result.exit_code == 1
    assert result.stderr.count("payment_required") <= 2


def test_an_unknown_charge_is_told_and_what_came_is_kept(run: Run, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("cut", times=1)
    result = run(*CORE, "-o", "x.png")
    assert result.exit_code == 1
    assert len(impasto_emulator.charges) == 1
    assert files() == ["x-unusable.png"]
    assert "saved in x-unusable.png" in result.stderr


def test_a_job_that_takes_too_long_can_be_resumed(run: Run, impasto_emulator: Emulator, picture: str) -> None:
    impasto_emulator.fault("pending", target="/v2beta/results/")
    result = run("edit", "stability/upscale-creative", picture, "--prompt", "a beach", "--timeout", "0.5", "--json")
    assert result.exit_code == 1
    payload = json.loads(result.stdout)["error"]
    assert payload["type"] == "ChargeUnknown"
    assert f"impasto resume stability/upscale-creative {payload['id']}" in result.stderr
    impasto_emulator.clear_faults()
    resumed = run("resume", "stability/upscale-creative", payload["id"], "-o", "big.png", "--json")
    assert resumed.exit_code == 0
    assert json.loads(resumed.stdout)["cost"]["usd"] == impasto_emulator.charges[0].usd
    assert json.loads(resumed.stdout)["files"][0]["path"] == "big.png"
    assert len(impasto_emulator.charges) == 1


def test_resume_refuses_what_is_no_id(run: Run, impasto_emulator: Emulator) -> None:
    result = run("resume", "stability/upscale-creative", "abc")
    assert result.exit_code == 2
    assert "64 letters and digits" in result.stderr
    assert not impasto_emulator.requests


def test_edit_puts_prompt_pictures_and_mask_into_the_fields_with_their_roles(
    run: Run, impasto_emulator: Emulator, picture: str
) -> None:
    Path("mask.png").write_bytes(drawn("PNG", "L", (128, 96)))
    Path("style.jpg").write_bytes(drawn("JPEG", "RGB", (80, 80)))
    assert run("edit", "stability/inpaint", picture, "--mask", "mask.png", "--prompt", "a balloon").exit_code == 0
    assert run("edit", "stability/style-transfer", picture, "style.jpg", "-p", "style_strength=0.5").exit_code == 0
    inpaint, transfer = impasto_emulator.requests
    assert inpaint.fields == {"prompt": "a balloon"}
    assert {name: part.width for name, part in inpaint.files.items()} == {"image": 128, "mask": 128}
    assert transfer.fields == {"style_strength": "0.5"}
    assert {name: part.media_type for name, part in transfer.files.items()} == {
        "init_image": "image/png",
        "style_image": "image/jpeg",
    }


def test_edit_refuses_what_the_model_does_not_take(run: Run, impasto_emulator: Emulator, picture: str) -> None:
    result = run("edit", "stability/upscale-fast", picture, picture, "--prompt", "x", "--mask", picture)
    assert result.exit_code == 2
    for message in (
        "prompt: this model has no prompt field; leave it out",
        "image: this model takes at most 1 (image), not 2",
        "mask: this model has no mask field; leave it out",
    ):
        assert message in result.stderr
    assert not impasto_emulator.requests


def test_piped_it_prints_names_and_draws_nothing(start: Callable[..., Process]) -> None:
    process = start(*CORE, "-n", "2", "-o", "x.png", COLORTERM="truecolor")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "x-1.png\nx-2.png\n", "")


def test_another_transport_carries_the_call(run: Run, impasto_emulator: Emulator) -> None:
    output = json.loads(
        run("generate", "stability/stable-image-core", "a fox", "--transport", "emulator", "--json").stdout
    )
    assert output["cost"]["usd"] == 0.03
    assert impasto_emulator.charges == [], "the one in the process was called"
    for words, why in (
        (("--transport", "emulator", "--emulator"), "give --transport or --emulator, not both"),
        (("--transport", "htps"), "unknown transport 'htps'; closest: https"),
        (("--middleware", "retri"), "unknown middleware 'retri'; closest: retry"),
    ):
        result = run("generate", "stability/stable-image-core", "a fox", *words)
        assert result.exit_code == 2
        assert why in result.stderr


ACME = """
import attrs
from impasto import Provider
from impasto_plugins.stability import fields
from impasto_plugins.stability.stable_image_core import operation

acme = Provider(name="acme", base_url="https://api.acme.example", key_variable="ACME_KEY")
addressed = attrs.evolve(operation, id="acme/paint", provider=acme)

@attrs.frozen(kw_only=True)
class Params:
    prompt: str = fields.prompt()

always_png = attrs.evolve(operation, id="acme/always-png", params=Params, provider=acme)

@attrs.frozen
class Interrupts:
    sound: object = operation.dialect

    def __getattr__(self, name):
        return getattr(self.sound, name)

    def normalize_response(self, operation, request, response):
        raise KeyboardInterrupt

paint = attrs.evolve(operation, id="acme/interrupts", dialect=Interrupts())
"""


@pytest.fixture
def acme(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's models, installed."""
    site = tmp_path_factory.mktemp("site")
    models = {
        "acme/paint": "acme_models:addressed",
        "acme/interrupts": "acme_models:paint",
        "acme/always-png": "acme_models:always_png",
    }
    install(site, "Acme_Paint", {OPERATIONS: models}, {"acme_models": ACME})
    monkeypatch.syspath_prepend(site)


@pytest.mark.usefixtures("acme")
def test_another_address_is_that_of_the_models_own_provider(run: Run, impasto_emulator: Emulator) -> None:
    result = run("generate", "acme/paint", "a barn", "--api-base", impasto_emulator.url, ACME_KEY="any")
    [sent] = impasto_emulator.requests
    assert sent.fields["prompt"] == "a barn"
    assert result.exit_code == 0


def test_another_address_is_refused_by_a_provider_that_takes_none(run: Run, impasto_emulator: Emulator) -> None:
    result = run("generate", "bedrock/stability.sd3-5-large-v1:0", "a barn", "--api-base", impasto_emulator.url)
    assert result.exit_code == 2
    assert "unknown setting 'api_base' of bedrock" in result.stderr
    assert not impasto_emulator.requests


@pytest.mark.usefixtures("acme")
def test_a_paid_answer_is_kept_if_a_plugin_raises_an_interrupt(run: Run, impasto_emulator: Emulator) -> None:
    result = run("generate", "acme/interrupts", "prompt=x")
    assert result.exit_code == 1
    assert "the plugin acme_models.Interrupts raised KeyboardInterrupt" in result.stderr
    assert len(impasto_emulator.requests) == 1
    [path] = files()
    assert f"the output was saved in {path}" in result.stderr


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("out", "warning"),
    [
        (
            "x.jpg",
            "Warning: x.jpg contains image/png data, which its name does not show; rename it to end in .png\n",
        ),
        ("x.png", ""),
        ("x.PNG", ""),
        ("x", ""),
        ("x.data", ""),
    ],
)
def test_a_name_that_shows_another_format_than_the_bytes_is_reported(
    run: Run, impasto_emulator: Emulator, out: str, warning: str
) -> None:
    for options in ((), ("--json", "-f")):
        url = impasto_emulator.url
        result = run("generate", "acme/always-png", "a barn", "-o", out, "--api-base", url, *options, ACME_KEY="any")
        assert (result.exit_code, result.stderr) == (0, warning)
        assert files() == [out]
        assert Path(out).read_bytes().startswith(b"\x89PNG"), "the bytes are never dropped"


def test_a_resumed_image_under_another_formats_name_is_reported(
    run: Run, impasto_emulator: Emulator, picture: str
) -> None:
    impasto_emulator.fault("pending", target="/v2beta/results/")
    result = run("edit", "stability/upscale-creative", picture, "--prompt", "a beach", "--timeout", "0.5", "--json")
    job = json.loads(result.stdout)["error"]["id"]
    impasto_emulator.clear_faults()
    resumed = run("resume", "stability/upscale-creative", job, "-o", "x.gif")
    assert (resumed.exit_code, resumed.stdout) == (0, "x.gif\n")
    assert "Warning: x.gif contains image/png data" in resumed.stderr
