"""A configuration at work: its keys, models and store, replaced as one by a reload."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import attrs

from impasto import Client, ImpastoError, Operation, Registry
from impasto.ext import MIDDLEWARE, StateStore, closest, machine_folder
from impasto_plugins.gateway.auth import Authenticator, Caller
from impasto_plugins.gateway.config.model import Config, InvalidConfig
from impasto_plugins.gateway.config.yaml_nodes import Mistake
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.storage.places import BATCHES, Places
from impasto_plugins.gateway.storage.s3 import S3Store
from impasto_plugins.gateway.telemetry.instrumentation import Observer
from impasto_plugins.transports.s3 import S3Clients

from .deployments import Model, load_models

_FORM_OVERHEAD_BYTES = 64 * 1024
"""Bytes that a form may add to its files."""

_TEXT_BYTES = 1 << 20
_DEFAULT_FILE_BYTES = 32 << 20
"""The limit for models that take files and have no limit of their own."""


@attrs.frozen(kw_only=True, eq=False)
class Runtime:
    """A configuration at work. Calls end with the one they began with.

    ``max_body_bytes`` limits a request's body by what the models accept.
    """

    config: Config
    auth: Authenticator
    models: Mapping[str, Model]
    places: Places
    max_body_bytes: int

    @classmethod
    async def create(
        cls,
        config: Config,
        client: Client,
        observer: Observer,
        s3_clients: S3Clients,
        *,
        state: StateStore,
        no_auth: bool,
    ) -> Runtime:
        """Import the plugins and open the stores. Raises ConfigError."""
        models, bucket, mistakes = await open_components(config, client, observer, s3_clients)
        if mistakes:
            raise InvalidConfig(config.source, mistakes)
        operations = [deployment.operation for model in models.values() for deployment in model.deployments]
        data, files, batches = data_folder(config), files_folder(config), batches_folder(config)
        return cls(
            config=config,
            auth=Authenticator(config, no_auth=no_auth),
            models=models,
            places=await asyncio.to_thread(
                Places.of, config, state, data=data, files=files, batches=batches, bucket=bucket
            ),
            max_body_bytes=max(map(_max_body_bytes, operations), default=_TEXT_BYTES) + _FORM_OVERHEAD_BYTES,
        )

    def find_model(self, name: object, caller: Caller) -> Model:
        """Return the model of a name, or the default one, for callers who may use it. Raises APIError."""
        if name in (None, ""):
            name = self.config.general.default_model
        if not isinstance(name, str) or not name:
            code = "missing_required_parameter" if name in (None, "") else "invalid_value"
            raise APIError(400, "model: required, a name of GET /v1/models", code=code, param="model")
        model = self.models.get(name)
        if model is None or not caller.may_use(name):
            closest_names = closest(name, (each for each in self.models if caller.may_use(each)))
            hint = f"closest: {', '.join(closest_names)}; " if closest_names else ""
            message = f"unknown model, or this key may not use it; {hint}see GET /v1/models"
            raise APIError(404, message, code="model_not_found", param="model")
        return model


async def open_components(
    config: Config, client: Client, observer: Observer, s3_clients: S3Clients
) -> tuple[Mapping[str, Model], S3Store | None, list[Mistake]]:
    """Return the models, the bucket if there is one, and every mistake that only plugins and libraries know."""
    all_mistakes: list[Mistake] = []
    registry = Registry(allow=config.plugins)
    usable = []
    for name in config.middleware:
        try:
            await asyncio.to_thread(registry.load, MIDDLEWARE, name, object)
            usable.append(name)
        except ImpastoError as error:
            all_mistakes.append((config.lines.get("general_settings.middleware", 0), error.message))
    models, mistakes = await load_models(attrs.evolve(config, middleware=tuple(usable)), client, observer)
    all_mistakes += mistakes
    store = None
    if config.files.s3 is not None and "files.s3" not in config.unknown_fields:
        try:
            store = await S3Store.open(config.files.s3, config.files.seconds, s3_clients)
        except ImpastoError as error:
            all_mistakes.append((config.lines.get("files.s3", 0), error.message))
    return models, store, all_mistakes


def _max_body_bytes(operation: Operation) -> int:
    if operation.max_bytes is not None:
        return operation.max_bytes
    return _DEFAULT_FILE_BYTES if operation.file_fields else _TEXT_BYTES


def data_folder(config: Config) -> Path:
    """Return the folder of data that must survive a restart."""
    folder = config.general.data_dir
    return Path(folder).expanduser() if folder is not None else machine_folder()


def files_folder(config: Config) -> Path:
    """Return the folder of images that are answered as a URL."""
    folder = config.files.folder
    return Path(folder).expanduser() if folder is not None else machine_folder() / "files"


def batches_folder(config: Config) -> Path:
    """Return the folder of files and batches."""
    folder = config.batches.folder
    return Path(folder).expanduser() if folder is not None else data_folder(config) / BATCHES
