// Words, numbers and times in the language of the page; nothing here needs a document.
import { WORDS } from "./words.js";

let language = "en";

export const currentLanguage = () => language;
export const locale = () => (language === "zh" ? "zh-CN" : "en-GB");

export function t(key, values = {}) {
  return (WORDS[language][key] ?? key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

export const useLanguage = (chosen) => (language = chosen);

export const count = (value) => new Intl.NumberFormat(locale()).format(value);
export const percent = (value) => {
  const shown = value * 100;
  const digits = shown >= 1 && shown < 99 ? 0 : 1;
  if (shown > 99.9 && shown < 100) return ">99.9 %";
  if (shown > 0 && shown < 0.1) return "<0.1 %";
  return `${shown.toFixed(digits)} %`;
};

export function clock(seconds, withDay = true) {
  if (seconds === null || seconds === undefined) return t("unknownTime");
  /** @type {Intl.DateTimeFormatOptions} */
  const form = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  if (withDay) Object.assign(form, { day: "numeric", month: "short" });
  return new Intl.DateTimeFormat(locale(), form).format(new Date(seconds * 1000));
}

/** The day of a moment in Unix seconds. */
export function day(seconds) {
  return new Intl.DateTimeFormat(locale(), { weekday: "short", day: "numeric", month: "short", year: "numeric" }).format(new Date(seconds * 1000));
}

/** From when until when, in Unix seconds; the day of the end is left out where it is that of the beginning. */
export function span({ first_s: first, last_s: last }) {
  if (first === null || last - first < 1) return clock(first);
  const sameDay = new Date(first * 1000).toDateString() === new Date(last * 1000).toDateString();
  return `${clock(first)} – ${clock(last, !sameDay)}`;
}

/** Unix seconds to and from the value of a datetime-local field. */
export function toField(seconds) {
  const at = new Date(seconds * 1000);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

export const fromField = (value) => (value ? new Date(value).getTime() / 1000 : null);

/** How many chances one is among: 1000 of 0.001. */
export const many = (rate) => Math.round(1 / rate);
