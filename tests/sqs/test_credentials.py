"""Credentials: the ordinary chain, profiles, roles through STS; with moto's server, which has accounts."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest

from eventflows import ConfigError, Message, open_publisher, open_subscriber
from eventflows.errors import AuthenticationError, MissingExtraError, NotFoundError, TooLargeError
from servers.gate import Gate, refusal
from servers.moto import moto
from sqs_harness import ENVIRONMENT

pytestmark = pytest.mark.broker

ROLE = "arn:aws:iam::111111111111:role/worker"
OTHER_ACCOUNT = "111111111111"
SECRET = "hunter2-do-not-show"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate before moto, for SQS and STS alike, and no credentials but those of the environment."""
    for name, value in {**ENVIRONMENT, "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    made = Gate(int(moto().endpoint.rsplit(":", 1)[1]))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", made.endpoint)
    yield made
    made.close()


@pytest.fixture
def queue(gate: Gate) -> str:
    """A queue in another account, made by whoever may; gives its URL at the gate."""
    sts = boto3.client("sts", endpoint_url=moto().endpoint, region_name="us-east-1")
    keys = sts.assume_role(RoleArn=ROLE, RoleSessionName="maker")["Credentials"]
    made = boto3.client(
        "sqs", endpoint_url=moto().endpoint, region_name="us-east-1", aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"], aws_session_token=keys["SessionToken"],
    )  # fmt: skip
    name = f"orders-{os.urandom(4).hex()}"
    made.create_queue(QueueName=name)
    sts.close()
    made.close()
    return f"sqs://us-east-1/{OTHER_ACCOUNT}/{name}?endpoint={gate.endpoint}"


def publish(url: str, count: int = 1, **options: str) -> None:
    """Publish one by one, each confirmed."""
    with open_publisher(url, **options) as publisher:
        for _ in range(count):
            assert [one.error for one in publisher.publish([Message(b"x")])] == [None]


def assumed(gate: Gate) -> list[dict[str, str]]:
    """What STS was asked for."""
    return [one for one in gate.asked if one.get("Action") == "AssumeRole"]


def test_role_opens_the_queue_of_another_account(queue: str) -> None:
    """Without the role the queue is not found, with it messages go in."""
    with pytest.raises(NotFoundError):
        publish(queue)
    publish(queue, role_arn=ROLE)


def test_role_is_asked_for_once_for_many_requests(gate: Gate, queue: str) -> None:
    """Twenty requests cost one call of STS, for an hour at least."""
    publish(queue, 20, role_arn=ROLE)
    [asked] = assumed(gate)
    assert int(asked["DurationSeconds"]) >= 3600


def test_role_is_taken_with_its_external_id(gate: Gate, queue: str) -> None:
    """The external id goes with the request, and nowhere else."""
    publish(queue, role_arn=ROLE, external_id="partner-7")
    assert [one["ExternalId"] for one in assumed(gate)] == ["partner-7"]


def test_role_is_renewed_when_it_ages(gate: Gate, queue: str) -> None:
    """Credentials about to end are renewed before the next request, once, though four calls want them at a time."""
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)).isoformat()

    def shorten(action: str, content: bytes) -> bytes:
        if action != "AssumeRole" or len(assumed(gate)) > 1:
            return content
        return re.sub(rb"<Expiration>[^<]*<", f"<Expiration>{soon}<".encode(), content)

    gate.on_answer.append(shorten)
    with open_publisher(queue, role_arn=ROLE) as publisher:
        assert [one.error for one in publisher.publish([Message(b"x")] * 80)] == [None] * 80
    signers = {re.search(r"Credential=([^/]+)/", one["Authorization"])[1] for one in gate.asked if "QueueUrl" in one}  # type: ignore[index]
    assert (len(assumed(gate)), len(signers)) == (2, 2)


def test_role_that_is_refused_names_the_action(gate: Gate, queue: str) -> None:
    """When STS refuses, the error says AssumeRole, and shows no secret."""
    gate.on_call.append(lambda _, action: action != "AssumeRole" or (403, _DENIED))
    with pytest.raises(Exception, match="AssumeRole") as caught:
        publish(queue, role_arn=ROLE)
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


def test_check_gives_both_lines_for_a_role_that_is_refused(gate: Gate, queue: str) -> None:
    """One for the caller's policy, one for the role's trust, which names the caller and the external id."""
    gate.on_call.append(lambda _, action: action != "AssumeRole" or (403, _DENIED))
    [found] = open_subscriber(queue, role_arn=ROLE, external_id="partner-7").check()  # type: ignore[attr-defined]
    lines = found.fix.removeprefix("Allow the caller ").split(", and let the role's trust policy have ")
    caller, trust = map(json.loads, lines)
    assert (found.level, "sts:AssumeRole" in found.text) == ("error", True)
    assert caller == {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": ROLE}
    assert (trust["Action"], trust["Condition"]) == (
        "sts:AssumeRole", {"StringEquals": {"sts:ExternalId": "partner-7"}},
    )  # fmt: skip
    assert trust["Principal"]["AWS"].startswith("arn:aws:")


def test_check_says_that_a_role_is_trusted(queue: str) -> None:
    """The role, and each action that it allows, by name."""
    findings = open_subscriber(queue, role_arn=ROLE).check()  # type: ignore[attr-defined]
    assert f"sts:AssumeRole of {ROLE}" in [one.text for one in findings if one.level == "ok"]
    assert [one for one in findings if one.level == "error"] == []


_DENIED = (
    b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized</Message></Error>"
    b"<RequestId>1</RequestId></ErrorResponse>"
)


def test_limit_of_the_queue_is_read(gate: Gate) -> None:
    """A queue that takes less than SQS does says so, and what is larger is refused without a call."""
    made = boto3.client("sqs", endpoint_url=moto().endpoint, region_name="us-east-1")
    name = f"small-{os.urandom(4).hex()}"
    made.create_queue(QueueName=name, Attributes={"MaximumMessageSize": "2048"})
    with open_publisher(f"sqs://us-east-1/{name}?endpoint={gate.endpoint}") as publisher:
        results = publisher.publish([Message(b"x" * 2048), Message(b"x" * 2049)])
        assert publisher.capabilities.max_publish_bytes == 2048
    made.close()
    assert [type(one.error) for one in results] == [type(None), TooLargeError]


def test_lease_of_twelve_hours_is_granted_to_the_end(gate: Gate) -> None:
    """The most that can be asked for is asked for, and not more than is granted: the service refuses, never cuts."""
    made = boto3.client("sqs", endpoint_url=moto().endpoint, region_name="us-east-1")
    name = f"long-{os.urandom(4).hex()}"
    made.create_queue(QueueName=name)
    url = f"sqs://us-east-1/{name}?endpoint={gate.endpoint}"
    publish(url)
    with open_subscriber(url, visibility=43_200) as adapter:
        [chunk] = adapter.receive(1, max_bytes=1 << 20, timeout=5.0)
        [result] = adapter.extend([chunk[0]], 43_200)
    made.close()
    assert (result.error, result.until is None) == (None, False)
    asked = [entry for one in gate.asked for entry in one.get("Entries", ()) if "VisibilityTimeout" in entry]
    assert 43_000 < asked[0]["VisibilityTimeout"] < 43_200


def test_lease_is_not_renewed_when_its_twelve_hours_are_over(gate: Gate) -> None:
    """The service would refuse it: nothing is asked, and what is left of the lease is said."""
    made = boto3.client("sqs", endpoint_url=moto().endpoint, region_name="us-east-1")
    name = f"long-{os.urandom(4).hex()}"
    made.create_queue(QueueName=name)
    made.close()
    url = f"sqs://us-east-1/{name}?endpoint={gate.endpoint}"
    publish(url, 2)
    with open_subscriber(url) as adapter:
        held = [chunk[0] for _ in range(2) for chunk in adapter.receive(1, max_bytes=1 << 20, timeout=5.0)]
        adapter._holding.entry(held[0]).received -= 43_200  # type: ignore[attr-defined]
        before, ends = len(gate.asked), [one.lease_until for one in held]
        results = adapter.extend(held, 3600)
    asked = [entry for one in gate.asked[before:] for entry in one.get("Entries", ()) if entry["VisibilityTimeout"]]
    assert [(one.error, one.until == end) for one, end in zip(results, ends, strict=True)] == [
        (None, True), (None, False),
    ]  # fmt: skip
    assert len(asked) == 1


def test_profile_gives_the_credentials(gate: Gate, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`profile=` wins over the environment's keys."""
    (tmp_path / "config").write_text(
        "[profile other]\naws_access_key_id = OTHERKEY\naws_secret_access_key = x\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(NotFoundError):
        publish(f"sqs:///missing?endpoint={gate.endpoint}", profile="other")
    assert "Credential=OTHERKEY/" in gate.asked[-1]["Authorization"]
    assert "/us-east-1/sqs/" in gate.asked[-1]["Authorization"]


def test_profile_that_is_missing_is_a_mistake_of_the_settings(gate: Gate) -> None:
    """It is named at open."""
    with pytest.raises(ConfigError, match="nobody"):
        open_subscriber(f"sqs:///orders?endpoint={gate.endpoint}", profile="nobody").open()


def test_no_credentials_at_all_is_an_authentication_error(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not tried again."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AuthenticationError) as caught:
        open_subscriber(f"sqs://us-east-1/orders?endpoint={gate.endpoint}").open()
    assert not caught.value.retryable


def test_credentials_that_are_refused_are_an_authentication_error(gate: Gate) -> None:
    """It is not tried again, and shows no secret."""
    gate.on_call.append(lambda _, action: refusal("InvalidClientTokenId", "The security token is invalid.", 403))
    subscriber = open_subscriber(f"sqs://us-east-1/orders?endpoint={gate.endpoint}")
    with pytest.raises(AuthenticationError) as caught:
        subscriber.open()
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {subscriber!r}"
    assert (caught.value.retryable, SECRET in shown) == (False, False)


def test_region_that_nobody_says_is_asked_for(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """No region in the URL, the options, the profile or the environment is a mistake of the settings."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(ConfigError, match="region"):
        open_subscriber("sqs:///orders").open()


def test_missing_client_names_the_extra() -> None:
    """Without boto3, making the adapter says what to install; resolving the URL needs none."""
    program = (
        "import sys; sys.modules['boto3'] = None\n"
        "from eventflows import open_publisher, open_subscriber, subscriber\n"
        "for make in (open_subscriber, open_publisher):\n"
        "    try: make('sqs://eu-west-1/orders')\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (
        done.stdout.splitlines() == [f"{MissingExtraError.__name__} sqs:// needs boto3. Install eventflows[sqs]."] * 2
    ), done.stderr
