// What is offered of the people that were found in a picture.
import assert from "node:assert/strict";
import { test } from "node:test";

import { hintOf, offer } from "../../../vireid/server/page/people.js";
import { t } from "../../../vireid/server/page/format.js";

const answer = (...boxes) => ({ size: [100, 200], people: boxes.map((box) => ({ box, score: 0.9 })) });
const rounded = (box) => box.map((side) => Math.round(side * 1000) / 1000);

test("one person who fills little is searched for, with a margin", () => {
  const { people, box, open, found } = offer(answer([20, 10, 40, 60]));
  assert.deepEqual(rounded(box), [0.095, 0.075, 0.205, 0.625]);
  assert.equal(box, people[0]);
  assert.deepEqual([open, found], [false, 1]);
});

test("of several one has to be chosen, and they are counted from left to right", () => {
  const { people, box, open, found } = offer(answer([150, 0, 200, 100], [0, 10, 20, 60], [60, 10, 90, 90]));
  assert.deepEqual(people.map(rounded), [[0, 0.075, 0.105, 0.625], [0.293, 0.06, 0.458, 0.94], [0.738, 0, 1, 1]]);
  assert.deepEqual([box, open, found], [null, true, 3]);
});

test("a crop of a person is searched for as it is", () => {
  const whole = { people: [], box: null, open: false };
  assert.deepEqual(offer(answer([10, 5, 190, 95])), { ...whole, found: 1 });
  assert.deepEqual(offer(answer([10, 5, 190, 95], [0, 0, 30, 50])), { ...whole, found: 2 });
  assert.deepEqual(offer(answer()), { ...whole, found: 0 });
});

test("a sentence says what was found, and nothing where there is nothing to say", () => {
  const of = (one) => hintOf({ box: null, wide: true, ...one });
  assert.equal(of({}), t("frameHint")); // without a detector
  assert.equal(of({ wide: false }), "");
  assert.equal(of({ looking: Promise.resolve() }), t("looking"));
  assert.equal(of({ reason: "too many requests" }), "too many requests");
  assert.equal(of(offer(answer())), t("personNone"));
  assert.equal(of({ ...offer(answer()), box: [0, 0, 0.5, 1] }), "");
  assert.equal(of(offer(answer([20, 10, 40, 60]))), t("personFound"));
  assert.equal(of({ ...offer(answer([20, 10, 40, 60])), box: null }), ""); // the whole picture was chosen
  assert.equal(of(offer(answer([20, 10, 40, 60], [50, 10, 70, 60]))), t("peopleFound", { count: 2 }));
  assert.equal(of(offer(answer([10, 5, 190, 95]))), "");
});
