// The form beside the pictures: cameras, times, rates and the like; what is chosen in it as a request, and back.
import { $, first, icon, make } from "./base.js";
import { count, fromField, many, t, toField } from "./format.js";
import { radio } from "./messages.js";
import { api, state } from "./state.js";

const RATES = [0.1, 0.01, 0.001, 0.0001, 0.00001];
const MANY_CAMERAS = 24;

/** Everything that depends on /api/v1/about and on the language. */
export function showAbout(tried) {
  if (!state.about?.cameras) return;
  const names = Object.keys(state.about.cameras);
  const cameras = names.length === 1 ? t("cameraOne") : t("cameraMany", { count: count(names.length) });
  $("summary").textContent = t("archiveRows", { rows: count(state.about.rows), cameras });
  showGalleries();
  $("open-archive").hidden = $("erase-open").hidden = state.about.caller.role !== "admin";
  $("sign-out").hidden = !state.about.caller.tokens;
  $("purpose-label").textContent = t(state.about.purpose ? "purposeNeeded" : "purpose");
  $("purpose").required = state.about.purpose;
  $("zone").textContent = t("zone", { zone: Intl.DateTimeFormat().resolvedOptions().timeZone });
  showCameras(names);
  showChips($("tags"), state.about.tags, "tag");
  $("tags-part").hidden = !Object.keys(state.about.tags).length;
  showRates();
  $("prior-part").hidden = !state.about.calibration;
  showRanges(state.about.thermal_ranges);
  for (const option of $("rerank").options) option.hidden = option.disabled = Boolean(option.value) && !state.about.reranks.includes(option.value);
  const none = state.about.attention !== "";
  $("attention").disabled = none;
  $("attention-note").textContent = none ? t("attentionNone", { reason: state.about.attention }) : "";
  const options = ["", ...names.sort(byName)];
  for (const select of [$("picker-camera"), $("forget-camera")]) {
    const kept = select.value;
    select.replaceChildren(...options.map((name) => make("option", { value: name, textContent: name || t("allCameras") })));
    select.value = kept;
  }
  $("examples").hidden = !state.about.examples.length;
  $("examples").querySelector("ul").replaceChildren(...state.about.examples.map((example, number) => {
    const picture = make("img", { src: api(`examples/${number}`), alt: "" });
    const kind = make("span", { className: `badge ${example.modality}` }, icon(example.modality === "infrared" ? "moon" : "sun"));
    const button = make("button", { type: "button", "aria-label": t("tryExample", { name: example.name }), title: example.name }, picture, kind);
    button.addEventListener("click", () => tried(number));
    return make("li", {}, button);
  }));
}

function showGalleries() {
  const { gallery, galleries } = state.about;
  $("gallery-part").hidden = galleries.length < 2;
  $("gallery").replaceChildren(...galleries.map((name) => make("option", { value: name, textContent: name })));
  $("gallery").value = gallery;
}

const byName = new Intl.Collator(undefined, { numeric: true }).compare;

function showCameras(names) {
  $("camera-find").hidden = names.length <= MANY_CAMERAS;
  showChips($("cameras"), state.about.cameras, "camera");
  filterCameras();
}

function showChips(place, rows, name) {
  const checked = new Set(chosen(place));
  place.replaceChildren(...Object.keys(rows).sort(byName).map((value) => {
    const input = make("input", { type: "checkbox", name, value, checked: checked.has(value) });
    return make("label", {}, input, make("span", {}, value || "—", make("small", { textContent: count(rows[value]) })));
  }));
}

const chosen = (place) => [...place.querySelectorAll("input:checked")].map((input) => input.value);

export function filterCameras() {
  const word = $("camera-word").value.trim().toLowerCase();
  for (const label of $("cameras").children) {
    const input = label.querySelector("input");
    label.hidden = !input.checked && !input.value.toLowerCase().includes(word);
  }
}

export function showRates() {
  const select = $("rate");
  const kept = select.value;
  const least = state.about.calibration ? Math.min(...Object.values(state.about.calibration.least_rate)) : Infinity;
  const most = state.about.calibration ? Math.max(...Object.values(state.about.calibration.least_rate)) : Infinity;
  select.replaceChildren(make("option", { value: "", textContent: t("rateOff") }), ...RATES.map((rate) => {
    const oneIn = count(many(rate));
    const enough = rate >= least * 0.999;
    const option = make("option", { value: String(rate), disabled: !enough });
    option.textContent = t("rateOf", { many: oneIn }) + (enough ? "" : ` ${t("rateTooFew")}`);
    return option;
  }));
  const usual = RATES.filter((rate) => rate >= most * 0.999 && rate >= 0.001).at(-1);
  select.value = kept || (select.dataset.touched ? "" : String(usual ?? ""));
  noteRate();
}

export function noteRate() {
  const rate = Number($("rate").value);
  if (!state.about?.calibration) $("rate-note").textContent = t("rateNone");
  else {
    const flattered = state.about.calibration.people === "unseen" ? "" : ` ${t("rateFlattered")}`;
    $("rate-note").textContent = rate ? t("rateNote", { many: count(many(rate)) }) + flattered : "";
  }
}

/** By which camera's range gray values of more than 8 bits are read; cameras of one range are one choice. */
function showRanges(ranges) {
  const cameras = new Map();
  for (const name of Object.keys(ranges).sort(byName)) {
    const value = JSON.stringify(ranges[name]);
    cameras.set(value, [...(cameras.get(value) ?? []), name]);
  }
  const kept = $("gray").value;
  $("gray-part").hidden = !cameras.size;
  $("gray").replaceChildren(make("option", { value: "", textContent: t("grayArchive") }), ...[...cameras].map(([value, same]) => {
    const [low, high] = JSON.parse(value);
    return make("option", { value, textContent: t("grayOf", { cameras: same.join(", "), low, high }) });
  }));
  $("gray").value = cameras.has(kept) ? kept : "";
}

export const showOwnPrior = () => ($("prior-own").hidden = $("prior").value !== "own");

/** What is chosen, with the boxes and rows of the pictures, as a request. */
export function requestBody() {
  const filter = {};
  const cameras = chosen($("cameras"));
  if (cameras.length) filter.cameras = cameras;
  if (radio("in")) filter.modality = radio("in");
  if ($("after").value) filter.after_s = fromField($("after").value);
  if ($("before").value) filter.before_s = fromField($("before").value);
  const tags = chosen($("tags"));
  if (tags.length) filter.tags = tags;
  const files = state.pictures.filter((one) => one.file);
  return {
    modality: radio("modality"),
    boxes: files.some((one) => one.box) ? files.map((one) => one.box) : [],
    like: state.pictures.filter((one) => one.like).map((one) => one.like),
    combine: radio("combine"),
    filter,
    false_match_rate: $("rate").value ? Number($("rate").value) : null,
    rerank: $("rerank").value || null,
    per_track: $("per-track").checked,
    prior: chosenPrior(),
    thermal_range: $("gray").value ? JSON.parse($("gray").value) : null,
    purpose: $("purpose").value.trim(),
  };
}

function chosenPrior() {
  const { value } = $("prior");
  if (value === "searched") return value;
  return value === "own" ? 1 / Number($("prior-many").value) : Number(value);
}


const check = (selector, on = true) => {
  const input = first(selector);
  if (input) input.checked = on;
};

/** Choose in the form what a request holds; the opposite of requestBody. */
export function fillForm(body) {
  $("query").reset();
  check(`input[name=modality][value="${CSS.escape(body.modality ?? "auto")}"]`);
  check(`input[name=combine][value="${CSS.escape(body.combine ?? "mean")}"]`);
  const filter = body.filter ?? {};
  check(`input[name=in][value="${filter.modality ?? ""}"]`);
  for (const [place, values] of [[$("cameras"), filter.cameras ?? []], [$("tags"), filter.tags ?? []]]) {
    for (const input of place.querySelectorAll("input")) input.checked = values.includes(input.value);
  }
  $("after").value = filter.after_s === undefined ? "" : toField(filter.after_s);
  $("before").value = filter.before_s === undefined ? "" : toField(filter.before_s);
  $("rate").value = body.false_match_rate ? String(body.false_match_rate) : "";
  $("rate").dataset.touched = "yes";
  $("rerank").value = body.rerank ?? "";
  $("per-track").checked = Boolean(body.per_track);
  const prior = body.prior ?? "searched";
  $("prior").value = ["searched", "0.5"].includes(String(prior)) ? String(prior) : "own";
  if ($("prior").value === "own") $("prior-many").value = String(many(prior));
  $("gray").value = body.thermal_range ? JSON.stringify(body.thermal_range) : "";
  $("purpose").value = body.purpose ?? "";
  noteRate();
  showOwnPrior();
  filterCameras();
}
