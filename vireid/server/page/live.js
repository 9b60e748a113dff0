// Alarms that vireid watch raised: a list of the last ones, and a search from one of them.
import { $, make, shot } from "./base.js";
import { clock, t } from "./format.js";
import { failed } from "./messages.js";
import { getJson } from "./requests.js";

const LAST = 100;

/** Listen; `search(id)` searches with the row of an alarm. */
export function prepareLive(search) {
  $("open-alarms").addEventListener("click", async () => {
    try {
      await show(search);
      $("alarms").showModal();
    } catch (error) {
      failed(error);
    }
  });
  $("alarms-again").addEventListener("click", () => show(search).catch(failed));
}

async function show(search) {
  const { watched, alarms } = await getJson(`alarms?last=${LAST}`);
  $("alarms-none").hidden = alarms.length > 0;
  $("alarms-none").textContent = t(watched ? "alarmsNone" : "alarmsUnused");
  $("alarms-list").replaceChildren(...alarms.map((alarm) => {
    const button = make("button", { type: "button", className: "small", textContent: t("alarmSearch") });
    button.addEventListener("click", () => {
      $("alarms").close();
      search(alarm.row);
    });
    const facts = [`${alarm.camera} · ${clock(alarm.time_s)}`, alarm.purpose,
      t("alarmScore", { similarity: alarm.similarity.toFixed(3), threshold: alarm.threshold.toFixed(3) })];
    if (alarm.waiting.length) facts.push(t("alarmWaiting", { channels: alarm.waiting.join(", ") }));
    const text = make("div", { className: "facts" }, make("h3", { textContent: alarm.person }), ...facts.map((line) => make("p", { textContent: line })), button);
    return make("li", { className: "alarm" }, make("div", { className: "shot" }, shot(alarm.row, t("alarmPicture", { person: alarm.person }))), text);
  }));
}
