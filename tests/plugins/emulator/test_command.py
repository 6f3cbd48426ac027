"""``impasto emulator``: every option reaches the server, and other machines are let in only where that is asked for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from impasto_plugins.cli.main import main
from impasto_plugins.emulator import EmulatorSettings

OPTIONS = {
    "--host": "0.0.0.0",
    "--port": 8009,
    "--seed": 5,
    "--credits": 100.0,
    "--scale": 0.25,
    "--answer-seconds": 0.1,
    "--job-seconds": 0.2,
    "--result-seconds": 60.0,
    "--rate-seconds": 1.0,
    "--lock-seconds": 2.0,
}


def test_every_option_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    count: list[object] = []

    async def serve(settings: object) -> None:
        count.append(settings)

    monkeypatch.setattr("impasto_plugins.emulator.command._run", serve)
    words = [str(word) for pair in OPTIONS.items() for word in pair]
    words += ["--strict", "--allow-remote", "--key", "one", "--key", "two"]
    result = CliRunner().invoke(main, ["emulator", *words])
    assert (result.exit_code, result.output) == (0, "")
    arguments = {name.removeprefix("--").replace("-", "_"): value for name, value in OPTIONS.items()}
    arguments["image_scale"] = arguments.pop("scale")
    assert count == [EmulatorSettings.from_mapping({**arguments, "strict": True, "keys": ("one", "two")})]


def test_other_machines_can_connect_only_with_the_option() -> None:
    result = CliRunner().invoke(main, ["emulator", "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "--host 0.0.0.0 can be reached by other machines: add --allow-remote to allow that" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scale", "abc"], "'--scale': must be a number from 0.01 to 1, not 'abc'"),
        (["--scale", "5"], "'--scale': must be a number from 0.01 to 1, not '5'"),
        (["--scale", "nan"], "'--scale': must be a number from 0.01 to 1, not 'nan'"),
        (["--credits", "-5"], "'--credits': must be a number of 0 or more, not '-5'"),
        (["--credits", "nan"], "'--credits': must be a number of 0 or more, not 'nan'"),
        (["--seed", "1.5"], "'--seed': must be a whole number, not '1.5'"),
        (["--port", "65536"], "'--port': must be a whole number from 0 to 65,535, not '65536'"),
    ],
)
def test_a_wrong_number_is_refused_in_plain_words(words: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["emulator", *words])
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: Invalid value for {message}\n")
