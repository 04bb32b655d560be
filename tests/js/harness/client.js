// The official client in each version, as an application uses it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { WebSocket } from "ws";
import { Collected, PATIENCE, within } from "./wait.js";

const require = createRequire(import.meta.url);

export const VERSIONS = ["1.6", "1.7", "1.8"].map((version) => ({
  version,
  Socket: require(`phoenix-${version}`).Socket,
  release: JSON.parse(readFileSync(new URL(`../node_modules/phoenix-${version}/package.json`, import.meta.url))).version,
}));

/** An unconnected socket; `options` are the client's own. It waits for answers as long as the tests do. */
export function socket(Socket, platform, options) {
  return new Socket(platform.endpoint, { transport: WebSocket, timeout: PATIENCE, ...options });
}

/** A connected one. */
export async function connect(Socket, platform, person, options) {
  const made = socket(Socket, platform, { params: { token: person.token }, ...options });
  const opened = new Promise((resolve) => made.onOpen(resolve));
  made.connect();
  await within(PATIENCE, opened, "the socket to open");
  return made;
}

/** What a push or a join is answered: `[status, response]`. */
export function answer(push) {
  const answered = new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout"]) push.receive(status, (response) => resolve([status, response]));
  });
  return within(2 * PATIENCE, answered, "an answer");
}

export async function ok(push) {
  const [status, response] = await answer(push);
  if (status !== "ok") throw new Error(`${status}: ${JSON.stringify(response)}`);
  return response;
}

/** Joins `notification:<topic>`; what is pushed there is collected from the first moment. */
export async function join(socket, topic, params = {}) {
  const channel = socket.channel(`notification:${topic}`, params);
  const received = new Collected();
  channel.on("new_notification", received.push);
  const joined = await ok(channel.join());
  return { channel, received, joined };
}

/**
 * Leaves, and waits until the server has closed the channel. (The client calls a leave done as soon as it is sent; what the
 * server pushes until it has read it would reach the next channel of the topic.)
 */
export function left(socket, channel) {
  const closed = new Promise((resolve) => {
    const handler = socket.onMessage(({ topic, event }) => {
      if (topic !== channel.topic || event !== "phx_close") return;
      socket.off([handler]);
      resolve();
    });
  });
  channel.leave();
  return within(PATIENCE, closed, `the end of ${channel.topic}`);
}
