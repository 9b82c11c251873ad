# pip install aiokafka · python follow.py REFERENCE: prints closings until the one of that reference
import asyncio, json, os, sys  # noqa: E401
from aiokafka import AIOKafkaConsumer


async def main():
    brokers = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    settings = {"isolation_level": "read_committed", "auto_offset_reset": "earliest"}
    async with AIOKafkaConsumer("image.closed.v1", bootstrap_servers=brokers, **settings) as consumer:
        async for record in consumer:
            closed = json.loads(record.value)
            print(closed["request_id"], closed["outcome"], closed.get("client_ref"))
            if closed.get("client_ref") == sys.argv[1]:
                return


asyncio.run(main())
