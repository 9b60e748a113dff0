// What every part of the page uses: elements, the language of the document, what the browser keeps.
import { t, useLanguage } from "./format.js";
import { thumbnail } from "./requests.js";

/** An element of the page, of whatever kind it is. @type {(id: string) => any} */
export const $ = (id) => document.getElementById(id);

/** The first element that a selector names. @type {(selector: string) => any} */
export const first = (selector) => document.querySelector(selector);

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

// --- language and storage ---------------------------------------------------------------------------------------------

export function firstLanguage() {
  const preferred = new URLSearchParams(location.search).get("lang") ?? stored("language") ?? navigator.language;
  return preferred.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** @type {(selector: string) => any[]} */
const everyOf = (selector) => [...document.querySelectorAll(selector)];

export function setLanguage(chosen) {
  useLanguage(chosen);
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  document.title = chosen === "zh" ? "vireid 搜索" : "vireid search";
  for (const element of everyOf("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of everyOf("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  const other = chosen === "zh" ? "en" : "zh";
  $("language").textContent = other === "zh" ? "中文" : "English";
  $("language").lang = other;
}

export function stored(key, place) {
  try {
    return (place ?? localStorage).getItem(`vireid-${key}`);
  } catch {
    return null; // storage may be switched off
  }
}

export function store(key, value, place) {
  try {
    (place ?? localStorage).setItem(`vireid-${key}`, value);
  } catch {
    // it lasts as long as the page then
  }
}

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

/** A row's picture, or a word where it is gone. */
export function shot(id, alt = "") {
  const picture = make("img", { src: thumbnail(id), alt, className: "thumb", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(make("span", { className: "gone", textContent: "—" })));
  return picture;
}
