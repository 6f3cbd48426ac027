"""Ray Data's processor of HTTP requests on the provider's own wire: ``python ray_data.py PICTURES``.

Run by a Python that has ray[data], aiohttp and pydantic, and nothing of ours. It has no limit that holds over its
workers, and within a worker each request waits for the answer to the one before: so many workers stay below 150
requests in 10 s.
"""

import base64
import os
import sys

import ray
from ray.data.llm import HttpRequestProcessorConfig, build_processor

SIDE_BY_SIDE = 6

url, key, pictures = os.environ["STABILITY_API_BASE"], os.environ["STABILITY_API_KEY"], int(sys.argv[1])
ray.init(num_cpus=SIDE_BY_SIDE + 2, log_to_driver=False, include_dashboard=False)
settings = HttpRequestProcessorConfig(
    url=f"{url}/v2beta/stable-image/generate/core",
    headers={"authorization": f"Bearer {key}", "accept": "application/json"},
    qps=15,
    batch_size=8,
    concurrency=SIDE_BY_SIDE,
    max_retries=8,
)
made = build_processor(
    settings,
    preprocess=lambda row: {"payload": {"prompt": f"a lighthouse {row['id']}", "none": b""}},  # bytes make it a form
    postprocess=lambda row: {"bytes": len(base64.b64decode(row["http_response"]["image"]))},
)(ray.data.range(pictures, override_num_blocks=SIDE_BY_SIDE * 4))
print(sum(1 for row in made.take_all() if row["bytes"]))
