"""Retention: what is older than a number of days is deleted, once or every hour while the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI

from vireid.search.archive import Archive, Forgotten
from vireid.server.search_service import SearchService
from vireid.wording import counted

INTERVAL_S = 3600.0
log = logging.getLogger(__name__)


def apply_retention(archive: Archive, days: float, who: str) -> tuple[Forgotten, str]:
    """Delete what is older than `days`, write it to the audit log and return the counts and a summary."""
    deleted, rows_without_time = archive.forget_older(days)
    if deleted.any:
        archive.audit.write("retention", who, "admin", days=days, **vars(deleted))
    kept = f"; retention does not reach {counted(rows_without_time, 'row')} without a time" if rows_without_time else ""
    return deleted, f"deleted {deleted} older than {days:g} {'day' if days == 1 else 'days'}{kept}"


@asynccontextmanager
async def retention_lifespan(app: FastAPI) -> AsyncIterator[None]:
    """While the app runs, apply the retention of its settings every hour."""
    services: list[SearchService] = list(app.state.galleries.values())
    days = services[0].settings.retention_days
    task = asyncio.create_task(_repeat(services, days)) if days is not None else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


async def _repeat(services: list[SearchService], days: float) -> None:
    while True:
        for service in services:
            try:
                await anyio.to_thread.run_sync(apply_retention, service.archive, days, "vireid serve")
                service.forget_vectors()
            except Exception:  # whatever fails now, a full disk or a busy gallery, may work an hour later
                log.exception("retention of %s failed; the next attempt is in an hour", service.name)
        await asyncio.sleep(INTERVAL_S)
