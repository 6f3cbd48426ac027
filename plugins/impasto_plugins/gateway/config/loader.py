"""A configuration file, read so that nothing in it is passed over: every mistake is reported with its line.

Safe YAML only: no tags, no aliases, no key twice, at most 1 MiB and a few levels deep.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import attrs
import yaml

from impasto import ConfigError, RateLimit
from impasto.ext import Allowed, closest, kind_in_words, stat_regular
from impasto_plugins.openai_compat.call_options import take_arn

from .installed import Installed
from .litellm import ADVICE, provider_of
from .model import CALL, MODES, S3, Batches, Config, Entry, Files, General, Info, Mistakes, Named, Params, Wording
from .reader import ENVIRONMENT, Read, Reader, is_known
from .validators import (
    wrong_with_bucket,
    wrong_with_endpoint,
    wrong_with_hash,
    wrong_with_host,
    wrong_with_key,
    wrong_with_origin,
    wrong_with_prefix,
    wrong_with_rate,
    wrong_with_url,
)
from .yaml_nodes import UNREAD, Builder, Mistake, Node, Scalar, UnfitNode, Value

MOST_BYTES = 1 << 20
LONGEST_PRESIGNED = 7 * 24 * 3600
"""Seconds, with S3's signatures."""

LONGEST_NAME = 200
_SECTIONS = ("model_list", "litellm_settings", "general_settings", "keys", "files", "batches")
_LISTS = ("allowed_hosts", "cors_origins", "middleware", "plugins")
"""The lists of ``general_settings``."""

_PARAMS = ("litellm_params", "provider_params")
_KEYS = ("model_name", "model_info", *_PARAMS)
"""The keys of an entry of ``model_list``."""


def load(path: str | os.PathLike[str]) -> Config:
    """Read a configuration file. Raises ConfigError with every mistake and its line."""
    return _sound(*examine(path))


def examine(path: str | os.PathLike[str]) -> tuple[Config, list[Mistake]]:
    """Read a configuration file, and what is wrong with it, each with its line. Raises ConfigError if it is no YAML."""
    name = os.fspath(path)
    try:
        stat_regular(path)
        with open(path, "rb") as source:
            data = source.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't read {name!r}: {error.strerror}") from None
    return _read(data, Path(name).name, os.environ)


def parse(data: bytes, name: str = "config", environment: Mapping[str, str] | None = None) -> Config:
    """Make a configuration of a file's content. Raises ConfigError with every mistake and its line."""
    return _sound(*_read(data, name, os.environ if environment is None else environment))


def _sound(config: Config, mistakes: list[Mistake]) -> Config:
    if mistakes:
        raise Mistakes(config.source, mistakes)
    return config


def _read(data: bytes, name: str, environment: Mapping[str, str]) -> tuple[Config, list[Mistake]]:
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name}: has more than {MOST_BYTES:,} bytes")
    try:
        builder = Builder(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: is no UTF-8 text") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: holds a character that YAML does not allow") from None
    try:
        root = builder.document()
    except UnfitNode as error:
        raise Mistakes(name, [*builder.problems, (error.line, str(error))]) from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: holds a character that YAML does not allow") from None
    reader = _ConfigReader(name, environment)
    return reader.config(root), [*builder.problems, *reader.problems]


class _ConfigReader(Reader):
    """Reads the sections of a configuration."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self.name = name
        self.warnings: list[str] = []
        self.skipped: set[str] = set()  # the names of models whose entries are skipped
        self.named: set[str] = set()  # those of all others, mistakes or not
        self.are_names_known = True
        self.key_lines: dict[str, int] = {}
        self._installed = Installed(None)

    def config(self, root: Node) -> Config:
        top = self.section(root, "", _SECTIONS)
        absent = Node(root.line, None if is_known(root) else UNREAD)
        nodes = {name: top.get(name, absent) for name in _SECTIONS}
        general = self.record(General, nodes["general_settings"], "general_settings", _LISTS)
        self.check(general, "general_settings", "master_key", general.record.master_key, wrong_with_key)
        self.check(general, "general_settings", "public_url", general.record.public_url, wrong_with_url)
        lists = {name: self.texts(general.others.get(name), f"general_settings.{name}") for name in _LISTS}
        plugins = self.plugins(general, lists["plugins"])
        self._installed = Installed(plugins)
        wording = self.record(Wording, nodes["litellm_settings"], "litellm_settings")
        models = self.models(nodes["model_list"])
        if general.record.default_model is not None:
            name = "general_settings.default_model"
            self.check_model(general.lines["default_model"], name, general.record.default_model, ())
        files = self.files(nodes["files"])
        keys = self.keys(nodes["keys"], general.record.master_key)
        return Config(
            source=self.name,
            models=models,
            drop_params=wording.record.drop_params,
            general=general.record,
            allowed_hosts=self.each_lower(general, "allowed_hosts", lists, wrong_with_host),
            cors_origins=self.each_lower(general, "cors_origins", lists, wrong_with_origin),
            middleware=lists["middleware"] or (),
            plugins=plugins,
            keys=keys or (),
            files=files.record,
            batches=self.record(Batches, nodes["batches"], "batches").record,
            warnings=tuple(self.warnings),
            lines={
                "": root.line,
                **self.key_lines,
                **{name: node.line for name, node in top.items()},
                **{f"general_settings.{name}": line for name, line in general.lines.items()},
                **{f"files.{name}": line for name, line in files.lines.items()},
            },
            unread=frozenset(
                [
                    *(f"general_settings.{name}" for name in general.unread),
                    *(f"files.{name}" for name in files.unread),
                    *(["keys"] if keys is None else []),
                ]
            ),
        )

    def each_lower(
        self,
        general: Read[General],
        name: str,
        texts: Mapping[str, tuple[str, ...] | None],
        wrong_with: Callable[[str], str | None],
    ) -> tuple[str, ...]:
        """Return a list of ``general_settings`` in small letters, each item checked."""
        found = tuple(text.lower() for text in texts[name] or ())
        for text in found:
            self.check(general, "general_settings", name, text, wrong_with)
        return found

    def plugins(self, general: Read[General], names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Return the distributions that may be used; none if what is given is wrong."""
        node = general.others.get("plugins")
        try:
            Allowed.of(names or ())
        except ConfigError as error:
            self.problem(general.lines["plugins"], "general_settings", error.message)
            names = None
        if names is None and node is not None and node.value is not None:
            general.unread.add("plugins")
        return () if "plugins" in general.unread else names

    def check_model(self, line: int, name: str, model: str, others: Collection[str]) -> None:
        """Write down that a model is not in ``model_list``, if all the names there are known."""
        if self.named and self.are_names_known and model not in self.named and model not in others:
            skipped = "; its entry is skipped" if model in self.skipped else ""
            self.problem(line, name, f"{model!r} is not a model_name of model_list{skipped}")

    def models(self, node: Node) -> tuple[Entry, ...]:
        if node.value is UNREAD:
            return ()
        if not isinstance(node.value, list) or not node.value:
            self.problem(node.line, "model_list", "give a list of models, at least one")
            return ()
        found = [self.entry(each, f"model_list[{i}]") for i, each in enumerate(node.value)]
        if not any(found):
            self.problem(node.line, "model_list", f"leaves no model: {'; '.join(self.warnings)}")
        return tuple(entry for entry in found if entry is not None)

    def why_skipped(self, node: Node) -> str | None:
        """Return why an entry that was written for LiteLLM is not served, or None for one that is to be checked."""
        given = node.value if isinstance(node.value, dict) else {}
        name, info, *every = (given[key].value if key in given else None for key in _KEYS)
        params = next((each for each in every if each is not None), None)
        reason = self.why_not_ours(info, params)
        if reason is not None and isinstance(name, str):
            self.skipped.add(name)
        return reason

    def why_not_ours(self, info: Value, params: Value) -> str | None:
        """Return what in ``model_info`` and ``litellm_params`` is for another gateway."""
        mode = info["mode"].value if isinstance(info, dict) and "mode" in info else None
        if isinstance(mode, str) and mode not in MODES:
            near = closest(mode, MODES, 1)
            return f"its mode is {mode[:60]}" + (f" (did you mean {near[0]}?)" if near else "")
        if not isinstance(params, dict) or "model" not in params:
            return None
        model, named = params["model"].value, params.get("custom_llm_provider")
        if isinstance(model, str) and model.startswith(ENVIRONMENT):
            model = self.environment.get(model.removeprefix(ENVIRONMENT))
        provider = provider_of(model, named and named.value) if isinstance(model, str) else None
        if provider is None or provider in self._installed.providers:
            return None
        return f"no installed plugin serves its provider, {provider}"

    def entry(self, node: Node, where: str) -> Entry | None:
        if (reason := self.why_skipped(node)) is not None:
            self.warnings.append(f"line {node.line}: {where} is skipped: {reason}")
            return None
        given = self.section(node, where, _KEYS)
        words = [word for word in _PARAMS if word in given]
        if len(words) > 1 or (not words and is_known(node)):
            self.problem(node.line, where, "give litellm_params or provider_params, which is the same; one of them")
        name = self.model_name(given.get("model_name"), node, f"{where}.model_name")
        word = words[0] if words else "litellm_params"
        read, defaults = self.params(given.get(word, Node(node.line, UNREAD)), f"{where}.{word}")
        params = read.record
        info = self.record(Info, given.get("model_info", Node(node.line, None)), f"{where}.model_info").record
        cost = params.input_cost_per_image
        rate = None if "rate_limit" in read.unread else params.rate_limit
        called = {"model_id": params.model_id}
        model, base_model = take_arn(called, params.model, params.base_model)
        if called.get("model_id") is not None and "model" not in read.unread:
            self.problem(
                read.lines["model_id"], f"{where}.{word}.model_id", "takes an ARN, and goes with a bedrock/ model"
            )
        reach = {key: each for key, each in attrs.asdict(params).items() if key not in CALL and each is not None}
        return Entry(
            model_name=name if name is not None else where,
            model=model,
            base_model=base_model,
            timeout=params.timeout,
            mode=info.mode,
            reach=reach,
            drop_params=params.drop_params,
            order=params.order,
            rate_limit=None if rate is None else RateLimit.parse(rate),
            input_cost_per_image=info.input_cost_per_image if cost is None else cost,
            defaults=defaults,
            lines=read.lines,
            line=node.line,
            unread=frozenset(read.unread),
        )

    def model_name(self, node: Node | None, entry: Node, where: str) -> str | None:
        """Return the name by which callers know an entry's model, None if there is none that can be used."""
        takes = f"text of 1 to {LONGEST_NAME} printable characters"
        name = self.plain(node, where) if node is not None else None if is_known(entry) else UNREAD
        if name is UNREAD:
            self.are_names_known = False
            return None
        if isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= LONGEST_NAME:
            self.named.add(name)
            return name
        wrong = "" if isinstance(name, str) else f", not {kind_in_words(name)}"
        line = node.line if node is not None else entry.line
        self.problem(line, where, f"required: {takes}" if name is None else f"must be {takes}{wrong}")
        return None

    def params(self, node: Node, where: str) -> tuple[Read[Params], dict[str, Scalar]]:
        """Return how a model is called, and its default values, which only the model can judge."""
        given = node.value if isinstance(node.value, dict) else {}
        known = [*attrs.fields_dict(Params), *ADVICE]
        own = {key: each for key, each in given.items() if key in known}
        defaults = {key: self.plain(each, f"{where}.{key}") for key, each in given.items() if key not in own}
        read = self.record(Params, attrs.evolve(node, value=own) if given else node, where)
        self.check(read, where, "rate_limit", read.record.rate_limit, wrong_with_rate)
        read.unread.update(key for key, value in defaults.items() if value is UNREAD)
        read.lines.update({key: each.line for key, each in given.items()})
        return read, {key: value for key, value in defaults.items() if value is not None and value is not UNREAD}

    def keys(self, node: Node, master_key: str | None) -> tuple[Named, ...] | None:
        """Return the named keys, None if they are not known."""
        if node.value is None:
            return ()
        if not isinstance(node.value, list):
            if node.value is not UNREAD:
                self.problem(node.line, "keys", "must be a list")
            return None
        master = hashlib.sha256(master_key.encode()).hexdigest() if master_key else None
        found: list[Named] = []
        for i, each in enumerate(node.value):
            where = f"keys[{i}]"
            read = self.record(Named, each, where, ("models",))
            key, line_of = read.record, read.lines.get
            self.key_lines[f"{where}.sha256"] = line_of("sha256", each.line)
            models = self.texts(read.others.get("models"), f"{where}.models")
            for model in dict.fromkeys(models or ()):
                self.check_model(line_of("models", each.line), f"{where}.models", model, self.skipped)
            self.check(read, where, "sha256", key.sha256, wrong_with_hash)
            if any(
                (key.name and key.name == other.name) or (key.sha256 and key.sha256 == other.sha256) for other in found
            ):
                self.problem(each.line, where, "has the name or the hash of another key")
            if master is not None and key.sha256 == master:
                said = "is that of general_settings.master_key; give another key"
                self.problem(line_of("sha256", each.line), f"{where}.sha256", said)
            found.append(attrs.evolve(key, models=models))
        return tuple(found)

    def files(self, node: Node) -> Read[Files]:
        read = self.record(Files, node, "files", ("s3",))
        if (where := read.others.get("s3")) is None or where.value is None:
            return read
        bucket = self.record(S3, where, "files.s3")
        s3, unread = bucket.record, bucket.unread
        self.check(bucket, "files.s3", "bucket", s3.bucket, wrong_with_bucket)
        self.check(bucket, "files.s3", "prefix", s3.prefix, wrong_with_prefix)
        self.check(bucket, "files.s3", "endpoint_url", s3.endpoint_url, wrong_with_endpoint)
        pair = {"aws_access_key_id", "aws_secret_access_key"}
        if not pair & unread and len(pair & attrs.asdict(s3, filter=lambda _, value: value is not None).keys()) == 1:
            self.problem(where.line, "files.s3", "give aws_access_key_id and aws_secret_access_key together")
        if read.record.folder is not None:
            self.problem(read.lines["folder"], "files", "give folder or s3")
        if read.record.seconds > LONGEST_PRESIGNED:
            said = f"may be {LONGEST_PRESIGNED:,} with s3, the longest that it signs for"
            self.problem(read.lines["seconds"], "files.seconds", said)
        if unread:
            read.unread.add("s3")
        return attrs.evolve(read, record=attrs.evolve(read.record, s3=s3))
