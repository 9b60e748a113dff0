// What stands in the address of the page.
import assert from "node:assert/strict";
import { test } from "node:test";

import { brief, readHash, writeHash } from "../../../vireid/server/page/address.js";

test("a request is written without what every plain search has", () => {
  const plain = { modality: "auto", boxes: [], like: [], combine: "mean", filter: {}, false_match_rate: null, per_track: false, prior: "searched", purpose: "" };
  assert.deepEqual(brief(plain), {});
  const narrow = { ...plain, like: ["a/1"], filter: { cameras: ["gate 1"] }, false_match_rate: 0.001, prior: 0.5, per_track: true };
  assert.deepEqual(brief(narrow), { like: ["a/1"], filter: { cameras: ["gate 1"] }, false_match_rate: 0.001, per_track: true, prior: 0.5 });
});

for (const what of [
  { gallery: "", caseId: "", search: null, cut: false },
  { gallery: "north & south", caseId: "", search: null, cut: false },
  { gallery: "", caseId: "0f3a", search: null, cut: false },
  { gallery: "夜", caseId: "", search: { like: ["门/1#2", "a&b=c"], filter: { cameras: ["gate 1"], after_s: 1.5 }, files: 2 }, cut: false },
]) {
  test(`what is written is read again: ${JSON.stringify(what)}`, () => {
    assert.deepEqual(readHash(writeHash(what)), what);
  });
}

test("nothing is an empty address", () => assert.equal(writeHash({}), ""));

for (const hash of ["", "#", "#other=1"]) {
  test(`an address without a search holds none: ${hash}`, () => {
    assert.deepEqual(readHash(hash), { gallery: "", caseId: "", search: null, cut: false });
  });
}

for (const hash of ["#search=%7B%22like%22%3A", "#search=7", "#search=[1]", "#search=null", "#search="]) {
  test(`half of a search is known as such: ${hash}`, () => {
    assert.deepEqual(readHash(hash), { gallery: "", caseId: "", search: null, cut: true });
  });
}
