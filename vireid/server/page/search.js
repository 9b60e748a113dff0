// Sending a query: one search at a time, shown while it runs, and the answer that comes back.
import { $ } from "./base.js";
import { requestBody } from "./form.js";
import { t } from "./format.js";
import { Latest } from "./latest.js";
import { cards, failed, problem, say } from "./messages.js";
import { settled } from "./people.js";
import { getJson } from "./requests.js";
import { showAnswer } from "./results.js";
import { state } from "./state.js";

const searches = new Latest(busy);
let listener = () => {};

/** `shown()` is called after every new answer. */
export const prepareSearch = (shown) => (listener = shown);

/** The form of a request with its pictures. */
export function formOf(body, files) {
  const form = new FormData();
  form.append("ask", JSON.stringify(body));
  for (const file of files) form.append("picture", file, "picture");
  return form;
}

/** The JSON of a request that takes the place of the one that runs. */
export const send = (path, body, files) =>
  searches.run((signal) => getJson(path, { method: "POST", body: formOf(body, files), signal }));

export function stop() {
  searches.stop();
  say("");
}

let clock = 0;

/** Say that a search runs, and for how long. */
function busy(on) {
  document.body.classList.toggle("busy", on);
  $("answer").setAttribute("aria-busy", String(on));
  $("busy").hidden = !on;
  clearInterval(clock);
  if (!on) return;
  const start = performance.now();
  const show = () => ($("busy-text").textContent = t("running", { seconds: Math.floor((performance.now() - start) / 1000) }));
  show();
  clock = setInterval(show, 1000);
}

/** The request of the form as it is now, or null with a message where something is missing. */
export function checkedRequest({ withMarks = false } = {}) {
  problem("");
  if (!state.pictures.length) return problem(t("noPicture"), $("file"));
  const open = state.pictures.findIndex((one) => one.open);
  if (open >= 0) return problem(t("choosePerson", { number: open + 1 }), $("pictures").children[open].querySelector(".person"));
  if (state.about?.purpose && !$("purpose").value.trim()) return problem(t("needPurpose"), $("purpose"));
  if ($("prior").value === "own" && !(Number($("prior-many").value) >= 2)) {
    $("expert").open = true;
    return problem(t("priorWrong"), $("prior-many"));
  }
  const files = state.pictures.filter((one) => one.file).map((one) => one.file);
  const body = requestBody();
  if (withMarks) {
    body.right = [...state.marks].filter(([, right]) => right).map(([id]) => id);
    body.wrong = [...state.marks].filter(([, right]) => !right).map(([id]) => id);
  }
  return { body, files };
}

export async function search({ withMarks = false } = {}) {
  if (state.pictures.some((one) => one.looking)) say(t("looking"));
  if (!(await settled())) return;
  const request = checkedRequest({ withMarks });
  if (!request) return;
  say(t("searching"));
  try {
    state.answer = await send("search", request.body, request.files);
    state.sent = request;
    if (!withMarks) state.marks = new Map();
    showAnswer();
    listener();
    $("answer").focus({ preventScroll: true });
    if (window.innerWidth < 992) $("answer").scrollIntoView({ block: "start" });
  } catch (error) {
    failed(error);
  }
}

export async function more() {
  try {
    const next = await send("search", { ...state.sent.body, offset: state.answer.hits.length }, state.sent.files);
    const from = state.answer.hits.length;
    state.answer = { ...next, hits: [...state.answer.hits, ...next.hits] };
    showAnswer();
    cards()[from]?.querySelector(".open").focus();
  } catch (error) {
    failed(error);
  }
}
