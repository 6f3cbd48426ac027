"""A configuration file, read so that nothing in it is passed over: every mistake is told with its line.

Safe YAML only: no tags, no aliases, no key twice, at most 1 MiB and a few levels deep.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar, cast

import attrs
import yaml

from impasto import ConfigError, InvalidRequest
from impasto.ext import Allowed, closest, printable, structure

from .model import S3, Batches, Config, Entry, Files, General, Info, Named, Params, Wording
from .validators import wrong_with_hash, wrong_with_host, wrong_with_key, wrong_with_url

MOST_BYTES = 1 << 20
DEEPEST = 12
LONGEST_NAME = 200
_CALL = ("model", "base_model", "timeout")
_ENVIRONMENT = "os.environ/"
LONGEST_PRESIGNED = 7 * 24 * 3600
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]*[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]+")
_INDENTED = "; is it indented as its neighbours are?"
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}

T = TypeVar("T")

_RETRIES = "leave it out: what is proved to have cost nothing is tried again by itself"
_KEYS = "limits belong to a key: see keys (rpm, images_per_day, usd_per_month)"
_SEEN = "leave it out: /metrics, traces and the access log show what happens"
ADVICE: Mapping[str, str] = {
    "rpm": _KEYS,
    "tpm": _KEYS,
    "max_budget": _KEYS,
    "max_parallel_requests": _KEYS,
    "num_retries": _RETRIES,
    "max_retries": _RETRIES,
    "fallbacks": "give several entries of model_list one model_name: they stand in for each other",
    "router_settings": "give several entries of model_list one model_name: they stand in for each other",
    "environment_variables": "set them where the gateway is started",
    "request_timeout": "use general_settings.timeout",
    "custom_llm_provider": "name the provider in model, as in stability/sd3.5-large",
    "database_url": "leave it out: keys and what they spent are kept in SQLite",
    "success_callback": _SEEN,
    "failure_callback": _SEEN,
    "callbacks": _SEEN,
    "set_verbose": _SEEN,
    "cache": "leave it out: Idempotency-Key answers a repeated request",
    "cache_params": "leave it out: Idempotency-Key answers a repeated request",
    "alerting": _SEEN,
    "json_logs": "leave it out: the access log is JSON",
    "guardrails": "leave it out: what the provider's moderation refuses is told as moderation_blocked",
    "store_model_in_db": "leave it out: models stand in this file, which is read again on SIGHUP",
    "output_cost_per_image": "leave it out: what a model costs is known",
    "region_name": "use aws_region_name",
    "aws_role_name": "name a profile that takes the role on, in aws_profile_name",
    "organization": "leave it out: an account is known by its api_key",
    "api_version": "leave it out: the provider has one",
    "stream_timeout": "use timeout: it holds for the whole call",
}
"""LiteLLM's keys that are not taken here, and what to use instead."""

Scalar = str | int | float | bool | None


@attrs.frozen(eq=False)
class Node:
    """A value and the line on which it begins."""

    line: int
    value: Scalar | list[Node] | dict[str, Node] = attrs.field(repr=False)


def load(path: str | os.PathLike[str]) -> Config:
    """Reads a configuration file. Raises ConfigError with every mistake and its line."""
    name = os.fspath(path)
    try:
        with open(path, "rb") as source:
            data = source.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't read {name!r}: {error.strerror}") from None
    return parse(data, Path(name).name)


def parse(data: bytes, name: str = "config", environment: Mapping[str, str] | None = None) -> Config:
    """Makes a configuration of a file's content. Raises ConfigError with every mistake and its line."""
    reader = _Reader(name, os.environ if environment is None else environment)
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name}: has more than {MOST_BYTES:,} bytes")
    try:
        config = reader.config(_Builder(data.decode("utf-8")).document())
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: is no UTF-8 text") from None
    except _Unfit as error:
        raise ConfigError(f"{name}: line {error.line}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "is no YAML"
        said += _INDENTED if said.startswith("mapping values") else ""
        raise ConfigError(f"{name}: line {mark.line + 1 if mark is not None else 1}: {said}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: holds a character that YAML does not allow") from None
    if reader.problems:
        told = sorted(reader.problems)
        raise ConfigError("\n".join(f"{name}: line {line}: {message}" for line, message in told))
    return config


class _Unfit(ValueError):
    """YAML that a configuration has no use for."""

    def __init__(self, event: yaml.Event, message: str) -> None:
        super().__init__(message)
        self.line = _line(event)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


class _Builder:
    """Makes nodes of the parser's events: nothing is constructed that was not looked at."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._resolver = yaml.SafeLoader("")

    def document(self) -> Node:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return Node(1, {})
        node = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            raise _Unfit(after, "a second document begins; a configuration is one")
        return node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Unfit(event, "anchors and aliases are not taken; write the value out")
        if getattr(event, "tag", None) is not None:
            raise _Unfit(event, "tags are not taken; write the plain value")
        if depth > DEEPEST:
            raise _Unfit(event, "is nested too deeply")
        match event:
            case yaml.ScalarEvent():
                return Node(line, self._scalar(event))
            case yaml.SequenceStartEvent():
                items = []
                while not isinstance(each := next(self._events), yaml.SequenceEndEvent):
                    items.append(self._node(each, depth + 1))
                return Node(line, items)
            case _:
                return Node(line, self._mapping(depth))

    def _mapping(self, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key.value, str):
                raise _Unfit(event, "a key must be text")
            if key.value in found:
                raise _Unfit(event, f"{key.value!r} is given twice")
            value = self._node(next(self._events), depth + 1)
            found[key.value] = Node(key.line, value.value)
        return found

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        tag: str = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        if tag not in _SCALARS:
            return event.value  # text, and what YAML would make a date or a merge of
        try:
            return cast("Scalar", self._resolver.construct_object(yaml.ScalarNode(tag, event.value)))
        except ValueError:  # a number beyond all bounds
            raise _Unfit(event, "is no number that can be read") from None


class _Reader:
    """Makes records of nodes, and writes down what is wrong with each."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.problems: list[tuple[int, str]] = []

    def problem(self, line: int, where: str, message: str) -> None:
        self.problems.append((line, printable(f"{where}: {message}")))

    def check(self, node: Node | None, where: str, value: str | None, wrong_with: Callable[[str], str | None]) -> None:
        """Writes down what is wrong with a value, if there is one."""
        if node is not None and value is not None and (message := wrong_with(value)) is not None:
            self.problem(node.line, where, message)

    def config(self, root: Node) -> Config:
        top = self.section(root, "", ("model_list", "litellm_settings", "general_settings", "keys", "files", "batches"))
        lists = ("allowed_hosts", "middleware")
        general = top.get("general_settings", Node(root.line, {}))
        settings = self.section(general, "general_settings", (*attrs.fields_dict(General), *lists, "plugins"))
        plugins = self.plugins(settings.pop("plugins", None))
        named = {name: settings.pop(name, None) for name in lists}
        hosts, middleware = (self.texts(node, f"general_settings.{name}") for name, node in named.items())
        wording = self.record(Wording, top.get("litellm_settings"), "litellm_settings")
        models = self.models(top.get("model_list", Node(root.line, None)))
        return Config(
            source=self.name,
            models=models,
            drop_params=wording is not None and wording.drop_params,
            general=self.general(Node(general.line, settings)),
            allowed_hosts=self.hosts(named["allowed_hosts"], hosts or ()),
            middleware=middleware or (),
            plugins=plugins,
            keys=self.keys(top.get("keys"), {model.model_name for model in models}),
            files=self.files(top.get("files", Node(root.line, {}))),
            batches=self.record(Batches, top.get("batches"), "batches") or Batches(),
        )

    def general(self, node: Node) -> General:
        made = self.record(General, node, "general_settings") or General()
        assert isinstance(node.value, dict)  # noqa: S101 - as it is called
        self.check(node.value.get("master_key"), "general_settings.master_key", made.master_key, wrong_with_key)
        self.check(node.value.get("public_url"), "general_settings.public_url", made.public_url, wrong_with_url)
        return made

    def hosts(self, node: Node | None, given: Iterable[str]) -> tuple[str, ...]:
        found = tuple(host.lower() for host in given)
        for host in found:
            self.check(node, "general_settings.allowed_hosts", host, wrong_with_host)
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
        found = (self.entry(each, f"model_list[{i}]") for i, each in enumerate(node.value))
        return tuple(entry for entry in found if entry is not None)

    def entry(self, node: Node, where: str) -> Entry | None:
        given = self.section(node, where, ("model_name", "litellm_params", "provider_params", "model_info"))
        words = [word for word in ("litellm_params", "provider_params") if word in given]
        if len(words) != 1:
            self.problem(node.line, where, "give litellm_params or provider_params, which is the same; one of them")
        word = words[0] if words else "litellm_params"
        params = self.record(Params, given.get(word), f"{where}.{word}") if words else None
        info = self.record(Info, given.get("model_info"), f"{where}.model_info")
        name = self.plain(given["model_name"], f"{where}.model_name") if "model_name" in given else None
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
            takes = f"text of 1 to {LONGEST_NAME} printable characters"
            wrong = "" if isinstance(name, str) else f", not {type(name).__name__}"
            said = f"required: {takes}" if name is None else f"must be {takes}{wrong}"
            self.problem(node.line, f"{where}.model_name", said)
            return None
        if params is None:
            return None
        reach = {key: each for key, each in attrs.asdict(params).items() if key not in _CALL and each is not None}
        return Entry(
            model_name=name,
            model=params.model,
            base_model=params.base_model,
            timeout=params.timeout,
            mode=info.mode if info is not None else None,
            reach=reach,
            line=node.line,
        )

    def keys(self, node: Node | None, known: Collection[str]) -> tuple[Named, ...]:
        if node is None:
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
        if node is None:
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
