"""A failure has a delay and a bound."""

from __future__ import annotations

import math
import pickle
import sys

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventflows.errors import ConfigError
from eventflows.message import Chunk, Delivery, Message
from eventflows.policy import RetryPolicy, Settlement, Verdict

seconds = st.floats(0, 1e9) | st.integers(0, 10**9)
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 10**9),
    delay=seconds,
    factor=st.floats(1, 1e9) | st.integers(1, 10**9),
    max_delay=seconds,
    jitter=st.floats(0, 1),
    hold=seconds,
)
attempts = st.integers(1, 10**9)
luck = st.floats(0, 1)


@settings(print_blob=True)
@given(policies, attempts, luck)
def test_wait_stays_within_the_jitter_of_the_longest_delay(policy: RetryPolicy, attempt: int, lucky: float) -> None:
    """No wait is negative, endless, or longer than the longest delay with its jitter."""
    waited = policy.wait(attempt, lucky)

    assert 0 <= waited <= policy.max_delay * (1 + policy.jitter) * (1 + 1e-9)


@settings(print_blob=True)
@given(policies, attempts)
def test_wait_is_spread_by_the_jitter_alone(policy: RetryPolicy, attempt: int) -> None:
    """Luck moves a wait up and down by the jitter's share, and by no more."""
    low, middle, high = (policy.wait(attempt, lucky) for lucky in (0, 0.5, 1))

    assert (low, high) == pytest.approx((middle * (1 - policy.jitter), middle * (1 + policy.jitter)))


@settings(print_blob=True)
@given(policies, st.integers(1, 1000))
def test_wait_never_shrinks(policy: RetryPolicy, attempt: int) -> None:
    """Each wait is at least as long as the one before."""
    assert policy.wait(attempt) <= policy.wait(attempt + 1)


@settings(print_blob=True)
@given(policies, attempts, luck)
def test_wait_is_the_same_when_asked_again(policy: RetryPolicy, attempt: int, lucky: float) -> None:
    """The wait is a pure function of its arguments."""
    assert policy.wait(attempt, lucky) == policy.wait(attempt, lucky)


@settings(print_blob=True)
@given(policies)
def test_first_wait_is_the_delay(policy: RetryPolicy) -> None:
    """After the first attempt comes the delay itself, capped."""
    assert policy.wait(1) == min(policy.delay, policy.max_delay)


def test_default_waits_double_up_to_a_minute() -> None:
    """Without arguments: one second, doubled each time, at most a minute."""
    assert [RetryPolicy().wait(attempt) for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_zero_delay_is_no_delay() -> None:
    """Zero is zero, however often it is multiplied."""
    assert RetryPolicy(delay=0).wait(10**9) == 0


@pytest.mark.parametrize("field", ["delay", "factor", "max_delay", "hold"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 10**400, "1", None, True, 1j], ids=lambda v: str(v)[:8])
def test_seconds_are_refused_by_name(field: str, value: object) -> None:
    """What is no finite number of seconds is refused, and the error names the field."""
    with pytest.raises(ConfigError, match=rf"{field}=.*finite number"):
        RetryPolicy(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, 1.0, "5", None, True], ids=repr)
def test_attempts_are_refused_by_name(value: object) -> None:
    """Attempts are a whole number of at least one."""
    with pytest.raises(ConfigError, match=r"attempts=.*whole number"):
        RetryPolicy(attempts=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "0.2", None, False], ids=repr)
def test_jitter_is_refused_by_name(value: object) -> None:
    """The jitter is a share from 0 to 1."""
    with pytest.raises(ConfigError, match=r"jitter=.*from 0 to 1"):
        RetryPolicy(jitter=value)  # type: ignore[arg-type]


def test_factor_below_one_is_refused() -> None:
    """Delays do not shrink."""
    with pytest.raises(ConfigError, match=r"factor=.*at least 1"):
        RetryPolicy(factor=0.5)


def test_largest_delay_is_taken() -> None:
    """Any float that is finite is a number of seconds."""
    assert RetryPolicy(delay=sys.float_info.max).wait(3) == 60


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(RetryPolicy)])
def test_policy_is_frozen(field: str) -> None:
    """One policy serves any number of flows, because nothing of it changes."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(RetryPolicy(), field, 1)


def test_policy_crosses_processes() -> None:
    """Worker processes get the same policy."""
    assert pickle.loads(pickle.dumps(RetryPolicy(attempts=3))) == RetryPolicy(attempts=3)


def test_policy_takes_its_values_by_name_only() -> None:
    """Nobody has to remember an order."""
    with pytest.raises(TypeError):
        RetryPolicy(3)  # type: ignore[misc]


def test_settlement_says_nothing_of_bodies() -> None:
    """A settlement in a log does not show what was in the messages."""

    def build(_: int) -> Delivery:
        return Delivery(message=Message(b"hunter2"), source="local://a", position="0", identity="0")

    shown = repr(Settlement(verdict=Verdict.ACK, spans=[(Chunk([b"hunter2"], build), slice(0, 1))]))

    assert "hunter2" not in shown
