"""What others do with the same work: procrastinate and pgqueuer, for durable_queue.py.

Each function runs one of them in the process that calls it, and returns seconds. Their own imports stand inside, so
that nobody pays for another one's memory.
"""

from __future__ import annotations

import asyncio
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from harness import ask, open_database
from psycopg.conninfo import conninfo_to_dict

from assetbatch.database import prices, runs
from assetbatch.jobs.storing import sort_out
from assetbatch.model import Asset, AssetType, Call, CallKind, Role
from assetbatch.provider import endpoints
from assetbatch.provider.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from pgqueuer.models import Job

    from assetbatch.database.connection import Connection

NAME = "update"


@dataclass(frozen=True)
class Task:
    """So many `symbols`, through a queue in the database `conninfo`; without a `url` a job does nothing.

    `workers` jobs go on at once; pgqueuer claims `batch` jobs at a time.
    """

    conninfo: str
    symbols: Sequence[str]
    url: str | None
    workers: int
    batch: int


@dataclass(frozen=True)
class Took:
    """Seconds."""

    enqueue: float
    drain: float


class Lanes:
    """A client and a connection for each worker: what a job does with them is what a single call of a drain does."""

    def __init__(self, task: Task, stack: ExitStack) -> None:
        self._idle: queue.SimpleQueue[tuple[Connection, Client]] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        if task.url is not None:
            self._threads = stack.enter_context(ThreadPoolExecutor(task.workers))
            for _ in range(task.workers):
                connection = stack.enter_context(open_database(task.conninfo))
                client = Client(base_url=task.url, api_key="sandbox", connect_timeout_seconds=5, timeout_seconds=20)
                self._idle.put((connection, client))

    async def do(self, symbol: str) -> None:
        if self._threads is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._update, symbol)

    def _update(self, symbol: str) -> None:
        connection, client = self._idle.get()
        try:
            asset = Asset(symbol, f"X:{symbol}", AssetType.CRYPTO, Role.SECONDARY, 3, 1800)
            call = Call(CallKind.SNAPSHOT_SINGLE, (asset,))
            asked_at, began = datetime.now(UTC), time.monotonic()
            answers = ask(client, endpoints.prices(call))
            latency_ms = round((time.monotonic() - began) * 1000)
            record = runs.CallRecord(0, call.kind.value, "ok", 200, True, latency_ms, 0, 1, symbol, None)
            with connection.transaction():
                prices.write(
                    connection,
                    sort_out(call, answers, (), lambda _asset, _kind: False),
                    prices.Times(asked_at, datetime.now(UTC)),
                    carefully=False,
                )
                connection.ask(runs.recording([record]))
        finally:
            self._idle.put((connection, client))


def by_procrastinate(task: Task, *, drain: bool = True) -> Took:
    """Enqueue in one call, then work with one worker of so many concurrent jobs."""
    return _run(_by_procrastinate, task, drain=drain)


async def _by_procrastinate(task: Task, lanes: Lanes, *, drain: bool) -> Took:
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=task.conninfo, min_size=1, max_size=task.workers + 1))
    job = app.task(name=NAME)(lanes.do)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        arguments: list[Any] = [{"symbol": symbol} for symbol in task.symbols]
        began = time.perf_counter()
        await job.batch_defer_async(*arguments)
        enqueued = time.perf_counter()
        if drain:
            await app.run_worker_async(
                concurrency=task.workers,
                wait=False,
                listen_notify=False,
                delete_jobs="always",
                install_signal_handlers=False,
            )
        return Took(enqueued - began, time.perf_counter() - enqueued)


def by_pgqueuer(task: Task, *, drain: bool = True) -> Took:
    """Enqueue in one call, then work with one queue manager on asyncpg, its faster driver."""
    return _run(_by_pgqueuer, task, drain=drain)


async def _by_pgqueuer(task: Task, lanes: Lanes, *, drain: bool) -> Took:
    from pgqueuer.adapters.connections import connect_asyncpg
    from pgqueuer.core.qm import QueueManager
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    async def job(job: Job) -> None:
        await lanes.do((job.payload or b"").decode())

    async with connect_asyncpg(_url(task.conninfo)) as connection:
        queries = Queries(AsyncpgDriver(connection))
        await queries.install()
        began = time.perf_counter()
        await queries.enqueue(
            [NAME] * len(task.symbols), [symbol.encode() for symbol in task.symbols], [0] * len(task.symbols)
        )
        enqueued = time.perf_counter()
        if drain:
            manager = QueueManager(queries)
            manager.entrypoint(NAME)(job)
            # The last jobs are waited for by polling: often, so that the wait is not counted against it.
            await manager.run(
                mode=QueueExecutionMode.drain, batch_size=task.batch, dequeue_timeout=timedelta(seconds=0.05)
            )
        return Took(enqueued - began, time.perf_counter() - enqueued)


def _url(conninfo: str) -> str:
    """Write libpq's connection string as asyncpg reads it."""
    parts = conninfo_to_dict(conninfo)
    others = [(key, value) for key, value in parts.items() if key in {"host", "port", "user"}]
    return f"postgresql:///{parts['dbname']}?{urlencode(others)}"


def _run(peer: Callable[..., Coroutine[Any, Any, Took]], task: Task, *, drain: bool) -> Took:
    import uvloop

    with ExitStack() as stack, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(peer(task, Lanes(task, stack), drain=drain))
