// The pictures of the query: chosen, dropped, pasted or picked from the archive, each with a box on request.
import { $, beginsAsPicture, icon, make, shot } from "./base.js";
import { askBox } from "./box.js";
import { t } from "./format.js";
import { problem } from "./messages.js";
import { state } from "./state.js";

const WIDE = 0.85; // a picture this wide for its height is a frame and no crop of a person

export async function addFiles(files) {
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
    state.pictures.push({ file, url, box: null, wide: await isWide(url) });
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

export function addLike(id) {
  if (state.pictures.some((one) => one.like === id)) return;
  if (state.pictures.length >= state.about.limits.pictures) return problem(t("tooMany", { count: state.about.limits.pictures }));
  state.pictures.push({ like: id });
  showPictures();
}

export function showPictures() {
  $("drop").classList.toggle("full", state.pictures.length > 0);
  $("combine").hidden = state.pictures.length < 2;
  $("pictures").replaceChildren(...state.pictures.map((one, place) => {
    const number = place + 1;
    const alt = t("pictureAlt", { number });
    const frame = make("div", { className: "shot" }, one.like ? shot(one.like, alt) : own(one, alt));
    if (one.box) frame.append(cutOf(one.box));
    const remove = make("button", { type: "button", "aria-label": t("remove", { number }) }, icon("cross"));
    remove.addEventListener("click", () => {
      const [gone] = state.pictures.splice(place, 1);
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
export function own(one, alt) {
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

export function clearPictures() {
  for (const one of state.pictures) if (one.url) URL.revokeObjectURL(one.url);
  state.pictures = [];
  forgetAnswerMarks();
  showPictures();
}

/** Marks belong to one query. */
export function forgetAnswerMarks() {
  state.marks = new Map();
}
/** The pictures as {like} or {file, box}, in place of those that are there. */
export async function setPictures(given) {
  clearPictures();
  for (const one of given) {
    if (one.like) state.pictures.push({ like: one.like });
    else {
      const url = URL.createObjectURL(one.file);
      state.pictures.push({ file: one.file, url, box: one.box ?? null, wide: await isWide(url) });
    }
  }
  showPictures();
}
