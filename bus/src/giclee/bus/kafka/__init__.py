"""The transport over aiokafka; this folder is the only importer of that library.

Every wait has a deadline, and a client whose state is uncertain is thrown away and built anew. The topic prefix is
added and removed in here: nobody else sees it. `reader("", topics)` reads without a group, every partition from
its beginning: for tables. A transport belongs to one event loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient

from giclee.bus.kafka.client import Cluster, KafkaSettings, Timings, ended, insist
from giclee.bus.kafka.groups import KafkaGroups
from giclee.bus.kafka.lookup import KafkaLookup
from giclee.bus.kafka.numbered import KafkaNumberedWriter
from giclee.bus.kafka.reader import KafkaReader
from giclee.bus.kafka.writer import KafkaWriter

__all__ = ["KafkaReader", "KafkaSettings", "KafkaTransport", "KafkaWriter", "Timings"]


class KafkaTransport:
    """Readers, writers and the identity of one cluster."""

    def __init__(self, settings: KafkaSettings, *, client_id: str = "giclee", timings: Timings | None = None) -> None:
        self._cluster = Cluster(settings, client_id, timings or Timings())

    async def cluster_id(self) -> str:
        """The cluster's own id. Waits for a broker, however long that takes."""
        return await insist(self._ask_cluster_id, self._cluster.timings.join_s)

    def reader(self, group: str, topics: Sequence[str]) -> KafkaReader:
        return KafkaReader(self._cluster, group, topics)

    def writer(self, name: str) -> KafkaWriter:
        return KafkaWriter(self._cluster, name)

    def numbered(self, name: str, topics: Sequence[str]) -> KafkaNumberedWriter:
        return KafkaNumberedWriter(self._cluster, name, topics)

    def groups(self) -> KafkaGroups:
        """Offsets of groups, seen from outside."""
        return KafkaGroups(self._cluster)

    def lookup(self) -> KafkaLookup:
        return KafkaLookup(self._cluster)

    async def _ask_cluster_id(self) -> str:
        admin = AIOKafkaAdminClient(**self._cluster.connection(self._cluster.timings.produce_request_s))
        try:
            await admin.start()
            return str((await admin.describe_cluster())["cluster_id"])
        finally:
            self._cluster.let_go(ended(admin.close()))
