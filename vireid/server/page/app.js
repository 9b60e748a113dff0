// The search page: the parts are put together here, and listen.
import { clearAddress, keepCaseInAddress, keepInAddress, readAddress, readHash } from "./address.js";
import { prepareManage } from "./archive.js";
import { $, first, firstLanguage, setLanguage, store } from "./base.js";
import { prepareBox } from "./box.js";
import { hideCase, prepareCases, prepareExport, restore, restoreCase } from "./cases.js";
import { openDetail, prepareDetail, showDetail, shown } from "./detail.js";
import { prepareErase } from "./erase.js";
import { filterCameras, noteRate, showAbout, showOwnPrior, showRates } from "./form.js";
import { currentLanguage, t } from "./format.js";
import { prepareLive } from "./live.js";
import { cards, failed, problem, say } from "./messages.js";
import { preparePicker } from "./picker.js";
import { addFiles, addLike, clearPictures, forgetAnswerMarks, setPictures, showPictures } from "./pictures.js";
import { getJson, request } from "./requests.js";
import { prepareResults, showAnswer, timeline, toggleHeat } from "./results.js";
import { more, prepareSearch, search, stop } from "./search.js";
import { state } from "./state.js";
import { hideVisits, prepareVisits, showVisits } from "./visits.js";

async function begin() {
  setLanguage(firstLanguage());
  prepareBox();
  prepareManage(loadAbout);
  prepareResults({ open: openDetail, search, changed: () => $("detail").open && showDetail() });
  prepareSearch(() => {
    hideVisits();
    hideCase();
    keepInAddress();
  });
  prepareDetail(searchLike);
  prepareErase(shown, withoutRows);
  prepareVisits((hits, place) => openDetail(place, hits));
  prepareCases(openCase);
  prepareExport();
  prepareLive(searchAlone);
  preparePicker((id) => {
    forgetAnswerMarks();
    addLike(id);
  });
  listenToQuery();
  listenToAnswer();
  listenToPage();
  await openAddress();
}

async function loadAbout() {
  try {
    state.about = await getJson("about");
  } catch (error) {
    if (error.status === 401) $("sign-in").showModal();
    else if (state.gallery && [403, 404].includes(error.status)) await leaveGallery(error.message);
    else problem(error.message);
    return false;
  }
  if (!state.about.cameras) {
    problem(t("ingestOnly"));
    return false;
  }
  showAbout(tryExample);
  return true;
}

/** The gallery that an address names is not there, or not for this caller: show the first one, and why. */
async function leaveGallery(message) {
  state.gallery = "";
  clearAddress();
  await loadAbout();
  problem(message);
}

/** Open the gallery of the address, and in it what the address holds: a case, a search, or else the first example. */
async function openAddress() {
  const { gallery } = readHash(location.hash);
  if (!state.about?.cameras || gallery !== state.gallery) {
    state.gallery = gallery;
    if (!(await loadAbout())) return;
  }
  const at = readAddress();
  if (at?.caseId) return openCase(at.caseId);
  if (!at) return state.about.examples.length && !state.about.purpose ? tryExample(0) : undefined;
  if (at.cut || !(await restored(at))) return problem(t("addressCut"));
  if (at.missing) problem(t("picturesMissing"));
  else await search({ withMarks: state.marks.size > 0 });
}

/** Fill the form with the search of an address; false where somebody changed it into what no form holds. */
async function restored(at) {
  try {
    await restore(at.body, at.files);
    return true;
  } catch {
    clear();
    return false;
  }
}

/** Search another gallery: its cameras are others, and rows of the one before are not known in it. */
async function chooseGallery() {
  const pictures = state.pictures.filter((one) => one.file).map((one) => ({ ...one })); // setPictures makes new addresses of them
  const searched = state.answer !== null;
  state.gallery = $("gallery").value;
  clear();
  $("gallery").focus();
  $("rate").value = ""; // what is usual depends on the calibration
  if (!(await loadAbout())) return;
  await setPictures(pictures);
  if (searched && pictures.length) await search();
}

async function openCase(id) {
  try {
    const show = await restoreCase(id);
    await search({ withMarks: state.marks.size > 0 });
    show();
    keepCaseInAddress(id);
  } catch (error) {
    failed(error);
  }
}

async function tryExample(number) {
  const example = state.about.examples[number];
  const blob = await (await request(`examples/${number}`)).blob();
  clearPictures();
  await addFiles([new File([blob], "example.jpg", { type: "image/jpeg" })], { crops: true });
  first(`input[name=modality][value="${example.modality}"]`).checked = true;
  first(`input[name=in][value="${example.within}"]`).checked = true;
  await search();
}

/** Show the archive without rows that were deleted; those that the query held go from it. */
async function withoutRows(ids) {
  for (const id of ids) state.marks.delete(id);
  state.pictures = state.pictures.filter((one) => !ids.has(one.like));
  showPictures();
  await loadAbout();
  if (state.pictures.length) await search({ withMarks: state.marks.size > 0 });
  else clear();
}

function searchLike(id) {
  addLike(id);
  search();
}

function searchAlone(id) {
  clearPictures();
  searchLike(id);
}

function clear() {
  stop();
  $("query").reset();
  clearPictures();
  delete $("rate").dataset.touched;
  showRates();
  showOwnPrior();
  filterCameras();
  problem("");
  say("");
  state.answer = state.sent = null;
  hideVisits();
  hideCase();
  clearAddress();
  $("found").hidden = true;
  $("welcome").hidden = false;
  $("file").focus();
}

function listenToQuery() {
  $("file").addEventListener("change", async () => {
    await addFiles([...$("file").files]);
    $("file").value = "";
  });
  const drop = $("drop");
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    addFiles([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (files.length) addFiles(files);
  });
  $("camera-word").addEventListener("input", filterCameras);
  $("rate").addEventListener("change", () => {
    $("rate").dataset.touched = "yes";
    noteRate();
  });
  $("prior").addEventListener("change", showOwnPrior);
  $("query").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  $("clear").addEventListener("click", clear);
}

function listenToAnswer() {
  $("more").addEventListener("click", more);
  $("stop").addEventListener("click", stop);
  $("again").addEventListener("click", () => search({ withMarks: true }));
  $("attention").addEventListener("click", toggleHeat);
  $("answer").addEventListener("keydown", (event) => {
    if (event.target !== $("answer") || !["ArrowRight", "ArrowDown"].includes(event.key) || !cards().length) return;
    event.preventDefault();
    cards()[0].querySelector(".open").focus();
  });
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (state.answer && window.innerWidth !== width) {
      timeline();
      showVisits();
    }
    width = window.innerWidth;
  });
}

function listenToPage() {
  $("language").addEventListener("click", () => {
    setLanguage(currentLanguage() === "zh" ? "en" : "zh");
    store("language", currentLanguage());
    showAbout(tryExample);
    showPictures();
    showAnswer();
    showVisits();
  });
  $("gallery").addEventListener("change", chooseGallery);
  $("open-help").addEventListener("click", () => $("help").showModal());
  for (const button of document.querySelectorAll("dialog .close")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  $("sign-in").addEventListener("cancel", (event) => event.preventDefault());
  $("sign-in-form").addEventListener("submit", signIn);
  $("sign-out").addEventListener("click", async () => {
    await request("session", { method: "DELETE" });
    location.reload();
  });
  document.addEventListener("keydown", (event) => {
    const typing = /** @type {Element} */ (event.target).matches("input:not([type=radio], [type=checkbox], [type=file]), select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || (document.querySelector("dialog[open]") && event.key !== "a")) return;
    if (event.key === "/") {
      event.preventDefault();
      $("file").focus();
    } else if (event.key === "?") $("help").showModal();
    else if (event.key === "a" && state.answer && !$("help").open) toggleHeat();
  });
  window.addEventListener("hashchange", openAddress);
}

async function signIn(event) {
  event.preventDefault();
  const headers = { authorization: `Bearer ${$("token").value.trim()}` };
  try {
    await request("session", { method: "POST", headers });
  } catch (error) {
    $("sign-in-said").textContent = error.status === 401 ? t("signInWrong") : error.message;
    $("token").focus();
    return;
  }
  $("token").value = $("sign-in-said").textContent = "";
  $("sign-in").close();
  await openAddress();
}

begin();
