"""A client of each provider and a recorder: what a call sends, and what it is refused for."""

from __future__ import annotations

import base64
import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote

import pytest

import impasto
from impasto import InvalidRequest, Operation
from impasto_plugins.stability.guardrail import HEADERS
from tests.bedrock import KEYS, pictured
from tests.conftest import KEY
from tests.plugins.stability import bedrock_cases, cases
from tests.recorder import ReceivedRequest, Recorder, recording


class Wire(ABC):
    """One provider's operations, and a client whose requests are recorded."""

    operations: Mapping[str, Operation]
    headers: frozenset[str] = frozenset()
    """Fields that are sent as headers."""

    def __init__(self, client: impasto.Client, recorder: Recorder) -> None:
        self.client, self.recorder = client, recorder

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        async with recording() as recorder, cls.connect(recorder) as client:
            yield cls(client, recorder)

    @staticmethod
    @abstractmethod
    def connect(recorder: Recorder) -> impasto.Client:
        """Return a client whose provider is the recorder."""

    @staticmethod
    @abstractmethod
    def request(operation: Operation, name: str, value: object) -> dict[str, object]:
        """Return the smallest request in which a field has this value."""

    @abstractmethod
    def check(self, operation: Operation, arguments: dict[str, Any], post: ReceivedRequest) -> None:
        """Check that a request has exactly the arguments of its call."""

    async def send(self, operation: Operation, arguments: dict[str, Any]) -> ReceivedRequest:
        """Run a call and return its one paid request, which has exactly its arguments."""
        self.recorder.requests.clear()
        result = await self.client.run(operation.id, **arguments)
        assert len(result.artifacts) == 1
        [post] = self.recorder.posts
        self.check(operation, arguments, post)
        return post

    async def refuse(self, operation: Operation, arguments: dict[str, Any]) -> dict[str, str]:
        """Return the problems of a call by field. Nothing may be sent."""
        self.recorder.requests.clear()
        with pytest.raises(InvalidRequest) as caught:
            await self.client.run(operation.id, **arguments)
        assert self.recorder.requests == []
        assert str(caught.value).startswith(f"{operation.id}: ")
        assert (caught.value.operation, caught.value.billed) == (operation.id, "no")
        return {problem.field: problem.message for problem in caught.value.problems}


class DirectWire(Wire):
    """Stability AI: multipart forms."""

    operations = cases.BY_NAME
    request = staticmethod(cases.request)

    @staticmethod
    def connect(recorder: Recorder) -> impasto.Client:
        recorder.jobs = cases.JOBS
        return impasto.Client(api_key=KEY, api_base=recorder.url, poll_interval=0.001, timeout=30)

    def check(self, operation: Operation, arguments: dict[str, Any], post: ReceivedRequest) -> None:
        assert post.path == operation.target
        expected = cases.on_the_wire(operation, arguments)
        assert set(post.fields) | set(post.files) == set(expected)
        for name, value in expected.items():
            if name in operation.file_fields:
                assert post.files[name].data == value
            elif isinstance(value, str):
                assert post.fields[name] == value
            else:  # a plain decimal of the very same value
                assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", post.fields[name])
                assert float(post.fields[name]) == value
                assert ("." in post.fields[name]) == isinstance(value, float)


class BedrockWire(Wire):
    """Amazon Bedrock: JSON."""

    operations = bedrock_cases.MODELS
    headers = frozenset(HEADERS)
    request = staticmethod(bedrock_cases.request)

    @staticmethod
    def connect(recorder: Recorder) -> impasto.Client:
        recorder.answer = lambda request: pictured()
        return impasto.Client(**KEYS, bedrock_endpoint=recorder.url, timeout=30)

    def check(self, operation: Operation, arguments: dict[str, Any], post: ReceivedRequest) -> None:
        assert post.path == f"/model/{quote(operation.target, safe='')}/invoke"
        body = json.loads(post.body)
        expected = bedrock_cases.in_body(operation, arguments)
        assert body.keys() == expected.keys()
        for name, value in expected.items():
            if name in operation.file_fields:
                assert base64.b64decode(body[name], validate=True) == value
            else:
                assert (body[name], type(body[name])) == (value, type(value))
