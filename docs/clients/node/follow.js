// npm install · node follow.js REFERENCE: prints closings until the one of that reference (kafkajs reads committed records)
import { randomUUID } from "node:crypto";
import { Kafka } from "kafkajs";

const kafka = new Kafka({ brokers: process.env.KAFKA_BOOTSTRAP_SERVERS.split(","), logLevel: 1 });
const consumer = kafka.consumer({ groupId: `follow-${randomUUID()}`, readUncommitted: false });
await consumer.connect();
await consumer.subscribe({ topic: "image.closed.v1", fromBeginning: true });
await consumer.run({ eachMessage: async ({ message }) => {
  const closed = JSON.parse(message.value);
  console.log(closed.request_id, closed.outcome, closed.client_ref);
  if (closed.client_ref === process.argv[2]) process.exit(0);
} });
