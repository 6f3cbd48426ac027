"""Transports that each have one defect: they override ``carry`` of a sound one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import aiohttp
import attrs

from impasto import Body, ChargeUnknown, NotSent, WireRequest, WireResponse, hookimpl
from impasto_plugins.transports.https import HttpsTransport


async def _get(url: str, headers: Mapping[str, str] | None = None) -> None:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        await response.read()


class Sound(HttpsTransport):
    """Ours under another name; the defects override ``carry``."""

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        return await self.carry(wire)

    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().send(wire)


class Resends(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        try:
            return await super().carry(wire)
        except ChargeUnknown:
            wire.call._may_post = True
            return await super().carry(wire)


class ForgetsEvidence(Sound):
    """Makes the exchange without the call's evidence."""

    async def carry(self, wire: WireRequest) -> WireResponse:
        sending = wire.call.sending
        vars(wire.call)["sending"] = lambda *, paid: sending(paid=False)
        return await super().carry(wire)


class ClaimsNotSent(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        try:
            return await super().carry(wire)
        except ChargeUnknown:
            raise NotSent("no answer") from None


class SwallowsNotSent(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        try:
            return await super().carry(wire)
        except NotSent:
            return WireResponse(status=503, headers={})


class LeavesSendingOpen(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        wire.call.sending(paid=False).__enter__()
        return await super().carry(wire)


class ReportsTheBodyTwice(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        with wire.call.sending(paid=False) as evidence:
            evidence.body_sent()
        return response


class ReadsTheBodyTwice(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        assert response.stream is not None
        await response.stream.collect()
        return attrs.evolve(response, stream=Body(empty()))


async def empty() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk


class TakesAHalfForAWhole(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        assert response.stream is not None
        try:
            body = await response.stream.collect()
        except ChargeUnknown:
            body = response.stream.received
        return attrs.evolve(response, body=body or b"", stream=None)


class KeepsTheCaseOfHeaders(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        return attrs.evolve(response, headers={name.title(): value for name, value in response.headers.items()})


class FollowsRedirects(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        if response.status == 307:
            url = response.headers["location"]
            await _get(url, dict(wire.call.account.headers))
        return response


class LogsTheKey(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        logging.getLogger("impasto.acme").debug("headers: %s", dict(wire.call.account.headers))
        return await super().carry(wire)


class IgnoresCancellation(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        try:
            return await super().carry(wire)
        except asyncio.CancelledError:
            raise ChargeUnknown("cancelled") from None


class LeavesATask(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        vars(asyncio.get_running_loop())["task"] = asyncio.ensure_future(asyncio.sleep(60))
        return await super().carry(wire)


class Sleeps(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        time.sleep(0.001)
        return await super().carry(wire)


class DropsHeaders(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, headers={}))


class HangsForEver(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        await asyncio.Event().wait()
        return await super().carry(wire)


class FailsAtTheSecondClose(Sound):
    is_closed: ClassVar[bool] = False

    async def aclose(self) -> None:
        if self._connector is None:
            raise RuntimeError("closed already")
        await super().aclose()


class MixesAnswers(Sound):
    last: ClassVar[list[WireResponse]] = []

    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        body = b"" if response.stream is None else await response.stream.collect() or b""
        self.last.append(attrs.evolve(response, body=body, stream=None))
        await asyncio.sleep(0.02)
        return self.last[-1]


class NeverConnects(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        raise NotSent("the tunnel is down")


class DropsFiles(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, files=tuple(wire.files)[:1]))


class TurnsFilesRound(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, files=tuple(wire.files)[::-1]))


class DropsTheQuery(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, target=wire.target.partition("?")[0]))


class StaysAtItsHost(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, url=None))


class AlwaysHasTheKey(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, anonymous=False))


class PostsAlways(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, method="POST"))


class DropsTheMediaType(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        headers = {name: value for name, value in response.headers.items() if name != "content-type"}
        return attrs.evolve(response, headers=headers)


class ResendsAfter429(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        if response.status == 429:
            wire.call._may_post = True
            response = await super().carry(wire)
        return response


class SendsOneAtATime(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        lock = vars(self).setdefault("lock", asyncio.Lock())
        async with lock:
            return await super().carry(wire)


class ClosesNothing(Sound):
    connectors: ClassVar[list[object]] = []

    async def aclose(self) -> None:
        self.connectors.append(self._connector)


class HoldsBodies(Sound):
    bodies: ClassVar[list[bytes | None]] = []

    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        assert response.stream is not None
        self.bodies.append(await response.stream.collect())
        return attrs.evolve(response, body=self.bodies[-1] or b"", stream=None)


class HoldsRequests(Sound):
    requests: ClassVar[list[WireRequest]] = []

    async def carry(self, wire: WireRequest) -> WireResponse:
        self.requests.append(wire)
        return await super().carry(wire)


class GivesWholeAnswers(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        assert response.stream is not None
        return attrs.evolve(response, body=await response.stream.collect() or b"", stream=None)


class ReadsTheFirstBytes(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        assert response.stream is not None
        body = await response.stream.collect() or b""
        return attrs.evolve(response, body=body[: 1 << 20], stream=None)


class DropsRetryAfter(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        headers = {name: value for name, value in response.headers.items() if name != "retry-after"}
        return attrs.evolve(response, headers=headers)


class ResendsAfter502(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        if response.status == 502:
            wire.call._may_post = True
            response = await super().carry(wire)
        return response


class IgnoresMaxBytes(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, max_bytes=None))


class PutsAsPosts(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, method="POST") if wire.method == "PUT" else wire)


class FollowsRedirectsOfPolls(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        response = await super().carry(wire)
        if response.status == 307 and wire.method == "GET":
            await _get(response.headers["location"])
        return response


class ReportsHeadersTooEarly(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        if wire.method == "POST":
            wire.call.mark_headers_sent()
        return await super().carry(wire)


class ReportsHeadersTooLate(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        mark = wire.call.mark_headers_sent
        vars(wire.call)["mark_headers_sent"] = object
        response = await super().carry(wire)
        mark()
        return response


class SharesConnections(Sound):
    shared: ClassVar[list[Any]] = []

    async def open(self) -> None:
        await super().open()
        if self.shared and not self.shared[0].closed:
            await self._connector.close()  # type: ignore[union-attr]  # it is open
            self._connector = self.shared[0]
        self.shared[:] = [self._connector]


class HasTheFirstKey(Sound):
    first: ClassVar[dict[str, str]] = {}

    async def carry(self, wire: WireRequest) -> WireResponse:
        self.first.setdefault("x-key", wire.call.account.headers.get("x-key", ""))
        return await super().carry(attrs.evolve(wire, headers={**wire.headers, **self.first}))


class DropsTheKeysQuery(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        object.__setattr__(wire.call.account, "query", {})
        return await super().carry(wire)


class KeepsTheLoopBusy(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        return await super().carry(wire)


class LogsTheKeyElsewhere(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        logging.getLogger("acme").debug("headers: %s", dict(wire.call.account.headers))
        return await super().carry(wire)


class Shields(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await asyncio.shield(asyncio.ensure_future(super().carry(wire)))


class NeverSigns(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(attrs.evolve(wire, sign=None))


class SignsPaidRequestsAlone(Sound):
    async def carry(self, wire: WireRequest) -> WireResponse:
        return await super().carry(wire if wire.method == "POST" else attrs.evolve(wire, sign=None))


class SignsBeforeTheBody(Sound):
    """Signs an empty body, and then sends another."""

    async def carry(self, wire: WireRequest) -> WireResponse:
        if wire.sign is None:
            return await super().carry(wire)
        url = wire.call.account.base_url + wire.target
        headers = wire.sign(method=wire.method, url=url, headers=wire.headers, body=b"")
        return await super().carry(attrs.evolve(wire, sign=None, headers={**wire.headers, **headers}))
