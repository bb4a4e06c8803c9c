"""Credentials: the ordinary chain, profiles, roles through STS; with moto's server, which has accounts."""

from __future__ import annotations

import datetime
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest

from eventflows import ConfigError, Message, open_publisher, open_subscriber
from eventflows.errors import AuthenticationError, MissingExtraError, NotFoundError
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
    """Credentials about to end are renewed before the next request, once."""
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)).isoformat()

    def shorten(action: str, content: bytes) -> bytes:
        if action != "AssumeRole" or len(assumed(gate)) > 1:
            return content
        return re.sub(rb"<Expiration>[^<]*<", f"<Expiration>{soon}<".encode(), content)

    gate.on_answer.append(shorten)
    publish(queue, 10, role_arn=ROLE)
    signers = {re.search(r"Credential=([^/]+)/", one["Authorization"])[1] for one in gate.asked if "QueueUrl" in one}  # type: ignore[index]
    assert (len(assumed(gate)), len(signers)) == (2, 2)


def test_role_that_is_refused_names_the_action(gate: Gate, queue: str) -> None:
    """When STS refuses, the error says AssumeRole, and shows no secret."""
    gate.on_call.append(lambda _, action: action != "AssumeRole" or (403, _DENIED))
    with pytest.raises(Exception, match="AssumeRole") as caught:
        publish(queue, role_arn=ROLE)
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


_DENIED = (
    b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized</Message></Error>"
    b"<RequestId>1</RequestId></ErrorResponse>"
)


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
