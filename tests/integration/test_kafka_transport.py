"""The Kafka transport on a real broker: the suite of all transports, and what only a real broker does to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.transport_suite import PLACES_OF_6, TransportSuite
from tests.kit import stack as parts
from tests.kit.kafka_world import KafkaWorld

pytestmark = pytest.mark.real


@pytest.fixture
async def world(kafka: parts.KafkaRunning, topic_prefix: str) -> AsyncIterator[KafkaWorld]:
    found = KafkaWorld(kafka.bootstrap_servers, topic_prefix)
    yield found
    await found.close()


class TestKafkaTransport(TransportSuite):
    async def test_the_suite_knows_where_librdkafka_puts_keys(self, world: KafkaWorld) -> None:
        """The suite's table of places is what librdkafka does, on this broker, now."""
        topic = await world.topic("librdkafka", 6)

        assert await world.foreign(topic, list(PLACES_OF_6)) == list(PLACES_OF_6.values())
