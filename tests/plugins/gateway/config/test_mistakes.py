"""What is wrong with a configuration: all of it in one pass, each mistake at its own line."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from impasto import ConfigError
from impasto_plugins.gateway.config.loader import MAX_BYTES, load, parse
from impasto_plugins.gateway.config.model import EXAMPLE_KEYS, check_bind
from impasto_plugins.gateway.serve import check
from tests.plugins.gateway.conftest import Running, Start, config

STRONG = "sk-" + "s" * 40

WRONG = """\
model_list:
  - model_name: sd3
    litellm_params:
      model: stability/sd3.5-lrge
      api_key: os.environ/NOT_SET_ANYWHERE
  - model_name: core
    litellm_params:
      model: stability/stable-image-kore
      api_key: sk-x
  - model_name: ultra
    litellm_params:
      model: stability/stable-image-ultra
      api_key: sk-x
      api_base: ftp://127.0.0.1
      sed: 7
      timeout: soon
general_settings:
  master_key: {master}
  max_conections: 5
  default_model: ultra
keys:
  - {{name: a, sha256: {digest}, models: [sd3, nope]}}
  - {{name: b, sha256: xyz, rpm: 0}}
"""


def lines_of(error: ConfigError) -> dict[int, str]:
    """The mistakes by their lines."""
    found: dict[int, str] = {}
    for line in error.message.splitlines():
        place, _, message = line.removeprefix("config.yaml: line ").partition(": ")
        found[int(place)] = found.get(int(place), "") + message
    return found


def test_every_mistake_is_reported_at_once_at_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(WRONG.format(master=STRONG, digest="a" * 64))
    with pytest.raises(ConfigError) as caught:
        check(str(path), host="127.0.0.1", no_auth=False)
    found = lines_of(caught.value)
    assert set(found) == {4, 5, 8, 14, 15, 16, 19, 22, 23}, caught.value.message
    assert "sd3.5-large" in found[4]
    assert "NOT_SET_ANYWHERE" in found[5]
    assert "stable-image-core" in found[8]
    assert "max_connections" in found[19]
    assert "nope" in found[22]
    assert "'sd3'" not in found[22]


def test_a_mistake_that_only_a_plugin_knows_is_reported_beside_a_missing_variable(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "model_list:\n"
        "  - model_name: sd3\n    litellm_params:\n      model: stability/sd3\n"
        "      api_key: os.environ/NOT_SET_ANYWHERE\n"
        "  - model_name: core\n    litellm_params:\n      model: stability/stable-image-core\n      api_key: sk-x\n"
        "      strenght: 0.7\n"
        "  - model_name: ultra\n    litellm_params:\n      model: stability/stable-image-ultra\n      api_key: sk-x\n"
        "      api_base: ftp://127.0.0.1\n"
        f"general_settings:\n  master_key: {STRONG}\n"
    )
    with pytest.raises(ConfigError) as caught:
        check(str(path), host="127.0.0.1", no_auth=False)
    assert set(lines_of(caught.value)) == {5, 10, 15}, caught.value.message


def test_thousands_of_mistakes_are_counted() -> None:
    text = "".join(f"wrong_{number}: 1\n" for number in range(3_000))
    with pytest.raises(ConfigError, match="more mistakes") as caught:
        parse(text.encode())
    assert len(caught.value.message.splitlines()) < 200


def test_a_named_key_that_is_the_master_key_is_refused() -> None:
    """It would limit the master key, or free the named one, depending on which is looked up."""
    digest = hashlib.sha256(STRONG.encode()).hexdigest()
    text = (
        config("http://127.0.0.1:1").replace("sk-1234", STRONG) + f"keys:\n  - {{name: a, sha256: {digest}, rpm: 1}}\n"
    )
    with pytest.raises(ConfigError, match="sha256: is the hash of general_settings.master_key"):
        parse(text.encode())


@pytest.mark.parametrize("same", ["name", "sha256"])
def test_two_keys_of_one_name_or_hash_are_refused(same: str) -> None:
    first, second = {"name": "a", "sha256": "a" * 64}, {"name": "b", "sha256": "b" * 64}
    second[same] = first[same]
    text = config("http://127.0.0.1:1") + f"keys:\n  - {first}\n  - {second}\n".replace("'", "")
    with pytest.raises(ConfigError, match="the name or the hash of another key"):
        parse(text.encode())


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "endless device", "missing", "binary", "large", "NUL"])
def test_a_file_that_is_no_configuration_is_named_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path = Path(os.devnull)
        case "endless device":
            path = Path("/dev/zero")
        case "binary":
            path.write_bytes(bytes(range(256)))
        case "large":
            path.write_bytes(b"# comment\n" * (MAX_BYTES // 10 + 1))
        case "NUL":
            path.write_bytes(b"model_list:\0\n")
        case _:
            pass
    with pytest.raises(ConfigError):
        load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.touch(0o000)
    with pytest.raises(ConfigError, match="Permission denied"):
        load(path)


@pytest.mark.parametrize("key", [*EXAMPLE_KEYS, "short"])
def test_a_weak_master_key_is_refused_behind_a_proxy(key: str) -> None:
    """With allowed_hosts the gateway is called from elsewhere, wherever it listens."""
    text = config("http://127.0.0.1:1", general="  allowed_hosts: [images.example]\n").replace("sk-1234", key)
    with pytest.raises(ConfigError, match=r"master_key: too weak.* 24 characters"):
        check_bind(parse(text.encode()), "127.0.0.1", no_auth=False)
    alone = config("http://127.0.0.1:1").replace("sk-1234", key)
    assert check_bind(parse(alone.encode()), "127.0.0.1", no_auth=False)  # a warning


async def test_metrics_need_a_key_behind_a_proxy_and_health_does_not(start: Start) -> None:
    general = "  allowed_hosts: [images.example]\n"
    gateway: Running = await start(config("http://127.0.0.1:1", general=general).replace("sk-1234", STRONG))
    gateway.session.headers.pop("authorization")
    for host in ("images.example", "localhost"):
        answer = await gateway.ask("GET", "/metrics", headers={"host": host})
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        for path in ("/health/liveliness", "/health/readiness"):
            answer = await gateway.ask("GET", path, headers={"host": host})
            assert (answer.status, set(answer.json)) == (200, {"status"})
    answer = await gateway.ask("GET", "/metrics", headers={"authorization": f"Bearer {STRONG}"})
    assert answer.status == 200
