"""Distributions made up for a test: metadata and modules in a directory, as pip would have put them there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path


def install(where: Path, name: str, points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]) -> None:
    """Puts a distribution into ``where``: its entry points by group and name, its modules' sources by module name."""
    info = where / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [line for group, names in points.items() for line in (f"[{group}]", *map(" = ".join, names.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, source in modules.items():
        (where / f"{module}.py").write_text(source)


def wheel(where: Path, name: str, points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]) -> Path:
    """Builds a distribution's wheel, for pip to install."""
    install(where / name, name, points, modules)
    [info] = (where / name).glob("*.dist-info")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    record = info.relative_to(where / name) / "RECORD"
    built = where / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(built, "w") as archive:
        lines = []
        for path in sorted(path for path in (where / name).rglob("*") if path.is_file()):
            inside, data = path.relative_to(where / name).as_posix(), path.read_bytes()
            archive.writestr(inside, data)
            hashed = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{inside},sha256={hashed},{len(data)}")
        archive.writestr(record.as_posix(), "\n".join([*lines, f"{record.as_posix()},,"]))
    return built


def pip_install(site: Path, *what: Path) -> None:
    """Installs packages or wheels into a folder, with pip and without a network."""
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--target")
    pip = [sys.executable, "-m", "pip", "install", *options, str(site), *map(str, what)]
    subprocess.run(pip, check=True, capture_output=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


ACME = '''
import attrs
from impasto import Artifact, ChargeUnknown, Cost, FlatPrice, Operation, Provider, RateLimited, Result, WireRequest

acme = Provider(
    name="acme", base_url="https://api.acme.example", key_variable="ACME_KEY", key_header="x-key", key_prefix=""
)


@attrs.frozen(kw_only=True)
class Params:
    """Plain attributes: no function of ours made them."""

    prompt: str
    steps: int = attrs.field(default=30, validator=attrs.validators.le(50))
    tile: bool = False


class Dialect:
    """How Acme spells it."""

    def transform_request(self, operation, request, account):
        params = attrs.asdict(request.params)
        return WireRequest(target=request.target, fields={n: str(v).lower() for n, v in params.items()})

    def classify_error(self, operation, response):
        if response.status == 429:
            return RateLimited("slow down", status=429)
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}", status=response.status)

    def normalize_response(self, operation, request, response):
        return Result(artifacts=(Artifact(data=response.body, media_type=response.media_type),))


paint = Operation(
    id="acme/paint",
    title="Acme paint",
    params=Params,
    target="/paint",
    provider=acme,
    dialect=Dialect(),
    price=FlatPrice(cost=Cost(usd=0.02, as_of="2026-01-01")),
)
'''
"""A third party's provider and model, in one module."""

OPERATIONS = "impasto.operations"
