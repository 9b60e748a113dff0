// What every part of the page uses: elements, words in two languages, numbers and times, requests.
import { WORDS } from "/page/words.js";

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (data-, aria-, for, ...) and children; texts are never read as HTML. */
export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (key in element && !key.includes("-")) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function drawn(tag, given = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(given)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export const icon = (name) => drawn("svg", { class: "icon", "aria-hidden": "true" }, drawn("use", { href: `#i-${name}` }));

// --- words -----------------------------------------------------------------------------------------------------------

let language = "en";

export const currentLanguage = () => language;
export const locale = () => (language === "zh" ? "zh-CN" : "en-GB");

export function t(key, values = {}) {
  return (WORDS[language][key] ?? key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

export function firstLanguage() {
  const preferred = new URLSearchParams(location.search).get("lang") ?? stored("language") ?? navigator.language;
  return preferred.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export function setLanguage(chosen) {
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  document.title = chosen === "zh" ? "vireid 搜索" : "vireid search";
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  const other = chosen === "zh" ? "en" : "zh";
  $("language").textContent = other === "zh" ? "中文" : "English";
  $("language").lang = other;
}

export function stored(key) {
  try {
    return localStorage.getItem(`vireid-${key}`);
  } catch {
    return null; // storage may be switched off
  }
}

export function store(key, value) {
  try {
    localStorage.setItem(`vireid-${key}`, value);
  } catch {
    // the choice lasts as long as the page then
  }
}

// --- numbers and times -----------------------------------------------------------------------------------------------

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
  const form = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  if (withDay) Object.assign(form, { day: "numeric", month: "short" });
  return new Intl.DateTimeFormat(locale(), form).format(new Date(seconds * 1000));
}

/** Unix seconds to and from the value of a datetime-local field. */
export function toField(seconds) {
  const at = new Date(seconds * 1000);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

export const fromField = (value) => (value ? new Date(value).getTime() / 1000 : null);

// --- requests --------------------------------------------------------------------------------------------------------

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, t("offline"));
  }
  if (answer.ok) return answer;
  let message = `${answer.status} ${answer.statusText}`;
  try {
    message = (await answer.json()).error ?? message;
  } catch {
    // no JSON: a proxy in between answered
  }
  throw new Refused(answer.status, message);
}

export const getJson = async (path, options) => (await request(path, options)).json();
export const postJson = (path, body) =>
  getJson(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

// --- files -----------------------------------------------------------------------------------------------------------

const BEGINNINGS = ["\xff\xd8\xff", "\x89PNG", "BM", "II", "MM", "GIF8", "P1", "P2", "P3", "P4", "P5", "P6"];
const BRANDS = ["avif", "avis", "heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"];

/** Whether a file begins as one of the kinds of pictures that the server reads; it looks closer. */
export async function beginsAsPicture(file) {
  const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 12).arrayBuffer()));
  if (head.startsWith("RIFF")) return head.endsWith("WEBP");
  if (head.slice(4, 8) === "ftyp") return BRANDS.includes(head.slice(8));
  return BEGINNINGS.some((one) => head.startsWith(one));
}

export const thumbnail = (id) => `/api/thumbnail?id=${encodeURIComponent(id)}`;

/** A row's picture, or a word where it is gone. */
export function shot(id, alt = "") {
  const picture = make("img", { src: thumbnail(id), alt, className: "thumb", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(make("span", { className: "gone", textContent: "—" })));
  return picture;
}
