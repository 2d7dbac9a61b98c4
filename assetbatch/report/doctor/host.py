"""What this host has: configuration, key, files, the embedded server's folder, Redis; all without the database."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import stat
import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from assetbatch import __version__, threads
from assetbatch.config.secret import ways
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.errors import ConfigurationError, NoThreadError
from assetbatch.markets import TRAITS
from assetbatch.model import Product
from assetbatch.plans import KEYS, plan_words
from assetbatch.provider.addresses import SANDBOX_SOURCE, source_of
from assetbatch.report.doctor.findings import Finding, fail, ok, warn
from assetbatch.stream.addresses import addresses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from assetbatch.config import Config
    from assetbatch.config.loading import Survey
    from assetbatch.plans import Plan

LEAST_FREE_BYTES = 1 << 30
REDIS_SECONDS = 2.0
REDIS_AWAY = "is Redis running, and is REDIS_URL right? Prices are stored all the same, events wait"
# Where systemd and container engines put secrets: those who may look there are chosen in other ways than by a mode.
SECRET_MOUNTS = ("/run/",)


def program() -> Iterator[Finding]:
    """Report which program this is: hosts may have different ones."""
    yield ok("program", f"assetbatch {__version__}, Python {platform.python_version()} on {platform.node()}")


def configuration(survey: Survey) -> Iterator[Finding]:
    """Report every fault, or which file is in force."""
    for fault in survey.faults:
        yield fail("configuration", str(fault), fault.hint)
    if not survey.faults:
        yield ok("configuration", f"{survey.file or 'no config.yaml, defaults only'}: no faults")
    for doubt in survey.doubts:
        yield warn("variables", doubt.told, f"give it its right name, {doubt.meant}, or leave it to whose it is")


def files(survey: Survey) -> Iterator[Finding]:
    """Report files with secrets that others may read."""
    for name, path in ((".env", survey.dotenv), ("key file", survey.key_file)):
        if path is None or str(path).startswith(SECRET_MOUNTS):
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield warn(name, f"{path} is open to other users (mode {mode:o})", f"chmod 600 {path}")
        else:
            yield ok(name, f"{path} is its owner's alone (mode {mode:o})")


def key(survey: Survey, *, is_needed: bool) -> Iterator[Finding]:
    """Report where the key came from; of the key itself only the fingerprint that the database has, too."""
    if survey.api_key is None:
        # One that was given, and is none, stands among the faults.
        refused = any("POLYGON_API_KEY" in f"{fault.place} {fault.key}" for fault in survey.faults)
        if not is_needed and not refused:
            yield ok("key", "no API key is given, and reading needs none")
            return
        found = "the one that is given cannot be used" if refused else "no API key is given"
        yield fail("key", found, f"set {ways('POLYGON_API_KEY')}; without a key, try `assetbatch sandbox`")
    else:
        fingerprint = key_fingerprint(survey.api_key.reveal())
        yield ok("key", f"given by {survey.key_place}, fingerprint {fingerprint}")


def _plan_of(config: Config, product: Product, plan: Plan, *, is_sandbox: bool) -> Finding:
    limit, provider = config.limit_of(product), config.settings.provider
    allowed = "unlimited calls" if limit is None else f"{limit} calls in any {config.window_seconds:g} s"
    is_live = provider.mode == "live" or (plan.is_live and provider.mode != "end_of_day")
    late = f", {plan.delay.total_seconds() / 60:g} minutes late" if plan.delay else ""
    recency = f"live{late}" if is_live else "of finished days"
    place = config.origins[KEYS[product]]
    found = f"{plan_words(product, plan)} ({place}): {allowed}, prices {recency}"
    most = plan.calls_per_minute
    if most is not None and not is_sandbox and (limit is None or limit * 60 > most * config.window_seconds):
        hint = f"remove rate_limiting.calls_per_minute ({config.origins['rate_limiting.calls_per_minute']})"
        return warn("plan", f"{found}; the {plan.name} plan has {most} calls a minute", hint)
    return ok("plan", found)


def plan_of(config: Config) -> Iterator[Finding]:
    """Report what the words of the plans mean here, and what goes ill with them."""
    provider, source = config.settings.provider, source_of(config.settings.provider.base_url)
    used = {TRAITS[one].product for one in config.types} or {Product.CURRENCIES}
    for product, plan in config.plans.items():
        if product in used:
            yield _plan_of(config, product, plan, is_sandbox=source == SANDBOX_SOURCE)
    if urlsplit(provider.base_url).scheme == "http" and source != SANDBOX_SOURCE:
        found = f"{provider.base_url}: the key travels without encryption"
        yield warn("address", found, "set provider.base_url (POLYGON_BASE_URL) to https://…")
    if not config.assets and config.settings.batch.secondary_source == "config":
        yield warn("assets", "the configuration names no enabled asset", "see batch.priority_assets in config.yaml")


def stream_of(config: Config) -> Iterator[Finding]:
    """Report where the stream of each cluster is. Raises ConfigurationError where one is meant to run and cannot."""
    try:
        found = addresses(config)
    except ConfigurationError as error:
        if config.settings.stream.enabled:
            raise
        yield warn("stream addresses", error.reason, error.hint)
        return
    urls = ", ".join(f"{asset_type} at {url}" for asset_type, url in found.items())
    meant = "" if config.settings.stream.enabled else "; stream.enabled is false: nobody is told when none runs"
    yield ok("stream addresses", f"{urls or 'no cluster is named'}{meant}")


def embedded(folder: Path) -> Iterator[Finding]:
    """Look at the embedded server's folder: whose it is, who may look in, how much room there is, does it run."""
    from assetbatch.database.embedded import EmbeddedServer, control, others
    from assetbatch.database.embedded.place import SERVICE_ACCOUNT, Place
    from assetbatch.database.embedded.process import Postmaster
    from assetbatch.processes import user_name

    name, place = "embedded server", Place.below(folder)
    described = EmbeddedServer(folder).described
    if not os.path.lexists(place.home):
        absent = control.absent(place)
        yield fail(name, absent.reason, absent.hint)
        return
    account = pwd.getpwnam(SERVICE_ACCOUNT).pw_uid if os.geteuid() == 0 else os.geteuid()
    found = place.home.lstat()
    if found.st_uid != account:
        hint = f"run assetbatch as {user_name(found.st_uid)}, as the jobs do"
        yield fail(name, f"{place.home} is {user_name(found.st_uid)}'s, this is {user_name(os.geteuid())}", hint)
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        hint = f"chmod 700 {place.home}, once you know why"
        yield fail(name, f"{place.home} is open to other users (mode {mode:o})", hint)
        return
    free = shutil.disk_usage(place.base).free
    if free < LEAST_FREE_BYTES:
        hint = "make room: PostgreSQL stops when the disk is full; bars.retention_months keeps fewer bars"
        yield warn("disk", f"{free >> 20} MB are free where {place.home} is", hint)
    if (other := others.find(folder)) is not None:
        yield warn(name, f"this is root's; {other.described}, and root's commands do not see it", other.hint)
    running = "running" if Postmaster(place).ready() else "not running: a command that needs it starts it"
    yield ok(name, f"{described}, {running}; {free >> 30} GB free")


class RedisCheck:
    """Asks Redis in the background, so that one that does not answer holds up nothing else."""

    def __init__(self, url: str, *, stream: bool) -> None:
        self._until = time.monotonic() + REDIS_SECONDS
        self._asked: Future[Finding] | NoThreadError
        try:
            self._asked = threads.begin(lambda: _rehearsed(url, stream=stream), name="redis")
        except NoThreadError as error:
            self._asked = error

    def findings(self) -> Iterator[Finding]:
        """Yield how it answered; a server that drips its answer counts as one that does not."""
        if isinstance(self._asked, NoThreadError):
            yield fail("redis", self._asked.reason, self._asked.hint)
            return
        try:
            yield self._asked.result(max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            yield fail("redis", f"no answer within {REDIS_SECONDS:g} s", REDIS_AWAY)


def _rehearsed(url: str, *, stream: bool) -> Finding:
    from assetbatch.events.delivery import DeliveryError, RefusedError
    from assetbatch.events.redis import RedisPublisher

    try:
        with closing(RedisPublisher(url, stream=stream)) as publisher:
            return ok("redis", publisher.rehearse())
    except RefusedError as error:
        hint = "let its user publish (docs, Events), or name another; prices are stored all the same, events wait"
        return fail("redis", str(error), hint)
    except DeliveryError as error:
        return fail("redis", str(error), REDIS_AWAY)
