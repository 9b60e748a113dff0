// Requests: where they go, and what they fail with.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { sumOf } from "../../../vireid/server/page/forgotten.js";
import { getJson, postJson, Refused, thumbnail } from "../../../vireid/server/page/requests.js";
import { api, state } from "../../../vireid/server/page/state.js";

const send = globalThis.fetch;
afterEach(() => {
  globalThis.fetch = send;
  state.gallery = "";
});

/** Answer every request with this, and note what was asked. */
function answer(status, body, kind = "application/json") {
  const asked = [];
  globalThis.fetch = async (url, options) => {
    asked.push({ url, ...options });
    return new Response(body, { status, headers: { "content-type": kind } });
  };
  return asked;
}

test("every address names the gallery that is chosen", () => {
  assert.equal(api("about"), "/api/v1/about");
  state.gallery = "north & south";
  assert.equal(api("about"), "/api/v1/about?gallery=north%20%26%20south");
  assert.equal(thumbnail("a/1#2"), "/api/v1/thumbnail?id=a%2F1%232&gallery=north%20%26%20south");
});

test("JSON is sent and read", async () => {
  const asked = answer(200, '{"rows": 3}');
  const { signal } = new AbortController();
  assert.deepEqual(await postJson("forget", { ids: ["a"] }, { signal }), { rows: 3 });
  assert.equal(asked[0].url, "/api/v1/forget");
  assert.equal(asked[0].body, '{"ids":["a"]}');
  assert.equal(asked[0].credentials, "same-origin");
  assert.equal(asked[0].signal, signal);
});

test("an error has the message of the service, or of what answered in its place", async () => {
  answer(409, '{"error": "count again"}');
  await assert.rejects(getJson("about"), (error) => error instanceof Refused && error.status === 409 && error.message === "Count again");
  answer(502, "<html>", "text/html");
  await assert.rejects(getJson("about"), (error) => error.status === 502 && error.message.startsWith("502"));
});

test("a service that is gone is said in words, and an ended request stays one", async () => {
  globalThis.fetch = async () => { throw new TypeError("failed to fetch"); };
  await assert.rejects(getJson("about"), (error) => error.status === 0 && error.message === "The server does not respond.");
  globalThis.fetch = async () => { throw new DOMException("ended", "AbortError"); };
  await assert.rejects(getJson("about"), { name: "AbortError" });
});

test("several deletions are reported as one", () => {
  const one = { rows: 1000, thumbnails: 999, marks: 2, alarms: 0, cases_deleted: 1, cases_changed: 0, recordings: ["a.mp4", "b.mp4"], cases_left: [] };
  const two = { rows: 5, thumbnails: 5, marks: 0, alarms: 1, cases_deleted: 0, cases_changed: 2, recordings: ["b.mp4"], cases_left: ["gate (1f)"] };
  assert.deepEqual(sumOf([one, two]), {
    rows: 1005, thumbnails: 1004, marks: 2, alarms: 1, cases_deleted: 1, cases_changed: 2, recordings: ["a.mp4", "b.mp4"], cases_left: ["gate (1f)"],
  });
});
