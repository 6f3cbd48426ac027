"""Which model an id in Bedrock's path means: bare ids, profiles and ARNs, and the refusals of the others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from impasto import Operation, Registry

from .served_operations import served_operations

PROFILE = "us."
_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12})?"
    r":(?P<kind>foundation-model|inference-profile|application-inference-profile)/(?P<name>.+)"
)


class NoSuchModel(Exception):
    """The id means no model here: Bedrock's code, its status and its message."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


class Models:
    """The models that are served. ``profiles`` are application inference profiles: ARN to the model's id."""

    def __init__(self, operations: Iterable[Operation], profiles: Mapping[str, str]) -> None:
        self._by_id = {operation.target.removeprefix(PROFILE): operation for operation in operations}
        self._profiles = profiles

    def find(self, id: str, region: str | None) -> Operation:
        """The model of an id, called in a region (None: not known). Raises NoSuchModel."""
        if (arn := _ARN.fullmatch(id)) is None:
            return self._named(id, region)
        name, account = arn["name"], arn["account"]
        if region not in (None, arn["region"]):
            raise _invalid()
        match arn["kind"]:
            case "foundation-model" if account is None and not name.startswith(PROFILE):
                return self._named(name, region)
            case "inference-profile" if account is not None and name.startswith(PROFILE):
                return self._named(name, region)
            case "application-inference-profile" if account is not None:
                return self._profiled(id)
            case _:
                raise _invalid()

    def _named(self, id: str, region: str | None) -> Operation:
        operation = self._by_id.get(id.removeprefix(PROFILE))
        if operation is None or region not in (None, *_regions(operation)):
            raise _invalid()
        if id == operation.target:
            return operation
        if id.startswith(PROFILE):  # a generator has no profile
            raise _invalid()
        raise NoSuchModel(
            "ValidationException",
            400,
            f"Invocation of model ID {id} with on-demand throughput isn\N{RIGHT SINGLE QUOTATION MARK}t supported. "
            "Retry your request with the ID or ARN of an inference profile that contains this model.",
        )

    def _profiled(self, arn: str) -> Operation:
        operation = self._by_id.get(self._profiles.get(arn, "").removeprefix(PROFILE))
        if operation is None:
            raise NoSuchModel("ResourceNotFoundException", 404, "The inference profile could not be found.")
        return operation


def _regions(operation: Operation) -> tuple[str, ...]:
    regions: tuple[str, ...] = getattr(operation.dialect, "regions", ())
    return regions


def _invalid() -> NoSuchModel:
    return NoSuchModel("ValidationException", 400, "The provided model identifier is invalid.")


def installed(registry: Registry | None = None) -> list[Operation]:
    """Bedrock's models, from the entry points. Imports their modules."""
    return list({operation.target: operation for _, operation in served_operations("bedrock/", registry)}.values())
