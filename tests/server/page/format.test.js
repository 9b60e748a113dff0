// Words, numbers and times in both languages.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { clock, count, day, fromField, many, percent, span, t, toField, useLanguage } from "../../../vireid/server/page/format.js";

process.env.TZ = "Europe/Berlin";
const NOON = Date.UTC(2026, 10, 24, 11) / 1000; // 12:00 in Berlin
afterEach(() => useLanguage("en"));

test("values are put into a text, and an unknown name stays as it is", () => {
  assert.equal(t("took", { seconds: "0.12" }), "0.12 s");
  assert.equal(t("took"), "{seconds} s");
  assert.equal(t("no such text"), "no such text");
  useLanguage("zh");
  assert.equal(t("took", { seconds: "0.12" }), "0.12 秒");
});

for (const [value, text] of [[0, "0.0 %"], [0.0004, "<0.1 %"], [0.004, "0.4 %"], [0.5, "50 %"], [0.996, "99.6 %"], [0.9999, ">99.9 %"], [1, "100.0 %"]]) {
  test(`a probability of ${value} is ${text}`, () => assert.equal(percent(value), text));
}

test("numbers have separators, and a rate is one in many", () => {
  assert.equal(count(1234567), "1,234,567");
  assert.equal(many(0.0001), 10000);
});

test("times are those of this machine's zone, and an unknown one is said", () => {
  assert.match(clock(NOON), /24 Nov.* 12:00:00/);
  assert.equal(clock(NOON, false), "12:00:00");
  assert.equal(clock(null), "time unknown");
  assert.match(day(NOON), /Tue.* 24 Nov 2026/);
});

test("a span names the second day where it is another one", () => {
  assert.match(span({ first_s: NOON, last_s: NOON + 90 }), /24 Nov.* 12:00:00 – 12:01:30$/);
  assert.match(span({ first_s: NOON, last_s: NOON + 86400 }), / – 25 Nov/);
  assert.equal(span({ first_s: NOON, last_s: NOON + 0.5 }), clock(NOON));
  assert.equal(span({ first_s: null, last_s: null }), "time unknown");
});

test("a moment goes into a field and back", () => {
  assert.equal(toField(NOON), "2026-11-24T12:00");
  assert.equal(fromField(toField(NOON)), NOON);
  assert.equal(fromField(""), null);
});
