// People whom the service finds in a chosen picture: their boxes are offered, and the one that is chosen is searched for.
import { $, make } from "./base.js";
import { t } from "./format.js";
import { getJson } from "./requests.js";
import { state } from "./state.js";

const NEARLY_ALL = 0.6; // part of a picture: one box of this area, and the picture is a crop of a person already
const [NARROW, HEADROOM] = [0.08, 0.12]; // parts of a picture: a number hides people narrower than this, and has room above them
const MARGIN = 0.05; // of a box's width and height, added on each side, as where recordings are indexed

/**
 * What an answer of `detect` means for its picture: {people, box, open, found}. `people` are boxes to choose from, as
 * fractions (left, top, right, bottom) and from left to right; `box` is searched unless another is chosen, null for the
 * whole picture; with `open` one has to be chosen; `found` people were found in all.
 */
export function offer({ size: [height, width], people }) {
  const found = people.length;
  const boxes = people.map(({ box: [left, top, right, bottom] }) => [left / width, top / height, right / width, bottom / height]);
  if (boxes.some((box) => area(box) >= NEARLY_ALL)) return { people: [], box: null, open: false, found };
  const offered = boxes.map(widened).sort((one, other) => one[0] - other[0]);
  return { people: offered, box: found === 1 ? offered[0] : null, open: found > 1, found };
}

const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);

function widened([left, top, right, bottom]) {
  const [wide, high] = [MARGIN * (right - left), MARGIN * (bottom - top)];
  return [Math.max(0, left - wide), Math.max(0, top - high), Math.min(1, right + wide), Math.min(1, bottom + high)];
}

/** Look for people in a picture of the query; `looked(one)` is called when that has ended, unless it was stopped. */
export function look(one, looked) {
  const stopper = new AbortController();
  one.stop = () => stopper.abort();
  one.looking = ask(one, stopper.signal).then((ended) => {
    one.looking = null;
    if (ended) looked(one);
  });
}

async function ask(one, signal) {
  const form = new FormData();
  form.append("ask", JSON.stringify({ thermal_range: $("gray").value ? JSON.parse($("gray").value) : null }));
  form.append("picture", one.file, "picture");
  try {
    const offered = offer(await getJson("detect", { method: "POST", body: form, signal }));
    Object.assign(one, one.box ? { ...offered, box: one.box, open: false } : offered); // a box was drawn meanwhile
  } catch (error) {
    if (error.name === "AbortError") return false;
    one.reason = error.message; // the picture can be searched with all the same
  }
  return true;
}

/** Wait until every picture was looked at; false where the query was cleared meanwhile. */
export async function settled() {
  const asked = state.pictures;
  await Promise.all(asked.map((one) => one.looking));
  return state.pictures === asked;
}

/** What to know about a picture before it is searched with, in a sentence; empty where there is nothing. */
export function hintOf(one) {
  if (one.looking) return t("looking");
  if (one.reason) return one.reason;
  if (one.open) return t("peopleFound", { count: one.people.length });
  if (one.found === 1 && one.box && one.box === one.people[0]) return t("personFound");
  if (one.found === 0 && !one.box) return t("personNone");
  return one.found === undefined && one.wide && !one.box ? t("frameHint") : "";
}

/** A button over the picture for each person; `choose(box, said)` is called with what was chosen and how to say it. */
export function peopleOf(one, picture, choose) {
  const count = one.people.length;
  const largest = [...one.people].sort((a, b) => area(b) - area(a));
  return one.people.map((box, at) => {
    const number = at + 1;
    const button = make("button", {
      type: "button", className: box[2] - box[0] < NARROW && box[1] > HEADROOM ? "person small" : "person", "aria-pressed": String(one.box === box),
      "aria-label": t("personOf", { number, count, picture }), "data-key": `${picture}-person-${number}`,
    }, make("span", { textContent: String(number) }));
    button.style.zIndex = String(1 + largest.indexOf(box)); // the smaller ones in front
    place(button, box);
    button.addEventListener("click", () => choose(box, t("personChosen", { number, count })));
    return button;
  });
}

/** A button that takes the whole picture; none where nobody is offered. */
export function wholeOf(one, picture, choose) {
  if (!one.people?.length) return null;
  const button = make("button", {
    type: "button", "aria-pressed": String(!one.box && !one.open), textContent: t("wholePicture"),
    "aria-label": t("wholeOf", { picture }), "data-key": `${picture}-whole`,
  });
  button.addEventListener("click", () => choose(null, t("wholeChosen")));
  return button;
}

/** Put an element over the part of a picture that a box holds. */
export function place(element, [left, top, right, bottom]) {
  const sides = { left, top, width: right - left, height: bottom - top };
  for (const [key, value] of Object.entries(sides)) element.style[key] = `${value * 100}%`;
}
