"""A configuration file: the page's runs as it is, and every mistake is told with its line."""

import hashlib
from pathlib import Path

import pytest

from impasto import ConfigError
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.config.loader import load, parse
from impasto_plugins.gateway.config.model import Config, check_bind
from impasto_plugins.gateway.gateway import Gateway
from tests.plugins.gateway.conftest import Start, config

PAGE = """\
model_list:
  - model_name: sd3
    litellm_params:
      model: stability/sd3.5-large
      api_key: os.environ/STABILITY_API_KEY
    model_info:
      mode: image_generation
litellm_settings:
  drop_params: false
general_settings:
  master_key: sk-1234
"""
STRONG = "sk-" + "s" * 40


def test_the_pages_configuration() -> None:
    config = parse(PAGE.encode(), environment={"STABILITY_API_KEY": "key-of-the-environment"})
    (model,) = config.models
    assert (model.model_name, model.model, model.mode) == ("sd3", "stability/sd3.5-large", "image_generation")
    assert model.provider_settings == {"api_key": "key-of-the-environment"}
    assert config.general.master_key == "sk-1234"
    assert "key-of-the-environment" not in repr(config)
    assert "sk-1234" not in repr(config)


def test_provider_params_is_another_name() -> None:
    text = PAGE.replace("litellm_params", "provider_params").replace("os.environ/STABILITY_API_KEY", "k")
    assert parse(text.encode()).models[0].provider_settings == {"api_key": "k"}


REACHED = {
    "aws_region_name": "us-west-2",
    "aws_access_key_id": "AKID",
    "aws_secret_access_key": "a-secret",
    "aws_session_token": "a-token",
    "aws_profile_name": "work",
}
"""How AWS is reached, with every key that there is."""


def test_each_of_awss_keys_reaches_the_deployment_and_is_not_shown() -> None:
    fields = {**REACHED, "aws_bedrock_runtime_endpoint": "https://bedrock.example"}
    params = "".join(f"      {name}: {value}\n" for name, value in fields.items())
    text = f"model_list:\n  - model_name: core\n    provider_params:\n      model: bedrock/x\n{params}"
    (model,) = (config := parse(text.encode())).models
    assert model.provider_settings == fields
    assert "a-secret" not in repr(config)
    assert "a-token" not in repr(config)


def test_each_of_awss_keys_reaches_the_bucket_and_is_not_shown() -> None:
    keys = "".join(f"    {name}: {value}\n" for name, value in REACHED.items())
    text = f"{PAGE}files:\n  s3:\n    bucket: pictures\n    endpoint_url: https://s3.example/\n{keys}"
    s3 = (config := parse(text.encode(), environment={"STABILITY_API_KEY": "k"})).files.s3
    assert s3 is not None
    assert s3.account() == {
        "region": "us-west-2",
        "endpoint": "https://s3.example",
        "access_key_id": "AKID",
        "secret_access_key": "a-secret",
        "session_token": "a-token",
        "profile": "work",
    }
    assert "a-secret" not in repr(config)


def test_all_of_keys() -> None:
    digest = hashlib.sha256(b"sk-studio").hexdigest()
    limits = "models: [sd3], rpm: 60, images_per_day: 500, usd_per_month: 40"
    text = f"{PAGE}keys:\n  - {{name: studio, sha256: {digest}, {limits}}}\n"
    (key,) = parse(text.encode(), environment={"STABILITY_API_KEY": "k"}).keys
    assert (key.name, key.sha256, key.models) == ("studio", digest, ("sd3",))
    assert (key.rpm, key.images_per_day, key.usd_per_month) == (60, 500, 40)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x\n", "line 1: anchors and aliases are not supported"),
        ("general_settings: {}\ngeneral_settings: {}\n", "line 2: 'general_settings' was given twice"),
        ("a: 1\n--- \nb: 2\n", "line 2: a second document begins"),
        ("a: !!python/object/apply:os.system [id]\n", "line 1: tags are not supported"),
        ("a: " + "[" * 5000, "line 1: is nested too deeply"),
        ("a: [1, 2\n", "line 2: expected ',' or ']'"),
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("a: \x00", "a character that YAML does not allow"),
        ("a: " + "9" * 5000, "line 1: is not a valid number"),
        ("- 1\n", "line 1: the file: must be a mapping"),
        (
            "model_list:\n- model_name: sd3\n    litellm_params: {}\n",
            "not allowed here; check its indentation",
        ),
        (
            PAGE.replace("model_name: sd3", "model_name: 3"),
            "model_name: must be text of 1 to 200 printable characters, not a whole number",
        ),
        ("", "line 1: model_list: give a list of models"),
        (PAGE.replace("mode: image_generation", "mode: 7"), "line 7: model_list[0].model_info.mode: must be one of"),
        (
            PAGE.replace("  master_key", "  mastr_key"),
            "line 11: general_settings.mastr_key: unknown setting; did you",
        ),
        (
            PAGE + "router_settings: {num_retries: 2}\n",
            "line 12: router_settings: unknown setting; give several entries",
        ),
        (
            PAGE.replace("      model:", "      rpm: 6\n      model:"),
            "line 4: model_list[0].litellm_params.rpm: unknown",
        ),
        (
            PAGE.replace("drop_params: false", "num_retries: 3"),
            "line 9: litellm_settings.num_retries: unknown setting",
        ),
        (
            PAGE.replace("drop_params: false", "drop_params: 'no'"),
            "litellm_settings.drop_params: must be true or false, not",
        ),
        (PAGE.replace("sk-1234", "1234"), "line 11: general_settings.master_key: must be text, not a whole number"),
        (PAGE.replace("sk-1234", "''"), "line 11: general_settings.master_key: must be text of 1 to"),
        (
            PAGE.replace("sk-1234", "os.environ/NO_SUCH"),
            "line 11: general_settings.master_key: the environment variable NO_SUCH",
        ),
        (PAGE.replace("sk-1234", "os.environ/EMPTY"), "EMPTY is empty; set it"),
        (PAGE.replace("  - model_name: sd3\n    ", "  - "), "line 2: model_list[0].model_name: required"),
        (PAGE + "keys:\n  - {name: a, sha256: " + "g" * 64 + "}\n", "line 13: keys[0].sha256: must be 64 hexadecimal"),
        (PAGE + "keys:\n  - {name: '', sha256: " + "a" * 64 + "}\n", "line 13: keys[0].name: must be text of 1"),
        (PAGE + "keys: ['']\n", "line 12: keys[0]: must be a mapping"),
        (PAGE + "keys:\n" + f"  - {{name: a, sha256: {'a' * 64}}}\n" * 2, "line 14: keys[1]: has the name or the hash"),
        (PAGE + "files: {seconds: 0}\n", "line 12: files.seconds: must be a number from 0.1"),
    ],
    ids=range(29),
)
def test_a_mistake_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), "config.yaml", {"STABILITY_API_KEY": "k", "EMPTY": ""})
    assert message in str(caught.value)
    assert str(caught.value).startswith("config.yaml: ")


GENERAL = PAGE.replace("os.environ/STABILITY_API_KEY", "k")
EMPTY_HASH = hashlib.sha256(b"").hexdigest()
EXAMPLE_HASH = hashlib.sha256(b"sk-1234").hexdigest()
SENSELESS = {
    **{f"public_url: {url}": "must be an http or https URL" for url in (
        *('"javascript:alert(1)"', "images.example", "/images", "https://", "ftp://a.example", "https://u:p@a.example"),
        *("https://a.example/?a=b", "'https://a.example/#x'", "'https://a.example/a b'", "'https://[::1'", "https://é"),
    )},
    **{f"allowed_hosts: [{host}]": "must be host names" for host in (
        *('"https://a.example"', '"*"', "a.example/x", '"a.example:443"', "é.example", '"a b"', "a.example."),
    )},
}  # fmt: skip


@pytest.mark.parametrize("line", SENSELESS)
def test_a_value_that_makes_no_sense_is_told_with_its_line(line: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 12: general_settings\.\w+: {SENSELESS[line]}"):
        parse(f"{GENERAL}  {line}\n".encode())


@pytest.mark.parametrize("key", ["' sk'", "'sk '", '"sk\\n1"', "é", "'a b'", "'\U0001f511'"])
def test_a_master_key_that_nobody_could_show(key: str) -> None:
    with pytest.raises(ConfigError, match="line 11: general_settings.master_key: must be printable ASCII"):
        parse(GENERAL.replace("sk-1234", key).encode())


def test_values_that_make_sense() -> None:
    hosts = "[Images.Example, 10.0.0.1, '::1', localhost, a_b.internal]"
    text = f"{GENERAL}  public_url: https://images.example:8443/art\n  allowed_hosts: {hosts}\n"
    config = parse(text.encode())
    assert config.general.public_url == "https://images.example:8443/art"
    assert config.allowed_hosts == ("images.example", "10.0.0.1", "::1", "localhost", "a_b.internal")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (f"sha256: {EMPTY_HASH}", "sha256: is the hash of an empty key"),
        (f"sha256: {'a' * 64}, models: [sd3, sdx]", "models: 'sdx' is not a model_name of model_list"),
    ],
)
def test_a_key_that_is_good_for_nothing(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 13: keys\[0\].{message}"):
        parse(f"{GENERAL}keys:\n  - {{name: a, {key}}}\n".encode())


def test_a_name_that_can_not_be_shown_is_escaped() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'{GENERAL}  "a\u202eb": 1\n'.encode())
    assert r"general_settings.a\u202eb: unknown setting" in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(PAGE.replace("stability/sd3.5-large", "5").replace("sk-1234", "6").encode(), "c", {})
    lines = [line.split(": ")[1:3] for line in str(caught.value).splitlines()]
    assert lines == [
        ["line 4", "model_list[0].litellm_params.model"],
        ["line 5", "model_list[0].litellm_params.api_key"],
        ["line 11", "general_settings.master_key"],
    ]


def test_a_large_file_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (10 << 20))
    with pytest.raises(ConfigError, match="more than 1,048,576 bytes"):
        load(large)
    with pytest.raises(ConfigError, match="can't read"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="it is a folder"):
        load(tmp_path)


def config_with(key: str | None, more: str = "") -> Config:
    general = "  timeout: 300\n" if key is None else f"  master_key: {key}\n"
    return parse(
        (PAGE.replace("os.environ/STABILITY_API_KEY", "k").replace("  master_key: sk-1234\n", general) + more).encode()
    )


def test_a_weak_key_serves_on_loopback_with_a_warning() -> None:
    assert check_bind(config_with("sk-1234"), "127.0.0.1", no_auth=False) == [
        "general_settings.master_key is weak; it works on loopback only"
    ]
    assert check_bind(config_with(STRONG), "127.0.0.1", no_auth=False) == []


@pytest.mark.parametrize(
    ("config", "host", "no_auth", "message"),
    [
        (config_with("sk-1234", "  allowed_hosts: [a.example]\n"), "0.0.0.0", False, "master_key: too weak"),
        (config_with(STRONG), "0.0.0.0", False, "allowed_hosts: required"),
        (config_with(STRONG), "::", False, "allowed_hosts: required"),
        (
            config_with(STRONG, f"  allowed_hosts: [a.example]\nkeys:\n  - {{name: a, sha256: {EXAMPLE_HASH}}}\n"),
            *("0.0.0.0", False, "keys: a: is the hash of an example key from public documentation; use another key"),
        ),
        (config_with(None), "127.0.0.1", False, "master_key: required"),
        (config_with(None), "0.0.0.0", True, "--no-auth: works on loopback only"),
        (
            config_with(None, "  allowed_hosts: [a.example]\n"),
            *("127.0.0.1", True, "allowed_hosts: lets other hosts in, and --no-auth works on loopback only"),
        ),
        (config_with(STRONG), "127.0.0.1", True, "--no-auth: needs a configuration without keys"),
    ],
)
def test_an_unsafe_setting_is_refused(config: Config, host: str, no_auth: bool, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_bind(config, host, no_auth=no_auth)
    assert message in str(caught.value)
    assert STRONG not in str(caught.value)


def test_a_strong_key_and_named_hosts_serve_the_world() -> None:
    assert check_bind(config_with(STRONG, "  allowed_hosts: [images.example]\n"), "0.0.0.0", no_auth=False) == []
    assert check_bind(config_with(None), "127.0.0.1", no_auth=True) == []


async def test_the_distributions_that_may_be_used_are_fixed_at_the_start(tmp_path: Path) -> None:
    text = PAGE.replace("os.environ/STABILITY_API_KEY", "k").replace("sk-1234", STRONG)
    text += f"  data_dir: {tmp_path}\n"
    with_none = parse((text + "  plugins: []\n").encode())
    assert with_none.plugins == ()
    assert parse(text.encode()).plugins is None
    async with Gateway(with_none) as gateway:
        await gateway.reload(with_none)
        with pytest.raises(ConfigError, match="general_settings.plugins can't be changed by a reload"):
            await gateway.reload(parse((text + "  plugins: [impasto-acme]\n").encode()))


def test_a_distribution_that_can_be_none_is_told_with_its_line() -> None:
    text = PAGE.replace("os.environ/STABILITY_API_KEY", "k") + "  plugins: [a b]\n"
    with pytest.raises(ConfigError, match="line 12: general_settings: plugins: invalid distribution name 'a b'"):
        parse(text.encode())


async def test_a_folder_may_begin_with_the_users_home(
    start: Start, impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the records would be in a folder named ~, and those who start it elsewhere would pay again."""
    monkeypatch.setenv("HOME", str(tmp_path))
    more = "files: {folder: ~/urls}\nbatches: {folder: ~/batches}\n"
    gateway = await start(config(impasto_emulator.url, general="  data_dir: ~/data\n", more=more))
    assert (await gateway.generate(response_format="url")).status == 200
    await gateway.sdk.files.create(file=("rows.jsonl", b"{}\n"), purpose="batch")
    assert (tmp_path / "data" / "gateway.sqlite3").stat().st_size
    assert [path.suffix for path in (tmp_path / "urls").iterdir()] == [".png"]
    assert any((tmp_path / "batches").iterdir())
    assert not Path("~").exists()


@pytest.mark.parametrize(
    "section", ["general_settings: {data_dir: %s}", "files: {folder: %s}", "batches: {folder: %s}"]
)
def test_a_home_of_nobody_is_refused(section: str) -> None:
    text = PAGE.partition("general_settings")[0] + section % "~no-such-user/x" + "\n"
    with pytest.raises(ConfigError, match="begins with ~ and the name of no user"):
        parse(text.replace("os.environ/STABILITY_API_KEY", "k").encode())
