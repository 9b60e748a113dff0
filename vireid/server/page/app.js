// The search page: the query on the left, the answer on the right.
import { askBox, prepareBox } from "/page/box.js";
import { prepareManage } from "/page/manage.js";
import { drawTimeline } from "/page/timeline.js";
import {
  $, beginsAsPicture, clock, count, currentLanguage, firstLanguage, fromField, getJson, icon, make, percent, postJson,
  Refused, request, setLanguage, shot, store, t, toField,
} from "/page/base.js";

const RATES = [0.1, 0.01, 0.001, 0.0001, 0.00001];
const MANY_CAMERAS = 24;
const WIDE = 0.85; // a picture this wide for its height is a frame and no crop of a person

let about = null;
let pictures = []; // {file, url, box, wide} or {like: id}
let answer = null; // the last one, with all hits that were loaded
let sent = null; // the request that it belongs to: {body, files}
let marks = new Map(); // id -> true or false
let showHeat = false;
let opened = -1; // place of the hit in the dialog
let running = null;
let picker = { after: "", camera: "" };

// --- start -----------------------------------------------------------------------------------------------------------

async function begin() {
  setLanguage(firstLanguage());
  prepareBox();
  prepareManage(loadAbout);
  listen();
  if (await loadAbout()) await tryFirstExample();
}

async function loadAbout() {
  try {
    about = await getJson("/api/about");
  } catch (error) {
    if (error.status === 401) $("sign-in").showModal();
    else problem(error.message);
    return false;
  }
  if (!about.cameras) {
    problem(t("ingestOnly"));
    return false;
  }
  showAbout();
  return true;
}

/** Everything that depends on /api/about and on the language. */
function showAbout() {
  if (!about?.cameras) return;
  const names = Object.keys(about.cameras);
  const cameras = names.length === 1 ? t("cameraOne") : t("cameraMany", { count: count(names.length) });
  $("summary").textContent = t("archiveRows", { rows: count(about.rows), cameras });
  $("open-archive").hidden = about.caller.role !== "admin";
  $("sign-out").hidden = !about.caller.tokens;
  $("purpose-label").textContent = t(about.purpose ? "purposeNeeded" : "purpose");
  $("purpose").required = about.purpose;
  $("zone").textContent = t("zone", { zone: Intl.DateTimeFormat().resolvedOptions().timeZone });
  showCameras(names);
  showChips($("tags"), about.tags, "tag");
  $("tags-part").hidden = !Object.keys(about.tags).length;
  showRates();
  $("prior-part").hidden = !about.calibration;
  for (const option of $("rerank").options) option.hidden = option.disabled = Boolean(option.value) && !about.reranks.includes(option.value);
  const none = about.attention !== "";
  $("attention").disabled = none;
  $("attention-note").textContent = none ? t("attentionNone", { reason: about.attention }) : "";
  const options = ["", ...names.sort(byName)];
  for (const select of [$("picker-camera"), $("forget-camera")]) {
    const kept = select.value;
    select.replaceChildren(...options.map((name) => make("option", { value: name, textContent: name || (select.id === "forget-camera" ? "" : t("allCameras")) })));
    select.value = kept;
  }
  $("examples").hidden = !about.examples.length;
  $("examples").querySelector("ul").replaceChildren(...about.examples.map((example, number) => {
    const picture = make("img", { src: `/api/examples/${number}`, alt: "" });
    const kind = make("span", { className: `badge ${example.modality}` }, icon(example.modality === "infrared" ? "moon" : "sun"));
    const button = make("button", { type: "button", "aria-label": t("tryExample", { name: example.name }), title: example.name }, picture, kind);
    button.addEventListener("click", () => tryExample(number));
    return make("li", {}, button);
  }));
}

const byName = new Intl.Collator(undefined, { numeric: true }).compare;

function showCameras(names) {
  $("camera-find").hidden = names.length <= MANY_CAMERAS;
  showChips($("cameras"), about.cameras, "camera");
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

function filterCameras() {
  const word = $("camera-word").value.trim().toLowerCase();
  for (const label of $("cameras").children) {
    const input = label.querySelector("input");
    label.hidden = !input.checked && !input.value.toLowerCase().includes(word);
  }
}

function showRates() {
  const select = $("rate");
  const kept = select.value;
  const least = about.calibration ? Math.min(...Object.values(about.calibration.least_rate)) : Infinity;
  const most = about.calibration ? Math.max(...Object.values(about.calibration.least_rate)) : Infinity;
  select.replaceChildren(make("option", { value: "", textContent: t("rateOff") }), ...RATES.map((rate) => {
    const many = count(Math.round(1 / rate));
    const enough = rate >= least * 0.999;
    const option = make("option", { value: String(rate), disabled: !enough });
    option.textContent = t("rateOf", { many }) + (enough ? "" : ` ${t("rateTooFew")}`);
    return option;
  }));
  const usual = RATES.filter((rate) => rate >= most * 0.999 && rate >= 0.001).at(-1);
  select.value = kept || (select.dataset.touched ? "" : String(usual ?? ""));
  noteRate();
}

function noteRate() {
  const rate = Number($("rate").value);
  if (!about?.calibration) $("rate-note").textContent = t("rateNone");
  else {
    const flattered = about.calibration.people === "unseen" ? "" : ` ${t("rateFlattered")}`;
    $("rate-note").textContent = rate ? t("rateNote", { many: many(rate) }) + flattered : "";
  }
}

const showOwnPrior = () => ($("prior-own").hidden = $("prior").value !== "own");

const many = (rate) => count(Math.round(1 / rate));

// --- the query's pictures --------------------------------------------------------------------------------------------

async function addFiles(files) {
  problem("");
  for (const file of files) {
    if (about && pictures.length >= about.limits.pictures) return problem(t("tooMany", { count: about.limits.pictures }));
    if (about && file.size > about.limits.picture_bytes) {
      const [size, limit] = [file.size, about.limits.picture_bytes].map((bytes) => (bytes / 1e6).toFixed(1));
      problem(t("tooLarge", { name: file.name, size, limit }));
      continue;
    }
    if (!(await beginsAsPicture(file))) {
      problem(t("notPicture", { name: file.name }));
      continue;
    }
    const url = URL.createObjectURL(file);
    pictures.push({ file, url, box: null, wide: await isWide(url) });
  }
  forgetAnswerMarks();
  showPictures();
}

function isWide(url) {
  return new Promise((resolve) => {
    const picture = new Image();
    picture.addEventListener("load", () => resolve(picture.naturalWidth > WIDE * picture.naturalHeight));
    picture.addEventListener("error", () => resolve(false)); // the server reports what is wrong with it
    picture.src = url;
  });
}

function addLike(id) {
  if (pictures.some((one) => one.like === id)) return;
  if (pictures.length >= about.limits.pictures) return problem(t("tooMany", { count: about.limits.pictures }));
  pictures.push({ like: id });
  showPictures();
}

function showPictures() {
  $("drop").classList.toggle("full", pictures.length > 0);
  $("combine").hidden = pictures.length < 2;
  $("pictures").replaceChildren(...pictures.map((one, place) => {
    const number = place + 1;
    const alt = t("pictureAlt", { number });
    const frame = make("div", { className: "shot" }, one.like ? shot(one.like, alt) : own(one, alt));
    if (one.box) frame.append(cutOf(one.box));
    const remove = make("button", { type: "button", "aria-label": t("remove", { number }) }, icon("cross"));
    remove.addEventListener("click", () => {
      const [gone] = pictures.splice(place, 1);
      if (gone.url) URL.revokeObjectURL(gone.url);
      forgetAnswerMarks();
      showPictures();
      $("file").focus();
    });
    const tools = make("div", { className: "row" });
    if (!one.like) {
      const draw = make("button", { type: "button", "aria-label": t("drawBox", { number }) }, icon("box"));
      draw.addEventListener("click", async () => {
        const box = await askBox(one.url, one.box);
        if (box === undefined) return;
        one.box = box;
        forgetAnswerMarks();
        showPictures();
      });
      tools.append(draw);
    }
    tools.append(remove);
    const hint = one.wide && !one.box ? make("p", { className: "hint", textContent: t("frameHint") }) : null;
    return make("li", {}, frame, hint, tools);
  }));
}

/** A chosen picture, or its name where the browser cannot show its kind (TIFF, HEIC); the server can. */
function own(one, alt) {
  const picture = make("img", { src: one.url, alt });
  picture.addEventListener("error", () => picture.replaceWith(make("span", { className: "gone", textContent: one.file.name })));
  return picture;
}

function cutOf([left, top, right, bottom]) {
  const cut = make("div", { className: "cut" });
  const sides = { left, top, width: right - left, height: bottom - top };
  for (const [key, value] of Object.entries(sides)) cut.style[key] = `${value * 100}%`;
  return cut;
}

async function tryExample(number) {
  const example = about.examples[number];
  const blob = await (await request(`/api/examples/${number}`)).blob();
  clearPictures();
  await addFiles([new File([blob], "example.jpg", { type: "image/jpeg" })]);
  document.querySelector(`input[name=modality][value="${example.modality}"]`).checked = true;
  document.querySelector(`input[name=in][value="${example.within}"]`).checked = true;
  await search();
}

async function tryFirstExample() {
  if (about.examples.length && !about.purpose) await tryExample(0);
}

function clearPictures() {
  for (const one of pictures) if (one.url) URL.revokeObjectURL(one.url);
  pictures = [];
  forgetAnswerMarks();
  showPictures();
}

/** Marks belong to one query. */
function forgetAnswerMarks() {
  marks = new Map();
}

// --- search ----------------------------------------------------------------------------------------------------------

const radio = (name) => document.querySelector(`input[name=${name}]:checked`).value;

function requestBody() {
  const filter = {};
  const cameras = chosen($("cameras"));
  if (cameras.length) filter.cameras = cameras;
  if (radio("in")) filter.modality = radio("in");
  if ($("after").value) filter.after_s = fromField($("after").value);
  if ($("before").value) filter.before_s = fromField($("before").value);
  const tags = chosen($("tags"));
  if (tags.length) filter.tags = tags;
  const files = pictures.filter((one) => one.file);
  return {
    modality: radio("modality"),
    boxes: files.some((one) => one.box) ? files.map((one) => one.box) : [],
    like: pictures.filter((one) => one.like).map((one) => one.like),
    combine: radio("combine"),
    filter,
    false_match_rate: $("rate").value ? Number($("rate").value) : null,
    rerank: $("rerank").value || null,
    per_track: $("per-track").checked,
    prior: askedPrior(),
    purpose: $("purpose").value.trim(),
  };
}

function askedPrior() {
  const asked = $("prior").value;
  if (asked === "searched") return asked;
  return asked === "own" ? 1 / Number($("prior-many").value) : Number(asked);
}

async function send(body, files) {
  const form = new FormData();
  form.append("ask", JSON.stringify(body));
  for (const file of files) form.append("picture", file, "picture");
  running?.abort();
  running = new AbortController();
  document.body.classList.add("busy");
  try {
    return await getJson("/api/search", { method: "POST", body: form, signal: running.signal });
  } finally {
    document.body.classList.remove("busy");
  }
}

async function search({ withMarks = false } = {}) {
  problem("");
  if (!pictures.length) return problem(t("noPicture"), $("file"));
  if (about?.purpose && !$("purpose").value.trim()) return problem(t("needPurpose"), $("purpose"));
  if ($("prior").value === "own" && !(Number($("prior-many").value) >= 2)) return problem(t("priorWrong"), $("prior-many"));
  const files = pictures.filter((one) => one.file).map((one) => one.file);
  const body = requestBody();
  if (withMarks) {
    body.right = [...marks].filter(([, right]) => right).map(([id]) => id);
    body.wrong = [...marks].filter(([, right]) => !right).map(([id]) => id);
  }
  say(t("searching"));
  try {
    answer = await send(body, files);
    sent = { body, files };
    if (!withMarks) marks = new Map();
    showAnswer();
    $("answer").focus({ preventScroll: true });
    if (window.innerWidth < 992) $("answer").scrollIntoView({ block: "start" });
  } catch (error) {
    failed(error);
  }
}

async function more() {
  try {
    const next = await send({ ...sent.body, offset: answer.hits.length }, sent.files);
    const from = answer.hits.length;
    answer = { ...next, hits: [...answer.hits, ...next.hits] };
    showAnswer();
    $("hits").querySelectorAll(".hit .open")[from]?.focus();
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  if (error.name === "AbortError") return;
  say("");
  if (error instanceof Refused && error.status === 401) return $("sign-in").showModal();
  problem(error.message);
}

function problem(text, field) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
  field?.focus();
}

const say = (text) => ($("status").textContent = text);

// --- the answer ------------------------------------------------------------------------------------------------------

function showAnswer() {
  if (!answer) return;
  $("welcome").hidden = true;
  $("found").hidden = false;
  showVerdict();
  $("notes").hidden = !answer.notes?.length;
  $("notes").replaceChildren(...(answer.notes ?? []).map((text) => make("p", { className: "banner warn", textContent: text })));
  showHits();
  $("more").hidden = !answer.more;
  showMarks();
  timeline();
}

function showVerdict() {
  const rows = count(answer.searched);
  const rate = sent.body.false_match_rate;
  const matches = answer.matches;
  const read = [...new Set(answer.modality)].map((word) => t(word).toLowerCase()).join(currentLanguage() === "zh" ? "、" : ", ");
  const details = [t("readAs", { modality: read })];
  if (rate) details.push(t("atRate", { many: many(rate) }));
  const used = sent.body.right || sent.body.wrong ? sent.body.right.length + sent.body.wrong.length : 0;
  if (used) details.push(t("withMarks", { count: used }));
  if (about.calibration) details.push(priorInWords());
  if (sent.body.per_track) details.push(t("onePerTrack"));
  details.push(t("took", { seconds: answer.took_s.toFixed(2) }));
  let title, text = null, symbol = "person";
  if (!answer.hits.length) [title, symbol] = [t("empty"), "nobody"];
  else if (answer.nobody) {
    [title, text, symbol] = [t("nobody"), t("nobodyMore", { rows, many: many(rate) }), "nobody"];
  } else if (answer.nobody === null) {
    title = t("ranked", { rows });
    if (!about.calibration) text = t("rankedMore");
  } else title = `${matches === 1 ? t("matchesOne") : t(answer.all_counted ? "matchesMany" : "matchesMore", { count: count(matches) })}${t("matchesAmong", { rows })}`;
  const lines = [make("p", {}, make("strong", { textContent: title }))];
  if (text) lines.push(make("p", { textContent: text }));
  lines.push(make("p", { className: "quiet", textContent: details.join(" · ") }));
  if (about.calibration) lines.push(calibratedOn());
  $("verdict").classList.toggle("nobody", symbol === "nobody");
  $("verdict").replaceChildren(icon(symbol), make("div", {}, ...lines));
  say(text ? `${title}. ${text}` : title);
}

function priorInWords() {
  if (answer.prior === 0.5 && sent.body.prior !== "searched") return t("evenBefore");
  return sent.body.prior === "searched" ? t("searchedBefore", { many: count(answer.tracks) }) : t("chancesBefore", { many: many(answer.prior) });
}

/** What thresholds and percentages rest on, in one sentence. */
function calibratedOn() {
  const { dataset, split, num_people: people, own_data: own } = about.calibration;
  const text = t(own ? "calibratedOwn" : "calibratedOther", { people: count(people), dataset, split });
  return make("p", { className: own ? "quiet" : "caution", textContent: text });
}

function showHits() {
  const cards = answer.hits.map((hit, place) => card(hit, place));
  const place = answer.hits.findIndex((hit) => hit.match === false);
  if (place > 0 && answer.hits.slice(place).every((hit) => hit.match === false)) {
    cards.splice(place, 0, make("li", { className: "divide", textContent: t("below") }));
  }
  $("hits").replaceChildren(...cards);
}

function card(hit, place) {
  const rank = place + 1;
  const open = make("button", { type: "button", className: "open" }, shot(hit.id));
  open.append(
    make("span", { className: "badge rank", textContent: String(rank) }),
    make("span", { className: `badge kind ${hit.modality}` }, icon(hit.modality === "infrared" ? "moon" : "sun")),
  );
  if (showHeat) open.append(heat(hit.id));
  const match = t(hit.match === null ? "unsure" : hit.match ? "isMatch" : "noMatch");
  const similarity = hit.similarity.toFixed(3);
  open.setAttribute("aria-label", t("openHit", {
    rank, match, similarity, camera: hit.camera, time: clock(hit.time_s), modality: t(hit.modality),
  }));
  open.addEventListener("click", () => openDetail(place));
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
  yes.addEventListener("click", () => mark(place, true));
  no.addEventListener("click", () => mark(place, false));
  const item = make("li", { className: `hit${hit.match === false ? " below" : ""}` }, open, facts, make("div", { className: "marks" }, yes, no));
  item.dataset.place = place;
  return item;
}

const cards = () => [...$("hits").querySelectorAll(".hit")];

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
    mark(place, event.key === "r");
  }
}

function heat(id) {
  const picture = make("img", { className: "heat", alt: "", src: `/api/attention?id=${encodeURIComponent(id)}`, loading: "lazy" });
  picture.addEventListener("error", () => picture.remove());
  return picture;
}

function toggleHeat() {
  if ($("attention").disabled) return;
  showHeat = !showHeat;
  $("attention").setAttribute("aria-pressed", String(showHeat));
  cards().forEach((item, place) => {
    item.querySelector(".heat")?.remove();
    if (showHeat) item.querySelector(".open").append(heat(answer.hits[place].id));
  });
  if ($("detail").open) showDetail();
}

function timeline() {
  drawTimeline(answer.hits, {
    kindOf: (hit) => (marks.has(hit.id) ? (marks.get(hit.id) ? "right" : "wrong") : hit.match !== false ? "match" : ""),
    narrow: (first, last) => {
      [$("after").value, $("before").value] = [toField(first), toField(last + 60)];
      search();
    },
    open: (place) => {
      const to = cards()[place];
      to.scrollIntoView({ block: "center" });
      to.querySelector(".open").focus();
    },
  });
}

// --- marks -----------------------------------------------------------------------------------------------------------

async function mark(place, right) {
  const hit = answer.hits[place];
  const now = marks.get(hit.id) === right ? null : right;
  if (now === null) marks.delete(hit.id);
  else marks.set(hit.id, now);
  showMarks();
  timeline();
  if ($("detail").open) showDetail();
  try {
    const { similarity, probability } = hit;
    await postJson("/api/marks", { query: answer.query, marks: [{ id: hit.id, right: now, similarity, probability }] });
  } catch (error) {
    failed(error);
  }
}

function showMarks() {
  cards().forEach((item, place) => {
    const said = marks.get(answer.hits[place].id);
    item.classList.toggle("right", said === true);
    item.classList.toggle("wrong", said === false);
    item.querySelector(".yes").setAttribute("aria-pressed", String(said === true));
    item.querySelector(".no").setAttribute("aria-pressed", String(said === false));
  });
  const said = [...marks.values()];
  const right = said.filter(Boolean).length;
  $("marked").textContent = said.length ? t("marked", { right, wrong: said.length - right }) : t("unmarked");
  $("again").disabled = !said.length;
  for (const form of ["csv", "json"]) {
    const link = $(`export-${form}`);
    if (said.length) {
      link.href = `/api/marks?format=${form}&query=${answer.query}`;
      link.removeAttribute("aria-disabled");
    } else {
      link.removeAttribute("href");
      link.setAttribute("aria-disabled", "true");
      link.setAttribute("role", "link");
    }
  }
}

// --- one hit ---------------------------------------------------------------------------------------------------------

function openDetail(place) {
  opened = place;
  showDetail();
  if (!$("detail").open) $("detail").showModal();
}

async function showDetail() {
  const hit = answer.hits[opened];
  $("detail-title").textContent = t("hitOf", { rank: opened + 1 });
  $("detail-hit").replaceChildren(shot(hit.id, t("hitOf", { rank: opened + 1 })));
  if (showHeat) $("detail-hit").append(heat(hit.id));
  $("detail-caption").textContent = `${hit.camera} · ${clock(hit.time_s)}`;
  const facts = {
    similarity: hit.similarity.toFixed(4), probability: hit.probability === null || hit.match === false ? null : percent(hit.probability),
    camera: hit.camera, time: clock(hit.time_s), modalityShort: t(hit.modality), track: hit.track, identity: hit.pid,
    tags: hit.tags.join(", "), id: hit.id,
  };
  $("detail-facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).map(([key, value]) =>
    make("div", {}, make("dt", { textContent: t(key) }), make("dd", { textContent: value }))));
  const said = marks.get(hit.id);
  $("detail-right").className = "yes";
  $("detail-wrong").className = "no";
  $("detail-right").setAttribute("aria-pressed", String(said === true));
  $("detail-wrong").setAttribute("aria-pressed", String(said === false));
  $("detail-before").disabled = opened === 0;
  $("detail-after").disabled = opened === answer.hits.length - 1;
  await showQueryBeside();
}

async function showQueryBeside() {
  const place = $("detail-query");
  const one = pictures[0];
  if (!one) return place.replaceChildren();
  if (one.like) {
    place.replaceChildren(shot(one.like, t("yourPicture")));
    if (showHeat) place.append(heat(one.like));
    return;
  }
  place.replaceChildren(await cropped(one));
  if (!showHeat) return;
  const form = new FormData();
  form.append("ask", JSON.stringify({ modality: radio("modality"), boxes: one.box ? [one.box] : [] }));
  form.append("picture", one.file, "picture");
  try {
    const blob = await (await request("/api/attention", { method: "POST", body: form })).blob();
    const url = URL.createObjectURL(blob);
    const picture = make("img", { className: "heat", alt: "", src: url });
    picture.addEventListener("load", () => URL.revokeObjectURL(url));
    if (showHeat) place.append(picture);
  } catch (error) {
    failed(error);
  }
}

async function cropped(one) {
  if (!one.box) return own(one, t("yourPicture"));
  let bitmap;
  try {
    bitmap = await createImageBitmap(one.file, { imageOrientation: "from-image" });
  } catch {
    return own(one, t("yourPicture")); // a kind that the browser cannot show
  }
  const [left, top, right, bottom] = one.box;
  const canvas = make("canvas", { width: (right - left) * bitmap.width, height: (bottom - top) * bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, -left * bitmap.width, -top * bitmap.height);
  return make("img", { src: canvas.toDataURL("image/jpeg", 0.9), alt: t("yourPicture") });
}

// --- pick from the archive -------------------------------------------------------------------------------------------

async function showPicker(fresh) {
  if (fresh) {
    picker = { after: "", camera: $("picker-camera").value };
    $("picker-rows").replaceChildren();
  }
  const filter = picker.camera ? { cameras: [picker.camera] } : {};
  try {
    const found = await postJson("/api/records/list", { filter, after_id: picker.after, limit: 40 });
    picker.after = found.rows.at(-1)?.id ?? picker.after;
    $("picker-more").hidden = !found.more;
    $("picker-rows").append(...found.rows.map((row) => {
      const label = `${row.camera}, ${clock(row.time_s)}, ${t(row.modality)}, ${row.id}`;
      const open = make("button", { type: "button", className: "open", "aria-label": label }, shot(row.id));
      open.append(make("span", { className: `badge kind ${row.modality}` }, icon(row.modality === "infrared" ? "moon" : "sun")));
      open.addEventListener("click", () => {
        $("picker").close();
        forgetAnswerMarks();
        addLike(row.id);
      });
      const facts = make("div", { className: "facts" }, make("p", { className: "place", textContent: row.camera }), make("p", { className: "quiet", textContent: clock(row.time_s) }));
      return make("li", { className: "hit" }, open, facts);
    }));
  } catch (error) {
    $("picker").close();
    failed(error);
  }
}

// --- events ----------------------------------------------------------------------------------------------------------

function listen() {
  $("language").addEventListener("click", () => {
    setLanguage(currentLanguage() === "zh" ? "en" : "zh");
    store("language", currentLanguage());
    showAbout();
    showPictures();
    showAnswer();
  });
  $("file").addEventListener("change", async () => {
    await addFiles([...$("file").files]);
    $("file").value = "";
  });
  const drop = $("drop");
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    addFiles([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (files.length) addFiles(files);
  });
  $("camera-word").addEventListener("input", filterCameras);
  $("rate").addEventListener("change", () => {
    $("rate").dataset.touched = "yes";
    noteRate();
  });
  $("prior").addEventListener("change", showOwnPrior);
  $("query").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  $("clear").addEventListener("click", () => {
    running?.abort();
    $("query").reset();
    clearPictures();
    showRates();
    showOwnPrior();
    filterCameras();
    problem("");
    say("");
    answer = sent = null;
    $("found").hidden = true;
    $("welcome").hidden = false;
    $("file").focus();
  });
  $("pick").addEventListener("click", () => {
    $("picker").showModal();
    showPicker(true);
  });
  $("picker-camera").addEventListener("change", () => showPicker(true));
  $("picker-more").addEventListener("click", () => showPicker(false));
  $("more").addEventListener("click", more);
  $("again").addEventListener("click", () => search({ withMarks: true }));
  $("attention").addEventListener("click", toggleHeat);
  $("detail-right").addEventListener("click", () => mark(opened, true));
  $("detail-wrong").addEventListener("click", () => mark(opened, false));
  $("detail-like").addEventListener("click", () => {
    $("detail").close();
    addLike(answer.hits[opened].id);
    search();
  });
  $("detail-before").addEventListener("click", () => openDetail(opened - 1));
  $("detail-after").addEventListener("click", () => openDetail(opened + 1));
  $("detail").addEventListener("close", () => cards()[opened]?.querySelector(".open").focus());
  $("detail").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" && opened > 0) openDetail(opened - 1);
    else if (event.key === "ArrowRight" && opened < answer.hits.length - 1) openDetail(opened + 1);
    else if (event.key === "r" || event.key === "w") mark(opened, event.key === "r");
  });
  $("open-help").addEventListener("click", () => $("help").showModal());
  for (const button of document.querySelectorAll("dialog .close")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  $("sign-in").addEventListener("cancel", (event) => event.preventDefault());
  $("sign-in-form").addEventListener("submit", signIn);
  $("sign-out").addEventListener("click", async () => {
    await request("/api/session", { method: "DELETE" });
    location.reload();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=radio], [type=checkbox], [type=file]), select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || (document.querySelector("dialog[open]") && event.key !== "a")) return;
    if (event.key === "/") {
      event.preventDefault();
      $("file").focus();
    } else if (event.key === "?") $("help").showModal();
    else if (event.key === "a" && answer && !$("help").open) toggleHeat();
  });
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (answer && window.innerWidth !== width) timeline();
    width = window.innerWidth;
  });
}

async function signIn(event) {
  event.preventDefault();
  const headers = { authorization: `Bearer ${$("token").value.trim()}` };
  try {
    await request("/api/session", { method: "POST", headers });
  } catch (error) {
    $("sign-in-said").textContent = error.status === 401 ? t("signInWrong") : error.message;
    $("token").focus();
    return;
  }
  $("token").value = $("sign-in-said").textContent = "";
  $("sign-in").close();
  if (await loadAbout()) await tryFirstExample();
}

begin();
