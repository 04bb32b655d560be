// Events as a page listens to them without our libraries: a WebSocket and an EventSource, each coming back by itself. Against both forms of
// the platform.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { EventSource } from "eventsource";
import { WebSocket } from "ws";
import { Platform, unique } from "./harness/platform.js";
import { Collected } from "./harness/wait.js";

/** The platform of the form that is tested now, and somebody on it. */
let platform, ann;

/** As docs/SOCKETS.md shows it. */
function listen(category, show) {
  let last, socket, closed;
  const opened = new Collected();
  (function connect() {
    const from = last === undefined ? "" : `&from=${last}`;
    socket = new WebSocket(`${platform.url.replace("http", "ws")}/ws/events/${category}?token=${ann.token}${from}`);
    socket.onopen = opened.push;
    socket.onerror = () => {};
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      last = event.offset;
      if (event.recovered !== false) show(event);
    };
    socket.onclose = () => closed || setTimeout(connect, 100);
  })();
  const close = () => {
    closed = true;
    socket.close();
  };
  return { opened, close };
}

async function post(category, from, to) {
  for (let n = from; n <= to; n += 1) {
    const event = { category, fireAt: "2026-01-01T00:00:00Z", data: { n } };
    await platform.post("/events", event, ann.token);
  }
}

for (const [form, start] of [
  ["up", () => Platform.up()],
  ["separate", () => Platform.separate()],
]) {
  describe(form, () => {
    before(async () => {
      platform = await start();
      ann = await platform.person("ann");
    });
    after(() => platform?.stop());

    test("a page gets each event once, also those that fired while the server was away", async () => {
      const category = unique("orders");
      const received = new Collected();
      const plain = listen(category, received.push);
      const source = new EventSource(`${platform.url}/events/${category}/stream?token=${ann.token}`);
      const sent = new Collected();
      const opened = new Collected();
      source.addEventListener("event", ({ data, lastEventId }) => sent.push({ ...JSON.parse(data), lastEventId }));
      source.addEventListener("open", opened.push);
      try {
        await plain.opened.count(1, "opening of the socket");
        await opened.count(1, "opening of the stream");
        await post(category, 1, 3);
        await received.count(3, "event");
        await sent.count(3, "event");
        await platform.restart("SIGTERM");
        await post(category, 4, 6);
        const numbers = [1, 2, 3, 4, 5, 6];
        for (const all of [await received.count(6, "event"), await sent.count(6, "event")]) {
          assert.deepEqual(all.map(({ data }) => data.n), numbers);
          assert.deepEqual(all.map(({ offset }) => offset), numbers);
        }
        assert.deepEqual(sent.all.map(({ lastEventId }) => lastEventId), numbers.map(String));
      } finally {
        source.close();
        plain.close();
      }
    });

    test("who may not listen is told, and does not come back", async () => {
      const source = new EventSource(`${platform.url}/events/orders/stream?token=a-token-that-nobody-was-given`);
      const errors = new Collected();
      source.addEventListener("error", errors.push);
      const [error] = await errors.count(1, "error");
      assert.equal(error.code, 401);
      assert.equal(source.readyState, EventSource.CLOSED);
    });
  });
}
