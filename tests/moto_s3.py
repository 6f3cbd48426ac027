"""moto's S3: a server that nobody here has written, which honours conditions and lists objects.

``tests.s3`` is the other one: it checks signatures and checksums, which moto does not, and fails on request.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import boto3
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer


@attrs.frozen
class Bucket:
    """A bucket of moto's, an S3 that nobody here has written."""

    url: str
    name: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of a user who has its key."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }

    @property
    def out(self) -> str:
        """The batch's --out."""
        return f"s3://{self.name}/batch"

    def client(self) -> Any:
        """Amazon's own client."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="AKIATEST",
            aws_secret_access_key="secret-of-the-test",
        )

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """The batch's objects below a prefix, by the names behind it."""
        client, start, found = self.client(), f"batch/{prefix}", {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=start):
            for each in page.get("Contents", ()):
                body = client.get_object(Bucket=self.name, Key=each["Key"])["Body"].read()
                found[each["Key"].removeprefix(start)] = body
        return found

    def intents(self) -> list[dict[str, Any]]:
        """What each intent says."""
        return [json.loads(body) for body in self.objects(".impasto/intents/").values()]


_writing = threading.Lock()
_put_object = S3Response.put_object


def _put_one_at_a_time(response: S3Response) -> Any:
    """Store an object as S3 does: its condition and its content are one step. In moto two threads may pass both."""
    with _writing:
        return _put_object(response)


@contextmanager
def moto() -> Iterator[str]:
    """Serve an S3. Yields its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    S3Response.put_object = _put_one_at_a_time  # type: ignore[method-assign, assignment]  # moto has no other way
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def new_bucket(url: str, name: str) -> Bucket:
    """Create a bucket."""
    bucket = Bucket(url, name)
    bucket.client().create_bucket(Bucket=name)
    return bucket
