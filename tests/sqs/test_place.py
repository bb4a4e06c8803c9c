"""Every form of a queue's URL."""

from __future__ import annotations

import pytest

from eventflows.adapters._sqs_place import Place, place_of, sibling
from eventflows.errors import ConfigError
from eventflows.locate import parse, resolve

OWN = "the host of the URL itself"
AWS = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"


def place(url: str, **options: object) -> Place:
    """Take a URL apart."""
    return place_of(parse(url), options)


@pytest.mark.parametrize(
    ("url", "region", "endpoint", "queue_url"),
    [
        ("sqs://eu-west-1/123456789012/orders", "eu-west-1", None, AWS),
        ("sqs://cn-north-1/123456789012/q", "cn-north-1", None, "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q"),
        ("sqs://eu-west-1/orders", "eu-west-1", None, None),
        ("sqs:///orders", None, None, None),
        (AWS, "eu-west-1", None, AWS),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/orders", "eu-west-1", None, None),
        ("https://queue.amazonaws.com/123456789012/orders", "us-east-1", None, None),
        ("https://sqs-fips.us-east-1.amazonaws.com/123456789012/q", "us-east-1", OWN, None),
        ("https://vpce-0a-1.sqs.eu-west-1.vpce.amazonaws.com/123456789012/q", "eu-west-1", OWN, None),
        ("http://localhost:9324/000000000000/orders", None, OWN, None),
        ("http://localhost:9324/queue/orders", None, OWN, None),
        ("http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/orders", "eu-west-1", OWN, None),
        ("http://localhost:4566/queue/eu-west-1/000000000000/orders", "eu-west-1", OWN, None),
    ],
)  # fmt: skip
def test_place_is_read_from_every_form(
    url: str, region: str | None, endpoint: str | None, queue_url: str | None
) -> None:
    """Region, endpoint and queue URL come out of whatever a user has at hand."""
    found = place(url)
    wanted = queue_url or (None if url.startswith("sqs") else url)
    endpoint = url[: url.index("/", 8)] if endpoint == OWN else endpoint
    assert (found.region, found.endpoint, found.url) == (region, endpoint, wanted)


@pytest.mark.parametrize(
    "url",
    [
        "sqs://eu-west-1/12345/orders", "sqs://eu-west-1/a/b/c", "sqs://eu-west-1/", "sqs://EU_WEST/orders",
        "sqs://eu-west-1/" + "x" * 81, "sqs://eu-west-1/or ders", "https://example.com/orders",
        "https://sqs.eu-west-1.amazonaws.com/orders", "sqs://eu-west-1/orders?region=us-east-1",
        "sqs://eu-west-1/orders?external_id=x", "sqs://eu-west-1/orders?role_arn=worker",
        "sqs://eu-west-1/orders?endpoint=localhost", "sqs://eu-west-1/orders?visibility=0",
        "sqs://eu-west-1/orders?visibility=43201", "sqs://eu-west-1/orders?receivers=11",
    ],
)  # fmt: skip
def test_place_is_refused_when_it_is_no_queue(url: str) -> None:
    """What is not a queue, or an option's value that cannot be, is a mistake at decoration."""
    with pytest.raises(ConfigError):
        resolve(url, {}, "source")


def test_region_is_the_option_s_where_the_url_says_none() -> None:
    """And where the URL says one, the same may be said again."""
    found = [place(url, region="eu-west-1").region for url in ("sqs:///orders", "sqs://eu-west-1/orders")]
    assert found == ["eu-west-1"] * 2


def test_place_knows_a_fifo_queue_by_its_name() -> None:
    """The suffix says it; order by key or lane can be asked for before anything is opened."""
    assert [place(f"sqs://eu-west-1/{name}").fifo for name in ("orders.fifo", "orders", "fifo")] == [True, False, False]


def test_sibling_is_the_queue_of_the_arn() -> None:
    """A dead-letter queue's URL follows from its ARN and its source's URL."""
    assert sibling(AWS, "arn:aws:sqs:eu-west-1:123456789012:dead") == AWS.replace("orders", "dead")


def test_queue_urls_take_the_options_of_sqs() -> None:
    """A queue URL as the service writes it is the same adapter."""
    spec, _, options = resolve(f"{AWS}?visibility=30", {"receivers": 2}, "source")
    assert (spec.scheme, options) == ("sqs", {"visibility": 30, "receivers": 2})
