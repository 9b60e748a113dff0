// Draw a box on a frame: by pointer over the picture, or by four numbers. Gives fractions (left, top, right, bottom).
import { $ } from "./base.js";

const SIDES = ["left", "top", "right", "bottom"];
let done = null;
let start = null;

const field = (side) => $(`box-${side}`);
const values = () => SIDES.map((side) => Math.min(100, Math.max(0, Number(field(side).value) || 0)) / 100);

/** Ask for a box over a picture; resolves to fractions, null for the whole picture, undefined if it was closed. */
export function askBox(url, box) {
  $("box-picture").src = url;
  set(box ?? [0, 0, 1, 1]);
  $("box").showModal();
  return new Promise((resolve) => (done = resolve));
}

function set(box) {
  SIDES.forEach((side, at) => (field(side).value = (box[at] * 100).toFixed(1)));
  show();
}

function show() {
  const [left, top, right, bottom] = values();
  const frame = $("box-frame");
  const good = right > left && bottom > top;
  $("box-use").disabled = !good;
  frame.hidden = !good || (left === 0 && top === 0 && right === 1 && bottom === 1);
  Object.assign(frame.style, {
    left: `${left * 100}%`, top: `${top * 100}%`, width: `${(right - left) * 100}%`, height: `${(bottom - top) * 100}%`,
  });
}

function place(event) {
  const around = $("box-stage").getBoundingClientRect();
  const inside = (value) => Math.min(1, Math.max(0, value));
  return [inside((event.clientX - around.left) / around.width), inside((event.clientY - around.top) / around.height)];
}

function finish(result) {
  const resolve = done;
  done = null;
  $("box").close();
  resolve?.(result);
}

export function prepareBox() {
  const stage = $("box-stage");
  stage.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    start = place(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = place(event);
    if (Math.abs(x - start[0]) + Math.abs(y - start[1]) < 0.01) return;
    set([Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]), Math.max(y, start[1])]);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, () => {
      if (start && !$("box-use").disabled) $("box-use").focus(); // Enter takes what was drawn
      start = null;
    });
  }
  for (const side of SIDES) {
    field(side).addEventListener("input", show);
    field(side).addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || $("box-use").disabled) return;
      event.preventDefault(); // else the same key presses the button that the focus returns to
      $("box-use").click();
    });
  }
  $("box-whole").addEventListener("click", () => finish(null));
  $("box-use").addEventListener("click", () => {
    const box = values();
    finish(box.every((value, at) => value === (at < 2 ? 0 : 1)) ? null : box);
  });
  $("box").addEventListener("close", () => {
    done?.(undefined);
    done = null;
  });
}
