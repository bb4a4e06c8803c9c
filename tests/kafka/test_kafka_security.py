"""Whatever keeps a client out has an error of its own, within ten seconds, and leaves no thread behind."""

from __future__ import annotations

import contextlib
import inspect
import os
import uuid
from collections.abc import Iterator, Mapping

import confluent_kafka
import kafka.errors
import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from eventflows import publisher, subscriber
from eventflows.adapters import _kafka_rd_errors
from eventflows.adapters._kafka_python_errors import TABLE
from eventflows.adapters._kafka_rd_client import Causes
from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    ConfigError,
    ConnectionFailedError,
    NotFoundError,
    PermissionDeniedError,
)
from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Message
from eventflows.protocols import Publisher, Subscriber
from eventflows.secret import Secret
from eventflows.testing.conditions import Background, wait_until
from kafka_harness import administrator
from kafka_use import CLIENTS
from servers.kafka import PASSWORDS, KafkaServer, shared
from servers.process import free_port

pytestmark = pytest.mark.broker


@pytest.fixture(scope="session")
def server() -> KafkaServer:
    """The broker that all share."""
    return shared()


@pytest.fixture
def topic(server: KafkaServer) -> str:
    """A topic that nobody has used, and nobody but the administrator may."""
    name = f"security-{uuid.uuid4().hex[:8]}"
    with administrator(server) as admin:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics([name])
    return name


def acls(kind: ResourceType, name: str, *operations: ACLOperation) -> list[ACL]:
    """What alice may do."""
    return [
        ACL("User:alice", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))
        for operation in operations
    ]


@contextlib.contextmanager
def allowed(server: KafkaServer, rules: list[ACL]) -> Iterator[None]:
    """Let alice do it for a while."""
    with administrator(server) as admin:
        admin.create_acls(rules)
        try:
            yield
        finally:
            admin.delete_acls(rules)


def user(name: str = "alice", password: str | None = None, **more: object) -> dict[str, object]:
    """The options of a SASL user."""
    return {"username": name, "password": Secret(password or PASSWORDS[name]), **more}


def zip_paths(server: KafkaServer, names: tuple[str, ...]) -> dict[str, str]:
    """Give `cert`, and `key` where there is one of its own."""
    return {option: str(server.tls / name) for option, name in zip(("cert", "key"), names, strict=False)}


def threads() -> int:
    """Count the threads of this process, native ones included."""
    return len(os.listdir("/proc/self/task"))


def refusal(url: str, options: Mapping[str, object], side: str = "source") -> BaseException:
    """What opening a subscriber, or a publisher, raises, within ten seconds; no thread stays."""
    before = threads()
    adapter: Subscriber | Publisher = (
        open_subscriber(url, group=f"g-{uuid.uuid4().hex[:8]}", **options)
        if side == "source"
        else open_publisher(url, **options)
    )
    with pytest.raises((BrokerError, ConfigError)) as caught:
        Background(adapter.open).result(10.0, "the refusal")
    adapter.close()
    wait_until(lambda: threads() <= before, what="the client's threads end")
    return caught.value


def test_every_error_class_of_kafka_python_is_in_the_table() -> None:
    """What kafka-python may raise has a class of ours; a new version's new class is noticed."""
    classes = {
        name
        for name, one in vars(kafka.errors).items()
        if inspect.isclass(one) and issubclass(one, kafka.errors.KafkaError) and one.__name__ == name
    }
    bases = {"KafkaError", "BrokerResponseError", "RetriableError", "InvalidMetadataError"}  # never raised themselves
    assert classes - set(TABLE) - bases == set()


def test_every_error_code_of_librdkafka_is_in_the_table() -> None:
    """What librdkafka may say has a class of ours; a new version's new code is noticed."""
    codes = {
        name for name, code in vars(confluent_kafka.KafkaError).items() if name.isupper() and isinstance(code, int)
    }
    assert len(codes) > 150
    assert codes ^ set(_kafka_rd_errors.TABLE) == set()


@pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
def test_a_user_with_rights_publishes_and_reads(
    client: str, server: KafkaServer, topic: str, listener: str, mechanism: str
) -> None:
    """Every mechanism works, in plain text and over TLS."""
    options = user(sasl=mechanism)
    if listener == "SASL_SSL":
        options["ca"] = str(server.tls / "ca.pem")
    url = f"kafka://{server.address(listener)}/{topic}?client={client}"
    rules = acls(ResourceType.TOPIC, topic, ACLOperation.READ, ACLOperation.WRITE, ACLOperation.DESCRIBE)
    rules += acls(ResourceType.GROUP, "secured", ACLOperation.READ)
    with allowed(server, rules):
        with open_publisher(url, **options) as publisher:
            assert [one.error for one in publisher.publish([Message(b"body")])] == [None]
        with open_subscriber(url, group="secured", **options) as subscriber:
            chunks = wait_until(lambda: subscriber.receive(1, max_bytes=1000, timeout=1), what="the message")
            assert [list(chunk.bodies) for chunk in chunks] == [[b"body"]]


def test_a_ca_given_as_text_is_trusted(client: str, server: KafkaServer, topic: str) -> None:
    """The CA may be PEM text."""
    url = f"kafka://{server.address('TLS')}/{topic}?client={client}"
    with open_publisher(url, ca=(server.tls / "ca.pem").read_text()) as publisher:
        assert [one.error for one in publisher.publish([Message(b"body")])] == [None]


def test_a_wrong_password_is_an_authentication_error(client: str, server: KafkaServer, topic: str) -> None:
    """The password is not shown."""
    error = refusal(f"kafka://{server.address('SASL_PLAINTEXT')}/{topic}?client={client}", user(password="wrong-98"))
    assert (type(error), "wrong-98" in str(error)) == (AuthenticationError, False)


def test_a_wrong_ca_is_an_authentication_error_that_names_the_option(
    client: str, server: KafkaServer, topic: str
) -> None:
    """A broker that we do not trust is told from one that does not trust us."""
    error = refusal(
        f"kafka://{server.address('TLS')}/{topic}?client={client}", {"ca": str(server.tls / "other-ca.pem")}
    )
    assert (type(error), "correct ca=" in str(error)) == (AuthenticationError, True)


def test_a_missing_ca_is_a_config_error(client: str, server: KafkaServer, topic: str) -> None:
    """A path that leads nowhere is our own mistake."""
    error = refusal(f"kafka://{server.address('TLS')}/{topic}?client={client}", {"ca": str(server.tls / "no.pem")})
    assert type(error) is ConfigError


def test_plain_text_against_tls_says_so(client: str, server: KafkaServer, topic: str) -> None:
    """The text names the option that is missing."""
    error = refusal(f"kafka://{server.address('TLS')}/{topic}?client={client}", {})
    assert (type(error), "tls=true" in str(error)) == (ConnectionFailedError, True)


def test_tls_against_plain_text_says_so(client: str, server: KafkaServer, topic: str) -> None:
    """The text says that the port may speak plain text."""
    error = refusal(f"kafka://{server.address()}/{topic}?client={client}", {"ca": str(server.tls / "ca.pem")})
    assert (type(error), "plain text" in str(error)) == (AuthenticationError, True)


def test_mutual_tls_without_a_certificate_is_refused(client: str, server: KafkaServer, topic: str) -> None:
    """A listener that wants a certificate refuses a client without one."""
    error = refusal(f"kafka://{server.address('MUTUAL')}/{topic}?client={client}", {"ca": str(server.tls / "ca.pem")})
    assert isinstance(error, (AuthenticationError, ConnectionFailedError))
    assert "cert=" in str(error)


@pytest.mark.parametrize("given", [("client.pem",), ("client.crt", "client.key")], ids=["together", "apart"])
def test_mutual_tls_knows_the_client_by_its_certificate(
    client: str, server: KafkaServer, topic: str, given: tuple[str, ...]
) -> None:
    """With a certificate the connection stands; what its owner may do is asked next."""
    options = {"ca": str(server.tls / "ca.pem"), **zip_paths(server, given)}
    error = refusal(f"kafka://{server.address('MUTUAL')}/{topic}?client={client}", options)
    assert type(error) is PermissionDeniedError


@pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_nobody_s_name_where_one_is_wanted_says_so(client: str, server: KafkaServer, topic: str, listener: str) -> None:
    """The broker only ends the connection; the text names the options that may be missing."""
    options = {"ca": str(server.tls / "ca.pem")} if listener == "SASL_SSL" else {}
    error = refusal(f"kafka://{server.address(listener)}/{topic}?client={client}", options)
    assert (type(error), "username=" in str(error)) == (ConnectionFailedError, True)


@pytest.mark.parametrize("text", ["Send failed: Broken pipe", "Receive failed: Connection reset by peer"])
def test_connection_that_ends_while_it_is_written_to_says_so_too(text: str) -> None:
    """Which of the two happens is a matter of time; librdkafka tells of this one as of any other trouble."""
    causes = Causes()
    for code, what in (
        ("_TRANSPORT", f"host:9/bootstrap: {text} (after 0ms in state UP)"),
        ("_ALL_BROKERS_DOWN", "1/1"),
    ):
        causes(confluent_kafka.KafkaError(getattr(confluent_kafka.KafkaError, code), what))
    error = causes.told("kafka://host:9/topic")
    assert (type(error), "username=" in str(error)) == (ConnectionFailedError, True)


def test_a_name_where_none_is_wanted_says_so(client: str, server: KafkaServer, topic: str) -> None:
    """The text says that this port takes no password."""
    error = refusal(f"kafka://{server.address()}/{topic}?client={client}", user())
    assert (type(error), "takes no password" in str(error)) == (AuthenticationError, True)


def test_an_unreachable_broker_says_so(client: str) -> None:
    """The text says to look at hosts and ports, and nothing of passwords."""
    error = refusal(f"kafka://127.0.0.1:{free_port()}/topic?client={client}", {})
    assert (type(error), "hosts and ports" in str(error)) == (ConnectionFailedError, True)


def test_a_host_that_is_not_known_says_so(client: str) -> None:
    """The text says to look at hosts and ports."""
    error = refusal(f"kafka://no-such-host.invalid:9092/topic?client={client}", {})
    assert (type(error), "hosts and ports" in str(error)) == (ConnectionFailedError, True)


@pytest.mark.parametrize(
    ("listener", "options", "kind", "word"),
    [
        pytest.param("SASL_PLAINTEXT", {"password": "wrong-98"}, AuthenticationError, "password=", id="password"),
        pytest.param("TLS", {"ca": "other-ca.pem"}, AuthenticationError, "correct ca=", id="ca"),
        pytest.param("TLS", {}, ConnectionFailedError, "tls=true", id="plain-text-against-tls"),
        pytest.param("PLAINTEXT", {"ca": "ca.pem"}, AuthenticationError, "plain text", id="tls-against-plain-text"),
        pytest.param("SASL_PLAINTEXT", {"password": ""}, PermissionDeniedError, "WRITE", id="topic-right"),
    ],
)
def test_a_publisher_is_told_the_same(
    client: str, server: KafkaServer, topic: str, listener: str, options: dict[str, str], kind: type, word: str
) -> None:
    """Each cause is told apart at a destination, too."""
    said: dict[str, object] = {"ca": str(server.tls / options["ca"])} if "ca" in options else {}
    said |= user(password=options["password"]) if "password" in options else {}
    error = refusal(f"kafka://{server.address(listener)}/{topic}?client={client}", said, "destination")
    assert (type(error), word in str(error)) == (kind, True)


def test_a_missing_destination_is_not_found(client: str, server: KafkaServer) -> None:
    """The client alone would wait in silence."""
    error = refusal(f"kafka://{server.address()}/no-such-topic?client={client}", {}, "destination")
    assert type(error) is NotFoundError


def test_a_missing_topic_is_not_found(client: str, server: KafkaServer) -> None:
    """The client alone would wait in silence."""
    assert type(refusal(f"kafka://{server.address()}/no-such-topic?client={client}", {})) is NotFoundError


def test_a_forbidden_topic_is_a_permission_denied(client: str, server: KafkaServer, topic: str) -> None:
    """The client alone would wait in silence."""
    error = refusal(f"kafka://{server.address('SASL_PLAINTEXT')}/{topic}?client={client}", user())
    assert (type(error), "topic" in str(error)) == (PermissionDeniedError, True)


def test_a_forbidden_group_is_a_permission_denied(client: str, server: KafkaServer, topic: str) -> None:
    """The topic may be read, the group may not be used."""
    with allowed(server, acls(ResourceType.TOPIC, topic, ACLOperation.READ, ACLOperation.DESCRIBE)):
        error = refusal(f"kafka://{server.address('SASL_PLAINTEXT')}/{topic}?client={client}", user())
    assert (type(error), "group" in str(error)) == (PermissionDeniedError, True)


@pytest.mark.trial
@pytest.mark.parametrize("lost", [ResourceType.TOPIC, ResourceType.GROUP])
def test_a_permission_withdrawn_while_running_is_raised_within_ten_seconds(
    client: str, server: KafkaServer, topic: str, lost: ResourceType
) -> None:
    """Nothing waits, nothing is settled, and it is noticed all the same."""
    group = f"withdrawn-{uuid.uuid4().hex[:8]}"
    kept = {
        ResourceType.TOPIC: acls(ResourceType.TOPIC, topic, ACLOperation.READ, ACLOperation.DESCRIBE),
        ResourceType.GROUP: acls(ResourceType.GROUP, group, ACLOperation.READ),
    }
    withdrawn = kept.pop(lost)
    [rules] = kept.values()
    subscriber = open_subscriber(
        f"kafka://{server.address('SASL_PLAINTEXT')}/{topic}?client={client}", group=group, **user()
    )

    def raised() -> bool:
        try:
            subscriber.receive(1, max_bytes=1000, timeout=0.5)
        except PermissionDeniedError:
            return True
        return False

    with allowed(server, rules):
        with allowed(server, withdrawn):
            subscriber.open()
            wait_until(lambda: raised() or subscriber.ready, what="a place in the group")
        assert wait_until(raised, 10.0, what="the error")
    with contextlib.suppress(PermissionDeniedError):
        subscriber.close()


def test_a_missing_right_on_transactional_ids_ends_an_exactly_once_flow_at_its_start(
    server: KafkaServer, topic: str, client: str
) -> None:
    """Rights on topic and group are not enough; with the one that is named the flow runs."""
    group = f"g-{uuid.uuid4().hex[:8]}"
    url = f"kafka://{server.address('SASL_PLAINTEXT')}/{topic}"
    flow = subscriber(f"{url}?group={group}", guarantee="exactly-once", **user(), **CLIENTS[client])(
        publisher(url, **user(), **CLIENTS[client])(lambda input: input)
    )
    rules = acls(ResourceType.TOPIC, topic, ACLOperation.READ, ACLOperation.WRITE)
    rules += acls(ResourceType.GROUP, group, ACLOperation.READ)
    prefix = ResourcePattern(ResourceType.TRANSACTIONAL_ID, f"eventflows-{group}-", ACLResourcePatternType.PREFIXED)
    with allowed(server, rules):
        with pytest.raises(PermissionDeniedError, match=r"eventflows-<group>-: WRITE"):
            flow.run(until_idle=0.5, signals=False)
        with allowed(server, [ACL("User:alice", "*", ACLOperation.WRITE, ACLPermissionType.ALLOW, prefix)]):
            assert flow.run(until_idle=0.5, signals=False).received == 0
