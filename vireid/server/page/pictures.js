// The pictures of the query: chosen, dropped, pasted or picked from the archive, each with a box on request.
import { $, beginsAsPicture, first, icon, make, shot } from "./base.js";
import { askBox } from "./box.js";
import { t } from "./format.js";
import { problem, say } from "./messages.js";
import { hintOf, look, peopleOf, place as putOver, wholeOf } from "./people.js";
import { showMarks, timeline } from "./results.js";
import { state } from "./state.js";

const WIDE = 0.85; // a picture this wide for its height is a frame and no crop of a person
const NARROW = 0.58; // and one as narrow as this is a crop, in which nobody else is looked for

/** Add files to the query; `crops` says that each shows one person and nothing else. */
export async function addFiles(files, { crops = false } = {}) {
  problem("");
  for (const file of files) {
    if (state.about && state.pictures.length >= state.about.limits.pictures) return problem(t("tooMany", { count: state.about.limits.pictures }));
    if (state.about && file.size > state.about.limits.picture_bytes) {
      const [size, limit] = [file.size, state.about.limits.picture_bytes].map((bytes) => (bytes / 1e6).toFixed(1));
      problem(t("tooLarge", { name: file.name, size, limit }));
      continue;
    }
    if (!(await beginsAsPicture(file))) {
      problem(t("notPicture", { name: file.name }));
      continue;
    }
    const url = URL.createObjectURL(file);
    const shape = await shapeOf(url);
    const one = { file, url, box: null, wide: shape > WIDE };
    state.pictures.push(one);
    if (!crops && shape > NARROW && state.about?.detection) look(one, looked);
  }
  forgetAnswerMarks();
  showPictures();
}

/** Show whom the service found in a picture, and say it. */
function looked(one) {
  const number = state.pictures.indexOf(one) + 1;
  if (!number) return; // it was taken out meanwhile
  showPictures();
  const text = hintOf(one);
  if (text) say(t("pictureSays", { number, text }));
}

/** The width of a picture for its height; 0 where it cannot be read, since the server reports what is wrong with it. */
function shapeOf(url) {
  return new Promise((resolve) => {
    const picture = new Image();
    picture.addEventListener("load", () => resolve(picture.naturalWidth / picture.naturalHeight));
    picture.addEventListener("error", () => resolve(0));
    picture.src = url;
  });
}

export function addLike(id) {
  if (state.pictures.some((one) => one.like === id)) return;
  if (state.pictures.length >= state.about.limits.pictures) return problem(t("tooMany", { count: state.about.limits.pictures }));
  state.pictures.push({ like: id });
  showPictures();
}

export function showPictures() {
  $("drop").classList.toggle("full", state.pictures.length > 0);
  $("combine").hidden = state.pictures.length < 2;
  const focused = document.activeElement?.getAttribute("data-key");
  $("pictures").replaceChildren(...state.pictures.map((one, place) => {
    const number = place + 1;
    const alt = t("pictureAlt", { number });
    const frame = make("div", { className: "shot" }, one.like ? shot(one.like, alt) : own(one, alt));
    const choose = (box, said = "") => {
      Object.assign(one, { box, open: false });
      forgetAnswerMarks();
      showPictures();
      if (said) say(said);
    };
    if (one.box) frame.append(cutOf(one.box));
    if (one.people?.length) frame.append(...peopleOf(one, number, choose));
    const remove = make("button", { type: "button", "aria-label": t("remove", { number }) }, icon("cross"));
    remove.addEventListener("click", () => {
      const [gone] = state.pictures.splice(place, 1);
      leave(gone);
      forgetAnswerMarks();
      showPictures();
      $("file").focus();
    });
    const tools = make("div", { className: "row" }, one.like ? null : wholeOf(one, number, choose));
    if (!one.like) {
      const draw = make("button", { type: "button", "aria-label": t("drawBox", { number }), "data-key": `${number}-draw` }, icon("box"));
      draw.addEventListener("click", async () => {
        const box = await askBox(one.url, one.box);
        if (box !== undefined) choose(box);
      });
      tools.append(draw);
    }
    tools.append(remove);
    const text = hintOf(one);
    const hint = text ? make("p", { className: "hint", textContent: text }) : null;
    return make("li", { className: one.wide || one.people?.length ? "frame" : "" }, frame, hint, tools);
  }));
  if (focused) first(`#pictures [data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** A chosen picture, or its name where the browser cannot show its kind (TIFF, HEIC); the server can. */
export function own(one, alt) {
  const picture = make("img", { src: one.url, alt });
  picture.addEventListener("error", () => picture.replaceWith(make("span", { className: "gone", textContent: one.file.name })));
  return picture;
}

function cutOf(box) {
  const cut = make("div", { className: "cut" });
  putOver(cut, box);
  return cut;
}

export function clearPictures() {
  state.pictures.forEach(leave);
  state.pictures = [];
  forgetAnswerMarks();
  showPictures();
}

/** End what is still going on with a picture. */
function leave(one) {
  one.stop?.();
  if (one.url) URL.revokeObjectURL(one.url);
}

/** Marks belong to one query: they go from the cards, too. */
export function forgetAnswerMarks() {
  state.marks = new Map();
  if (!state.answer) return;
  showMarks();
  timeline();
}

/** The pictures as {like} or {file, box} with what is known of the people in it, in place of those that are there. */
export async function setPictures(given) {
  clearPictures();
  for (const { like, file, box = null, people, open, found, looking } of given) {
    if (like) state.pictures.push({ like });
    else {
      const url = URL.createObjectURL(file);
      const one = { file, url, box, people, open, found, wide: (await shapeOf(url)) > WIDE };
      state.pictures.push(one);
      if (looking) look(one, looked);
    }
  }
  showPictures();
}
