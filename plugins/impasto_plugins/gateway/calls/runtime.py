"""What a configuration comes to: its keys, its models and its store, taken up as one and replaced as one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import attrs
from aiohttp import ClientSession

from impasto import Client, ImpastoError, Operation, Registry
from impasto.ext import MIDDLEWARE, closest
from impasto_plugins.batch.ledger.workspace import state_folder
from impasto_plugins.gateway.auth import Caller, Keys
from impasto_plugins.gateway.config.model import DAY, Config, Mistakes
from impasto_plugins.gateway.config.yaml_nodes import Mistake
from impasto_plugins.gateway.errors import Failure
from impasto_plugins.gateway.storage.local import Folder, Store
from impasto_plugins.gateway.storage.s3 import Bucket
from impasto_plugins.gateway.telemetry.instrumentation import Observer

from .deployments import Model, models_of

_FORM_BYTES = 64 * 1024
"""What a form may add to its files."""

_TEXT_BYTES = 1 << 20
_ANY_BYTES = 32 << 20
"""The limit of a model that takes files and has none of its own."""


@attrs.frozen(kw_only=True, eq=False)
class Setup:
    """A configuration at work. Calls end with the one they began with.

    ``folder`` is what is served of, also where ``store`` keeps pictures elsewhere by now, and ``unread``, where paid
    answers are kept that can't be used. ``most_bytes`` bounds a request's body by what the models take.
    """

    config: Config
    keys: Keys
    models: Mapping[str, Model]
    store: Store
    folder: Folder
    unread: Folder
    most_bytes: int

    @classmethod
    async def of(
        cls, config: Config, client: Client, observer: Observer, uploads: ClientSession, *, no_auth: bool
    ) -> Setup:
        """Imports what is needed. ``uploads`` are those to S3. Raises ConfigError."""
        models, store, mistakes = await open_parts(config, client, observer, uploads)
        if mistakes:
            raise Mistakes(config.source, mistakes)
        operations = [deployment.operation for model in models.values() for deployment in model.deployments]
        files = config.files
        folder = Folder(Path(files.folder) if files.folder is not None else state_folder() / "files", files.seconds)
        return cls(
            config=config,
            keys=Keys(config, no_auth=no_auth),
            models=models,
            store=store if store is not None else folder,
            folder=folder,
            unread=Folder(data_folder(config) / "unread", DAY),
            most_bytes=max(map(_most_bytes, operations), default=_TEXT_BYTES) + _FORM_BYTES,
        )

    def model(self, name: object, caller: Caller) -> Model:
        """Return the model of a name, or the default one, for callers who may use it. Raises Failure."""
        if name in (None, ""):
            name = self.config.general.default_model
        if not isinstance(name, str) or not name:
            code = "missing_required_parameter" if name in (None, "") else "invalid_value"
            raise Failure(400, "model: required, the name of one of GET /v1/models", code=code, param="model")
        model = self.models.get(name)
        if model is None or not caller.may_use(name):
            near = closest(name, (each for each in self.models if caller.may_use(each)))
            hint = f"closest: {', '.join(near)}; " if near else ""
            message = f"there is no such model, or this key may not use it; {hint}see GET /v1/models"
            raise Failure(404, message, code="model_not_found", param="model")
        return model


async def open_parts(
    config: Config, client: Client, observer: Observer, uploads: ClientSession
) -> tuple[Mapping[str, Model], Store | None, list[Mistake]]:
    """Return the models, the bucket if there is one, and every mistake that only plugins and libraries know."""
    found: list[Mistake] = []
    registry = Registry(allow=config.plugins)
    usable = []
    for name in config.middleware:
        try:
            await asyncio.to_thread(registry.load, MIDDLEWARE, name, object)
            usable.append(name)
        except ImpastoError as error:
            found.append((config.lines.get("general_settings.middleware", 0), error.message))
    models, mistakes = await models_of(attrs.evolve(config, middleware=tuple(usable)), client, observer)
    found += mistakes
    store = None
    if config.files.s3 is not None and "files.s3" not in config.unread:
        try:
            store = await Bucket.open(config.files.s3, config.files.seconds, uploads)
        except ImpastoError as error:
            found.append((config.lines.get("files.s3", 0), error.message))
    return models, store, found


def _most_bytes(operation: Operation) -> int:
    if operation.max_bytes is not None:
        return operation.max_bytes
    return _ANY_BYTES if operation.file_fields else _TEXT_BYTES


def data_folder(config: Config) -> Path:
    """Where a gateway keeps what must outlive it."""
    named = config.general.data_dir
    return Path(named) if named is not None else state_folder()
