// The whole frame that a hit was cut from, and the seconds around it.
import { $ } from "./base.js";
import { t } from "./format.js";
import { Latest } from "./latest.js";
import { request } from "./requests.js";

const frames = new Latest();
let shown = null; // the id of its hit
let boxed = false; // whether its box is kept
let url = "";

/** Listen; `current()` is the hit in the dialog. */
export function prepareScene(current) {
  $("scene-show").addEventListener("click", () => (shown === null ? show(current().id, 0) : hideScene()));
  $("scene-offset").addEventListener("change", () => show(shown, Number($("scene-offset").value)));
  for (const [id, step] of Object.entries({ "scene-before": -0.5, "scene-after": 0.5 })) {
    $(id).addEventListener("click", () => {
      $("scene-offset").value = String(Number($("scene-offset").value) + step);
      show(shown, Number($("scene-offset").value));
    });
  }
  $("scene").addEventListener("keydown", (event) => event.stopPropagation()); // arrows move in time here
}

export function hideScene() {
  frames.stop();
  shown = null;
  $("scene").hidden = true;
  $("scene-show").setAttribute("aria-expanded", "false");
  $("scene-offset").value = "0";
}

async function show(id, offset) {
  shown = id;
  $("scene").hidden = false;
  $("scene-show").setAttribute("aria-expanded", "true");
  $("scene-seconds").textContent = t("sceneSeconds", { seconds: (offset > 0 ? "+" : "") + offset });
  $("scene-note").textContent = t("sceneLoading");
  try {
    const { kind, blob } = await frames.run(async (signal) => {
      const answer = await request(`scene?id=${encodeURIComponent(id)}&offset_s=${offset}`, { signal });
      return { kind: answer.headers.get("vireid-scene") ?? "", blob: await answer.blob() };
    });
    if (!offset) boxed = kind.includes("boxed");
    URL.revokeObjectURL(url);
    url = URL.createObjectURL(blob);
    $("scene-picture").src = url;
    $("scene-picture").alt = t("sceneAlt");
    $("scene-picture").hidden = false;
    $("scene-times").hidden = !kind.startsWith("video");
    $("scene-note").textContent = kind.startsWith("picture") ? t("scenePicture") : t(boxed ? "sceneBoxed" : "sceneNoBox");
  } catch (error) {
    if (error.name === "AbortError") return; // another frame is shown by now, or none
    $("scene-picture").hidden = true;
    if (!offset) $("scene-times").hidden = true;
    $("scene-note").textContent = error.message;
  }
}
