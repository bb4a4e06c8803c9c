"""Batches on their way: what is asked of a publisher that can say that all went well."""

from __future__ import annotations

from eventflows import Message
from eventflows.errors import OutcomeUnknownError
from eventflows.message import Batch
from eventflows.protocols import PublishResult
from eventflows.runner.flight import Sent


class Answers:
    """What is pending, as an adapter gives it.

    Args:
        confirms: What it says.
        error: Of its one result.
    """

    def __init__(self, *, confirms: bool, error: OutcomeUnknownError | None = None) -> None:
        self._confirms = confirms
        self._error = error
        self.waits: list[float] = []
        self.asked = 0

    def confirmed(self, timeout: float) -> bool:
        """Say it."""
        self.waits.append(timeout)
        return self._confirms

    def results(self, timeout: float) -> list[PublishResult]:
        """Give it."""
        self.waits.append(timeout)
        self.asked += 1
        return [PublishResult(None, self._error)]


def sent(answers: Answers) -> Sent:
    """Send one message whose time is up at 30."""
    return Sent([], Batch.of([Message(b"")]), answers, 30.0)


def test_batch_is_waited_for_once_when_no_answer_came_in_time() -> None:
    """Asking whether all went well takes all the time there is; asking for the results takes none."""
    answers = Answers(confirms=False, error=OutcomeUnknownError("late"))
    assert [result.error is None for result in sent(answers).faulty(10.0)] == [False]
    assert answers.waits == [20.0, 0.0]


def test_batch_makes_no_results_when_all_of_it_is_confirmed() -> None:
    """Nobody would read them."""
    answers = Answers(confirms=True)
    assert (sent(answers).faulty(10.0), answers.asked) == ([], 0)
