"""Reads a configuration file. Nothing in it is skipped: every mistake is reported with its line.

Safe YAML only: no tags, no aliases, no key twice, at most 1 MiB and a few levels deep.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import attrs
import yaml

from impasto import ConfigError
from impasto.ext import AllowList, closest, kind_in_words, stat_regular
from impasto_plugins.middleware.rates import parse_rate
from impasto_plugins.openai_compat.call_options import take_arn

from .installed import InstalledModels
from .litellm import ADVICE, PROVIDER_SETTINGS, find_provider
from .model import (
    CALL_PARAMS,
    MODES,
    BatchesConfig,
    Config,
    DeploymentConfig,
    DeploymentParams,
    FilesConfig,
    GeneralSettings,
    InvalidConfig,
    KeyConfig,
    LiteLLMSettings,
    ModelInfo,
    S3Config,
)
from .reader import ENVIRONMENT_PREFIX, SectionReader, SectionRecord, is_known, is_off
from .validators import (
    validate_bucket,
    validate_endpoint,
    validate_folder,
    validate_hash,
    validate_host,
    validate_key,
    validate_origin,
    validate_prefix,
    validate_rate,
    validate_url,
)
from .yaml_nodes import UNKNOWN_VALUE, ConfigNode, Mistake, NodeBuilder, UnreadableYAML, Value

MAX_BYTES = 1 << 20
MAX_PRESIGNED_SECONDS = 7 * 24 * 3600
"""Seconds: the limit of S3's signatures."""

MAX_NAME_LENGTH = 200
_SECTIONS = ("model_list", "litellm_settings", "general_settings", "keys", "files", "batches")
_LIST_SETTINGS = ("allowed_hosts", "cors_origins", "middleware", "plugins")
"""The lists of ``general_settings``."""

_PARAM_KEYS = ("litellm_params", "provider_params")
_ENTRY_KEYS = ("model_name", "model_info", *_PARAM_KEYS)
"""The keys of an entry of ``model_list``."""


def load(path: str | os.PathLike[str]) -> Config:
    """Read a configuration file. Raises ConfigError with every mistake and its line."""
    return _check(*examine(path))


def examine(path: str | os.PathLike[str]) -> tuple[Config, list[Mistake]]:
    """Read a configuration file and its mistakes, each with its line. Raises ConfigError if it is not YAML."""
    name = os.fspath(path)
    try:
        stat_regular(path)
        with open(path, "rb") as source:
            data = source.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't read {name!r}: {error.strerror}") from None
    return _parse(data, Path(name).name, os.environ)


def parse(data: bytes, name: str = "config", environment: Mapping[str, str] | None = None) -> Config:
    """Parse a file's content. Raises ConfigError with every mistake and its line."""
    return _check(*_parse(data, name, os.environ if environment is None else environment))


def _check(config: Config, mistakes: list[Mistake]) -> Config:
    if mistakes:
        raise InvalidConfig(config.source, mistakes)
    return config


def _parse(data: bytes, name: str, environment: Mapping[str, str]) -> tuple[Config, list[Mistake]]:
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{name}: has more than {MAX_BYTES:,} bytes")
    try:
        builder = NodeBuilder(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: must be UTF-8 text") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: has a character that YAML does not allow") from None
    try:
        root = builder.read_document()
    except UnreadableYAML as error:
        raise InvalidConfig(name, [*builder.problems, (error.line, str(error))]) from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: has a character that YAML does not allow") from None
    reader = _ConfigReader(name, environment)
    return reader.read_config(root), [*builder.problems, *reader.problems]


class _ConfigReader(SectionReader):
    """Reads the sections of a configuration."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self.name = name
        self.skipped_names: set[str] = set()  # the names of models whose entries are skipped
        self.model_names: set[str] = set()  # those of all others, mistakes or not
        self.has_all_names = True
        self.key_lines: dict[str, int] = {}
        self._installed = InstalledModels(None)

    def read_config(self, root: ConfigNode) -> Config:
        sections = self.read_section(root, "", _SECTIONS)
        missing_section = ConfigNode(root.line, None if is_known(root) else UNKNOWN_VALUE)
        nodes = {name: sections.get(name, missing_section) for name in _SECTIONS}
        general = self.read_record(GeneralSettings, nodes["general_settings"], "general_settings", _LIST_SETTINGS)
        self.check(general, "general_settings", "master_key", general.record.master_key, validate_key)
        self.check(general, "general_settings", "public_url", general.record.public_url, validate_url)
        self.check(general, "general_settings", "data_dir", general.record.data_dir, validate_folder)
        lists = {
            name: self.read_texts(general.other_nodes.get(name), f"general_settings.{name}") for name in _LIST_SETTINGS
        }
        plugins = self.read_plugins(general, lists["plugins"])
        self._installed = InstalledModels(plugins)
        litellm_settings = self.read_record(LiteLLMSettings, nodes["litellm_settings"], "litellm_settings")
        models = self.read_models(nodes["model_list"])
        if general.record.default_model is not None:
            name = "general_settings.default_model"
            self.check_model(general.lines["default_model"], name, general.record.default_model, ())
        files = self.read_files(nodes["files"], general.record.state)
        batches = self.read_record(BatchesConfig, nodes["batches"], "batches")
        self.check(batches, "batches", "folder", batches.record.folder, validate_folder)
        keys = self.read_keys(nodes["keys"], general.record.master_key)
        return Config(
            source=self.name,
            models=models,
            drop_params=litellm_settings.record.drop_params,
            general=general.record,
            allowed_hosts=self.lowercase_items(general, "allowed_hosts", lists, validate_host),
            cors_origins=self.lowercase_items(general, "cors_origins", lists, validate_origin),
            middleware=lists["middleware"] or (),
            plugins=plugins,
            keys=keys or (),
            files=files.record,
            batches=batches.record,
            warnings=tuple(self.warnings),
            lines={
                "": root.line,
                **self.key_lines,
                **{name: node.line for name, node in sections.items()},
                **{f"general_settings.{name}": line for name, line in general.lines.items()},
                **{f"files.{name}": line for name, line in files.lines.items()},
            },
            unknown_fields=frozenset(
                [
                    *(f"general_settings.{name}" for name in general.unknown_fields),
                    *(f"files.{name}" for name in files.unknown_fields),
                    *(["keys"] if keys is None else []),
                ]
            ),
        )

    def lowercase_items(
        self,
        general: SectionRecord[GeneralSettings],
        name: str,
        text_lists: Mapping[str, tuple[str, ...] | None],
        validate: Callable[[str], str | None],
    ) -> tuple[str, ...]:
        """Return a list of ``general_settings`` in lower case, each item checked."""
        items = tuple(text.lower() for text in text_lists[name] or ())
        for text in items:
            self.check(general, "general_settings", name, text, validate)
        return items

    def read_plugins(
        self, general: SectionRecord[GeneralSettings], names: tuple[str, ...] | None
    ) -> tuple[str, ...] | None:
        """Return the distributions that may be used; none if the setting is invalid."""
        node = general.other_nodes.get("plugins")
        try:
            AllowList.parse(names or ())
        except ConfigError as error:
            self.add_problem(general.lines["plugins"], "general_settings", error.message)
            names = None
        if names is None and node is not None and node.value is not None:
            general.unknown_fields.add("plugins")
        return () if "plugins" in general.unknown_fields else names

    def check_model(self, line: int, name: str, model: str, other_models: Collection[str]) -> None:
        """Report a model that is not in ``model_list``, if all its names are known."""
        if self.model_names and self.has_all_names and model not in self.model_names and model not in other_models:
            skip_note = "; its entry is skipped" if model in self.skipped_names else ""
            self.add_problem(line, name, f"{model!r} is not a model_name of model_list{skip_note}")

    def read_models(self, node: ConfigNode) -> tuple[DeploymentConfig, ...]:
        if node.value is UNKNOWN_VALUE:
            return ()
        if not isinstance(node.value, list) or not node.value:
            self.add_problem(node.line, "model_list", "give a list of models, at least one")
            return ()
        entries = [self.read_entry(each, f"model_list[{i}]") for i, each in enumerate(node.value)]
        if not any(entries):
            self.add_problem(node.line, "model_list", f"no entry can be served: {'; '.join(self.warnings)}")
        return tuple(entry for entry in entries if entry is not None)

    def skip_reason(self, node: ConfigNode) -> str | None:
        """Return the reason to skip an entry that was written for LiteLLM, or None for an entry to check."""
        content = node.value if isinstance(node.value, dict) else {}
        name, info, *param_nodes = (content[key].value if key in content else None for key in _ENTRY_KEYS)
        params = next((each for each in param_nodes if each is not None), None)
        reason = self.foreign_reason(info, params)
        if reason is not None and isinstance(name, str):
            self.skipped_names.add(name)
        return reason

    def foreign_reason(self, info: Value, params: Value) -> str | None:
        """Return the part of ``model_info`` and ``litellm_params`` that belongs to another gateway."""
        mode = info["mode"].value if isinstance(info, dict) and "mode" in info else None
        if isinstance(mode, str) and mode not in MODES:
            closest_modes = closest(mode, MODES, 1)
            return f"its mode is {mode[:60]}" + (f" (did you mean {closest_modes[0]}?)" if closest_modes else "")
        if not isinstance(params, dict) or "model" not in params:
            return None
        model, custom_provider = params["model"].value, params.get("custom_llm_provider")
        if isinstance(model, str) and model.startswith(ENVIRONMENT_PREFIX):
            model = self.environment.get(model.removeprefix(ENVIRONMENT_PREFIX))
        provider = find_provider(model, custom_provider and custom_provider.value) if isinstance(model, str) else None
        if provider is None or provider in self._installed.providers:
            return None
        return f"no installed plugin serves its provider, {provider}"

    def read_entry(self, node: ConfigNode, where: str) -> DeploymentConfig | None:
        if (reason := self.skip_reason(node)) is not None:
            self.warnings.append(f"line {node.line}: {where} is skipped: {reason}")
            return None
        nodes = self.read_section(node, where, _ENTRY_KEYS)
        param_keys = [param_key for param_key in _PARAM_KEYS if param_key in nodes]
        if len(param_keys) > 1 or (not param_keys and is_known(node)):
            self.add_problem(node.line, where, "give litellm_params or provider_params, not both")
        name = self.read_model_name(nodes.get("model_name"), node, f"{where}.model_name")
        param_key = param_keys[0] if param_keys else "litellm_params"
        section, defaults = self.read_params(
            nodes.get(param_key, ConfigNode(node.line, UNKNOWN_VALUE)), f"{where}.{param_key}"
        )
        params = section.record
        info = self.read_record(
            ModelInfo, nodes.get("model_info", ConfigNode(node.line, None)), f"{where}.model_info"
        ).record
        cost = params.input_cost_per_image
        rate = None if "rate_limit" in section.unknown_fields else params.rate_limit
        arn_fields = {"model_id": params.model_id}
        model, base_model = take_arn(arn_fields, params.model, params.base_model)
        if arn_fields.get("model_id") is not None and "model" not in section.unknown_fields:
            self.add_problem(
                section.lines["model_id"],
                f"{where}.{param_key}.model_id",
                "must be an ARN, with a bedrock/ model",
            )
        provider_settings = {
            key: each for key, each in attrs.asdict(params).items() if key not in CALL_PARAMS and each is not None
        }
        return DeploymentConfig(
            model_name=name if name is not None else where,
            model=model,
            base_model=base_model,
            timeout=params.timeout,
            mode=info.mode,
            provider_settings=provider_settings,
            drop_params=params.drop_params,
            order=params.order,
            rate_limit=None if rate is None else parse_rate(rate),
            input_cost_per_image=info.input_cost_per_image if cost is None else cost,
            defaults=defaults,
            lines=section.lines,
            line=node.line,
            unknown_fields=frozenset(section.unknown_fields),
        )

    def read_model_name(self, node: ConfigNode | None, entry: ConfigNode, where: str) -> str | None:
        """Return the public name of an entry's model, or None if it is unusable."""
        constraint = f"text of 1 to {MAX_NAME_LENGTH} printable characters"
        name = self.read_scalar(node, where) if node is not None else None if is_known(entry) else UNKNOWN_VALUE
        if name is UNKNOWN_VALUE:
            self.has_all_names = False
            return None
        if isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= MAX_NAME_LENGTH:
            self.model_names.add(name)
            return name
        got = "" if isinstance(name, str) else f", not {kind_in_words(name)}"
        line = node.line if node is not None else entry.line
        self.add_problem(line, where, f"required: {constraint}" if name is None else f"must be {constraint}{got}")
        return None

    def read_params(self, node: ConfigNode, where: str) -> tuple[SectionRecord[DeploymentParams], dict[str, object]]:
        """Return the parameters of a model's calls, and its default values, which only the model can judge."""
        nodes = node.value if isinstance(node.value, dict) else {}
        field_names = {*attrs.fields_dict(DeploymentParams), *ADVICE}
        known_nodes = {
            key: each
            for key, each in nodes.items()
            if key in field_names and (key not in PROVIDER_SETTINGS or is_off(each))
        }
        defaults = {
            key: self.read_value(each, f"{where}.{key}") for key, each in nodes.items() if key not in known_nodes
        }
        section = self.read_record(DeploymentParams, attrs.evolve(node, value=known_nodes) if nodes else node, where)
        self.check(section, where, "rate_limit", section.record.rate_limit, validate_rate)
        section.unknown_fields.update(key for key, value in defaults.items() if value is UNKNOWN_VALUE)
        section.lines.update({key: each.line for key, each in nodes.items()})
        return section, {
            key: value for key, value in defaults.items() if value is not None and value is not UNKNOWN_VALUE
        }

    def read_keys(self, node: ConfigNode, master_key: str | None) -> tuple[KeyConfig, ...] | None:
        """Return the named keys, None if they are unknown."""
        if node.value is None:
            return ()
        if not isinstance(node.value, list):
            if node.value is not UNKNOWN_VALUE:
                self.add_problem(node.line, "keys", "must be a list")
            return None
        master_hash = hashlib.sha256(master_key.encode()).hexdigest() if master_key else None
        keys: list[KeyConfig] = []
        for i, each in enumerate(node.value):
            where = f"keys[{i}]"
            section = self.read_record(KeyConfig, each, where, ("models",))
            key, line_of = section.record, section.lines.get
            self.key_lines[f"{where}.sha256"] = line_of("sha256", each.line)
            models = self.read_texts(section.other_nodes.get("models"), f"{where}.models")
            for model in dict.fromkeys(models or ()):
                self.check_model(line_of("models", each.line), f"{where}.models", model, self.skipped_names)
            self.check(section, where, "sha256", key.sha256, validate_hash)
            if any(
                (key.name and key.name == other.name) or (key.sha256 and key.sha256 == other.sha256) for other in keys
            ):
                self.add_problem(each.line, where, "has the name or the hash of another key")
            if master_hash is not None and key.sha256 == master_hash:
                message = "is the hash of general_settings.master_key; give another key"
                self.add_problem(line_of("sha256", each.line), f"{where}.sha256", message)
            keys.append(attrs.evolve(key, models=models))
        return tuple(keys)

    def read_files(self, node: ConfigNode, state: str | None) -> SectionRecord[FilesConfig]:
        section = self.read_record(FilesConfig, node, "files", ("s3",))
        self.check(section, "files", "folder", section.record.folder, validate_folder)
        if section.record.folder is not None and state is not None and "://" in state:
            message = (
                "can't be used with a general_settings.state that other machines share: they would not have these"
                " images; give s3, a bucket for all of them"
            )
            self.add_problem(section.lines["folder"], "files.folder", message)
        if (s3_node := section.other_nodes.get("s3")) is None or s3_node.value is None:
            return section
        s3_section = self.read_record(S3Config, s3_node, "files.s3")
        s3, unknown_fields = s3_section.record, s3_section.unknown_fields
        self.check(s3_section, "files.s3", "bucket", s3.bucket, validate_bucket)
        self.check(s3_section, "files.s3", "prefix", s3.prefix, validate_prefix)
        self.check(s3_section, "files.s3", "endpoint_url", s3.endpoint_url, validate_endpoint)
        pair = {"aws_access_key_id", "aws_secret_access_key"}
        if (
            not pair & unknown_fields
            and len(pair & attrs.asdict(s3, filter=lambda _, value: value is not None).keys()) == 1
        ):
            self.add_problem(s3_node.line, "files.s3", "give aws_access_key_id and aws_secret_access_key together")
        if section.record.folder is not None:
            self.add_problem(section.lines["folder"], "files", "give folder or s3")
        if section.record.seconds > MAX_PRESIGNED_SECONDS:
            message = f"may be at most {MAX_PRESIGNED_SECONDS:,} with s3, the limit of its signatures"
            self.add_problem(section.lines["seconds"], "files.seconds", message)
        if unknown_fields:
            section.unknown_fields.add("s3")
        return attrs.evolve(section, record=attrs.evolve(section.record, s3=s3))
