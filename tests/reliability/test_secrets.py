"""No key, prompt or picture in logs, errors or tracebacks (S9), and hostile headers beside a paid picture (S22)."""

from __future__ import annotations

import base64
import logging
import traceback
import urllib.parse
import warnings
from collections.abc import Iterator

import pytest

import impasto
from tests.images import chunk
from tests.reliability.conftest import JOB_MODEL, KEY, MakeClient
from tests.reliability.servers import (
    PICTURE,
    PICTURE_HEADERS,
    Answer,
    Server,
    accepted_job,
    head,
    http,
    in_json,
    page,
    picture,
    raw,
    refused,
)

PROMPT = "canary-prompt-93c1"
IMAGE = PICTURE[:-12] + chunk(b"tEXt", b"canary-pixels-7f22") + PICTURE[-12:]
CANARIES = {
    "key": KEY,
    "key in base64": base64.b64encode(KEY.encode()).decode().rstrip("="),
    "key in url": urllib.parse.quote(KEY, safe=""),
    "half a key": KEY[: len(KEY) // 2],
    "a prefix of the key": KEY[:12],
    "prompt": PROMPT,
    "picture": "canary-pixels-7f22",
    "picture in base64": base64.b64encode(b"canary-pixels-7f22").decode()[4:-4],
}
ECHO = f"you sent Bearer {KEY} / {base64.b64encode(KEY.encode()).decode()} / {KEY[:20]} / {KEY[:12]}..."

FAULTS: dict[str, Answer] = {
    "good": picture(),
    "filtered": picture(**{"finish-reason": "CONTENT_FILTERED"}),
    **{
        f"refused {status}": refused(status, message=ECHO, x_request_id=KEY)
        for status in (400, 401, 402, 403, 404, 422)
    },
    "name": refused(400, KEY),
    "v1": in_json({"id": "e", "name": "unauthorized", "message": ECHO}, 401),
    "429": refused(429, message=ECHO, retry_after="0"),
    "500": refused(500, message=ECHO),
    "page": page(502, ECHO),
    "type": http(200, ECHO.encode(), content_type=f"text/{KEY}"),
    "json": http(200, ECHO.encode(), content_type="application/json"),
    "not a picture": http(200, ECHO.encode(), content_type="image/png"),
    "reset": raw(end="reset"),
    "cut": raw(
        head(200, {**PICTURE_HEADERS, "content-length": "999", "x-request-id": KEY}) + ECHO.encode(), end="close"
    ),
    "no http": raw(ECHO.encode() + b"\r\n\r\n", end="close"),
    "bad header": raw(b"HTTP/1.1 200 OK\r\n" + f"{ECHO}\r\n\r\n".encode(), end="close"),
    "bad length": raw(f"HTTP/1.1 200 OK\r\ncontent-length: {KEY}\r\n\r\n".encode(), end="close"),
    "redirect": http(307, location=f"http://127.0.0.1:9/?{KEY}"),
}


class Everything(logging.Handler):
    """Keeps every record as text, its traceback and arguments too."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.text: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record) + repr(record.args))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    handler, root = Everything(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.text
    root.removeHandler(handler)
    root.setLevel(level)


def everything_of(error: BaseException) -> Iterator[str]:
    """All that a log, a debugger or an error tracker shows of an error, and of those behind it."""
    yield from traceback.format_exception(error)
    numbers: set[int] = set()
    behind: list[BaseException | None] = [error]
    while behind:
        each = behind.pop()
        if each is None or id(each) in numbers:
            continue
        numbers.add(id(each))
        yield f"{each} {each!r} {each.args!r} {getattr(each, '__notes__', '')}"
        yield repr({name: value for name, value in vars(each).items() if name != "artifacts"})
        behind += [each.__cause__, each.__context__, *getattr(each, "errors", ())]


def hits(texts: list[str]) -> list[str]:
    return [f"{name}: {text[:300]}" for name, canary in CANARIES.items() for text in texts if canary in text]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("job", [False, True], ids=["sync", "job"])
async def test_s9_nothing_secret_shows(
    server: Server, make_client: MakeClient, logged: list[str], fault: str, job: bool
) -> None:
    texts: list[str] = []
    model = JOB_MODEL if job else "stability/inpaint"
    server.posts, server.polls = ([accepted_job()], [FAULTS[fault]]) if job else ([FAULTS[fault]], [])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for timeout in (0.5, 60.0):  # a busy machine may not have sent it by the first
            client = make_client(server.url, timeout=timeout)
            try:
                result = await client.run(model, image=IMAGE, prompt=PROMPT)
                texts.append(repr(result))
            except impasto.ImpastoError as error:
                texts += everything_of(error)
            await client.aclose()
            if server.paid:
                break
    texts += [repr(client), repr(client._options), repr(list(client._accounts.values()))]
    assert server.paid, "the fault was met"
    assert not hits([*texts, *logged, *(str(each.message) for each in warned)])


async def test_s9_nothing_secret_shows_where_nothing_is_sent(make_client: MakeClient, logged: list[str]) -> None:
    texts: list[str] = []
    for base, wrong in (
        ("http://127.0.0.1:9", {}),
        ("https://nowhere.invalid", {}),
        ("http://127.0.0.1:9", {"seed": -1, PROMPT: 1}),
        ("http://127.0.0.1:9", {"image": b"no picture " + KEY.encode()}),
        ("http://127.0.0.1:9", {"image": "data:image/png;base64,!!" + base64.b64encode(IMAGE).decode()}),
    ):
        with pytest.raises(impasto.ImpastoError) as caught:
            await make_client(base).run("stability/inpaint", **{"image": IMAGE, "prompt": PROMPT, **wrong})  # type: ignore[arg-type]
        texts += everything_of(caught.value)
    found = [hit for hit in hits([*texts, *logged]) if not hit.startswith("prompt")]  # a wrong name is named
    assert not found


HOSTILE = {
    "carriage return": b"a\rb",
    "line feed": b"a\nb",
    "zero": b"a\x00b",
    "folded": b"a\r\n b",
    "tab": b"a\tb",
    "latin": "é".encode("latin-1"),
    "utf-8": "é✓".encode(),
    "escape": b"\x1b[31mred",
    "bidi": "\u202egnp".encode(),
    "long": b"x" * 8192,
    "longer": b"y" * 40_000,
    "empty": b"",
    "forged": b'req" level=CRITICAL msg="paid twice',
}


BREAKS_THE_HEAD = {
    *((value, name) for value in ("carriage return", "line feed") for name in ("reason", "header")),
    ("zero", "header"),
    ("folded", "reason"),
}
"""With these in it the head is no HTTP: aiohttp gives nothing of such an answer out."""


@pytest.mark.parametrize("name", ["x-request-id", "seed", "finish-reason", "reason", "x-other"])
@pytest.mark.parametrize("value", HOSTILE)
async def test_s22_a_picture_is_delivered_whatever_stands_beside_it(
    server: Server, make_client: MakeClient, name: str, value: str
) -> None:
    headers = {**PICTURE_HEADERS, "content-length": str(len(PICTURE))}
    lines = [f"{key}: {text}".encode() for key, text in headers.items() if key != name]
    status = b"HTTP/1.1 200 " + (HOSTILE[value] if name == "reason" else b"OK")
    extra = [] if name == "reason" else [name.encode() + b": " + HOSTILE[value]]
    server.posts = [raw(b"\r\n".join([status, *lines, *extra]) + b"\r\n\r\n" + PICTURE, end="close")]
    client = make_client(server.url)
    if (value, "reason" if name == "reason" else "header") in BREAKS_THE_HEAD:
        with pytest.raises(impasto.ChargeUnknown):
            await client.run("stability/inpaint", image=PICTURE, prompt="p")
        return
    result = await client.run("stability/inpaint", image=PICTURE, prompt="p")
    artifact = result.artifacts[0]
    assert artifact.data == PICTURE
    for text in (result.request_id or "", artifact.finish_reason or ""):
        assert text.isprintable()
        assert len(text) <= 8 * 620
    if name == "seed":
        assert artifact.seed is None


async def test_s29_what_the_provider_says_is_one_line(server: Server, make_client: MakeClient) -> None:
    message = 'no\r\n{"level": "critical"}\x1b[31m \u202e \x00'
    server.posts = [refused(400, message=message, name="bad\nname")]
    with pytest.raises(impasto.BadRequest) as caught:
        await make_client(server.url).run("stability/inpaint", image=PICTURE, prompt="p")
    error = caught.value
    assert isinstance(error, impasto.ResponseError)
    for text in (str(error), error.name or "", *error.messages):
        assert text.isprintable()
