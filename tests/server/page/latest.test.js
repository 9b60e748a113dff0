// Requests of which only the newest counts.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Latest } from "../../../vireid/server/page/latest.js";

/** A promise that is resolved or rejected from outside. */
function pending() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

const aborted = { name: "AbortError" };

test("a result is passed on, and its beginning and end are reported", async () => {
  const said = [];
  const latest = new Latest((running) => said.push(running));
  assert.equal(await latest.run(async () => 7), 7);
  assert.deepEqual(said, [true, false]);
});

test("an error is passed on, and the work has ended", async () => {
  const said = [];
  const latest = new Latest((running) => said.push(running));
  await assert.rejects(latest.run(async () => { throw new Error("offline"); }), /offline/);
  assert.deepEqual(said, [true, false]);
});

test("newer work ends the one before, which leaves the busy state alone", async () => {
  const said = [];
  const latest = new Latest((running) => said.push(running));
  const [old, fresh] = [pending(), pending()];
  const signals = [];
  const first = latest.run((signal) => (signals.push(signal), old.promise));
  const second = latest.run((signal) => (signals.push(signal), fresh.promise));
  assert.deepEqual(signals.map((signal) => signal.aborted), [true, false]);
  old.reject(signals[0].reason); // as fetch does
  await assert.rejects(first, aborted);
  assert.deepEqual(said, [true, true]);
  fresh.resolve("new");
  assert.equal(await second, "new");
  assert.deepEqual(said, [true, true, false]);
});

test("an answer that came although its request was ended is dropped", async () => {
  const latest = new Latest();
  const old = pending();
  const first = latest.run(() => old.promise);
  const second = latest.run(async () => "new");
  old.resolve("old");
  await assert.rejects(first, aborted);
  assert.equal(await second, "new");
});

test("work can be stopped, and then begun again", async () => {
  const latest = new Latest();
  const work = pending();
  const first = latest.run(() => work.promise);
  latest.stop();
  work.resolve("late");
  await assert.rejects(first, aborted);
  assert.equal(await latest.run(async () => 1), 1);
});
