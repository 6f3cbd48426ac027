"""A configuration with many mistakes: one run of the check reports them all, each at its own line, and nothing else."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

import pytest

from impasto import ConfigError
from impasto_plugins.gateway.config.model import InvalidConfig
from impasto_plugins.gateway.serve import check

STRONG = "sk-" + "s" * 40
KEYS = f"keys:\n  - name: a\n    sha256: {'a' * 64}\n    models: [nope]  # !\n"


def mistakes(tmp_path: Path, text: str, *, host: str = "127.0.0.1", no_auth: bool = False) -> dict[int, str]:
    """Return what the check reports, by lines. A line that ends in ``# !`` is one that has a mistake."""
    path = tmp_path / "config.yaml"
    path.write_text(textwrap.dedent(text))
    try:
        check(str(path), host=host, no_auth=no_auth)
    except InvalidConfig as error:
        found: dict[int, str] = {}
        for line, message in error.mistakes:
            found[line] = f"{found[line]}; {message}" if line in found else message
        return found
    return {}


def marked(text: str) -> set[int]:
    """Return the numbers of the lines that have a mistake."""
    return {i for i, line in enumerate(textwrap.dedent(text).splitlines(), 1) if line.endswith("# !")}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("IS_SET", "sk-of-the-environment")
    for name in ("STABILITY_API_KEY", "STABILITY_API_BASE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)


MANY = f"""\
    model_list:
      - model_name: sd3
        litellm_params:
          model: stability/sd3
          api_key: os.environ/NOT_SET  # !
          strength: 7  # !
          style_preset: anime
          sed: 7  # !
      - model_name: core
        litellm_params:
          model: stability/stable-image-kore  # !
          api_key: os.environ/NOT_SET  # !
      - model_name: 5  # !
        litellm_params:
          model: stability/stable-image-ultra
          api_key: sk-x
          api_base: ftp://127.0.0.1  # !
          aws_region_name: us-west-2  # !
          output_format: gif  # !
          rate_limit: often  # !
      - model_name: erase
        litellm_params:
          model: stability/erase
          api_key: two words  # !
          api_base: http://images.example  # !
          drop_params: maybe  # !
          order: first  # !
    litellm_settings:
      drop_params: 1  # !
    general_settings:
      timeout: abc  # !
      master_key: {STRONG}
      default_model: zzz  # !
      public_url: images.example  # !
      allowed_hosts: ["https://images.example"]  # !
      cors_origins: ["*"]  # !
      middleware: [nobody-has-it]  # !
      access_log: [true]  # !
    keys:
      - name: studio
        sha256: {"a" * 64}
        rpm: often  # !
        models: [sd3, nope]  # !
      - name: other
        rpm: 5
        sha256: {"a" * 63}g  # !
      - {{name: third, sha256: {"b" * 64}, model: sd3}}  # !
      - {{name: third, sha256: {"c" * 64}}}  # !
    files:
      seconds: 0  # !
      s3:  # !
        bucket: B_  # !
        endpoint_url: storage.example  # !
        aws_access_key_id: x
    batches:
      concurrency: 0  # !
      enabled: "yes"  # !
    """


def test_thirty_mistakes_are_reported_in_one_pass_at_their_own_lines(tmp_path: Path) -> None:
    found = mistakes(tmp_path, MANY)
    assert set(found) == marked(MANY), found
    assert len(found) > 30
    for message in ("NOT_SET", "strength", "stable-image-core", "'zzz'", "'nope'", "nobody-has-it"):
        assert any(message in each for each in found.values()), message


@pytest.mark.parametrize(
    "general",
    [
        f"timeout: abc  # !\n  master_key: {STRONG}\n",
        f"timeout: abc  # !\n  max_connections: many  # !\n  master_key: {STRONG}\n  public_url: nope  # !\n",
        "timeout: abc  # !\n  master_key: 1234  # !\n",
        "timeout: abc  # !\n  master_key: os.environ/NOT_SET  # !\n",
        "timeout: abc  # !\n  master_key: [a]  # !\n",
        "timeout: abc  # !\n  master_key: sk-1234  # !\n  allowed_hosts: [images.example]\n",
        "timeout: abc  # !\n  master_key: sk-1234  # !\n  allowed_hosts: ['https://images.example']  # !\n",
        f"timeout: abc  # !\n  master_key: {STRONG}\n  default_model: zzz  # !\n",
        f"default_model: z  # !\n  master_key: {STRONG}\n{KEYS}",
    ],
)
def test_mistakes_of_general_settings_make_no_false_ones(tmp_path: Path, general: str) -> None:
    text = (
        "model_list:\n  - model_name: sd3\n    litellm_params: {model: stability/sd3, api_key: sk-x}\n"
        f"general_settings:\n  {general}"
    )
    assert set(mistakes(tmp_path, text)) == marked(text)


def test_the_name_of_a_default_is_judged_even_if_its_value_is_not_known(tmp_path: Path) -> None:
    text = """\
        model_list:
          - model_name: sd3
            litellm_params:
              model: stability/sd3
              api_key: sk-x
              negative_prompt: os.environ/NOT_SET  # !
              size: os.environ/NOT_SET  # !
              sed: os.environ/NOT_SET  # !
        general_settings:
          master_key: sk-1234
        """
    found = mistakes(tmp_path, text)
    assert set(found) == marked(text)
    assert [line for line, message in found.items() if "nor a parameter" in message] == [8]
    assert "seed" in found[8]


def test_settings_that_depend_on_an_unknown_value_are_not_judged(tmp_path: Path) -> None:
    text = f"""\
        model_list:
          - model_name: os.environ/NOT_SET  # !
            litellm_params: {{model: stability/sd3, api_key: sk-x}}
          - model_name: core
            litellm_params:
              model: os.environ/NOT_SET  # !
              api_key: sk-x
              strength: 7
          - model_name: erase
            litellm_params:
              model: stability/erase
              api_key: os.environ/NOT_SET  # !
          - model_name: at-an-arn
            litellm_params:
              model: bedrock/stability.sd3-5-large-v1:0
              model_id: os.environ/NOT_SET  # !
        general_settings:
          master_key: {STRONG}
          default_model: perhaps-the-first
        keys:
          - name: a
            sha256: os.environ/NOT_SET  # !
            models: [perhaps-the-first]
          - name: b
            sha256: os.environ/NOT_SET  # !
        """
    assert set(mistakes(tmp_path, text)) == marked(text)


@pytest.mark.parametrize(
    "text",
    [
        # Anchors and aliases are refused, and what they stand for is not judged.
        f"""\
        model_list:
          - model_name: sd3
            litellm_params: &params  # !
              model: stability/sd3
              api_key: sk-x
              strength: 7  # !
          - model_name: core
            litellm_params: *params  # !
          - model_name: ultra
            litellm_params:
              <<: *params  # !
              timeout: soon  # !
        general_settings:
          master_key: {STRONG}
          default_model: zzz  # !
        """,
        """\
        model_list:
          - <<: {model_name: a}  # !
            litellm_params: {model: stability/sd3, api_key: sk-x, strenght: 1}  # !
        general_settings:
          <<: *base  # !
          timeout: abc  # !
        keys: !!set {}  # !
        """,
        # The keys of a section that was given twice are read from both.
        f"""\
        model_list:
          - model_name: sd3
            litellm_params: {{model: stability/sd3, api_key: sk-x}}
        general_settings:
          master_key: {STRONG}
          timeout: abc  # !
        general_settings:  # !
          max_connections: abc  # !
          5: five  # !
        model_list:  # !
          - model_name: core
            litellm_params: {{model: stability/stable-image-core, api_key: sk-x, sed: 1}}  # !
        """,
        # Lists and mappings in the place of one another.
        f"""\
        model_list:
          - sd3  # !
          - model_name: core
            litellm_params: [stability/stable-image-core]  # !
          - model_name: ultra
            model_info: 5  # !
            litellm_params: {{model: [stability/stable-image-ultra], api_key: sk-x}}  # !
        general_settings:
          master_key: {STRONG}
          allowed_hosts: images.example  # !
          plugins: {{a: b}}  # !
          middleware: [[a]]  # !
          max_connections: abc  # !
        keys: {{name: a}}  # !
        files: []  # !
        batches: yes please  # !
        """,
    ],
    ids=["aliases", "merges", "twice", "kinds"],
)
def test_mistakes_of_yaml_hide_no_others(tmp_path: Path, text: str) -> None:
    assert set(mistakes(tmp_path, text)) == marked(text)


def test_a_syntax_error_does_not_hide_the_mistakes_before_it(tmp_path: Path) -> None:
    text = "a: &x 1  # !\nb: *x  # !\nc: [1, 2\n"
    found = mistakes(tmp_path, text)
    assert set(found) >= marked(text)
    assert any("expected ',' or ']'" in message for message in found.values())


def test_a_public_address_and_mistakes_of_its_hosts(tmp_path: Path) -> None:
    text = (
        "model_list:\n  - model_name: sd3\n    litellm_params: {model: stability/sd3, api_key: sk-x}\n"
        "general_settings:\n  master_key: sk-1234  # !\n  allowed_hosts: ['https://images.example']  # !\n"
        "  timeout: abc  # !\n"
    )
    assert set(mistakes(tmp_path, text, host="0.0.0.0")) == marked(text)


def test_a_key_of_the_documentation_is_reported_where_it_stands(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"sk-1234").hexdigest()
    text = (
        "model_list:\n  - model_name: sd3\n    litellm_params: {model: stability/sd3, api_key: sk-x}\n"
        "general_settings:\n  allowed_hosts: [images.example]\n  timeout: abc  # !\n"
        f"keys:\n  - name: a\n    rpm: 5\n    sha256: {digest}  # !\n"
    )
    assert set(mistakes(tmp_path, text)) == marked(text)


def test_a_missing_key_is_reported_at_the_section_or_the_first_line(tmp_path: Path) -> None:
    assert set(mistakes(tmp_path, "")) == {1}
    text = (
        "model_list:\n  - model_name: sd3\n    litellm_params: {model: stability/sd3, api_key: sk-x}\n"
        "general_settings:  # !\n  timeout: abc  # !\n"
    )
    assert set(mistakes(tmp_path, text)) == marked(text)


def test_a_valid_configuration_has_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        textwrap.dedent(f"""\
        model_list:
          - model_name: sd3
            litellm_params:
              model: stability/sd3.5-large
              api_key: os.environ/IS_SET
              strength: 0.7
              style_preset: anime
              size: 1024x1024
              output_format: webp
              drop_params: true
              rate_limit: 150/10s
              order: 1
              input_cost_per_image: 0.03
            model_info: {{mode: image_generation}}
          - model_name: sd3
            provider_params:
              model: bedrock/stability.sd3-5-large-v1:0
              api_key: bedrock-key
              aws_region_name: us-west-2
          - model_name: gpt-image-1
            litellm_params: {{model: openai/gpt-image-1, api_key: os.environ/NOT_SET}}
        litellm_settings: {{drop_params: false}}
        general_settings:
          master_key: {STRONG}
          default_model: sd3
          public_url: https://images.example
          allowed_hosts: [images.example, "*.example"]
          cors_origins: ["https://app.example"]
          plugins: []
          middleware:
        keys:
          - {{name: a, sha256: {"a" * 64}, models: [sd3, gpt-image-1], rpm: 5}}
        files: {{seconds: 600}}
        batches: {{enabled: true}}
        """)
    )
    sound, *warnings = check(str(path), host="127.0.0.1", no_auth=False).splitlines()
    assert sound == "config.yaml is valid: 1 model"
    assert len(warnings) == 1
    assert "openai" in warnings[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("litellm_settings: {drop_params: 'no'}", "must be true or false, not text"),
        ("litellm_settings: {drop_params: 1}", "must be true or false, not a whole number"),
        ("litellm_settings: {drop_params: [1]}", "must be one value, not a list"),
        ("general_settings: {timeout: true}", "must be a number from 0.1 to 86400, not true"),
        ("general_settings: {max_connections: {a: 1}}", "must be one value, not a mapping"),
        ("general_settings: {master_key: 1.5}", "must be text, not a number"),
        ("general_settings: {master_key: false}", "must be text, not true or false"),
        ("general_settings: {allowed_hosts: 5}", "must be a list of texts"),
        ("general_settings: {access_log: maybe}", "must be true or false, not text"),
        ("keys: [5]", "must be a mapping of names to values"),
        ("batches: {enabled: 1.5}", "must be true or false, not a number"),
    ],
)
def test_messages_use_the_words_of_yaml(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(line)
    with pytest.raises(ConfigError) as caught:
        check(str(path), host="127.0.0.1", no_auth=False)
    assert message in caught.value.message
    for word in ("bool", "int,", "str,", "dict", "None", "True", "False", "NoneType", "float"):
        assert word not in caught.value.message
