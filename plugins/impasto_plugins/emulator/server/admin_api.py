"""``/_emulator/...``: the emulator's own paths, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from aiohttp import web

if TYPE_CHECKING:
    from .app import EmulatorState


def add_routes(router: web.UrlDispatcher, state: EmulatorState) -> None:
    """Add the emulator's own four paths."""

    async def charges(request: web.Request) -> web.Response:
        account = state.charges
        rates = account.rates
        return web.json_response(
            {
                "count": account.charge_count,
                "credits": account.credits,
                "usd": account.usd,
                "balance": account.balance,
                "lockouts": {
                    "count": rates.lockouts,
                    "retriggered": rates.retrigger_count,
                    "refused": rates.refused_count,
                },
                "charges": [attrs.asdict(charge) for charge in account.charges],
            }
        )

    async def requests(request: web.Request) -> web.Response:
        account = state.charges
        return web.json_response(
            {"count": account.request_count, "requests": [attrs.asdict(record) for record in account.requests]}
        )

    async def faults(request: web.Request) -> web.Response:
        try:
            fault_list = await request.json()
            if not isinstance(fault_list, list) or not all(isinstance(each, dict) for each in fault_list):
                raise ValueError("the body must be a JSON list of objects")
            state.fault_rules.replace(fault_list)
        except (ValueError, RecursionError) as error:
            return web.json_response({"errors": [str(error)]}, status=400)
        return web.json_response({"faults": len(fault_list)})

    async def reset(request: web.Request) -> web.Response:
        state.reset()
        return web.json_response({"reset": True})

    router.add_get("/_emulator/charges", charges)
    router.add_get("/_emulator/requests", requests)
    router.add_post("/_emulator/faults", faults)
    router.add_post("/_emulator/reset", reset)
