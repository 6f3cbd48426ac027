"""audio, model3d and account, against the emulator over a real socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from tests.images import drawn, png
from tests.media import wav
from tests.plugins.cli.conftest import Run

RAIN = ("audio", "stability/stable-audio-2.5/text-to-audio", "rain", "on", "tin", "-p", "duration=1")


def test_audio_saves_the_sound_in_the_format_of_its_ending(run: Run, impasto_emulator: Emulator) -> None:
    result = run(*RAIN, "-o", "rain.wav")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "rain.wav\n", "")
    assert Path("rain.wav").read_bytes()[8:12] == b"WAVE"
    assert run(*RAIN, "-p", "seed=7").stdout == "text-to-audio-7.mp3\n"
    first, second = impasto_emulator.requests
    assert first.fields == {
        "prompt": "rain on tin",
        "duration": "1",
        "output_format": "wav",
        "model": "stable-audio-2.5",
    }
    assert "output_format" not in second.fields
    assert [charge.credits for charge in impasto_emulator.charges] == [20, 20]


def test_audio_begins_with_another_sound_and_waits_for_a_job(run: Run, impasto_emulator: Emulator) -> None:
    Path("tune.wav").write_bytes(wav(8))
    result = run("audio", "stability/stable-audio-3/audio-to-audio", "a choir", "--audio", "tune.wav", "--json")
    (file,) = json.loads(result.stdout)["files"]
    assert file["media_type"] == "audio/mpeg"
    assert Path(file["path"]).stat().st_size == file["bytes"]
    assert impasto_emulator.requests[0].files["audio"].media_type == "audio/wav"


def test_model3d_saves_the_model(run: Run, impasto_emulator: Emulator) -> None:
    Path("chair.png").write_bytes(drawn("PNG"))
    result = run("model3d", "stability/stable-fast-3d", "chair.png", "-p", "vertex_count=200")
    assert (result.exit_code, result.stdout) == (0, "stable-fast-3d.glb\n")
    assert Path("stable-fast-3d.glb").read_bytes().startswith(b"glTF")
    assert run("model3d", "stability/stable-point-aware-3d", "chair.png", "-o", "c.glb").stdout == "c.glb\n"
    assert [charge.credits for charge in impasto_emulator.charges] == [10, 4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (*RAIN, "-o", "rain.png"),
            "names a format that the model can't produce; end it in .mp3 or .wav",
        ),
        ((*RAIN, "-o", "rain.flac"), "end it in .mp3 or .wav"),
        (
            (*RAIN, "-o", "rain.wav", "-p", "output_format=mp3"),
            "output_format: is mp3, but the name 'rain.wav' selects wav",
        ),
        ((*RAIN, "--audio", "a.wav"), "audio: this model has no audio field; leave it out"),
        (("audio", "stability/stable-audio-3/inpaint", "x"), "audio: required"),
        (("audio", "stability/stable-audio-3/inpaint", "x", "--audio", "a.wav"), "must be 6 to 380"),
        (("model3d", "stability/stable-fast-3d", "a.png", "-o", "a.png"), "end it in .glb"),
        (("edit", "stability/upscale-fast", "a.png", "-o", "a.mp3"), "end it in .png, .jpg, .jpeg or .webp"),
    ],
)
def test_invalid_words_are_refused(run: Run, impasto_emulator: Emulator, words: tuple[str, ...], message: str) -> None:
    Path("a.wav").write_bytes(wav(1))
    Path("a.png").write_bytes(png(96, 96))
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not impasto_emulator.requests


IMAGE, EDIT, SOUND, SOLID = "stability/sd3.5-large", "stability/upscale-fast", RAIN[1], "stability/stable-fast-3d"
ON_BEDROCK = "bedrock/stability.sd3-5-large-v1:0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("audio", IMAGE, "a fox"), "model: generates images; use `impasto generate`"),
        (("audio", ON_BEDROCK, "a fox"), "model: generates images; use `impasto generate`"),
        (("audio", EDIT, "a fox", "--audio", "a.wav"), "model: generates images; use `impasto edit`"),
        (("audio", SOLID, "a fox"), "model: generates 3D models; use `impasto model3d`"),
        (("generate", SOUND, "rain"), "model: generates sounds; use `impasto audio`"),
        (("generate", "stability/stable-audio-3/inpaint", "rain", "-p", "audio=a.wav"), "use `impasto audio`"),
        (("generate", SOLID, "a fox", "-p", "image=a.png"), "model: generates 3D models; use `impasto model3d`"),
        (("generate", EDIT, "a fox"), "model: needs an image; use `impasto edit`"),
        (("edit", SOUND, "a.png", "--prompt", "rain"), "model: generates sounds; use `impasto audio`"),
        (("edit", SOLID, "a.png"), "model: generates 3D models; use `impasto model3d`"),
        (("edit", "stability/stable-image-core", "a.png", "--prompt", "x"), "takes no image; use `impasto generate`"),
        (("model3d", IMAGE, "a.png"), "model: generates images; use `impasto generate`"),
        (("model3d", EDIT, "a.png"), "model: generates images; use `impasto edit`"),
        (("model3d", SOUND, "a.png"), "model: generates sounds; use `impasto audio`"),
    ],
)
def test_a_model_of_another_command_is_refused_with_that_commands_name(
    run: Run, impasto_emulator: Emulator, words: tuple[str, ...], message: str
) -> None:
    Path("a.wav").write_bytes(wav(8))
    Path("a.png").write_bytes(png(96, 96))
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Nothing was sent." in result.stderr
    assert sorted(each.name for each in Path().iterdir()) == ["a.png", "a.wav"]
    assert not impasto_emulator.requests


def test_an_image_that_is_given_by_name_is_an_image(run: Run, impasto_emulator: Emulator) -> None:
    Path("a.png").write_bytes(png(96, 96))
    result = run("generate", "stability/control-sketch", "a fox", "-p", "image=a.png", "-o", "fox.png")
    assert (result.exit_code, result.stdout) == (0, "fox.png\n")
    assert (
        run(
            "edit",
            IMAGE,
            "a.png",
            "--prompt",
            "a fox",
            "-p",
            "strength=0.5",
            "-p",
            "mode=image-to-image",
            "-o",
            "b.png",
        ).exit_code
        == 0
    )


def test_account_tells_what_is_left_and_whose_it_is(run: Run, impasto_emulator: Emulator) -> None:
    run(*RAIN)
    output = run("account").stdout
    assert output.splitlines() == [
        "999,980.00 credits, 9,999.80 USD",
        "nobody@example.com",
        "  Emulator (emulator): owner, the default",
    ]
    payload = json.loads(run("account", "--json", "--organization", "org-1").stdout)
    assert (payload["credits"], payload["usd"], payload["email"]) == (999_980, 9_999.8, "nobody@example.com")
    requests = [each for each in impasto_emulator.requests if each.target == "/v1/user/balance"]
    assert [each.headers.get("organization") for each in requests] == [None, "org-1"]
    assert len(impasto_emulator.charges) == 1


def test_account_needs_a_key_that_is_accepted(run: Run, impasto_emulator: Emulator) -> None:
    assert run("account", STABILITY_API_KEY=None).exit_code == 2
    impasto_emulator.fault("status", status=401, name="unauthorized")
    result = run("account", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["billed"] == "no"


def test_models_lists_them_under_their_commands(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    two = rows["stability/stable-audio-2/text-to-audio"]
    assert (two["group"], two["usd"]) == ("audio", None)
    assert two["price"].startswith("17 + 0.06 x steps credits")
    assert rows["stability/stable-fast-3d"]["group"] == "model3d"
    output = run("models").stdout
    assert "stability, impasto audio\n" in output
    assert "     varies  Stable Audio 2: text to audio" in output
