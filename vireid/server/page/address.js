// The search in the address of the page: reloading repeats it, and a colleague who opens the address sees it too.
// Behind the # stands what was searched for, which browsers do not send to the server. Pictures are not part of it: this
// tab keeps them until it is closed, and a case keeps them for others.
import { store, stored } from "./base.js";
import { state } from "./state.js";

const KEY = "query";
const DEFAULTS = { modality: "auto", combine: "mean", per_track: false, prior: "searched", purpose: "" };

/** What of a request differs from a plain search. */
export function brief(body) {
  const used = Object.entries(body).filter(([key, value]) => {
    if (value === null || value === DEFAULTS[key]) return false;
    return !(typeof value === "object" && !Object.keys(value).length);
  });
  return Object.fromEntries(used);
}

/** What stands behind the # for a gallery, and a case or a search in it; "" for nothing. */
export function writeHash({ gallery = "", caseId = "", search = null }) {
  const parts = [];
  if (gallery) parts.push(`gallery=${encodeURIComponent(gallery)}`);
  if (caseId) parts.push(`case=${encodeURIComponent(caseId)}`);
  if (search) parts.push(`search=${encodeURIComponent(JSON.stringify(search))}`);
  return parts.length ? `#${parts.join("&")}` : "";
}

/** The opposite of writeHash; `cut` says that an address holds a search that cannot be read. */
export function readHash(hash) {
  const at = new URLSearchParams(hash.slice(1));
  const text = at.get("search");
  let search = null;
  try {
    search = JSON.parse(text ?? "null");
  } catch {
    // cut off
  }
  if (typeof search !== "object" || Array.isArray(search)) search = null;
  return { gallery: at.get("gallery") ?? "", caseId: at.get("case") ?? "", search, cut: text !== null && search === null };
}

const put = (what) => history.replaceState(null, "", location.pathname + location.search + writeHash({ gallery: state.gallery, ...what }));

/** Put the search that was sent last into the address, and its pictures into this tab. */
export async function keepInAddress() {
  const { body, files } = state.sent;
  const search = { ...brief(body), files: files.length, query: state.answer.query };
  put({ search });
  if (!files.length) return;
  const pictures = await Promise.all(files.map(async (file) => ({ name: file.name, type: file.type, data: await dataUrl(file) })));
  if (state.sent?.files === files) store(KEY, JSON.stringify({ query: search.query, pictures }), tab());
}

export const keepCaseInAddress = (caseId) => put({ caseId });

/** Leave nothing but the gallery in the address. */
export function clearAddress() {
  put({});
  store(KEY, "null", tab());
}

/** What lasts as long as this tab; undefined where the browser keeps nothing. */
function tab() {
  try {
    return window.sessionStorage;
  } catch {
    return { getItem: () => null, setItem: () => {} };
  }
}

const kept = () => stored(KEY, tab());

/** {caseId}, or {body, files, missing} of a search, or {cut}, or null where the address holds none. */
export function readAddress() {
  const { caseId, search, cut } = readHash(location.hash);
  if (caseId) return { caseId };
  if (!search) return cut ? { cut } : null;
  const { files: count = 0, query, ...body } = search;
  const last = count ? JSON.parse(kept() ?? "null") : null;
  const there = last !== null && last.query === query && last.pictures.length === count;
  const files = there ? last.pictures.map(fileOf) : [];
  return { body, files, missing: count - files.length };
}

function fileOf({ name, type, data }) {
  const bytes = Uint8Array.from(atob(data.slice(data.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  return new File([bytes], name, { type });
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
