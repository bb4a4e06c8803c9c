"""Every error of the client and of the services has a class of ours."""

from __future__ import annotations

import inspect

import boto3
import pytest
from botocore import exceptions as vendor
from botocore import parsers
from botocore.stub import Stubber

from eventflows.adapters._sqs_errors import CLASSES, CODES, translate
from eventflows.errors import BrokerError

# Raised for mistakes in the caller's code or settings, which no adapter can meet otherwise: "correct what it names".
GENERAL = "BotoCoreError"


@pytest.mark.parametrize("service", ["sqs", "sts"])
def test_every_code_of_the_service_model_has_a_row(service: str) -> None:
    """A new version of the vendor's model with a new error fails here."""
    made = boto3.client(service, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    codes = {
        shape.metadata.get("error", {}).get("code") or shape.name for shape in made.meta.service_model.error_shapes
    }
    assert sorted(codes - set(CODES)) == []


def test_every_class_that_a_call_can_raise_has_a_row() -> None:
    """All that is about connections, answers or credentials is mapped by itself or by a base below the general one."""
    words = ("Connect", "HTTP", "Timeout", "SSL", "Proxy", "Credential", "Token", "SSO", "Login", "Read", "Response")
    classes = [c for c in vars(vendor).values() if inspect.isclass(c) and issubclass(c, vendor.BotoCoreError)]
    about = [c for c in classes if any(word in c.__name__ for word in words) and "Stub" not in c.__name__]
    unmapped = [
        c.__name__ for c in about
        if next(base.__name__ for base in c.__mro__ if base.__name__ in CLASSES) == GENERAL
    ]  # fmt: skip
    assert unmapped == ["UnknownTokenProviderError"]


def test_the_table_names_no_class_that_the_vendor_does_not_have() -> None:
    """A row for nothing would hide a renamed class."""
    assert [name for name in CLASSES if not hasattr(vendor, name) and not hasattr(parsers, name)] == []


@pytest.mark.parametrize("code", sorted(CODES))
def test_each_code_becomes_its_class_when_the_client_raises_it(code: str) -> None:
    """Through the client itself, parsed and raised by it, each code becomes what the table says."""
    made = boto3.client("sqs", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(made) as stub:
        stub.add_client_error("receive_message", code, "words of the service", 400)
        with pytest.raises(made.exceptions.ClientError) as caught:
            made.receive_message(QueueUrl="x")
    ours = translate(caught.value, "sqs://eu-west-1/orders")
    kind, retryable, _ = CODES[code]
    if code not in ("InvalidParameterValue", "InvalidAttributeValue"):
        assert (type(ours), ours.retryable) == (kind, retryable)
    assert ("sqs://eu-west-1/orders" in str(ours), "ReceiveMessage" in str(ours)) == (True, True)


def test_an_error_says_the_thing_the_place_and_the_next_step() -> None:
    """The text is for a stranger at night."""
    error = vendor.EndpointConnectionError(endpoint_url="http://x", error="refused")
    text = str(translate(error, "sqs://eu-west-1/orders", "ReceiveMessage"))
    assert text.startswith("sqs://eu-west-1/orders: ReceiveMessage: ")
    assert text.endswith("See whether region and endpoint are right, and can be reached.")


def test_what_nobody_has_heard_of_is_a_plain_broker_error() -> None:
    """An error of no known kind is still ours, and not tried again for ever."""
    ours = translate(ValueError("odd"), "sqs://eu-west-1/orders")
    assert (type(ours), ours.retryable) == (BrokerError, False)


def test_pages_of_a_refused_signature_are_cut() -> None:
    """The service's own words are kept short."""
    error = vendor.ClientError({"Error": {"Code": "SignatureDoesNotMatch", "Message": "x" * 9000}}, "SendMessage")
    assert len(str(translate(error, "place"))) < 600
