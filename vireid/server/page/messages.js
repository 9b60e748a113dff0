// What the page tells its user, and what is chosen and shown in it.
import { $, first } from "./base.js";
import { Refused } from "./requests.js";

export const radio = (name) => first(`input[name=${name}]:checked`).value;
export const cards = () => [...$("hits").querySelectorAll(".hit")];

export function problem(text, field) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
  field?.focus();
}

export const say = (text) => ($("status").textContent = text);

/** Show what a request failed with; one that a newer search replaced did not fail. */
export function failed(error) {
  if (error.name === "AbortError") return;
  say("");
  if (error instanceof Refused && error.status === 401) return $("sign-in").showModal();
  problem(error.message);
}
