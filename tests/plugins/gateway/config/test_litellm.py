"""Files that were written for LiteLLM's proxy: defaults of a deployment, and entries that are for other gateways."""

from __future__ import annotations

from pathlib import Path

import pytest

from impasto import ConfigError, RateLimit
from impasto_plugins.gateway import serve
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.config.model import check_bind

SD3 = """\
model_list:
  - model_name: sd3
    litellm_params:
      model: stability/sd3.5-large
      api_key: k
"""
END = "general_settings:\n  master_key: sk-1234\n"


def test_defaults_stand_beside_the_key() -> None:
    more = "      strength: 0.7\n      response_format: url\n      style_preset:\n      drop_params: true\n"
    (entry,) = parse((SD3 + more + END).encode()).models
    assert entry.defaults == {"strength": 0.7, "response_format": "url"}
    assert entry.drop_params is True
    assert entry.provider_settings == {"api_key": "k"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("strength: 1.7", "line 6: sd3: strength: must be a number from 0 to 1, not 1.7"),
        ("strength: '0.7'", "line 6: sd3: strength: must be a number from 0 to 1, not '0.7'"),
        ("style_preset: vivid", "line 6: sd3: style_preset: must be one of enhance"),
        ("response_format: file", "line 6: sd3: response_format: must be one of b64_json, url"),
        ("n: 11", "line 6: sd3: n: must be a whole number from 1 to 10, not 11"),
        ("steps: 20", "line 6: sd3: steps: is not a setting of a deployment, nor a parameter of this model"),
        (
            "api_bas: https://a.example",
            "line 6: sd3: api_bas: is not a setting of a deployment, nor a parameter of this model; did",
        ),
        ("strenght: 0.7", "did you mean strength?"),
        ("image: cat.png", "line 6: sd3: image: is a file, which each call gives"),
        ("extra_headers: x", "line 6: sd3: extra_headers: headers can't be added"),
    ],
)
def test_a_default_that_the_model_does_not_take_is_reported_with_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{SD3}      {line}\n{END}")
    with pytest.raises(ConfigError) as error:
        serve.check(str(path), host="127.0.0.1", no_auth=False)
    assert message in str(error.value)


def test_every_wrong_default_of_every_model_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    params = "{model: stability/stable-image-core, api_key: k, cfg_scale: 5, seed: x}"
    core = f"  - model_name: core\n    litellm_params: {params}\n"
    path.write_text(f"{SD3}      strength: 7\n{core}{END}")
    with pytest.raises(ConfigError) as error:
        serve.check(str(path), host="127.0.0.1", no_auth=False)
    reported = [line.split(": ")[1:4] for line in str(error.value).splitlines()]
    assert ["line 6", "sd3", "strength"] in reported
    assert {("core", "cfg_scale"), ("core", "seed")} <= {(model, field) for _, model, field in reported}


OFF = ("set_verbose: false", "cache: false", "cache:", "callbacks: []", "cache_params: {}", "num_retries: null")


@pytest.mark.parametrize("line", OFF)
def test_a_setting_that_is_switched_off_is_accepted_with_advice(line: str) -> None:
    config = parse(f"{SD3}{END}litellm_settings:\n  drop_params: true\n  {line}\n".encode())
    assert config.drop_params is True
    (warning,) = config.warnings
    assert warning.startswith(f"line 10: litellm_settings.{line.partition(':')[0]} has no effect; leave it out")


@pytest.mark.parametrize(
    "line", ["set_verbose: true", "cache: true", "cache: 'false'", "num_retries: 0", "callbacks: [a]"]
)
def test_a_setting_that_is_switched_on_is_refused_by_name(line: str) -> None:
    with pytest.raises(ConfigError, match=f"line 9: litellm_settings.{line.partition(':')[0]}: unknown setting; leave"):
        parse(f"{SD3}{END}litellm_settings:\n  {line}\n".encode())


def test_settings_of_a_deployment_and_of_the_whole_file_may_be_switched_off_too() -> None:
    config = parse(f"{SD3}      rpm:\n      max_retries: null\n{END}router_settings: {{}}\n".encode())
    assert [each.split(" has no")[0] for each in config.warnings] == [
        "line 10: router_settings",
        "line 6: model_list[0].litellm_params.rpm",
        "line 7: model_list[0].litellm_params.max_retries",
    ]
    with pytest.raises(ConfigError, match="drop_parms"):
        parse(f"{SD3}{END}litellm_settings:\n  drop_parms: false\n".encode())


SKIPPED = {
    "model: openai/gpt-4o, api_version: x, rpm: 6": "openai",
    "model: gpt-4o, max_retries: 2": "openai",
    "model: azure/my-deployment, api_base: os.environ/NOT_SET": "azure",
    "model: vertex_ai/imagen-4, vertex_project: [a]": "vertex_ai",
    "model: custom, custom_llm_provider: openai": "openai",
    "model: 'openai/*'": "openai",
}


@pytest.mark.parametrize("params", SKIPPED)
def test_an_entry_of_a_provider_that_no_plugin_serves_is_skipped_with_a_warning(params: str) -> None:
    other = f"  - model_name: other\n    litellm_params: {{{params}}}\n"
    config = parse((SD3 + other + END).encode(), environment={})
    assert [model.model_name for model in config.models] == ["sd3"]
    (warning,) = config.warnings
    assert warning.startswith("line 6: model_list[1] is skipped: ")
    assert SKIPPED[params] in warning
    assert warning in check_bind(config, "127.0.0.1", no_auth=False)


@pytest.mark.parametrize("mode", ["chat", "embedding", "audio_transcription", "image_genration"])
def test_an_entry_of_another_mode_is_skipped_with_a_warning(mode: str) -> None:
    other = (
        f"  - model_name: other\n    model_info: {{mode: {mode}, max_tokens: 5}}\n    litellm_params: {{model: a/b}}\n"
    )
    config = parse((SD3 + other + END).encode())
    assert [model.model_name for model in config.models] == ["sd3"]
    assert mode in config.warnings[0]
    assert ("did you mean image_generation?" in config.warnings[0]) is (mode == "image_genration")


def test_a_key_may_name_a_model_that_is_skipped() -> None:
    other = "  - model_name: chat\n    litellm_params: {model: openai/gpt-4o}\n"
    keys = f"keys:\n  - {{name: a, sha256: {'a' * 64}, models: [sd3, chat]}}\n"
    assert parse((SD3 + other + END + keys).encode()).keys[0].models == ("sd3", "chat")


def test_a_file_that_leaves_no_model_is_an_error() -> None:
    other = "model_list:\n  - model_name: chat\n    litellm_params: {model: openai/gpt-4o}\n"
    with pytest.raises(ConfigError, match="line 1: model_list: no entry can be served: .*openai"):
        parse((other + END).encode())


@pytest.mark.parametrize("model", ["nobody/gpt-4o", "stability/sd9", "bedrock/anthropic.claude-3", "opnai/gpt-4o"])
def test_an_unknown_provider_or_model_is_an_error(tmp_path: Path, model: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{SD3}  - model_name: other\n    litellm_params: {{model: {model}}}\n{END}")
    with pytest.raises(ConfigError, match="line 7: other: unknown model"):
        serve.check(str(path), host="127.0.0.1", no_auth=False)


def test_the_check_names_what_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{SD3}  - model_name: other\n    litellm_params: {{model: openai/gpt-4o}}\n{END}")
    message = serve.check(str(path), host="127.0.0.1", no_auth=False)
    assert "config.yaml is valid: 1 model" in message
    assert "Warning: line 6: model_list[1] is skipped" in message


def test_a_rate_an_order_and_a_price_of_a_deployment() -> None:
    more = "      rate_limit: 150/10s\n      order: 2\n      input_cost_per_image: 0.04\n"
    (entry,) = parse((SD3 + more + END).encode()).models
    assert (entry.rate_limit, entry.order, entry.input_cost_per_image) == (RateLimit(150, 10.0), 2, 0.04)
    (entry,) = parse((SD3 + "    model_info: {input_cost_per_image: 0.05}\n" + END).encode()).models
    assert entry.input_cost_per_image == 0.05


@pytest.mark.parametrize("rate", ["150", "0/10s", "150/0s", "150/10x", "fast", "-1/10s"])
def test_a_rate_that_is_none_is_reported_with_its_line(rate: str) -> None:
    with pytest.raises(ConfigError, match=r"line 6: model_list\[0\].litellm_params.rate_limit: must be requests in"):
        parse(f"{SD3}      rate_limit: {rate!r}\n{END}".encode())


def test_a_default_model_is_one_of_the_list() -> None:
    assert parse(f"{SD3}{END}  default_model: sd3\n".encode()).general.default_model == "sd3"
    with pytest.raises(ConfigError, match="line 8: general_settings.default_model: 'core' is not a model_name"):
        parse(f"{SD3}{END}  default_model: core\n".encode())


def test_a_list_that_is_left_blank_is_not_given() -> None:
    config = parse(f"{SD3}{END}  allowed_hosts:\n  cors_origins:\nkeys:\n".encode())
    assert (config.allowed_hosts, config.cors_origins, config.keys) == ((), (), ())


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("*", "every web page could use the gateway"),
        ("https://*.example", "must name each whole origin"),
        ("https://app.example/", "as browsers send it"),
        ("https://app.example:443", "as browsers send it"),
        ("app.example", "as browsers send it"),
        ("null", "as browsers send it"),
    ],
)
def test_an_origin_is_named_whole(origin: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"line 8: general_settings.cors_origins: .*{message}"):
        parse(f"{SD3}{END}  cors_origins: ['{origin}']\n".encode())


def test_origins_of_pages_and_of_apps() -> None:
    origins = "[https://App.example, 'http://localhost:3000', 'app://obsidian.md', 'http://[::1]:8080']"
    config = parse(f"{SD3}{END}  cors_origins: {origins}\n".encode())
    assert config.cors_origins == (
        "https://app.example",
        "http://localhost:3000",
        "app://obsidian.md",
        "http://[::1]:8080",
    )
