"""``impasto batch run`` in a process: client, signals, output, exit code."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

from impasto import Client, ConfigError, RateLimit, Registry, Retry
from impasto.ext import Settings, StateStore, check_base_url, check_seconds, check_store, open_store, state_of
from impasto.fields import format_value
from impasto_plugins.batch.batch import Batch, BatchSpec
from impasto_plugins.batch.filenames import Template
from impasto_plugins.batch.manifest.planner import RetrySelection
from impasto_plugins.batch.manifest.stdin import copy_stdin
from impasto_plugins.batch.output.s3 import BucketTarget, local_folder, target_of
from impasto_plugins.batch.runner.limits import FailureLimit
from impasto_plugins.batch.shared.share import JoinOptions
from impasto_plugins.cli.calls.connection import ConnectionOptions, shared_settings
from impasto_plugins.cli.terminal.output import count_of, echo, is_terminal, protect_output, stderr
from impasto_plugins.cli.terminal.signals import not_ignored
from impasto_plugins.middleware.rates import parse_rate
from impasto_plugins.middleware.shared_window import machine_state

from .reporters import TICK_SECONDS, JSONReporter, PlainReporter, TerminalReporter, format_plan

RETRY = Retry(attempts=8)
"""Retries for batches: nobody waits for one image of many, so each may wait longer than a single call."""

DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130


class CommandOptions(ConnectionOptions):
    """The options of the command line."""

    manifest: Path
    out: str
    staging: Path | None
    s3_endpoint: str | None
    concurrency: int
    budget: float | None
    max_failures: str | None
    deadline: str | None
    rate: str | None
    names: str
    retry_failed: bool
    retry_ambiguous: bool
    start_over: bool
    join: bool
    share: str | None
    state: str | None
    engine: str | None
    workers: int | None
    skip_invalid: bool
    dedupe: bool
    drop_params: bool
    report: bool
    dry_run: bool
    as_json: bool


def run_command(options: CommandOptions) -> int:
    """Run a batch and return the exit code. Raises ConfigError and ManifestError."""
    protect_output()
    target = target_of(options["out"], options["staging"], options["s3_endpoint"])
    if options["engine"] is not None:
        return _run_on_ray(options, target)
    if options["workers"] is not None:
        raise ConfigError("--workers needs --engine ray")
    with copy_stdin(options["manifest"]) as stdin_copy:
        return _run_from(options, target, stdin_copy)


def _run_on_ray(options: CommandOptions, target: BucketTarget | None) -> int:
    """Run hosts on Ray, then report the batch. Raises ConfigError, ManifestError, MissingExtra."""
    from impasto_plugins.batch.shared.status import read_shared_status

    from .ray_hosts import options_of_hosts, run_hosts

    if target is None:
        raise ConfigError("--engine ray needs --out s3://bucket/prefix, which all workers reach")
    hosts = options_of_hosts(options)
    _spec_of(hosts[0], target)  # wrong options end here
    if options["dry_run"]:
        return run_command(hosts[0])
    codes = run_hosts(hosts)
    status = read_shared_status(target)
    (JSONReporter() if options["as_json"] else PlainReporter()).finished(status, None)
    return DONE if status.is_whole and DONE in codes else SOME_FAILED


def _run_from(options: CommandOptions, target: BucketTarget | None, stdin_copy: Path | None) -> int:
    order, settings = _spec_of(options, target, stdin_copy), _settings(options)
    if options["dry_run"]:
        return asyncio.run(_dry_run(order, settings, as_json=options["as_json"]))
    try:
        return asyncio.run(_run(order, settings, as_json=options["as_json"]))
    except asyncio.CancelledError:  # during the validation: there is nothing to report
        return INTERRUPTED


def _spec_of(options: CommandOptions, target: BucketTarget | None, stdin_copy: Path | None = None) -> BatchSpec:
    return BatchSpec(
        manifest=options["manifest"],
        stdin_copy=stdin_copy,
        out=options["staging"] or local_folder(options["out"]),
        target=target,
        concurrency=options["concurrency"],
        budget=_usd(options["budget"]),
        max_failures=FailureLimit.parse(options["max_failures"]) if options["max_failures"] is not None else None,
        deadline=_duration(options["deadline"]),
        retry=RetrySelection(failed=options["retry_failed"], ambiguous=options["retry_ambiguous"]),
        start_over=options["start_over"],
        join=_join_options(options, target),
        skip_invalid=options["skip_invalid"],
        dedupe=options["dedupe"],
        drop_params=options["drop_params"],
        report=options["report"],
        api_base=check_base_url(options["api_base"]) if options["api_base"] is not None else None,
        template=Template(options["names"]),
    )


def _join_options(options: CommandOptions, target: BucketTarget | None) -> JoinOptions | None:
    state = options["state"]
    if state is not None and options["share"] is not None:
        raise ConfigError("--share can't be used with --state, which holds the limits of all hosts; leave it out")
    has_state = state is not None and "://" in state
    return JoinOptions.of(
        target, join=options["join"], share=options["share"], start_over=options["start_over"], has_state=has_state
    )


def _settings(options: CommandOptions) -> Settings:
    settings = shared_settings(options)
    settings["retry"] = RETRY
    if (state := options["state"]) is not None:
        settings["state"] = state if "://" in state or state == "machine" else Path(state).absolute()
    elif options["share"] is None:  # otherwise two shares on one machine would count each other's requests
        settings["state"] = machine_state()
    if options["rate"] is not None:
        settings["rate_limit"] = _rate(options["rate"])
    return settings


async def _dry_run(order: BatchSpec, settings: Settings, *, as_json: bool) -> int:
    registry = Registry()
    if (store := await asyncio.to_thread(_store_of, settings, registry)) is not None:
        settings["state"] = None  # a client creates what is missing there
        if (away := await check_store(store)) is not None:
            echo(f"Warning: {away}", err=True)
    async with Client(registry=registry, **settings) as client:
        plan = await Batch(order, registry, PlainReporter()).dry_run(client)
    if as_json:
        shares = [
            {"model": each.model, "pictures": each.images, "to_do": each.to_do, "usd_each": each.usd}
            for each in plan.totals
            if each.model
        ]
        totals = {
            "rows": plan.rows,
            "pictures": plan.images,
            "to_do": plan.to_do,
            "usd": round(plan.usd, 6),
            "passed_over": len(plan.invalid),
        }
        echo(json.dumps({**totals, "models": shares}, indent=2))
    else:
        for share in (each for each in plan.totals if each.model):
            price = f"{share.usd:.4g} USD each" if share.usd is not None else "price unknown"
            echo(f"{share.model}: {count_of(share.images, 'image')}, {share.to_do:,} to do, {price}")
        echo(format_plan(plan))
        for bad in plan.invalid:
            echo(f"Warning: skipped: {bad}", err=True)
        echo("Nothing was sent.")
    return SOME_FAILED if plan.invalid else DONE


async def _run(order: BatchSpec, settings: Settings, *, as_json: bool) -> int:
    registry = Registry()
    reporter = JSONReporter() if as_json else TerminalReporter() if is_terminal(stderr()) else PlainReporter()
    async with AsyncExitStack() as stack:
        if (store := await asyncio.to_thread(_store_of, settings, registry)) is not None:
            stack.push_async_callback(store.aclose)
            await open_store(store)  # if it is away, the first image that needs it says so, and waits
            settings["state"] = store
        client = await stack.enter_async_context(Client(registry=registry, **settings))
        batch = Batch(order, registry, reporter)
        reporter.on_lost = partial(batch.stop, "its output is no longer read")
        with _signals(batch, reporter) as signalled:
            ticking = asyncio.create_task(_tick(batch, reporter))
            try:
                status = await batch.run(client)
            finally:
                ticking.cancel()
            reporter.finished(status, batch.stops.reason)
    if status.is_whole and batch.are_results_written and batch.stops.kind != "configuration":
        return DONE
    is_left = status.pending or status.refused_again or batch.is_cancelled
    is_cut = is_left and (signalled or batch.stops.kind == "interrupted")
    return INTERRUPTED if is_cut else SOME_FAILED


def _store_of(settings: Settings, registry: Registry) -> StateStore | None:
    """Return the store of the URL that --state has, None without one. Raises ConfigError, RegistryError."""
    state = settings.get("state")
    return state_of(state, registry, setting="--state") if isinstance(state, str) and "://" in state else None


async def _tick(batch: Batch, reporter: PlainReporter | JSONReporter) -> None:
    while True:
        reporter.tick(batch)
        await asyncio.sleep(TICK_SECONDS)


@contextmanager
def _signals(batch: Batch, reporter: PlainReporter | JSONReporter) -> Iterator[list[int]]:
    """Drain at the first signal, stop at the second; a third kills. Yields the signals received.

    A SIGHUP only ever drains: shells and the system send several when a terminal is closed.
    """
    received: list[int] = []
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    numbers = not_ignored(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def handle(number: int) -> None:
        if number == signal.SIGHUP and received:
            return
        received.append(number)
        if len(received) == 1:
            batch.stop("interrupted")
            reporter.note(
                f"waiting for {count_of(batch.pace.in_flight, 'image')} in flight; a second signal stops at once"
            )
            return
        for each in numbers:
            if each != signal.SIGHUP:
                loop.remove_signal_handler(each)
        if not batch.cancel() and main is not None:
            main.cancel()

    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield received
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _usd(value: float | None) -> float | None:
    return check_seconds("budget", value, unit="USD") if value is not None else None


_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _duration(text: str | None) -> float:
    if text is None:
        return float("inf")
    if (found := _DURATION.fullmatch(text)) is None or float(found[1]) == 0:
        raise ConfigError(f"deadline must be a time such as 90s, 30m or 2h, not {format_value(text)}")
    return float(found[1]) * _UNITS[found[2]]


def _rate(text: str) -> RateLimit:
    try:
        return parse_rate(text)
    except ConfigError as error:
        raise ConfigError(f"rate {error.message}") from None
