"""The models behind ids in Bedrock's path: bare ids, profiles and ARNs, and the refusals of others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from impasto import Operation, Registry

from .operations import load_operations

PROFILE = "us."
_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12})?"
    r":(?P<kind>foundation-model|inference-profile|application-inference-profile)/(?P<name>.+)"
)


class NoSuchModel(Exception):
    """An id without a model: Bedrock's code, its status and its message."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


class BedrockModels:
    """The served models. ``profiles`` are application inference profiles: ARN to the model's id."""

    def __init__(self, operations: Iterable[Operation], profiles: Mapping[str, str]) -> None:
        self._by_id = {operation.target.removeprefix(PROFILE): operation for operation in operations}
        self._profiles = profiles

    def find(self, id: str, region: str | None) -> Operation:
        """Return the model of an id, called in a region (None: unknown). Raises NoSuchModel."""
        if (arn := _ARN.fullmatch(id)) is None:
            return self._find_by_id(id, region)
        name, account = arn["name"], arn["account"]
        if region not in (None, arn["region"]):
            raise _invalid_model()
        match arn["kind"]:
            case "foundation-model" if account is None and not name.startswith(PROFILE):
                return self._find_by_id(name, region)
            case "inference-profile" if account is not None and name.startswith(PROFILE):
                return self._find_by_id(name, region)
            case "application-inference-profile" if account is not None:
                return self._find_by_profile(id)
            case _:
                raise _invalid_model()

    def _find_by_id(self, id: str, region: str | None) -> Operation:
        operation = self._by_id.get(id.removeprefix(PROFILE))
        if operation is None or region not in (None, *_regions(operation)):
            raise _invalid_model()
        if id == operation.target:
            return operation
        if id.startswith(PROFILE):  # a generator has no profile
            raise _invalid_model()
        raise NoSuchModel(
            "ValidationException",
            400,
            f"Invocation of model ID {id} with on-demand throughput isn\N{RIGHT SINGLE QUOTATION MARK}t supported. "
            "Retry your request with the ID or ARN of an inference profile that contains this model.",
        )

    def _find_by_profile(self, arn: str) -> Operation:
        operation = self._by_id.get(self._profiles.get(arn, "").removeprefix(PROFILE))
        if operation is None:
            raise NoSuchModel("ResourceNotFoundException", 404, "The inference profile could not be found.")
        return operation


def _regions(operation: Operation) -> tuple[str, ...]:
    regions: tuple[str, ...] = getattr(operation.dialect, "regions", ())
    return regions


def _invalid_model() -> NoSuchModel:
    return NoSuchModel("ValidationException", 400, "The provided model identifier is invalid.")


def load_bedrock_operations(registry: Registry | None = None) -> list[Operation]:
    """Return Bedrock's models from the entry points. Imports their modules."""
    return list({operation.target: operation for _, operation in load_operations("bedrock/", registry)}.values())
