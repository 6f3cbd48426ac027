"""What somebody writes who calls Bedrock by hand, with aiobotocore and the standard library."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

REGION, ACCESS_KEY, SECRET_KEY = "us-west-2", "AKIABENCHMARK", "benchmark"


@asynccontextmanager
async def client(url: str, calls: int) -> AsyncIterator[Any]:
    """One client with room for all calls, the time-out that ours has and no retries. botocore has no types."""
    config = AioConfig(max_pool_connections=calls, read_timeout=300, retries={"total_max_attempts": 1})
    made = get_session().create_client(
        "bedrock-runtime",
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=config,
    )
    async with made as client:
        yield client


async def invoke(client: Any, model: str, fields: dict[str, Any], image: Path | None = None) -> bytes:
    """One call; the picture."""
    if image is not None:
        fields = {**fields, "image": base64.b64encode(image.read_bytes()).decode()}
    body = json.dumps(fields)
    reply = await client.invoke_model(
        modelId=model, body=body, contentType="application/json", accept="application/json"
    )
    answer = json.loads(await reply["body"].read())
    if answer["finish_reasons"][0] is not None:
        raise RuntimeError(answer["finish_reasons"][0])
    return base64.b64decode(answer["images"][0])
