// What a deletion removed, and what still holds the people: for the dialogs that delete.
import { make } from "./base.js";
import { count, t } from "./format.js";

const COUNTS = ["rows", "thumbnails", "marks", "alarms", "cases_deleted", "cases_changed"];
const NAMES = ["recordings", "cases_left"];

/** One answer of several of `forget`. */
export function sumOf(answers) {
  const sums = COUNTS.map((name) => [name, answers.reduce((sum, one) => sum + one[name], 0)]);
  const names = NAMES.map((name) => [name, [...new Set(answers.flatMap((one) => one[name]))]]);
  return Object.fromEntries([...sums, ...names]);
}

/** Say in an element what is gone, and name the files and cases from which the people could come again. */
export function showForgotten(place, gone) {
  const counts = Object.fromEntries(COUNTS.map((name) => [name, count(gone[name])]));
  const lines = [make("p", {}, make("strong", { textContent: t("forgotten", counts) }))];
  if (gone.cases_changed) lines.push(make("p", { textContent: t("casesChanged", counts) }));
  lines.push(...named(gone.recordings, "stillFiles", "stillNoFile"), ...named(gone.cases_left, "stillCases"));
  place.replaceChildren(...lines);
}

function named(names, key, none) {
  if (!names.length) return none ? [make("p", { textContent: t(none) })] : [];
  return [make("p", { textContent: t(key) }), make("ul", { className: "files" }, ...names.map((name) => make("li", { textContent: name })))];
}
