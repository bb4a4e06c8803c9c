"""The embedded brokers of this process, by name and file."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import cast

from eventflows.adapters._local_emulate import LOGS
from eventflows.adapters._local_faults import FakeClock, Faults
from eventflows.adapters._local_log import PARTITIONS, LogStore, MemoryLog
from eventflows.adapters._local_memory import MemoryStore
from eventflows.adapters._local_store import Store
from eventflows.errors import (
    ConfigError,
)


class LocalBroker:
    """One broker in this process: a name in memory, or a name in a file.

    Args:
        name: Of the queue or topic.
        place: Where its messages are.
        emulate: What it plays; empty: itself.
    """

    def __init__(self, name: str, place: Store | LogStore, emulate: str = "") -> None:
        self.name = name
        self.emulate = emulate
        self._place = place
        self.faults = Faults()
        self.faults.on_expire(self.expire)
        self.expiries = 0
        """How often all leases were ended at once."""

    @property
    def is_log(self) -> bool:
        """Whether it has partitions, not leases."""
        return self.emulate in LOGS

    @property
    def store(self) -> Store:
        """Its messages, as a queue keeps them."""
        return cast("Store", self._place)

    @property
    def log(self) -> LogStore:
        """Its messages, as a log keeps them."""
        return cast("LogStore", self._place)

    @property
    def clock(self) -> Callable[[], float]:
        """The clock of its leases and delays."""
        return self._place.clock

    def expire(self) -> None:
        """End all leases now; a log has none."""
        self.expiries += 1
        if not self.is_log:
            self.store.expire()


_brokers: dict[tuple[str, str | None, bool], LocalBroker] = {}
_brokers_lock = threading.Lock()


def local_broker(url: str, *, clock: Callable[[], float] | None = None, seed: int | None = None) -> LocalBroker:
    """Find, or make, the broker of a URL in this process, to inject a clock before its first use, or faults.

    Args:
        url: `local://name`, with `file=` or without.
        clock: Seconds, such as a `FakeClock`; taken at the first use only.
        seed: Of the shuffle; taken at the first use only.
    """
    found = re.match(r"local://([^/?]+)(?:\?(.*))?$", url)
    if found is None:
        raise ConfigError(f"{url!r} is not local://name.")
    given = {}
    for part in filter(None, (found[2] or "").split("&")):
        option, _, value = part.partition("=")
        given[option] = urllib.parse.unquote(value)
    partitions = int(given["partitions"]) if "partitions" in given else None
    emulate = given.get("emulate", "")
    return broker_of(found[1], given.get("file"), clock=clock, seed=seed, emulate=emulate, partitions=partitions)


def names_in_memory() -> list[str]:
    """Name the brokers in memory."""
    with _brokers_lock:
        return sorted(name for name, path, _ in _brokers if path is None)


def forget(name: str) -> None:
    """Forget a memory broker and all its messages, for tests."""
    with _brokers_lock:
        _brokers.pop((name, None, False), None)


def broker_of(
    name: str,
    file: str | None,
    *,
    sync: str = "normal",
    clock: Callable[[], float] | None = None,
    seed: int | None = None,
    emulate: str = "",
    partitions: int | None = None,
) -> LocalBroker:
    """Find, or make, a broker.

    Raises:
        ConfigError: It is in use as something else, or the file cannot be used; the text says what to change.
    """
    path = None if file is None else os.path.abspath(file)
    with _brokers_lock:
        broker = _brokers.get((name, path, sync == "full"))
        if broker is None:
            place = _place(name, path, sync=sync, clock=clock, seed=seed, emulate=emulate, partitions=partitions)
            broker = _brokers[name, path, sync == "full"] = LocalBroker(name, place, emulate)
            if isinstance(clock, FakeClock):
                clock.tell(place.wake)
        if broker.emulate != emulate:
            known = f"emulate={broker.emulate}" if broker.emulate else "no emulate="
            raise ConfigError(f"local://{name} is in use with {known}; write the same in all URLs of it.")
        if broker.is_log and partitions not in (None, broker.log.partitions):
            raise ConfigError(
                f"local://{name} has {broker.log.partitions} partitions; partitions={partitions} is possible for a "
                "new name only."
            )
        return broker


def _place(
    name: str,
    path: str | None,
    *,
    sync: str,
    clock: Callable[[], float] | None,
    seed: int | None,
    emulate: str,
    partitions: int | None,
) -> Store | LogStore:
    if path is None and emulate in LOGS:
        return MemoryLog(partitions or PARTITIONS, clock=clock or time.monotonic, turn=seed or 0)
    if path is None:
        return MemoryStore(clock=clock or time.monotonic, seed=seed, exclusive=_fifo(name, emulate))
    from eventflows.adapters._local_log_file import FileLog, logs_in

    if emulate in LOGS:
        return FileLog(path, name, sync=sync, partitions=partitions, turn=seed)
    from eventflows.adapters._local_sqlite import SqliteStore

    if name in logs_in(path, sync):
        raise ConfigError(f"local://{name} is a log in {path}, not a queue: give all its URLs the same emulate=.")
    return SqliteStore(path, name, sync=sync, clock=clock, seed=seed, exclusive=_fifo(name, emulate))


def _fifo(name: str, emulate: str) -> bool:
    return emulate == "sqs" and name.endswith(".fifo")


def _after_fork() -> None:
    global _brokers_lock
    _brokers_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
