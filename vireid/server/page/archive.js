// The administrator's dialog: forget people for good, and read the audit log.
import { $, make } from "./base.js";
import { showForgotten } from "./forgotten.js";
import { clock, count, fromField, t } from "./format.js";
import { getJson, postJson } from "./requests.js";

let counted = null; // the filter and the number of rows that were shown before deleting

export function prepareManage(changed) {
  $("open-archive").addEventListener("click", async () => {
    reset();
    $("manage").showModal();
    await showAudit();
  });
  $("forget").addEventListener("input", reset);
  $("forget").addEventListener("submit", async (event) => {
    event.preventDefault();
    const filter = conditions();
    if (!Object.keys(filter).length) return say(t("forgetNeeds"));
    await reportErrors(async () => {
      const { rows } = await postJson("forget", { filter });
      counted = rows ? { filter, expect: rows } : null;
      $("forget-do").disabled = !rows;
      say(t("forgetFound", { rows: count(rows) }));
    });
  });
  $("forget-do").addEventListener("click", async () => {
    if (!counted) return;
    await reportErrors(async () => {
      const gone = await postJson("forget", counted);
      reset();
      showForgotten($("forget-said"), gone);
      await Promise.all([showAudit(), changed()]);
    });
  });
}

function conditions() {
  const filter = {};
  if ($("forget-pid").value.trim()) filter.pids = [$("forget-pid").value.trim()];
  if ($("forget-track").value.trim()) filter.tracks = [$("forget-track").value.trim()];
  if ($("forget-camera").value) filter.cameras = [$("forget-camera").value];
  if ($("forget-before").value) filter.before_s = fromField($("forget-before").value);
  return filter;
}

const say = (text) => ($("forget-said").textContent = text);

function reset() {
  counted = null;
  $("forget-do").disabled = true;
  say("");
}

async function reportErrors(work) {
  try {
    await work();
  } catch (error) {
    reset();
    say(error.message);
  }
}

async function showAudit() {
  const { entries } = await getJson("audit?last=100");
  const skipped = new Set(["at", "who", "role", "what", "previous"]);
  $("audit").replaceChildren(...entries.map((entry) => {
    const details = Object.entries(entry)
      .filter(([key, value]) => !skipped.has(key) && value !== "" && value !== null && !(Array.isArray(value) && !value.length))
      .filter(([, value]) => JSON.stringify(value) !== "{}")
      .map(([key, value]) => `${key}: ${typeof value === "object" ? JSON.stringify(value) : value}`)
      .map((text) => text.replace(/[0-9a-f]{64}/g, (digest) => `${digest.slice(0, 12)}…`).slice(0, 160));
    const cells = [clock(Date.parse(entry.at) / 1000), `${entry.who} (${entry.role})`, entry.what, details.join(" · ")];
    const heads = ["when", "who", "what", "details"];
    return make("tr", {}, ...cells.map((text, place) => make("td", { textContent: text, "data-head": t(heads[place]) })));
  }));
}
