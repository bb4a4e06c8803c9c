"""Three brokers of a real Apache Kafka on loopback, for what one broker cannot show: leaders that move."""

from __future__ import annotations

import atexit
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from servers.kafka import KafkaServer
from servers.process import free_port

NODES: Final = (1, 2, 3)
_REPLICATED: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "auto.leader.rebalance.enable": "false",
    "broker.session.timeout.ms": "3000",  # a killed broker stalls every partition until its session ends
    "broker.heartbeat.interval.ms": "500",
}


class KafkaCluster:
    """Brokers 1, 2 and 3; each is a controller, too. Every topic has three replicas, and two must have a message."""

    def __init__(self) -> None:
        ports = {node: free_port() for node in NODES}
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in ports.items())
        extra = _REPLICATED | {"controller.quorum.voters": voters}
        with ThreadPoolExecutor() as pool:
            making = [
                pool.submit(KafkaServer, own={"CONTROLLER": port}, extra=extra | {"node.id": str(node)})
                for node, port in ports.items()
            ]
            self.nodes = dict(zip(NODES, [one.result() for one in making], strict=True))

    def address(self) -> str:
        """Give hosts and ports, as clients must name them."""
        return ",".join(server.address() for server in self.nodes.values())

    def start(self) -> None:
        """Start those that do not run, and wait until clients can connect."""
        with ThreadPoolExecutor() as pool:
            for one in [pool.submit(server.start) for server in self.nodes.values() if not server.runs]:
                one.result()

    def remove(self) -> None:
        """Kill all, and remove what they wrote: in peace, each would wait for the others."""
        for server in self.nodes.values():
            server.kill()
            server.remove()


def cluster() -> KafkaCluster:
    """Give the cluster that the tests of this process share; brokers that do not run are started."""
    made = _cluster()
    made.start()
    return made


@functools.cache
def _cluster() -> KafkaCluster:
    made = KafkaCluster()
    atexit.register(made.remove)
    return made
