# pip install aiokafka · python request.py REFERENCE
import asyncio, json, os, sys  # noqa: E401
from aiokafka import AIOKafkaProducer


async def main():
    async with AIOKafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], acks="all") as producer:
        request = {"prompt": "a small red circle on a blue background", "wanted": 1, "client_ref": sys.argv[1]}
        await producer.send_and_wait("image.requested.v1", json.dumps(request).encode())


asyncio.run(main())
