// Pick a crop of the archive as a picture of the query: the newest first, by camera, modality and time.
import { $, icon, make, shot } from "./base.js";
import { clock, day, fromField, t } from "./format.js";
import { Latest } from "./latest.js";
import { postJson } from "./requests.js";

const PAGE = 40;
const pages = new Latest((running) => {
  $("picker-rows").setAttribute("aria-busy", String(running));
  $("picker-more").disabled = running;
});
let last = null; // the row that is shown last
let lastDay = ""; // and its day

/** Listen; `picked(id)` is called with the row that was chosen. */
export function preparePicker(picked) {
  $("pick").addEventListener("click", () => {
    $("picker").showModal();
    show(true, picked);
  });
  for (const id of ["picker-camera", "picker-modality", "picker-after", "picker-before"]) {
    $(id).addEventListener("change", () => show(true, picked));
  }
  $("picker-more").addEventListener("click", () => show(false, picked));
  $("picker").addEventListener("close", () => pages.stop());
}

function conditions() {
  const filter = {};
  if ($("picker-camera").value) filter.cameras = [$("picker-camera").value];
  if ($("picker-modality").value) filter.modality = $("picker-modality").value;
  if ($("picker-after").value) filter.after_s = fromField($("picker-after").value);
  if ($("picker-before").value) filter.before_s = fromField($("picker-before").value);
  return filter;
}

async function show(fresh, picked) {
  const body = { order: "newest", filter: conditions(), limit: PAGE };
  if (!fresh && last) Object.assign(body, { after_id: last.id, after_time_s: last.time_s });
  try {
    const page = await pages.run((signal) => postJson("records/list", body, { signal }));
    if (fresh) {
      [last, lastDay] = [null, ""];
      $("picker-rows").replaceChildren();
    }
    last = page.rows.at(-1) ?? last;
    $("picker-more").hidden = !page.more;
    $("picker-said").textContent = last ? "" : t("empty");
    const first = $("picker-rows").children.length;
    $("picker-rows").append(...page.rows.flatMap((row) => [...heading(row), card(row, picked)]));
    if (!fresh) $("picker-rows").children[first]?.querySelector("button")?.focus();
  } catch (error) {
    if (error.name === "AbortError") return; // other conditions were chosen meanwhile
    $("picker-said").textContent = error.message;
  }
}

/** The day of a row, where it is another one than that of the row before. */
function heading(row) {
  const its = row.time_s === null ? t("unknownTime") : day(row.time_s);
  if (its === lastDay) return [];
  lastDay = its;
  return [make("li", { className: "divide", textContent: its })];
}

function card(row, picked) {
  const label = `${row.camera}, ${clock(row.time_s)}, ${t(row.modality)}, ${row.id}`;
  const open = make("button", { type: "button", className: "open", "aria-label": label }, shot(row.id));
  open.append(make("span", { className: `badge kind ${row.modality}` }, icon(row.modality === "infrared" ? "moon" : "sun")));
  open.addEventListener("click", () => {
    $("picker").close();
    picked(row.id);
  });
  const facts = make("div", { className: "facts" }, make("p", { className: "place", textContent: row.camera }), make("p", { className: "quiet", textContent: clock(row.time_s, false) }));
  return make("li", { className: "hit" }, open, facts);
}
