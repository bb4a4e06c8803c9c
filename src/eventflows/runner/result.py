"""What a run did, in numbers."""

from __future__ import annotations

import html
import time

import attrs


@attrs.frozen(kw_only=True)
class RunResult:
    """What a run did, in numbers of inputs; `published` counts outputs."""

    received: int = 0
    """Handed over by the broker, repeats counted again."""
    acked: int = 0
    """Done; those dropped by `dead_letter="drop"` included."""
    published: int = 0
    """Outputs that the destination confirmed."""
    retried: int = 0
    """Failed attempts that were followed, or are to be followed, by another."""
    dead_lettered: int = 0
    """Put where a person can look."""
    released: int = 0
    """Handed back untouched."""
    seconds: float = 0.0
    """From the first connection to the last."""

    def __str__(self) -> str:
        """Show every number on one line."""
        numbers = attrs.asdict(self)
        seconds = numbers.pop("seconds")
        return ", ".join(f"{number:,} {name.replace('_', '-')}" for name, number in numbers.items()) + (
            f" in {seconds:.2f} s"
        )

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th>{html.escape(name.replace('_', ' '))}</th><td>{value:,.6g}</td></tr>"
            for name, value in attrs.asdict(self).items()
        )
        return f"<table>{cells}</table>"


@attrs.define
class Tally:
    """The numbers while they grow; only the pump writes them."""

    received: int = 0
    acked: int = 0
    published: int = 0
    retried: int = 0
    dead_lettered: int = 0
    released: int = 0
    began: float = attrs.field(factory=time.monotonic)

    @property
    def finished(self) -> int:
        """Inputs that are finally settled."""
        return self.acked + self.dead_lettered

    def result(self) -> RunResult:
        """Freeze them."""
        numbers = attrs.asdict(self, filter=lambda field, _: field.name != "began")
        return RunResult(**numbers, seconds=time.monotonic() - self.began)
