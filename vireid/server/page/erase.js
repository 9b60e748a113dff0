// Deleting a person from one of their hits: the tracks that match are shown, those that are selected go for good.
import { $, icon, make, shot } from "./base.js";
import { showForgotten, sumOf } from "./forgotten.js";
import { count, many, span, t } from "./format.js";
import { Latest } from "./latest.js";
import { postJson } from "./requests.js";
import { state } from "./state.js";

const AT_ONCE = 1000; // ids in one request
const looking = new Latest();
let tracks = []; // that are shown
let request = null; // that they answer
/** @type {(ids: Set<string>) => void} */
let changed = () => {};

/** Listen; `hit()` is the hit in the dialog, `gone(ids)` is called after rows were deleted. */
export function prepareErase(hit, gone) {
  changed = gone;
  $("erase-open").addEventListener("click", () => {
    const from = hit();
    $("detail").close();
    $("erase").showModal();
    find(from);
  });
  for (const [id, on] of /** @type {[string, boolean][]} */ ([["erase-all", true], ["erase-none", false]])) {
    $(id).addEventListener("click", () => {
      for (const box of boxes()) box.checked = on;
      showSelected();
    });
  }
  $("erase-next").addEventListener("click", () => ask(true));
  $("erase-back").addEventListener("click", () => ask(false));
  $("erase-do").addEventListener("click", erase);
  $("erase").addEventListener("close", () => {
    looking.stop();
    $("answer").focus({ preventScroll: true });
  });
}

const boxes = () => [...$("erase-tracks").querySelectorAll("input")];
const selected = () => boxes().flatMap((box, place) => (box.checked ? [tracks[place]] : []));

/** The rows to look with: the hit, and where it is marked right the others that are too. */
function rowsOf(hit) {
  const right = [...state.marks].filter(([, value]) => value).map(([id]) => id);
  return right.includes(hit.id) ? [hit.id, ...right.filter((id) => id !== hit.id)].slice(0, 8) : [hit.id];
}

async function find(hit) {
  tracks = [];
  show("look");
  try {
    const { body } = state.sent;
    request = { ids: rowsOf(hit), false_match_rate: body.false_match_rate, purpose: body.purpose };
    const answer = await looking.run((signal) => postJson("person", request, { signal }));
    tracks = answer.tracks;
    const rate = request.false_match_rate;
    const hint = [rate ? t("eraseMatching", { many: count(many(rate)) }) : t("eraseUnsure")];
    if (!answer.complete) hint.push(t("eraseMore"));
    $("erase-hint").textContent = [...hint, ...answer.notes].join(" ");
    $("erase-tracks").replaceChildren(...tracks.map(card));
    show("choose");
    showSelected();
  } catch (error) {
    fail(error);
  }
}

function card(track) {
  const { camera, modality, id } = track.row;
  const when = span(track);
  const crops = t("crops", { count: count(track.ids.length) });
  const why = track.named ? t("eraseNamed") : `${t("similarity")} ${track.similarity.toFixed(3)}`;
  const box = make("input", { type: "checkbox", checked: track.named || track.match === true, "aria-label": [camera, when, crops, why].join(", ") });
  box.addEventListener("change", showSelected);
  const picture = make("span", { className: "open" }, shot(id), make("span", { className: `badge kind ${modality}` }, icon(modality === "infrared" ? "moon" : "sun")));
  const facts = make("span", { className: "facts" }, make("span", { className: "place" }, box, ` ${camera || "—"}`),
    ...[when, crops, why].map((text) => make("span", { className: "quiet", textContent: text })));
  return make("li", {}, make("label", { className: "hit" }, picture, facts));
}

function counts() {
  const chosen = selected();
  return { tracks: count(chosen.length), crops: count(chosen.reduce((sum, track) => sum + track.ids.length, 0)) };
}

function showSelected() {
  $("erase-count").textContent = t("eraseCount", counts());
  $("erase-next").disabled = !selected().length;
  $("erase-said").textContent = "";
}

/** Show one of the steps: "look", "choose", "sure" or "done". */
function show(step) {
  $("erase-looking").hidden = step !== "look";
  $("erase-choose").hidden = $("erase-tracks").hidden = step === "look" || step === "done";
  $("erase-sure").hidden = step !== "sure";
  $("erase-next").hidden = step !== "choose";
  $("erase-done").hidden = step !== "done";
  for (const control of [...boxes(), $("erase-all"), $("erase-none")]) control.disabled = step === "sure";
  $("erase-said").textContent = "";
}

function ask(on) {
  show(on ? "sure" : "choose");
  $("erase-question").textContent = t("eraseSure", counts());
  $(on ? "erase-back" : "erase-next").focus();
}

async function erase() {
  const ids = selected().flatMap((track) => track.ids);
  const [answers, gone] = [[], []];
  $("erase-do").disabled = $("erase-back").disabled = true;
  try {
    for (let from = 0; from < ids.length; from += AT_ONCE) {
      const piece = ids.slice(from, from + AT_ONCE);
      answers.push(await postJson("forget", { ids: piece, expect: piece.length }));
      gone.push(...piece);
    }
    show("done");
    $("erase-done").focus();
  } catch (error) {
    fail(error);
    if (gone.length) $("erase-done").hidden = false; // of what went before it failed
  } finally {
    $("erase-do").disabled = $("erase-back").disabled = false;
  }
  if (!gone.length) return;
  showForgotten($("erase-done"), sumOf(answers));
  changed(new Set(gone));
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (tracks.length) show("choose");
  else $("erase-looking").hidden = true;
  $("erase-said").textContent = error.message;
}
