"""A configuration file, read so that nothing in it is passed over: every mistake is told with its line.

Safe YAML only: no tags, no aliases, no key twice, at most 1 MiB and a few levels deep.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import attrs
import yaml

from impasto import ConfigError, InvalidRequest, RateLimit
from impasto.ext import Allowed, closest, printable, stat_regular, structure
from impasto_plugins.openai_compat.call_options import take_arn

from .installed import Installed
from .litellm import ADVICE, provider_of
from .model import MODES, S3, Batches, Config, Entry, Files, General, Info, Mistakes, Named, Params, Wording
from .validators import (
    wrong_with_hash,
    wrong_with_host,
    wrong_with_key,
    wrong_with_origin,
    wrong_with_rate,
    wrong_with_url,
)
from .yaml_nodes import Builder, Node, Scalar, UnfitNode, Value

MOST_BYTES = 1 << 20
LONGEST_NAME = 200
_CALL = ("model", "base_model", "model_id", "timeout", "drop_params", "order", "rate_limit", "input_cost_per_image")
"""The parameters that say how a model is called; the others say how its provider is reached."""

_ENVIRONMENT = "os.environ/"
LONGEST_PRESIGNED = 7 * 24 * 3600
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]*[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]+")
_INDENTED = "; is it indented as its neighbours are?"

_PARAMS = ("litellm_params", "provider_params")
_KEYS = ("model_name", "model_info", *_PARAMS)
"""The keys of an entry of ``model_list``."""

T = TypeVar("T")


def load(path: str | os.PathLike[str]) -> Config:
    """Read a configuration file. Raises ConfigError with every mistake and its line."""
    return _sound(*examine(path))


def examine(path: str | os.PathLike[str]) -> tuple[Config, list[tuple[int, str]]]:
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


def _sound(config: Config, mistakes: list[tuple[int, str]]) -> Config:
    if mistakes:
        raise Mistakes(config.source, mistakes)
    return config


def _read(data: bytes, name: str, environment: Mapping[str, str]) -> tuple[Config, list[tuple[int, str]]]:
    reader = _Reader(name, environment)
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name}: has more than {MOST_BYTES:,} bytes")
    try:
        config = reader.config(Builder(data.decode("utf-8")).document())
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: is no UTF-8 text") from None
    except UnfitNode as error:
        raise ConfigError(f"{name}: line {error.line}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "is no YAML"
        said += _INDENTED if said.startswith("mapping values") else ""
        raise ConfigError(f"{name}: line {mark.line + 1 if mark is not None else 1}: {said}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: holds a character that YAML does not allow") from None
    return config, reader.problems


class _Reader:
    """Makes records of nodes, and writes down what is wrong with each."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.problems: list[tuple[int, str]] = []
        self.warnings: list[str] = []
        self.skipped: set[str] = set()  # the names of models whose entries are skipped
        self.named: set[str] = set()  # those of all others, mistakes or not
        self._installed = Installed(None)

    def problem(self, line: int, where: str, message: str) -> None:
        self.problems.append((line, printable(f"{where}: {message}")))

    def check(self, node: Node | None, where: str, value: str | None, wrong_with: Callable[[str], str | None]) -> None:
        """Writes down what is wrong with a value, if there is one."""
        if node is not None and value is not None and (message := wrong_with(value)) is not None:
            self.problem(node.line, where, message)

    def config(self, root: Node) -> Config:
        top = self.section(root, "", ("model_list", "litellm_settings", "general_settings", "keys", "files", "batches"))
        lists = ("allowed_hosts", "cors_origins", "middleware")
        general = top.get("general_settings", Node(root.line, {}))
        settings = self.section(general, "general_settings", (*attrs.fields_dict(General), *lists, "plugins"))
        plugins = self.plugins(settings.pop("plugins", None))
        self._installed = Installed(plugins)
        named = {name: settings.pop(name, None) for name in lists}
        texts = {name: self.texts(node, f"general_settings.{name}") or () for name, node in named.items()}
        wording = self.record(Wording, top.get("litellm_settings"), "litellm_settings")
        models = self.models(top.get("model_list", Node(root.line, None)))
        names = self.named
        made = self.general(Node(general.line, settings), names)
        master = made.master_key and hashlib.sha256(made.master_key.encode()).hexdigest()
        return Config(
            source=self.name,
            models=models,
            drop_params=wording is not None and wording.drop_params,
            general=made,
            allowed_hosts=self.each_lower(named["allowed_hosts"], "allowed_hosts", texts, wrong_with_host),
            cors_origins=self.each_lower(named["cors_origins"], "cors_origins", texts, wrong_with_origin),
            middleware=texts["middleware"],
            plugins=plugins,
            keys=self.keys(top.get("keys"), names | self.skipped if names else (), master),
            files=self.files(top.get("files", Node(root.line, {}))),
            batches=self.record(Batches, top.get("batches"), "batches") or Batches(),
            warnings=tuple(self.warnings),
        )

    def general(self, node: Node, models: Collection[str]) -> General:
        made = self.record(General, node, "general_settings") or General()
        assert isinstance(node.value, dict)  # noqa: S101 - as it is called
        self.check(node.value.get("master_key"), "general_settings.master_key", made.master_key, wrong_with_key)
        self.check(node.value.get("public_url"), "general_settings.public_url", made.public_url, wrong_with_url)
        if made.default_model is not None and models and made.default_model not in models:
            said = f"{made.default_model!r} is not a model_name of model_list"
            self.problem(node.value["default_model"].line, "general_settings.default_model", said)
        return made

    def each_lower(
        self,
        node: Node | None,
        name: str,
        texts: Mapping[str, Iterable[str]],
        wrong_with: Callable[[str], str | None],
    ) -> tuple[str, ...]:
        """Return a list of ``general_settings`` in small letters, each item checked."""
        found = tuple(text.lower() for text in texts[name])
        for text in found:
            self.check(node, f"general_settings.{name}", text, wrong_with)
        return found

    def plugins(self, node: Node | None) -> tuple[str, ...] | None:
        names = self.texts(node, "general_settings.plugins")
        try:
            Allowed.of(names or ())
        except ConfigError as error:
            self.problem(node.line if node is not None else 1, "general_settings", error.message)
        return names

    def models(self, node: Node) -> tuple[Entry, ...]:
        if not isinstance(node.value, list) or not node.value:
            self.problem(node.line, "model_list", "give a list of models, at least one")
            return ()
        before = len(self.problems)
        found = [self.entry(each, f"model_list[{i}]") for i, each in enumerate(node.value)]
        if not any(found) and len(self.problems) == before:
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
        if isinstance(model, str) and model.startswith(_ENVIRONMENT):
            model = self.environment.get(model.removeprefix(_ENVIRONMENT))
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
        if len(words) != 1:
            self.problem(node.line, where, "give litellm_params or provider_params, which is the same; one of them")
        word = words[0] if words else "litellm_params"
        name = self.plain(given["model_name"], f"{where}.model_name") if "model_name" in given else None
        own = content if words and isinstance(content := given[word].value, dict) else {}
        params, defaults = self.params(given[word], f"{where}.{word}") if words else (None, {})
        info = self.record(Info, given.get("model_info"), f"{where}.model_info")
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
            takes = f"text of 1 to {LONGEST_NAME} printable characters"
            wrong = "" if isinstance(name, str) else f", not {type(name).__name__}"
            said = f"required: {takes}" if name is None else f"must be {takes}{wrong}"
            self.problem(node.line, f"{where}.model_name", said)
            return None
        self.named.add(name)
        if params is None:
            model_node = own.get("model")
            if model_node is not None and isinstance(text := model_node.value, str) and _ENVIRONMENT not in text:
                self.check(model_node, f"{where}.{word}.model", text, self._installed.wrong_with_model)
            return None
        cost = params.input_cost_per_image
        if cost is None and info is not None:
            cost = info.input_cost_per_image
        called = {"model_id": params.model_id}
        model, base_model = take_arn(called, params.model, params.base_model)
        if called.get("model_id") is not None:
            self.problem(node.line, f"{where}.{word}.model_id", "takes an ARN, and goes with a bedrock/ model")
        reach = {key: each for key, each in attrs.asdict(params).items() if key not in _CALL and each is not None}
        return Entry(
            model_name=name,
            model=model,
            base_model=base_model,
            timeout=params.timeout,
            mode=info.mode if info is not None else None,
            reach=reach,
            drop_params=params.drop_params,
            order=params.order,
            rate_limit=None if params.rate_limit is None else RateLimit.parse(params.rate_limit),
            input_cost_per_image=cost,
            defaults={key: value for key, (value, _) in defaults.items() if value is not None},
            lines={key: each.line for key, each in own.items()},
            line=node.line,
        )

    def params(self, node: Node, where: str) -> tuple[Params | None, dict[str, tuple[Scalar, int]]]:
        """Return how a model is called, and its default values with their lines, which only the model can judge."""
        given = node.value if isinstance(node.value, dict) else {}
        known = attrs.fields_dict(Params)
        own = {key: each for key, each in given.items() if key in known or key in ADVICE}
        params = self.record(Params, Node(node.line, own) if given else node, where)
        if params is not None and params.rate_limit is not None and (said := wrong_with_rate(params.rate_limit)):
            self.problem(given["rate_limit"].line, f"{where}.rate_limit", said)
            params = None
        others = {key: each for key, each in given.items() if key not in own}
        return params, {key: (self.plain(each, f"{where}.{key}"), each.line) for key, each in others.items()}

    def keys(self, node: Node | None, known: Collection[str], master: str | None) -> tuple[Named, ...]:
        """Return the named keys; ``master`` is the hash of the master key."""
        if node is None or node.value is None:
            return ()
        if not isinstance(node.value, list):
            self.problem(node.line, "keys", "must be a list")
            return ()
        found: dict[str, Named] = {}
        for i, each in enumerate(node.value):
            where = f"keys[{i}]"
            given = self.section(each, where, attrs.fields_dict(Named))
            models = self.texts(given.pop("models", None), f"{where}.models")
            key = self.record(Named, Node(each.line, given), where)
            if key is None:
                continue
            self.check(each, f"{where}.sha256", key.sha256, wrong_with_hash)
            if known and (strange := [model for model in models or () if model not in known]):
                self.problem(each.line, f"{where}.models", f"{strange[0]!r} is no model_name of model_list")
            if any(key.name == other.name or key.sha256 == other.sha256 for other in found.values()):
                self.problem(each.line, where, "has the name or the hash of another key")
            if key.sha256 == master:
                self.problem(each.line, f"{where}.sha256", "is that of general_settings.master_key; give another key")
            found[key.name] = attrs.evolve(key, models=models)
        return tuple(found.values())

    def files(self, node: Node) -> Files:
        given = self.section(node, "files", attrs.fields_dict(Files))
        where = given.pop("s3", None)
        files = self.record(Files, Node(node.line, given), "files") or Files()
        if where is None or (s3 := self.record(S3, where, "files.s3")) is None:
            return files
        if _BUCKET.fullmatch(s3.bucket) is None:
            self.problem(where.line, "files.s3.bucket", "must be a bucket's name: small letters, digits, dots, dashes")
        if s3.prefix is not None and _PREFIX.fullmatch(s3.prefix) is None:
            self.problem(where.line, "files.s3.prefix", "may have letters, digits and ._/- only")
        if (s3.aws_access_key_id is None) is not (s3.aws_secret_access_key is None):
            self.problem(where.line, "files.s3", "give aws_access_key_id and aws_secret_access_key together")
        if s3.endpoint_url is not None and not s3.endpoint_url.startswith(("https://", "http://")):
            self.problem(where.line, "files.s3.endpoint_url", "must begin with https://")
        if files.folder is not None:
            self.problem(node.line, "files", "give folder or s3")
        if files.seconds > LONGEST_PRESIGNED:
            self.problem(
                node.line, "files.seconds", f"may be {LONGEST_PRESIGNED:,} with s3, the longest that it signs for"
            )
        return attrs.evolve(files, s3=s3)

    def section(self, node: Node, where: str, known: Iterable[str]) -> dict[str, Node]:
        """A mapping's values; a name that is not among ``known`` is a problem."""
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self.problem(node.line, where or "the file", "must be a mapping of names to values")
            return {}
        names = list(known)
        for name, value in node.value.items():
            if name not in names:
                near = closest(name, (each for each in names if each not in node.value), 1)
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(names)}"
                self.problem(
                    value.line, f"{where}.{name[:60]}".lstrip("."), f"is not taken here; {ADVICE.get(name, hint)}"
                )
        return {name: value for name, value in node.value.items() if name in names}

    def record(self, kind: type[T], node: Node | None, where: str) -> T | None:
        """A record of a mapping of plain values; None where something is wrong with it."""
        given = node if node is not None else Node(1, {})
        before = len(self.problems)
        values = self.section(given, where, attrs.fields_dict(kind))  # type: ignore[arg-type]  # an attrs class
        plain = {name: self.plain(each, f"{where}.{name}") for name, each in values.items()}
        made = None
        try:
            made = structure(kind, plain)
        except InvalidRequest as error:
            for problem in error.problems:
                node = values.get(problem.field)
                if node is None or plain[problem.field] is not None:  # else it was told why there is no value
                    self.problem((node or given).line, f"{where}.{problem.field}", problem.message)
        return made if len(self.problems) == before else None

    def texts(self, node: Node | None, where: str) -> tuple[str, ...] | None:
        """A list of texts; None where none is given."""
        if node is None or node.value is None:
            return None
        if not isinstance(node.value, list):
            self.problem(node.line, where, "must be a list of texts")
            return None
        values = [self.plain(each, where) for each in node.value]
        if not all(isinstance(value, str) and value for value in values):
            self.problem(node.line, where, "must be a list of texts")
        return tuple(value for value in values if isinstance(value, str))

    def plain(self, node: Node, where: str) -> Scalar:
        """A single value, taken from the environment where it says so."""
        value = node.value
        if isinstance(value, list | dict):
            self.problem(node.line, where, "must be one value")
            return None
        if not isinstance(value, str) or not value.startswith(_ENVIRONMENT):
            return value
        name = value.removeprefix(_ENVIRONMENT)
        if not (found := self.environment.get(name)):
            state = "empty" if found == "" else "not set"
            self.problem(node.line, where, f"the environment variable {name} is {state}; set it")
        return found
