"""What goes wrong in a simulation, or in a scenario, and when."""

from __future__ import annotations

import attrs

from eventflows.errors import BrokerError, ConnectionFailedError


@attrs.frozen
class ApplyRaises:
    """`apply` raises for one input, before it is called."""

    input: int
    """Its place among the messages, from 0."""
    error: BaseException = attrs.field(factory=lambda: RuntimeError("an injected failure"))
    times: int | None = 1
    """How often; None: always."""


@attrs.frozen
class PublishFails:
    """Publishing outputs fails."""

    times: int = 1
    """How many messages fail, one after another."""
    error: BrokerError = attrs.field(factory=lambda: ConnectionFailedError("an injected failure"))


@attrs.frozen
class LeasesEnd:
    """All leases end, as if their time were over; a member of a log is taken for dead, which costs an attempt."""

    call: int
    """During which call of `apply`, counted from 1."""


@attrs.frozen
class Rebalance:
    """Every claim of a log ends in good order, and another begins; a queue, which has none, loses its leases."""

    call: int
    """During which call of `apply`, counted from 1."""


@attrs.frozen
class Restart:
    """The process is killed, hard, and started again."""

    call: int
    """During which call of `apply`, counted from 1."""


Fault = ApplyRaises | PublishFails | LeasesEnd | Rebalance | Restart
