// One hit beside the query, with what is known of it.
import { $, make, shot } from "./base.js";
import { clock, percent, t } from "./format.js";
import { cards, failed, radio } from "./messages.js";
import { own } from "./pictures.js";
import { request } from "./requests.js";
import { heat, mark } from "./results.js";
import { hideScene, prepareScene } from "./scene.js";
import { state } from "./state.js";

/** The hit in the dialog. */
export const shown = () => state.listed[state.opened];

/** Show a hit of the answer, or of another list. */
export function openDetail(place, listed = state.answer.hits) {
  hideScene();
  state.listed = listed;
  state.opened = place;
  showDetail();
  if (!$("detail").open) $("detail").showModal();
}

export async function showDetail() {
  const hit = state.listed[state.opened];
  $("detail-title").textContent = t("hitOf", { rank: state.opened + 1 });
  $("detail-hit").replaceChildren(shot(hit.id, t("hitOf", { rank: state.opened + 1 })));
  if (state.showHeat) $("detail-hit").append(heat(hit.id));
  $("detail-caption").textContent = `${hit.camera} · ${clock(hit.time_s)}`;
  const facts = {
    similarity: hit.similarity.toFixed(4), probability: hit.probability === null || hit.match === false ? null : percent(hit.probability),
    camera: hit.camera, time: clock(hit.time_s), modalityShort: t(hit.modality), track: hit.track, identity: hit.pid,
    tags: hit.tags.join(", "), id: hit.id,
  };
  $("detail-facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).map(([key, value]) =>
    make("div", {}, make("dt", { textContent: t(key) }), make("dd", { textContent: value }))));
  const said = state.marks.get(hit.id);
  $("detail-right").className = "yes";
  $("detail-wrong").className = "no";
  $("detail-right").setAttribute("aria-pressed", String(said === true));
  $("detail-wrong").setAttribute("aria-pressed", String(said === false));
  $("detail-before").disabled = state.opened === 0;
  $("detail-after").disabled = state.opened === state.listed.length - 1;
  await showQueryBeside();
}

async function showQueryBeside() {
  const place = $("detail-query");
  const one = state.pictures[0];
  if (!one) return place.replaceChildren();
  if (one.like) {
    place.replaceChildren(shot(one.like, t("yourPicture")));
    if (state.showHeat) place.append(heat(one.like));
    return;
  }
  place.replaceChildren(await cropped(one));
  if (!state.showHeat) return;
  const form = new FormData();
  form.append("ask", JSON.stringify({ modality: radio("modality"), boxes: one.box ? [one.box] : [] }));
  form.append("picture", one.file, "picture");
  try {
    const blob = await (await request("attention", { method: "POST", body: form })).blob();
    const url = URL.createObjectURL(blob);
    const picture = make("img", { className: "heat", alt: "", src: url });
    picture.addEventListener("load", () => URL.revokeObjectURL(url));
    if (state.showHeat) place.append(picture);
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

/** Listen; `add(id)` adds a row to the query and searches. */
export function prepareDetail(add) {
  prepareScene(shown);
  $("detail-right").addEventListener("click", () => mark(shown(), true));
  $("detail-wrong").addEventListener("click", () => mark(shown(), false));
  $("detail-like").addEventListener("click", () => {
    $("detail").close();
    add(state.listed[state.opened].id);
  });
  $("detail-before").addEventListener("click", () => openDetail(state.opened - 1, state.listed));
  $("detail-after").addEventListener("click", () => openDetail(state.opened + 1, state.listed));
  $("detail").addEventListener("close", () => {
    if (!$("erase").open && state.listed === state.answer?.hits) cards()[state.opened]?.querySelector(".open").focus();
  });
  $("detail").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" && state.opened > 0) openDetail(state.opened - 1, state.listed);
    else if (event.key === "ArrowRight" && state.opened < state.listed.length - 1) openDetail(state.opened + 1, state.listed);
    else if (event.key === "r" || event.key === "w") mark(shown(), event.key === "r");
  });
}
