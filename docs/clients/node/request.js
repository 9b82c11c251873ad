// npm install · node request.js REFERENCE
import { Kafka } from "kafkajs";

const kafka = new Kafka({ brokers: process.env.KAFKA_BOOTSTRAP_SERVERS.split(","), logLevel: 1 });
const producer = kafka.producer();
await producer.connect();
const request = { prompt: "a small red circle on a blue background", client_ref: process.argv[2] };
await producer.send({ topic: "image.requested.v1", acks: -1, messages: [{ value: JSON.stringify(request) }] });
await producer.disconnect();
