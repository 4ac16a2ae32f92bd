// Events over gRPC from Node: a batch with IngestEvents, then batches on a stream with StreamEvents.
//
//     npm install && node client.mjs 127.0.0.1:8081 <write key>

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

// The whole protocol, compiled: no other .proto file is needed.
const PROTOCOL = new URL("../../protos/baseline.binpb", import.meta.url);
const RETRYABLE = new Set([grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED, grpc.status.DEADLINE_EXCEEDED, grpc.status.ABORTED]);
const ATTEMPTS = 8;

const [target, writeKey] = process.argv.slice(2);
if (!target || !writeKey) {
  console.error("usage: node client.mjs <host:port> <write key>");
  process.exit(2);
}
const definition = loader.loadFileDescriptorSetFromBuffer(readFileSync(PROTOCOL), { longs: Number, enums: String, defaults: true });
const { CollectorService } = grpc.loadPackageDefinition(definition).cdi.collector.v1;
const client = new CollectorService(target, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${writeKey}`);

// The message id is made once, so that sending an event again does no harm.
const order = (total, userId) => ({
  type: "EVENT_TYPE_TRACK",
  name: "Order Completed",
  message_id: randomUUID(),
  user_id: userId,
  properties_json: Buffer.from(JSON.stringify({ total })),
});

const backoff = (attempt) => wait((0.5 + Math.random() / 2) * Math.min(200 * 2 ** attempt, 10_000));

function accepted(results) {
  const refused = results.filter((result) => result.status?.code);
  for (const { index, message_id, status } of refused) console.log(`event ${index} (${message_id}) refused: ${status.message}`);
  return results.length - refused.length;
}

function ingestOnce(events) {
  const deadline = Date.now() + 30_000;
  return new Promise((resolve, reject) =>
    client.IngestEvents({ events }, metadata, { deadline }, (error, response) => (error ? reject(error) : resolve(response.results))),
  );
}

async function ingest(events) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    try {
      return accepted(await ingestOnce(events));
    } catch (error) {
      if (!RETRYABLE.has(error.code)) throw error;
      console.log(`not now: ${error.details}`);
      await backoff(attempt);
    }
  }
  throw new Error("the collector takes nothing; giving up");
}

// One stream. What it stored is taken out of `waiting`; resolves to the number of events, and to why it ended early if it did.
function streamOnce(waiting) {
  return new Promise((resolve, reject) => {
    let stored = 0;
    const call = client.StreamEvents(metadata);
    call.on("data", ({ request_id: requestId, status, results }) => {
      const code = status?.code ?? 0;
      if (code === grpc.status.OK) stored += accepted(results);
      else console.log(`batch ${requestId}: ${status.message}`);
      if (!RETRYABLE.has(code)) waiting.delete(requestId);
    });
    call.on("error", (error) => (RETRYABLE.has(error.code) ? resolve(stored) : reject(error)));
    call.on("end", () => resolve(stored));
    send(call, [...waiting]);
  });
}

// `write` says false when the collector takes no more for now: flow control.
async function send(call, batches) {
  for (const [requestId, events] of batches) {
    if (call.destroyed) return;
    if (!call.write({ request_id: requestId, batch: { events } })) {
      await new Promise((resolve) => {
        for (const event of ["drain", "error", "close", "end"]) call.once(event, resolve);
      });
    }
  }
  call.end();
}

async function stream(batches) {
  const waiting = new Map(batches.entries());
  let stored = 0;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    stored += await streamOnce(waiting);
    if (!waiting.size) return stored;
    await backoff(attempt);
  }
  throw new Error("the collector takes nothing; giving up");
}

const numbers = Array.from({ length: 10 }, (_, number) => number);
console.log(`IngestEvents: ${await ingest([...numbers.map((n) => order(n, "user-1")), order(10, "")])} stored`);
console.log(`StreamEvents: ${await stream(numbers.map((user) => numbers.map((n) => order(n, `user-${user}`))))} stored`);
client.close();
