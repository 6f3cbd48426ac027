"""``/_emulator/...``: what a test asks the emulator about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from aiohttp import web

if TYPE_CHECKING:
    from .app import State


def add_routes(router: web.UrlDispatcher, state: State) -> None:
    """The four paths of the emulator's own."""

    async def charges(request: web.Request) -> web.Response:
        account = state.account
        rates = account.rates
        return web.json_response(
            {
                "count": account.charge_count,
                "credits": account.credits,
                "usd": account.usd,
                "balance": account.balance,
                "lockouts": {"count": rates.lockouts, "retriggered": rates.retriggered, "refused": rates.refused},
                "charges": [attrs.asdict(charge) for charge in account.charges],
            }
        )

    async def requests(request: web.Request) -> web.Response:
        account = state.account
        return web.json_response(
            {"count": account.request_count, "requests": [attrs.asdict(record) for record in account.requests]}
        )

    async def faults(request: web.Request) -> web.Response:
        try:
            given = await request.json()
            if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
                raise ValueError("give a JSON list of objects")
            state.faults.replace(given)
        except (ValueError, RecursionError) as error:
            return web.json_response({"errors": [str(error)]}, status=400)
        return web.json_response({"faults": len(given)})

    async def reset(request: web.Request) -> web.Response:
        state.reset()
        return web.json_response({"reset": True})

    router.add_get("/_emulator/charges", charges)
    router.add_get("/_emulator/requests", requests)
    router.add_post("/_emulator/faults", faults)
    router.add_post("/_emulator/reset", reset)
