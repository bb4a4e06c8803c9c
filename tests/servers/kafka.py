"""A real Apache Kafka for the tests: one KRaft node on loopback, with every kind of listener, and ACLs."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from servers.kafka_gate import KafkaGate
from servers.maven import cache_folder, jars, missing, only_one
from servers.process import Leash, free_port
from servers.toxiproxy import Link, toxiproxy

VERSION: Final = "4.1.2"
COORDINATES: Final = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",  # without it the broker says nothing
)
PASSWORDS: Final = {"alice": "alice-pw-71", "bob": "bob-pw-72"}
"""Users of the SASL listeners; they may do nothing until an ACL allows it."""

_CLUSTER_ID: Final = "AAAAAAAAAAAAAAAAAAAAAQ"  # any 16 bytes do
_FLAGS: Final = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_MECHANISMS: Final = ("scram-sha-256", "scram-sha-512", "plain")
_LISTENERS: Final = ("PLAINTEXT", "PROXIED", "GATED", "SASL_PLAINTEXT", "SASL_SSL", "TLS", "MUTUAL", "CONTROLLER")

_PROPERTIES: Final = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{CONTROLLER}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,GATED:PLAINTEXT,\
SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,TLS:SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT
log.dirs=data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
auto.create.topics.enable=false
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
log.cleaner.backoff.ms=500
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
ssl.keystore.type=PEM
ssl.keystore.location=tls/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=tls/ca.pem
listener.name.mutual.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
_LOGGING: Final = """
appender.o.type=Console
appender.o.name=o
rootLogger.level=WARN
rootLogger.appenderRef.o.ref=o
"""


def fetch() -> list[Path]:
    """Give the jars, fetched once."""
    return jars(*COORDINATES)


def prepare() -> None:
    """Fetch the jars, and write the archive of the classes that a broker loads: it saves half of each later start."""
    fetch()
    archive = _archive()
    with only_one(archive.with_suffix(".lock")):
        if not archive.exists():
            written = archive.with_suffix(f".{os.getpid()}")
            server = KafkaServer()
            try:
                server.start(300.0, f"-XX:ArchiveClassesAtExit={written}")
                server.stop(300.0)
            finally:
                server.remove()
            if written.exists():  # not every virtual machine can
                written.rename(archive)


def _archive() -> Path:
    return cache_folder("kafka-classes") / f"{VERSION}.jsa"


def _archived() -> tuple[str, ...]:
    return (f"-XX:SharedArchiveFile={_archive()}",) if _archive().exists() else ()


class KafkaServer:
    """One broker. The listeners without a password are the administrator's; SASL users need ACLs.

    Args:
        advertised: The ports that listeners advertise, by name, where they are not their own: of what stands before it.
        own: The ports where listeners listen, by name, where they are not any that are free.
        extra: Further properties of the broker; they win.
    """

    def __init__(
        self,
        *,
        advertised: Mapping[str, int] | None = None,
        own: Mapping[str, int] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self._jars = fetch()
        self.folder = Path(tempfile.mkdtemp(prefix="eventflows-kafka-"))
        self.tls = self.folder / "tls"
        _certificates(self.tls)
        self.ports = {name: free_port() for name in _LISTENERS} | dict(own or {})
        self.advertised = self.ports | dict(advertised or {})
        self._extra = dict(extra or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None
        self._write_properties()
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        self._format()

    def address(self, listener: str = "PLAINTEXT") -> str:
        """Give host and port of a listener, as clients must name it."""
        return f"127.0.0.1:{self.advertised[listener]}"

    @property
    def pid(self) -> int:
        """The process of the broker."""
        assert self._process is not None, "the broker does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the broker wrote."""
        return (self.folder / "server.log").read_text(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not ended since, by itself or not."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 100.0, *flags: str) -> None:
        """Start it and wait until clients can connect; one that does not come up is killed.

        Args:
            timeout: Seconds to wait.
            flags: Of the virtual machine; without any, classes come from the archive, where there is one.

        Raises:
            RuntimeError: It ended, or did not listen in time.
        """
        self._let_go()
        with open(self.folder / "server.log", "ab") as log:
            command = [*self._java(*(flags or _archived())), "kafka.Kafka", "server.properties"]
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
            self._leash = Leash(self._process.pid, self.folder)
        deadline = time.monotonic() + timeout
        while silent := [name for name in _LISTENERS if not _listens(self.ports[name])]:
            if not self.runs or time.monotonic() > deadline:
                state = f"runs, without {', '.join(silent)}" if self.runs else f"ended with {self._process.returncode}"
                self.kill()
                raise RuntimeError(f"Kafka did not start within {timeout:g} s; it {state}:\n{self.log[-3000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def stop(self, timeout: float = 30.0) -> None:
        """Let it stop in peace, or kill it when it does not."""
        process = self._let_go()
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        process = self._let_go()
        if process is not None:
            process.kill()
            process.wait()

    def _let_go(self) -> subprocess.Popen[bytes] | None:
        process, self._process = self._process, None
        leash, self._leash = self._leash, None
        if leash is not None:
            leash.untie()
        return process

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does; connections stay open."""
        assert self._process is not None, "the broker does not run"
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None, "the broker does not run"
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stop it and remove all it wrote."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _java(self, *flags: str) -> list[str]:
        classes = ":".join(str(jar) for jar in self._jars)
        return ["java", *_FLAGS, *flags, "-Dlog4j2.configurationFile=log4j2.properties", "-cp", classes]

    def _write_properties(self) -> None:
        def listeners(ports: Mapping[str, int], names: tuple[str, ...]) -> str:
            return ",".join(f"{name}://127.0.0.1:{ports[name]}" for name in names)

        lines = [
            _PROPERTIES.format(
                CONTROLLER=self.ports["CONTROLLER"],
                listeners=listeners(self.ports, _LISTENERS),
                advertised=listeners(self.advertised, _LISTENERS[:-1]),
            )
        ]
        users = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items())
        module = "org.apache.kafka.common.security"
        for listener in ("sasl_plaintext", "sasl_ssl"):
            for mechanism in _MECHANISMS:
                login = f"plain.PlainLoginModule required {users}"
                login = login if mechanism == "plain" else "scram.ScramLoginModule required"
                lines.append(f"listener.name.{listener}.{mechanism}.sasl.jaas.config={module}.{login};")
        lines += [f"{name}={value}" for name, value in self._extra.items()]
        (self.folder / "server.properties").write_text("\n".join(lines) + "\n")

    def _format(self) -> None:
        command = [*self._java(*_archived()), "kafka.tools.StorageTool", "format"]
        command += ["-t", _CLUSTER_ID, "-c", "server.properties"]
        for name, password in PASSWORDS.items():
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                command += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}"


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _certificates(folder: Path) -> None:
    """Make a CA, a broker's and a client's certificate, and a CA that signed neither, all in PEM."""
    if shutil.which("openssl") is None:
        missing("openssl", "to make certificates")
    folder.mkdir()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    for name in ("ca", "other-ca"):
        openssl("req", "-x509", *key, "-days", "3650", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.pem")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("broker", "client"):
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "3650", "-extfile", "names", "-out", f"{name}.crt")  # fmt: skip
        parts = [(folder / f"{name}.{kind}").read_text() for kind in ("key", "crt")]
        (folder / f"{name}.pem").write_text("".join([*parts, (folder / "ca.pem").read_text()]))


def shared() -> KafkaServer:
    """Give the broker that the tests of this process share, started at its first use, and whenever it does not run.

    What it advertises as PROXIED is for `link`, and as GATED for `gate`: nobody listens there before.
    """
    server = _shared()
    if not server.runs:
        server.start()
    return server


@functools.cache
def _shared() -> KafkaServer:
    server = KafkaServer(advertised={"PROXIED": free_port(), "GATED": free_port()})
    atexit.register(server.remove)
    return server


@functools.cache
def gate() -> KafkaGate:
    """Give the gate of the shared broker, open for as long as this process lives."""
    server = shared()
    return KafkaGate(server.advertised["GATED"], server.ports["GATED"])


@functools.cache
def link() -> Link:
    """Give the way to the shared broker that can be made slow, and cut, for as long as this process lives."""
    server = shared()
    return toxiproxy().link(server.ports["PROXIED"], at=server.advertised["PROXIED"])
