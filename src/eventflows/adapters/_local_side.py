"""What subscriber and publisher of the embedded broker share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from eventflows.adapters._entered import Entered
from eventflows.adapters._local_broker import LocalBroker, broker_of, names_in_memory
from eventflows.errors import (
    BrokerError,
    ClosedError,
    ConfigError,
)
from eventflows.protocols import (
    Finding,
    Location,
)


class Adapter(Entered):
    """What subscriber and publisher share: opening, closing, being cut off."""

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        self._location = location
        self._options = options
        self._open = False
        self._closed = False
        self._epoch = 0
        self._found: LocalBroker | None = None

    @property
    def _broker(self) -> LocalBroker:
        if self._found is None:
            self._found = broker_of(
                self._location.authority,
                _text(self._options.get("file")),
                sync=str(self._options.get("sync", "normal")),
                seed=_number(self._options.get("seed")),
                emulate=str(self._options.get("emulate", "")),
                partitions=_number(self._options.get("partitions")),
            )
        return self._found

    def _enter(self, operation: str, timeout: float) -> LocalBroker:
        if self._closed:
            raise ClosedError(f"{self._location.text} was closed; open it again, or make a new one.")
        if not self._open:
            self.open(timeout=timeout)
        broker = self._broker
        broker.faults.cut(self._epoch)
        if broker.faults.set:
            broker.faults.meet(operation, timeout)  # type: ignore[arg-type]
        return broker

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect."""
        broker = self._broker
        if broker.faults.set:
            broker.faults.meet("open", timeout)
        self._epoch = broker.faults.epoch
        self._open, self._closed = True, False

    def close(self, *, timeout: float = 30.0) -> None:
        """Disconnect; the second call does nothing."""
        self._open, self._closed = False, True

    def entities(self) -> Sequence[str]:
        """Give the names that this process, or the file, has."""
        file = _text(self._options.get("file"))
        if file is None:
            return names_in_memory()
        from eventflows.adapters._local_log_file import logs_in
        from eventflows.adapters._local_sqlite_topic import names_in

        return sorted({*names_in(os.path.abspath(file)), *logs_in(os.path.abspath(file))})

    def check(self) -> Sequence[Finding]:
        """Look whether the file can be used; one that is not there is not made."""
        file = _text(self._options.get("file"))
        folder = "." if file is None else os.path.dirname(os.path.abspath(file))
        if not os.path.isdir(folder):
            return [Finding("error", f"{self._location.text}: {folder} is not a folder", "Make it first.")]
        if not os.access(folder, os.W_OK) and file is not None:
            return [Finding("error", f"{self._location.text}: {folder} cannot be written", "Allow this user to.")]
        try:
            if self._broker.is_log:
                self._broker.log.ends()
            else:
                self._broker.store.backlog(str(self._options.get("group", "default")))
        except (BrokerError, ConfigError) as error:
            return [Finding("error", f"{self._location.text}: {error}", "Mend what it says.")]
        return [Finding("ok", f"{self._location.text} can be used")]


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
