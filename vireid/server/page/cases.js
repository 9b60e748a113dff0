// Keeping a search: as a file with all hits, or as a case that others of this service can open, with a note.
import { keepCaseInAddress } from "./address.js";
import { $, make } from "./base.js";
import { fillForm } from "./form.js";
import { clock, t } from "./format.js";
import { failed, say } from "./messages.js";
import { setPictures } from "./pictures.js";
import { getJson, postJson, request } from "./requests.js";
import { formOf } from "./search.js";
import { state } from "./state.js";

let shown = null; // the case that the answer belongs to

/** Listen; `open(id)` opens a case in the page. */
export function prepareCases(open) {
  $("case-keep").addEventListener("click", () => {
    $("case-name").value = $("case-note").value = $("case-said").textContent = "";
    $("keep").showModal();
  });
  $("keep-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const kept = await getJson("cases", { method: "POST", body: requestForm({ name: $("case-name").value.trim(), note: $("case-note").value.trim() }) });
      $("keep").close();
      keepCaseInAddress(kept.id);
      say(t("caseKept"));
      showKept(kept);
    } catch (error) {
      $("case-said").textContent = error.message;
    }
  });
  $("open-cases").addEventListener("click", async () => {
    try {
      await list(open);
      $("cases-dialog").showModal();
    } catch (error) {
      failed(error);
    }
  });
}

/** Listen to the menu of files, which closes when one is chosen, by Escape, and where the focus or a click leaves it. */
export function prepareExport() {
  const menu = $("export");
  const close = () => (menu.open = false);
  for (const form of ["html", "csv", "json"]) $(`case-${form}`).addEventListener("click", () => download(form));
  for (const form of ["csv", "json"]) $(`export-${form}`).addEventListener("click", () => setTimeout(close));
  document.addEventListener("click", (event) => !menu.contains(event.target) && close());
  menu.addEventListener("focusout", (event) => event.relatedTarget && !menu.contains(event.relatedTarget) && close());
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    close();
    menu.querySelector("summary").focus();
  });
}

/** The search that is shown, with its marks of now. */
function requestForm(more) {
  const { body, files } = state.sent;
  const marked = (right) => [...state.marks].filter(([, value]) => value === right).map(([id]) => id);
  return formOf({ ...body, right: marked(true), wrong: marked(false), ...more }, files);
}

async function download(form) {
  $("export").open = false;
  say(t("searching"));
  try {
    const { body, files } = state.sent;
    const about = shown ? { name: shown.name, note: shown.note } : {};
    const answer = await request(`case-file?format=${form}`, { method: "POST", body: formOf({ ...body, ...about }, files) });
    const url = URL.createObjectURL(await answer.blob());
    make("a", { href: url, download: `case.${form}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    say(t("exported"));
  } catch (error) {
    failed(error);
  }
}

function showKept(kept) {
  shown = kept;
  $("case-shown").hidden = !kept;
  if (!kept) return;
  const head = make("p", {}, make("strong", { textContent: kept.name || t("caseUnnamed") }), ` · ${kept.who} · ${clock(kept.at)}`);
  $("case-shown").replaceChildren(head, kept.note ? make("p", { className: "case-note", textContent: kept.note }) : "");
}

export const hideCase = () => showKept(null);

/** Fill the form and the pictures with a case; the caller searches. */
export async function restoreCase(id) {
  const kept = await getJson(`cases/${encodeURIComponent(id)}`);
  const blobs = await Promise.all(Array.from({ length: kept.pictures }, (_, number) =>
    request(`cases/${kept.id}/pictures/${number}`).then((answer) => answer.blob())));
  const files = blobs.map((blob, number) => new File([blob], `${kept.name || "case"} ${number + 1}`));
  await restore(kept.request, files);
  return () => showKept(kept);
}

/** Fill form, pictures and marks with a request. */
export async function restore(body, files) {
  const boxes = body.boxes ?? [];
  await setPictures([...files.map((file, place) => ({ file, box: boxes[place] ?? null })), ...(body.like ?? []).map((like) => ({ like }))]);
  fillForm(body);
  state.marks = new Map([...(body.right ?? []).map((id) => [id, true]), ...(body.wrong ?? []).map((id) => [id, false])]);
}

async function list(open) {
  const { cases } = await getJson("cases");
  $("cases-none").hidden = cases.length > 0;
  $("cases-list").replaceChildren(...cases.map((kept) => entry(kept, open)));
}

function entry(kept, open) {
  const name = kept.name || t("caseUnnamed");
  const said = make("p", { role: "status", className: "quiet" });
  const note = make("textarea", { rows: 2, maxLength: 4000, value: kept.note, "aria-label": t("caseNoteOf", { name }) });
  const act = (key, work, className = "") => {
    const button = make("button", { type: "button", className: `small ${className}`, textContent: t(key), "aria-label": `${t(key)}: ${name}` });
    button.addEventListener("click", async () => {
      try {
        await work();
      } catch (error) {
        said.textContent = error.message;
      }
    });
    return button;
  };
  const item = make("li", { className: "case" }, make("h3", { textContent: name }), make("p", { className: "quiet", textContent: `${kept.who} · ${clock(kept.at)}` }), note,
    make("div", { className: "row" },
      act("caseOpen", () => {
        $("cases-dialog").close();
        return open(kept.id);
      }, "primary"),
      act("caseNoteSave", async () => {
        const changed = await postJson(`cases/${kept.id}`, { name: kept.name, note: note.value });
        if (shown?.id === kept.id) showKept(changed);
        said.textContent = t("caseSaved");
      }),
      act("caseDelete", async () => {
        if (!confirm(t("caseDeleteSure", { name }))) return;
        await request(`cases/${kept.id}`, { method: "DELETE" });
        item.remove();
        $("cases-none").hidden = $("cases-list").children.length > 0;
      }, "danger")), said);
  return item;
}
