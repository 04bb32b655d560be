// What an application does with the official client, in every version, against both forms of the platform.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { VERSIONS, answer, connect, join, left, ok, socket } from "./harness/client.js";
import { unique } from "./harness/platform.js";
import { Collected } from "./harness/wait.js";

/** The tests against a platform that `start` starts: each file runs them against one form. */
export function clientTests(start) {
  let platform;
  const open = [];
  const connected = async (...args) => {
    const made = await connect(...args);
    open.push(made);
    return made;
  };
  before(async () => {
    platform = await start();
  });
  afterEach((context) => {
    for (const made of open.splice(0)) made.disconnect();
    if (context.error) console.error(platform.log());
  });
  after(() => platform?.stop());

  for (const { version, release, Socket } of VERSIONS) {
    describe(`phoenix ${release}`, () => {
      let ann, bob;
      before(async () => {
        [ann, bob] = await Promise.all([platform.person("ann"), platform.person("bob")]);
      });

      test("right credentials open a socket", async () => {
        await connected(Socket, platform, ann);
        await connected(Socket, platform, ann, { params: { email: ann.email, password: ann.password } });
        await connected(Socket, platform, ann, { params: () => ({ token: ann.token }) });
      });

      test("wrong credentials are refused with 403 and never open one", async () => {
        for (const params of [{ token: "a-token-that-nobody-was-given" }, { email: ann.email, password: "wrong" }, {}]) {
          const refused = socket(Socket, platform, { params });
          open.push(refused);
          const errors = new Collected();
          refused.onError((error) => errors.push(error.message));
          refused.onOpen(() => assert.fail("it opened"));
          refused.connect();
          // Twice: the client tries again by itself.
          const messages = await errors.count(2, "refusal");
          assert.ok(messages.every((message) => message.includes("403")), messages.join());
        }
      });

      test("join, publish, receive, reply", async () => {
        const topic = unique("billing");
        const hers = await join(await connected(Socket, platform, ann), topic);
        const his = await join(await connected(Socket, platform, bob), topic);
        assert.deepEqual(hers.joined, {
          from_join: true,
          can_broadcast: true,
          topic_id: hers.joined.topic_id,
          offset: 0,
          recovered: false,
        });
        assert.equal(his.joined.can_broadcast, false);

        const reply = await ok(hers.channel.push("new_notification", { message: "Grüße ☃", to: [] }));
        assert.equal(reply.success, true);
        assert.equal(reply.offset, 1);
        const [pushed] = await his.received.count(1, "new_notification");
        assert.deepEqual(pushed, {
          id: reply.id,
          from: ann.email,
          message: "Grüße ☃",
          to: [],
          topic,
          offset: 1,
          inserted_at: pushed.inserted_at,
        });
        assert.ok(!Number.isNaN(Date.parse(pushed.inserted_at)));

        const [status, refused] = await answer(his.channel.push("new_notification", { message: "mine?", to: [] }));
        assert.equal(status, "error");
        assert.equal(refused.success, false);
        assert.equal(refused.reason, "not_creator");

        await ok(hers.channel.push("new_notification", { message: "for bob", to: [bob.email], priority: 9 }));
        await ok(hers.channel.push("new_notification", { message: "for ann", to: [ann.id] }));
        await ok(hers.channel.push("new_notification", { message: "for all", to: [] }));
        const messages = (all) => all.map((n) => n.message);
        assert.deepEqual(messages(await his.received.count(3, "new_notification")), ["Grüße ☃", "for bob", "for all"]);
        assert.deepEqual(messages(await hers.received.count(3, "new_notification")), ["Grüße ☃", "for ann", "for all"]);

        const own = new Collected();
        his.channel.on("own_notifications_for_topic", own.push);
        his.channel.push("own_notifications_for_topic", {});
        const [{ success, notifications }] = await own.count(1, "own_notifications_for_topic");
        assert.equal(success, true);
        assert.deepEqual(messages(notifications).sort(), ["Grüße ☃", "for all", "for bob"]);
      });

      test("leave and rejoin", async () => {
        const topic = unique("left");
        const shared = await connected(Socket, platform, bob);
        await join(await connected(Socket, platform, ann), topic);
        const first = await join(shared, topic);
        await left(shared, first.channel);
        await platform.insist(ann, topic, "while away");
        const second = await join(shared, topic, { last_offset: first.joined.offset });
        assert.equal(second.joined.recovered, true);
        await platform.insist(ann, topic, "back");
        const received = await second.received.count(2, "new_notification");
        assert.deepEqual(received.map((n) => n.message), ["while away", "back"]);
        assert.deepEqual(first.received.all, []);
      });

      test("a second channel of a topic replaces the first", async () => {
        const topic = unique("twice");
        await join(await connected(Socket, platform, ann), topic);
        const shared = await connected(Socket, platform, bob);
        const first = await join(shared, topic);
        const second = await join(shared, topic);
        await platform.insist(ann, topic, "once");
        await platform.insist(ann, topic, "the last");
        const received = await second.received.until((all) => all.at(-1)?.message === "the last", "the last");
        assert.deepEqual(received.map((n) => n.message), ["once", "the last"]);
        assert.deepEqual(first.received.all, []);
      });

      test("a topic that cannot be joined is answered", async () => {
        const shared = await connected(Socket, platform, bob);
        for (const topic of ["nonsense", `user:${ann.id}`, `notification:${"x".repeat(201)}`]) {
          const channel = shared.channel(topic, {});
          const [status, response] = await answer(channel.join());
          assert.equal(status, "error", topic);
          assert.equal(typeof response.reason, "string", topic);
          // The client would try for ever.
          channel.leave();
        }
      });

      test("heartbeats are answered", async () => {
        const beats = new Collected();
        // One that is not answered before the next is due ends the connection.
        const shared = await connected(Socket, platform, bob, { heartbeatIntervalMs: 2_000 });
        shared.onMessage((message) => {
          if (message.topic === "phoenix" && message.event === "phx_reply") beats.push(message.payload);
        });
        shared.onClose(() => beats.push("closed"));
        const payloads = await beats.count(2, "heartbeat");
        assert.deepEqual(payloads.slice(0, 2), Array(2).fill({ status: "ok", response: {} }));
      });

      test("the channel of a person tells what is unread", async () => {
        const cid = await platform.person("cid");
        const topic = unique("unread");
        const hers = await join(await connected(Socket, platform, ann), topic);
        await platform.post(`/api/subscribers/${hers.joined.topic_id}`, {}, cid.token);
        const own = (await connected(Socket, platform, cid)).channel(`user:${cid.id}`, {});
        const [heads, unreads] = [new Collected(), new Collected()];
        own.on("head", heads.push);
        own.on("unread", unreads.push);
        assert.equal((await ok(own.join())).total, 0);

        const { id } = await ok(hers.channel.push("new_notification", { message: "for all", to: [] }));
        assert.deepEqual((await heads.count(1, "head"))[0], { topic, broadcast_no: 1 });
        await platform.post(`/api/notifications/${id}/seen`, {}, cid.token);
        // What changed before may be told by itself or together with this.
        const seen = ({ topics }) => topics.some((t) => t.topic === topic && t.unread === 0 && t.broadcast_no === 1);
        await unreads.until((all) => all.some(seen), "an unread of 0 behind the first broadcast");
        await ok(hers.channel.push("new_notification", { message: "for cid", to: [cid.email] }));
        const counted = await unreads.until((all) => all.some((u) => u.total === 1), "an unread of 1");
        assert.equal(counted.at(-1).topics.find((t) => t.topic === topic).unread, 1);
      });

      test("authToken opens a socket", { skip: version !== "1.8" && "since 1.8" }, async () => {
        await connected(Socket, platform, ann, { params: {}, authToken: ann.token });
        await connected(Socket, platform, ann, { params: {}, authToken: () => ann.token });
        const refused = socket(Socket, platform, { authToken: "a-token-that-nobody-was-given" });
        open.push(refused);
        const errors = new Collected();
        refused.onError((error) => errors.push(error.message));
        refused.connect();
        assert.match((await errors.count(1, "refusal"))[0], /403/);
      });

      for (const signal of ["SIGTERM", "SIGKILL"]) {
        test(`nothing is missed or doubled over a restart by ${signal}`, async () => {
          const topic = unique("restarted");
          const shared = await connected(Socket, platform, bob);
          await join(await connected(Socket, platform, ann), topic);
          let last = 0;
          const received = new Collected();
          const joins = new Collected();
          const channel = shared.channel(`notification:${topic}`, () => ({ last_offset: last }));
          channel.on("new_notification", (notification) => {
            last = notification.offset;
            received.push(notification);
          });
          channel.join().receive("ok", joins.push);
          await joins.count(1, "join");

          // Four publishers who go on over the restart, and so publish while the client rejoins.
          const EACH = 40;
          let restarted;
          const publishing = [0, 1, 2, 3].map(async (publisher) => {
            for (let n = 0; n < EACH; n += 1) {
              await platform.insist(ann, topic, `${publisher}.${n}`);
              if (publisher === 0 && n === 10) restarted = platform.restart(signal);
            }
          });
          await Promise.all(publishing);
          await restarted;
          await platform.insist(ann, topic, "the last");

          const total = 4 * EACH + 1;
          const all = await received.until((some) => some.at(-1)?.message === "the last", "the last");
          assert.deepEqual(all.map((n) => n.offset), Array.from({ length: total }, (_, n) => n + 1));
          assert.equal(new Set(all.map((n) => n.id)).size, total);
          await joins.count(2, "join");
          assert.ok(joins.all.every((joined) => joined.recovered), JSON.stringify(joins.all));
        });
      }

      test("a join misses nothing that others publish meanwhile", async () => {
        const topic = unique("meanwhile");
        await join(await connected(Socket, platform, ann), topic);
        const COUNT = 60;
        const publishing = (async () => {
          for (let n = 0; n < COUNT; n += 3) {
            await Promise.all([0, 1, 2].map((more) => platform.insist(ann, topic, `${n + more}`)));
          }
        })();
        const offsets = [];
        const shared = await connected(Socket, platform, bob);
        while (offsets.length < COUNT) {
          const { channel, received, joined } = await join(shared, topic, { last_offset: offsets.length });
          assert.equal(joined.recovered, true);
          const some = Math.min(7, COUNT - offsets.length);
          const got = (await received.count(some, "new_notification")).map((n) => n.offset);
          await left(shared, channel);
          const expected = got.map((_, n) => offsets.length + n + 1);
          assert.deepEqual(got, expected);
          offsets.push(...got);
        }
        await publishing;
      });
    });
  }
}
