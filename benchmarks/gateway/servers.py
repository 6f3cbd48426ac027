"""The servers of the gateway's benchmark, each a process of its own: the provider's stand-in, the relay, ours."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own

from benchmarks import server
from benchmarks.pictures import picture

from .load import KEY

PATIENCE = 120.0
"""Seconds that a server has to start."""

_NGINX = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
  types {{ image/png png; application/json json; }}
  map $http_accept $kind {{ default png; ~application/json json; }}
  client_max_body_size 64m; client_body_buffer_size 8m; client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; scgi_temp_path {folder}/s; uwsgi_temp_path {folder}/u;
  {servers}
}}
"""

_NGINX_SERVER = """\
server {{
    listen 127.0.0.1:{port} backlog=4096; listen unix:{folder}/{size}.sock; root {folder};
    add_header seed 7; add_header finish-reason SUCCESS; add_header x-request-id r1;
    location /v2beta/stable-image/generate/ {{ error_page 418 =200 /{size}.$kind; return 418; }}
    location /v2beta/stable-image/edit/ {{  # a proxy reads the whole upload before it asks
      proxy_pass http://unix:{folder}/{size}.sock:/v2beta/stable-image/generate/; proxy_pass_request_body off;
      proxy_set_header content-length ""; proxy_hide_header x-none;
    }}
  }}
"""


_PROXY = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_max_body_size 64m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  scgi_temp_path {folder}/s; uwsgi_temp_path {folder}/u;
  upstream provider {{ server {provider}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header connection ""; }} }}
}}
"""


@attrs.frozen
class Process:
    """A server that runs: where, and its process, which may have children."""

    url: str
    root: psutil.Process
    seconds: float
    """What it took until it was ready."""

    folder: Path = Path()
    """What it keeps on disk."""

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        return int(self.root.wait(PATIENCE) or 0)

    def tree(self) -> list[psutil.Process]:
        """It and its children."""
        return [self.root, *self.root.children(recursive=True)]

    def memory(self) -> float:
        """MB that it takes now (RSS, children too)."""
        return sum(int(each.memory_info().rss) for each in self.tree()) / 1e6

    def peak(self) -> float:
        """The most MB that it took so far."""
        told = (Path(f"/proc/{each.pid}/status").read_text() for each in self.tree())
        return sum(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in told) / 1e6

    def cpu(self) -> float:
        """Seconds of CPU that it took so far."""
        return sum(sum(each.cpu_times()[:2]) for each in self.tree())


@contextmanager
def started(
    command: list[str], url: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Runs a server until the block ends. Without ``url``, the server says it on its first line, at its end."""
    began = time.monotonic()
    out = subprocess.PIPE if url is None else subprocess.DEVNULL
    with subprocess.Popen(command, stdout=out, text=True, env={**os.environ, **(environment or {})}) as process:
        try:
            if process.stdout is not None:
                url = (process.stdout.readline().split() or [""])[-1]
            if not url:
                raise RuntimeError(f"{command[:4]} did not start")
            _until_it_listens(url, process)
            yield Process(url, psutil.Process(process.pid), time.monotonic() - began)
        finally:
            if process.poll() is None:
                for each in psutil.Process(process.pid).children(recursive=True):
                    each.terminate()
                process.terminate()
                process.wait(PATIENCE)


def _until_it_listens(url: str, process: subprocess.Popen[str]) -> None:
    host, port = url.removeprefix("http://").split(":")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as trying:
            if trying.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.005)
    raise RuntimeError(f"{url} does not listen")


@contextmanager
def provider(*sizes: int) -> Iterator[dict[int, str]]:
    """Answers every call with a picture: its addresses by the picture's size. nginx, or where it is missing Python."""
    with ExitStack() as stack:
        if _nginx() is None:
            print("nginx is not installed: a slower stand-in is the provider", file=sys.stderr)
            yield {size: stack.enter_context(server.running(size)) for size in sizes}
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {size: f"http://127.0.0.1:{free_port()}" for size in sizes}
        text = ""
        for size, url in urls.items():
            (folder / f"{size}.png").write_bytes(picture(size))
            told = {"image": base64.b64encode(picture(size)).decode(), "finish_reason": "SUCCESS", "seed": 7}
            (folder / f"{size}.json").write_text(json.dumps(told))
            text += _NGINX_SERVER.format(folder=folder, size=size, port=url.rpartition(":")[2])
        stack.enter_context(_started_nginx(folder, _NGINX.format(folder=folder, servers=text), urls[sizes[0]]))
        yield urls


@contextmanager
def plain_proxy(url: str) -> Iterator[Process]:
    """nginx, which passes everything on to a provider and changes nothing: the limit of what a gateway can do."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        text = _PROXY.format(folder=folder, port=port, provider=url.removeprefix("http://"))
        with _started_nginx(Path(folder), text, f"http://127.0.0.1:{port}") as process:
            yield process


def has_nginx() -> bool:
    """Whether there is one."""
    return _nginx() is not None


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


@contextmanager
def _started_nginx(folder: Path, text: str, url: str) -> Iterator[Process]:
    folder.chmod(0o755)  # its worker may be another user
    (folder / "conf").write_text(text)
    with started(
        [str(_nginx()), "-e", f"{folder}/errors", "-p", str(folder), "-c", str(folder / "conf")], url
    ) as process:
        yield process


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as trying:
        trying.bind(("127.0.0.1", 0))
        return int(trying.getsockname()[1])


@contextmanager
def gateway(
    urls: Mapping[int, str], *, workers: int = 1, more: str = "", python: str = sys.executable
) -> Iterator[Process]:
    """``impasto serve`` in front of a provider; its models are called by the picture's size, ``edit-`` before it.

    ``python``: that of another installation, to be compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        entries = "".join(
            f"  - model_name: '{word}{size}'\n"
            f"    litellm_params: {{model: stability/{model}, api_key: k, api_base: {url}}}\n"
            for size, url in urls.items()
            for word, model in (("", "stable-image-core"), ("edit-", "erase"))
        )
        files = f"files: {{folder: {folder}/files}}\n"
        path.write_text(f"model_list:\n{entries}general_settings:\n  master_key: {KEY}\n{files}{more}")
        port = free_port()
        words = ["serve", "--config", str(path), "--port", str(port), "--workers", str(workers)]
        command = [str(Path(python).parent / "impasto"), *words]
        with started(command, f"http://127.0.0.1:{port}", {"XDG_STATE_HOME": folder}) as process:
            yield attrs.evolve(process, folder=Path(folder))


@contextmanager
def relay(url: str, *, workers: int = 1) -> Iterator[Process]:
    """The relay written by hand."""
    with started([sys.executable, "-u", "-m", "benchmarks.floors.relay", url, "--workers", str(workers)]) as process:
        yield process
