"""``impasto batch run --engine ray``: Ray starts hosts of one batch, each with the options of the command."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from impasto import ConfigError, ImpastoError
from impasto_plugins.batch.engines.ray_dataset import WORKER_CPUS, import_ray
from impasto_plugins.batch.output.s3 import local_folder

if TYPE_CHECKING:
    from .run import CommandOptions


def options_of_hosts(options: CommandOptions) -> list[CommandOptions]:
    """Return the options of each host, whose share is its part of the limits, without a state. Raises ConfigError."""
    if options["share"] is not None:
        raise ConfigError("--engine ray gives each worker its own share; leave --share out")
    if str(options["manifest"]) == "-":
        raise ConfigError("--engine ray needs a manifest in a file, not on standard input")
    workers, staging = options["workers"] or 1, options["staging"]
    if staging is None:
        folder = local_folder(options["out"])
        staging = folder.with_name(f"{folder.name}-workers")
    hosts: list[CommandOptions] = []
    for number in range(1, workers + 1):
        host: CommandOptions = {**options, "engine": None, "workers": None, "join": True}
        host["manifest"] = options["manifest"].absolute()
        host["staging"] = staging / str(number)
        host["share"] = f"{number}/{workers}" if options["state"] is None else None
        hosts.append(host)
    return hosts


def run_hosts(hosts: list[CommandOptions]) -> list[int]:
    """Run hosts of one batch and return their exit codes. If one dies, Ray starts it again.

    Raises MissingExtra, and the first error of a host: ConfigError, ManifestError.
    """
    ray = import_ray()
    path = hosts[0]["manifest"]
    try:
        manifest = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"can't read the manifest {str(path)!r}: {error.strerror}") from None
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING)  # otherwise the first task does it, with all that Ray reports
    run = ray.remote(_run_host).options(num_cpus=WORKER_CPUS, max_retries=-1)
    tasks = [run.remote(options, manifest) for options in hosts]
    try:
        return [int(code) for code in ray.get(tasks)]
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ImpastoError):
            raise error.cause from None
        raise


def _run_host(options: CommandOptions, manifest: bytes) -> int:
    """Run a host on a node, with the driver's manifest where the node has none."""
    from .run import run_command

    with TemporaryDirectory(prefix="impasto-") as folder:
        path = options["manifest"]
        if not path.is_file() or path.read_bytes() != manifest:
            path = Path(folder) / path.name
            path.write_bytes(manifest)
        return run_command({**options, "manifest": path})
