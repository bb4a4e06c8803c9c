"""What a simulation, or a scenario on a real broker, came to."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs

from eventflows.message import Message


@attrs.frozen
class Call:
    """One call of `apply` with one input."""

    input: int
    """Which: its place among the messages that were given."""
    attempt: int
    """Of its delivery, as the broker counts it."""
    at: float
    """When it ended, in seconds since the start."""
    error: str | None
    """The class of what it raised; None: it returned."""


@attrs.frozen
class Dead:
    """One input that was given up."""

    input: int
    reason: str
    to: str
    """Where its copy went."""


@attrs.frozen(kw_only=True)
class Report:
    """What became of every message; inputs are named by their place among those given, from 0."""

    played: str
    """The broker: `kafka`, `sqs`, ..., or a URL."""
    inputs: int
    calls: Sequence[Call]
    published: Sequence[Message]
    """What the destination has."""
    dead_lettered: Sequence[Dead]
    left: Sequence[int]
    """What is still in the source, acknowledged by nobody."""
    committed: Mapping[str, int] = attrs.field(factory=dict)
    """On a log: the position of each partition."""
    retried: int = 0
    released: int = 0
    discarded: int = 0
    """Outputs that were dropped, because their input was not ours any more."""
    lost_claims: int = 0
    """Lanes and leases that were lost."""
    restarts: int = 0
    halted: str | None = None
    """Why the flow halted; None: it drained."""
    seconds: float = 0.0

    @property
    def processed(self) -> list[int]:
        """The inputs for which `apply` returned, each once, in the order of the first time."""
        return list(dict.fromkeys(call.input for call in self.calls if call.error is None))

    @property
    def duplicates(self) -> dict[int, int]:
        """The inputs for which `apply` returned more than once, and how often."""
        counts = Counter(call.input for call in self.calls if call.error is None)
        return {number: count for number, count in sorted(counts.items()) if count > 1}

    @property
    def lost(self) -> list[int]:
        """The inputs that are nowhere: neither processed, nor given up, nor left. Always empty, or it is a bug."""
        seen = {*self.processed, *(dead.input for dead in self.dead_lettered), *self.left}
        return [number for number in range(self.inputs) if number not in seen]

    @property
    def outcome(self) -> tuple[list[int], list[tuple[int, str]], list[bytes | None], bool]:
        """What must be the same on every broker, whatever was done twice: processed, given up, published, halted."""
        dead = sorted({(dead.input, dead.reason) for dead in self.dead_lettered})
        published = sorted({message.body for message in self.published}, key=lambda body: body or b"")
        return sorted(self.processed), dead, published, self.halted is not None

    def attempts(self, number: int) -> int:
        """Count the calls with one input."""
        return sum(call.input == number for call in self.calls)

    def _rows(self) -> list[tuple[str, str]]:
        failed = Counter(call.error for call in self.calls if call.error is not None)
        rows = [
            ("broker", self.played),
            ("inputs", f"{self.inputs}, {len(self.processed)} processed in {len(self.calls)} calls"),
            ("failed calls", ", ".join(f"{count} x {name}" for name, count in sorted(failed.items()))),
            ("retried", str(self.retried or "")),
            ("published", str(len(self.published))),
            ("dead-lettered", ", ".join(f"{dead.input} ({dead.reason})" for dead in self.dead_lettered)),
            ("twice", ", ".join(f"{number} ({count} times)" for number, count in self.duplicates.items())),
            ("released", str(self.released or "")),
            ("discarded", str(self.discarded or "")),
            ("lost claims", str(self.lost_claims or "")),
            ("restarts", str(self.restarts or "")),
            ("committed", ", ".join(f"{lane}:{position}" for lane, position in self.committed.items())),
            ("left", ", ".join(map(str, self.left))),
            ("lost", ", ".join(map(str, self.lost))),
            ("halted", self.halted or ""),
            ("seconds", f"{self.seconds:.3f}"),
        ]
        return [(name, value) for name, value in rows if value]

    def __str__(self) -> str:
        """Show one line for each thing that happened."""
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self._rows()
        )
        return f"<table>{cells}</table>"
