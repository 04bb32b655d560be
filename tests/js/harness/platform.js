// A running platform: `notifyx up` on SQLite, or a process per service with two of persist on Postgres.

import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Process } from "./process.js";
import { PATIENCE } from "./wait.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../..");

/** NOTIFYX_BIN, or what `cargo build` left. */
const NOTIFYX = process.env.NOTIFYX_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "debug/notifyx");

const SERVICES = ["DISCOVERY", "AUTH", "PERSIST", "COUNTER_2PC", "EVENTS", "GATEWAY"];

export function unique(name) {
  return `${name}-${randomUUID().slice(0, 13)}`;
}

export class Platform {
  constructor() {
    this.secret = unique("the-secret-of-a-cluster-of-tests");
    this.running = new Map();
    this.ended = [];
  }

  /** Everything in one process. */
  static up() {
    return new Platform().#whole(async (platform) => {
      const data = mkdtempSync(join(tmpdir(), "notifyx-js-"));
      platform.place = ["--data", data];
      platform.ended.push(() => rmSync(data, { recursive: true, force: true }));
      platform.front = "up";
      await platform.start("up");
    });
  }

  /** A process per service; two of persist commit side by side. */
  static separate() {
    return new Platform().#whole(async (platform) => {
      platform.place = ["--database", `${await postgres(platform)}/notifyx`];
      platform.front = "gateway";
      const { discovery } = await platform.start("discovery");
      platform.registry = ["--discovery", `http://${discovery}`];
      const others = ["auth", "persist-1", "persist-2", "counter-2pc", "events", "gateway"];
      await Promise.all(others.map((name) => platform.start(name)));
    });
  }

  /** All of it is started, or nothing of it stays. */
  async #whole(start) {
    this.port = await fixedPort();
    try {
      await start(this);
    } catch (error) {
      await this.stop("SIGKILL");
      throw error;
    }
    return this;
  }

  /** Starts one process, for the first time or again, and gives its addresses. */
  async start(name) {
    const service = name.startsWith("persist") ? "persist" : name;
    const fixed = name === this.front ? ["--port", String(this.port)] : [];
    const args = [service, "--json", ...fixed, ...this.place, ...(this.registry ?? [])];
    const env = {
      PATH: process.env.PATH,
      NOTIFYX_CLUSTER__SECRET: this.secret,
      // A publish waits for a slow machine instead of being answered 202.
      NOTIFYX_GATEWAY__COMMIT__ANSWER_WITHIN_MS: "30000",
      // After a crash recovery waits for the lease of whoever died; the protocol's own 10 s would only make the tests longer.
      NOTIFYX_GATEWAY__COMMIT__PREPARE_TIMEOUT_MS: "2000",
      NOTIFYX_GATEWAY__COMMIT__DEADLINE_MS: "4000",
      NOTIFYX_GATEWAY__COMMIT__LEASE_MS: "4500",
    };
    for (const inner of SERVICES) env[`NOTIFYX_${inner}__LISTEN`] = "127.0.0.1:0";
    const started = new Process(name, NOTIFYX, args, { env, cwd: tmpdir() });
    this.running.set(name, started);
    const ready = JSON.parse(await started.said());
    for (const deadline = Date.now() + PATIENCE; name === this.front; ) {
      if (await this.#works()) break;
      if (Date.now() > deadline) throw new Error(`${name} is not ready\n${started.log()}`);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    return ready;
  }

  /** Whether the gateway is ready and, where there is an events service, has found it: without it, too, it is ready. */
  async #works() {
    const { status } = await fetch(`${this.url}/ready`);
    if (status !== 200) return false;
    const events = this.running.has("up") || this.running.has("events") ? 1 : 0;
    const metrics = await (await fetch(`${this.url}/metrics`)).text();
    return metrics.includes(`\nnotifyx_gateway_watch_streams ${events}\n`);
  }

  /** Ends the process with the gateway in it, and starts it again in the same place. */
  async restart(signal) {
    await this.running.get(this.front).end(signal);
    await this.start(this.front);
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** What the official client is given. */
  get endpoint() {
    return `ws://127.0.0.1:${this.port}/socket`;
  }

  async stop(signal) {
    // The gateway first: it says goodbye while the others still answer.
    for (const process of [...this.running.values()].reverse()) await process.end(signal);
    for (const end of this.ended.reverse()) await end();
  }

  log() {
    return [...this.running.values()].map((process) => `--- ${process.name}\n${process.log()}`).join("\n");
  }

  /** Someone new, registered and logged in. */
  async person(name) {
    const credentials = { email: `${unique(name)}@example.org`, password: `the password of ${name}` };
    await this.post("/api/register_user", credentials);
    const { body } = await this.post("/api/login", credentials);
    return { ...credentials, id: body.id, token: body.token };
  }

  /** One call; `headers` may carry more than the token. */
  async call(method, path, { token, body, headers } = {}) {
    const answer = await fetch(`${this.url}${path}`, {
      method,
      headers: {
        ...(token && { authorization: `Bearer ${token}` }),
        ...(body && { "content-type": "application/json" }),
        ...headers,
      },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE),
    });
    return { status: answer.status, body: await answer.json() };
  }

  async post(path, body, token) {
    const answer = await this.call("POST", path, { token, body });
    if (answer.status >= 300) throw new Error(`${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer;
  }

  /** Publishes under a key, again and again until it is answered with 201: over restarts of the server. */
  async insist(person, topic, message) {
    const key = encodeURIComponent(`${topic}/${message}`);
    const request = { token: person.token, body: { topic, message }, headers: { "idempotency-key": key } };
    for (const deadline = Date.now() + 3 * PATIENCE; ; ) {
      const answer = await this.call("POST", "/api/notifications", request).catch((error) => ({ status: 0, error }));
      if (answer.status === 201) return answer.body;
      const passing = [0, 202, 503].includes(answer.status);
      if (!passing || Date.now() > deadline) throw new Error(`${message}: ${JSON.stringify(answer)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** The next port to try. Other test processes, of neighbouring numbers, begin elsewhere. */
let nextPort = 20_000 + ((process.pid * 16) % 11_000);

/** A port that stays ours between two starts: below those that the system hands out, and given once. */
async function fixedPort() {
  for (;;) {
    const port = await bound(nextPort++);
    if (port) return port;
  }
}

/** The port that listening there gives, or nothing where it is taken. */
function bound(port) {
  return new Promise((resolve) => {
    const server = createServer().once("error", () => resolve());
    server.listen(port, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** The URL of a PostgreSQL server of our own, started as the Rust tests start theirs. */
async function postgres(platform) {
  if (process.env.NOTIFYX_TEST_POSTGRES) return process.env.NOTIFYX_TEST_POSTGRES.replace(/\/$/, "");
  const debian = "/usr/lib/postgresql";
  const versions = existsSync(debian) ? readdirSync(debian).sort().reverse() : [];
  const folders = [...process.env.PATH.split(":"), ...versions.map((version) => join(debian, version, "bin"))];
  const initdb = folders.map((folder) => join(folder, "initdb")).find(existsSync);
  if (!initdb) throw new Error("no initdb on the path: `make setup` installs it");
  // A link on the path may stand alone; its neighbours are where it points.
  const binaries = dirname(realpathSync(initdb));
  const port = await fixedPort();
  const folder = mkdtempSync(join(tmpdir(), "notifyx-pg-"));
  const script = join(ROOT, "crates/database/src/testing/postgres.sh");
  const server = new Process("postgres", "bash", [script, binaries, folder, String(port)]);
  if ((await server.said()) !== "ready") throw new Error(`PostgreSQL did not start\n${server.log()}`);
  // It stops, and removes its folder, at the end of its standard input.
  platform.ended.push(() => {
    server.child.stdin.end();
    return server.exited;
  });
  return `postgres://postgres@127.0.0.1:${port}`;
}
