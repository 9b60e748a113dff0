// The answer: verdict, notes, the cards of the hits, their marks and the timeline.
import { $, icon, make, shot } from "./base.js";
import { clock, count, currentLanguage, many, percent, t, toField } from "./format.js";
import { cards, failed, say } from "./messages.js";
import { postJson } from "./requests.js";
import { api, state } from "./state.js";
import { drawTimeline } from "./timeline.js";

/**
 * What other parts do for the cards: open a hit, search again, know that marks changed.
 * @type {{open: (place: number) => void, search: () => void, changed: () => void}}
 */
let actions = { open: () => {}, search: () => {}, changed: () => {} };
export const prepareResults = (given) => (actions = given);

export function showAnswer() {
  if (!state.answer) return;
  $("welcome").hidden = true;
  $("found").hidden = false;
  showVerdict();
  $("notes").hidden = !state.answer.notes?.length;
  $("notes").replaceChildren(...(state.answer.notes ?? []).map((text) => make("p", { className: "banner warn", textContent: text })));
  showHits();
  $("more").hidden = !state.answer.more;
  showMarks();
  timeline();
}

function showVerdict() {
  const rows = count(state.answer.searched);
  const rate = state.sent.body.false_match_rate;
  const matches = state.answer.matches;
  const read = [...new Set(state.answer.modality)].map((word) => t(word).toLowerCase()).join(currentLanguage() === "zh" ? "、" : ", ");
  const details = [t("readAs", { modality: read })];
  if (rate) details.push(t("atRate", { many: count(many(rate)) }));
  const used = state.sent.body.right || state.sent.body.wrong ? state.sent.body.right.length + state.sent.body.wrong.length : 0;
  if (used) details.push(t("withMarks", { count: used }));
  if (state.about.calibration) details.push(priorInWords());
  if (state.sent.body.per_track) details.push(t("onePerTrack"));
  details.push(t("took", { seconds: state.answer.took_s.toFixed(2) }));
  let title, text = null, symbol = "person";
  if (!state.answer.hits.length) [title, symbol] = [t("empty"), "nobody"];
  else if (state.answer.nobody) {
    [title, text, symbol] = [t("nobody"), t("nobodyMore", { rows, many: count(many(rate)) }), "nobody"];
  } else if (state.answer.nobody === null) {
    title = t("ranked", { rows });
    if (!state.about.calibration) text = t("rankedMore");
  } else title = `${matches === 1 ? t("matchesOne") : t(state.answer.all_counted ? "matchesMany" : "matchesMore", { count: count(matches) })}${t("matchesAmong", { rows })}`;
  const lines = [make("p", {}, make("strong", { textContent: title }))];
  if (text) lines.push(make("p", { textContent: text }));
  lines.push(make("p", { className: "quiet", textContent: details.join(" · ") }));
  if (state.about.calibration) lines.push(calibratedOn());
  $("verdict").classList.toggle("nobody", symbol === "nobody");
  $("verdict").replaceChildren(icon(symbol), make("div", {}, ...lines));
  say(text ? `${title}. ${text}` : title);
}

function priorInWords() {
  if (state.answer.prior === 0.5 && state.sent.body.prior !== "searched") return t("evenBefore");
  return state.sent.body.prior === "searched" ? t("searchedBefore", { many: count(state.answer.tracks) }) : t("chancesBefore", { many: count(many(state.answer.prior)) });
}

/** What thresholds and percentages rest on, in one sentence. */
function calibratedOn() {
  const { dataset, split, num_people: people, own_data: own } = state.about.calibration;
  const data = split.includes("synthetic") ? split : `${dataset}, ${split}`; // synthetic sets have SYSU-MM01's layout alone
  const text = t(own ? "calibratedOwn" : "calibratedOther", { people: count(people), data });
  return make("p", { className: own ? "quiet" : "caution", textContent: text });
}

function showHits() {
  const items = state.answer.hits.map((hit, place) => card(hit, place));
  const place = state.answer.hits.findIndex((hit) => hit.match === false);
  if (place > 0 && state.answer.hits.slice(place).every((hit) => hit.match === false)) {
    items.splice(place, 0, make("li", { className: "divide", textContent: t("below") }));
  }
  $("hits").replaceChildren(...items);
}

function card(hit, place) {
  const rank = place + 1;
  const open = make("button", { type: "button", className: "open" }, shot(hit.id));
  open.append(
    make("span", { className: "badge rank", textContent: String(rank) }),
    make("span", { className: `badge kind ${hit.modality}` }, icon(hit.modality === "infrared" ? "moon" : "sun")),
  );
  if (state.showHeat) open.append(heat(hit.id));
  const match = t(hit.match === null ? "unsure" : hit.match ? "isMatch" : "noMatch");
  const similarity = hit.similarity.toFixed(3);
  open.setAttribute("aria-label", t("openHit", {
    rank, match, similarity, camera: hit.camera, time: clock(hit.time_s), modality: t(hit.modality),
  }));
  open.addEventListener("click", () => actions.open(place));
  open.addEventListener("keydown", (event) => hitKeys(event, place));
  const chance = make("p", { className: "chance" });
  const meter = make("div", { className: "meter", "aria-hidden": "true" }, make("i"));
  const probability = hit.match === false ? null : hit.probability; // below the threshold a percentage says too much
  if (probability === null) chance.append(make("b", { textContent: similarity }));
  else chance.append(make("b", { textContent: percent(probability), title: t("helpProbability") }), make("span", { className: "quiet", textContent: similarity, title: t("similarity") }));
  meter.firstChild.style.setProperty("--part", `${Math.max(0, Math.min(1, probability ?? hit.similarity)) * 100}%`);
  const facts = make("div", { className: "facts" }, chance, hit.match === false ? null : meter,
    make("p", { className: "place", textContent: hit.camera || "—" }), make("p", { className: "quiet", textContent: clock(hit.time_s) }));
  const yes = make("button", { type: "button", className: "yes", "aria-label": t("markRight", { rank }), title: t("right") }, icon("check"));
  const no = make("button", { type: "button", className: "no", "aria-label": t("markWrong", { rank }), title: t("wrong") }, icon("cross"));
  yes.addEventListener("click", () => mark(hit, true));
  no.addEventListener("click", () => mark(hit, false));
  const item = make("li", { className: `hit${hit.match === false ? " below" : ""}` }, open, facts, make("div", { className: "marks" }, yes, no));
  item.dataset.place = place;
  return item;
}

/** The card above or below that stands nearest; rows may be short, where the threshold divides the list. */
function inNextRow(all, from, direction) {
  const others = all.filter((one) => (one.offsetTop - from.offsetTop) * direction > 0);
  const away = (one) => 10 * Math.abs(one.offsetTop - from.offsetTop) + Math.abs(one.offsetLeft - from.offsetLeft);
  return others.sort((one, other) => away(one) - away(other))[0];
}

function hitKeys(event, place) {
  const all = cards();
  const moves = {
    ArrowRight: () => all[place + 1], ArrowLeft: () => all[place - 1],
    ArrowDown: () => inNextRow(all, all[place], 1), ArrowUp: () => inNextRow(all, all[place], -1),
  };
  if (event.key in moves) {
    const to = moves[event.key]();
    if (!to) return;
    event.preventDefault();
    to.querySelector(".open").focus();
  } else if (event.key === "r" || event.key === "w") {
    event.preventDefault();
    mark(state.answer.hits[place], event.key === "r");
  }
}

export function heat(id) {
  const picture = make("img", { className: "heat", alt: "", src: api(`attention?id=${encodeURIComponent(id)}`), loading: "lazy" });
  picture.addEventListener("error", () => picture.remove());
  return picture;
}

export function toggleHeat() {
  if ($("attention").disabled) return;
  state.showHeat = !state.showHeat;
  $("attention").setAttribute("aria-pressed", String(state.showHeat));
  cards().forEach((item, place) => {
    item.querySelector(".heat")?.remove();
    if (state.showHeat) item.querySelector(".open").append(heat(state.answer.hits[place].id));
  });
  actions.changed();
}

export function timeline() {
  drawTimeline(state.answer.hits, {
    kindOf: (hit) => (state.marks.has(hit.id) ? (state.marks.get(hit.id) ? "right" : "wrong") : hit.match !== false ? "match" : ""),
    narrow: (first, last) => {
      [$("after").value, $("before").value] = [toField(first), toField(last + 60)];
      actions.search();
    },
    open: (place) => {
      const to = cards()[place];
      to.scrollIntoView({ block: "center" });
      to.querySelector(".open").focus();
    },
  });
}

// --- marks -------------------------------------------------------------------------------------------------------------

/** Mark a hit right or wrong, or take the mark back where it has that one. */
export async function mark(hit, right) {
  const { answer, marks } = state;
  const before = marks.get(hit.id) ?? null;
  const now = before === right ? null : right;
  setMark(marks, hit.id, now);
  try {
    const { similarity, probability } = hit;
    await postJson("marks", { query: answer.query, marks: [{ id: hit.id, right: now, similarity, probability }] });
  } catch (error) {
    if ((marks.get(hit.id) ?? null) === now) setMark(marks, hit.id, before); // the server does not have it
    failed(error);
  }
}

function setMark(marks, id, value) {
  if (value === null) marks.delete(id);
  else marks.set(id, value);
  if (marks !== state.marks) return; // of an answer that is not shown any more
  showMarks();
  timeline();
  actions.changed();
}

export function showMarks() {
  cards().forEach((item, place) => {
    const said = state.marks.get(state.answer.hits[place].id);
    item.classList.toggle("right", said === true);
    item.classList.toggle("wrong", said === false);
    item.querySelector(".yes").setAttribute("aria-pressed", String(said === true));
    item.querySelector(".no").setAttribute("aria-pressed", String(said === false));
  });
  const said = [...state.marks.values()];
  const right = said.filter(Boolean).length;
  $("marked").textContent = said.length ? t("marked", { right, wrong: said.length - right }) : t("unmarked");
  $("again").disabled = !said.length;
  for (const form of ["csv", "json"]) {
    const link = $(`export-${form}`);
    if (said.length) {
      link.href = api(`marks?format=${form}&query=${state.answer.query}`);
      link.removeAttribute("aria-disabled");
    } else {
      link.removeAttribute("href");
      link.setAttribute("aria-disabled", "true");
      link.setAttribute("role", "link");
    }
  }
}
