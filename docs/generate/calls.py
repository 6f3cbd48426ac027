"""One call in its four forms: client, drop-in function, command line and gateway."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from impasto import Operation
from impasto_plugins.cli.demo.tour import Step
from impasto_plugins.cli.models import group_of

from .text import fenced

_PATHS = {"generate": "images/generations", "edit": "images/edits", "audio": "audio/generations"}
_GATEWAY = "http://127.0.0.1:4000/v1"


def calls(step: Step, operation: Operation, alias: str) -> Iterator[str]:
    """Return each form with its heading, ready to paste. ``alias`` is the model's name at the gateway."""
    yield "### Python"
    yield fenced("python", _client(step))
    if operation.output == "image":
        yield "### Drop-in function for LiteLLM"
        yield fenced("python", _function(step, group_of(operation)))
    yield "### Command line"
    yield fenced("sh", command(step, operation))
    yield "### Gateway"
    yield fenced("yaml", f"model_list:\n  - model_name: {alias}\n    litellm_params: {{model: {step.model}}}")
    yield fenced("sh", _curl(step, operation, alias))


def _arguments(params: Mapping[str, object], indent: int) -> str:
    lines = [f"{name}={_literal(value)}," for name, value in params.items()]
    return "\n".join(" " * indent + line for line in lines)


def _literal(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _client(step: Step) -> str:
    return f"""
import asyncio

import impasto


async def main() -> None:
    async with impasto.Client() as client:
        result = await client.run(
            "{step.model}",
{_arguments(step.params, 12)}
        )
        result.artifacts[0].save("made{step.file.suffix}")
        print(result.cost)


asyncio.run(main())
"""


def _function(step: Step, group: str) -> str:
    name = "image_edit" if group == "edit" else "image_generation"
    files = {name: f"Path({_literal(value)})" for name, value in step.params.items() if isinstance(value, Path)}
    lines = [f"    {name}={files.get(name) or _literal(value)}," for name, value in step.params.items()]
    imports = "from pathlib import Path\n\n" if files else ""
    return f"""
{imports}from impasto import {name}

response = {name}(
    model="{step.model}",
{chr(10).join(lines)}
)
print(response.data[0].b64_json[:8], response.cost)
"""


def command(step: Step, operation: Operation) -> str:
    """Return the command line: positional words and options by role, every other field with ``-p``."""
    group = group_of(operation)
    words: list[str] = []
    options: list[str] = []
    for name, value in step.params.items():
        role = operation.fields[name].role
        if (group, role) in (("generate", "prompt"), ("audio", "prompt"), ("edit", "image"), ("model3d", "image")):
            words.append(shlex.quote(str(value)))
        elif role in ("prompt", "mask", "audio"):
            options.append(f"--{role} {shlex.quote(str(value))}")
        else:
            options.append(f"-p {_pair(name, value)}")
    first = " ".join(("impasto", group, step.model, *words))
    return _folded(first, options)


def _curl(step: Step, operation: Operation, alias: str) -> str:
    group = group_of(operation)
    url = f"{_GATEWAY}/{_PATHS.get(group, '3d/generations')}"
    first = f'curl --fail-with-body {url} -H "Authorization: Bearer $KEY"'
    if any(isinstance(value, Path) for value in step.params.values()):
        parts = [f"-F model={alias}"]
        parts += [f"-F {_pair(name, value)}" for name, value in step.params.items()]
        return _folded(first, parts)
    body = json.dumps({"model": alias, **step.params})
    return _folded(first, ["-H 'Content-Type: application/json'", f"-d {shlex.quote(body)}"])


def _pair(name: str, value: object) -> str:
    return shlex.quote(f"{name}={'@' if isinstance(value, Path) else ''}{value}")


def _folded(first: str, rest: list[str]) -> str:
    """Return a command, broken into lines of a page's width."""
    lines = [first]
    for word in rest:
        if len(lines[-1]) + len(word) > 90:
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)
