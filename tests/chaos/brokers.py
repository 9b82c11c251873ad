"""Three brokers, their own controllers, each with two doors: one behind a proxy for services, one for observers.

Sessions and elections are tight, so that a dead leader is replaced within about three seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

from giclee.infra.local.child import Launch
from giclee.infra.local.kafka import Kafka, new_cluster
from giclee.infra.local.ports import Ports

CLIENTS, PROXY = 1, 2
"""Above a broker's base: where it listens for services, and where services believe that it listens."""

_PROPERTIES = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=INSIDE://127.0.0.1:{inside},CLIENTS://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=INSIDE://127.0.0.1:{inside},CLIENTS://127.0.0.1:{proxy}
inter.broker.listener.name=INSIDE
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,INSIDE:PLAINTEXT,CLIENTS:PLAINTEXT
log.dirs={folder}
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=6
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=4
background.threads=2
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controller.quorum.fetch.timeout.ms=2000
controller.quorum.election.timeout.ms=1000
controller.quorum.election.backoff.max.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
"""


def brokers_of(folder: Path, blocks: Sequence[Ports]) -> list[Kafka]:
    """One broker per block of ports, all of one new cluster; their data lie under `folder`."""
    cluster = new_cluster()
    voters = ",".join(f"{node}@127.0.0.1:{ports.of('kafka.controller')}" for node, ports in enumerate(blocks, 1))
    found = []
    for node, ports in enumerate(blocks, 1):
        part = Kafka(folder / f"kafka{node}", folder / "logs" / f"kafka{node}.log", ports, f"kafka{node}", cluster)
        text = _PROPERTIES.format(
            node=node,
            voters=voters,
            inside=ports.of("kafka"),
            clients=ports.base + CLIENTS,
            proxy=ports.base + PROXY,
            controller=ports.of("kafka.controller"),
            folder=part.data(),
        )
        found.append(replace(part, properties=text))
    return found


def launch_of(part: Kafka) -> Launch:
    """Ends by SIGKILL should we die: three brokers that are asked together wait for each other's quorum."""
    return replace(part.launch(), death_signal=SIGKILL)
