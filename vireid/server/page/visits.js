// When the person passed which camera: visits with their passages, in a picture and as a list.
import { $, make, shot } from "./base.js";
import { count, percent, span, t } from "./format.js";
import { failed, say } from "./messages.js";
import { send } from "./search.js";
import { state } from "./state.js";
import { drawSpans } from "./timeline.js";

let answer = null; // of the search whose query it names
/** @type {(hits: any[], place: number) => void} */
let open = () => {};

/** Listen; `openHit(hits, place)` shows one of a list of hits. */
export function prepareVisits(openHit) {
  open = openHit;
  $("visits-show").addEventListener("click", () => ($("visits").hidden ? show() : hideVisits()));
  $("visits-gap").addEventListener("change", show);
}

export function hideVisits() {
  answer = null;
  $("visits").hidden = true;
  $("visits-show").setAttribute("aria-expanded", "false");
}

async function show() {
  const { body, files } = state.sent;
  const request = { ...body, rerank: null, gap_s: Number($("visits-gap").value) };
  say(t("searching"));
  try {
    const next = await send("visits", request, files);
    if (state.sent.body !== body) return; // another search was sent meanwhile
    answer = next;
    $("visits").hidden = false;
    $("visits-show").setAttribute("aria-expanded", "true");
    showVisits();
    $("visits").focus({ preventScroll: true });
    $("visits").scrollIntoView({ block: "nearest" });
  } catch (error) {
    failed(error);
  }
}

/** Draw what is there again, in another width or language. */
export function showVisits() {
  if (!answer) return;
  const passages = answer.visits.flatMap((visit) => visit.passages);
  const hits = passages.map((passage) => passage.best);
  const title = !passages.length ? t("visitsNone") : t("visitsFound", { visits: count(answer.visits.length), passages: count(passages.length) });
  const more = [];
  if (!state.sent.body.false_match_rate) more.push(t("visitsUnsure", { count: count(passages.length) }));
  if (!answer.complete) more.push(t("visitsMore"));
  if (answer.undated.length) more.push(t("visitsUndated", { count: count(answer.undated.length) }));
  if (answer.simultaneous.length) more.push(t("visitsSimultaneous", { count: count(answer.simultaneous.length) }));
  $("visits-title").textContent = title;
  $("visits-notes").textContent = more.join(" ");
  say([title, ...more].join(". "));
  drawSpans($("visits-plot"), answer.visits, (passage) => open(hits, passages.indexOf(passage)));
  let place = 0;
  $("visits-list").replaceChildren(...answer.visits.map((visit, number) => {
    const heading = make("h3", { textContent: t("visit", { number: number + 1, span: span(visit), cameras: visit.cameras.join(" → ") }) });
    const items = visit.passages.map((passage) => item(passage, hits, place++));
    return make("li", {}, heading, make("ol", { className: "passages" }, ...items));
  }));
}

function item(passage, hits, place) {
  const best = passage.best;
  const chance = best.probability === null ? best.similarity.toFixed(3) : percent(best.probability);
  const button = make("button", { type: "button", className: "passage" }, shot(best.id), make("span", { className: "facts" },
    make("b", { textContent: passage.camera || "—" }), make("span", { textContent: span(passage) }),
    make("span", { className: "quiet", textContent: `${chance} · ${t("crops", { count: count(passage.rows) })}` })));
  button.addEventListener("click", () => open(hits, place));
  return make("li", {}, button);
}
