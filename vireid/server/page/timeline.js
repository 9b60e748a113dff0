// When and where: a lane for each camera, a point for each hit. The same facts stand in the list, which keys reach;
// this picture is for eyes and pointers.
import { $, drawn } from "./base.js";
import { clock, count, t } from "./format.js";

const LANE = 24, LEFT = 110, RIGHT = 16, TOP = 8, BOTTOM = 26, MAX_LANES = 12;
const STEPS = [60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 7776000, 31536000];

const inOrder = new Intl.Collator(undefined, { numeric: true }).compare;

/** An empty picture of lanes and times between two moments, with the places of a moment and of a camera in it. */
function frame(plot, cameras, from, until, label) {
  const width = Math.max(320, plot.clientWidth || 640);
  const lanes = cameras.slice(0, MAX_LANES).sort(inOrder);
  const margin = Math.max(30, (until - from) * 0.03);
  const [first, last] = [from - margin, until + margin];
  const room = width - LEFT - RIGHT;
  const x = (seconds) => LEFT + ((seconds - first) / (last - first)) * room;
  const seconds = (at) => first + Math.min(1, Math.max(0, (at - LEFT) / room)) * (last - first);
  const y = (camera) => (lanes.includes(camera) ? TOP + lanes.indexOf(camera) * LANE + LANE / 2 : null);
  const height = TOP + lanes.length * LANE + BOTTOM;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const camera of lanes) {
    const name = camera.length > 15 ? `${camera.slice(0, 14)}…` : camera;
    svg.append(drawn("text", { x: 0, y: y(camera) + 4 }, name), drawn("line", { class: "lane", x1: LEFT, x2: width - RIGHT, y1: y(camera), y2: y(camera) }));
  }
  const ticks = Math.max(2, Math.floor((width - LEFT) / 60));
  const step = STEPS.find((each) => (last - first) / each <= ticks) ?? STEPS.at(-1);
  const shift = new Date(first * 1000).getTimezoneOffset() * 60;
  for (let at = Math.ceil((first - shift) / step) * step + shift; at <= last; at += step) {
    /** @type {Intl.DateTimeFormatOptions} */
    const form = step >= 86400 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit", hour12: false };
    const text = new Intl.DateTimeFormat(document.documentElement.lang, form).format(new Date(at * 1000));
    svg.append(
      drawn("line", { class: "tick", x1: x(at), x2: x(at), y1: TOP, y2: height - BOTTOM }),
      drawn("text", { x: x(at), y: height - 8, "text-anchor": "middle" }, text),
    );
  }
  plot.replaceChildren(svg);
  return { svg, x, y, seconds, width, height };
}

/** Draw hits; `narrow(first, last)` is called with seconds, `open(place)` with the place of a hit in the list. */
export function drawTimeline(hits, { kindOf, narrow, open }) {
  const timed = hits.map((hit, place) => ({ ...hit, place })).filter((hit) => hit.time_s !== null);
  $("timeline").hidden = timed.length < 2;
  if (timed.length < 2) return;
  const times = timed.map((hit) => hit.time_s);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const cameras = [...new Set(timed.map((hit) => hit.camera))].slice(0, MAX_LANES);
  const label = t("timelineLabel", {
    count: count(timed.length), cameras: [...cameras].sort(inOrder).join(", "), first: clock(first), last: clock(last),
  });
  const { svg, x, y, seconds, width, height } = frame($("timeline-plot"), cameras, first, last, label);
  for (const hit of [...timed].reverse()) { // the best are drawn last, on top
    if (y(hit.camera) === null) continue;
    const dot = drawn("circle", {
      class: `dot ${kindOf(hit)}`, r: hit.place < 10 ? 7 : 5, cx: x(hit.time_s), cy: y(hit.camera),
    }, drawn("title", {}, `${hit.place + 1} · ${hit.camera} · ${clock(hit.time_s)}`));
    dot.addEventListener("click", () => open(hit.place));
    svg.append(dot);
  }
  brush(svg, (from, to) => narrow(seconds(from), seconds(to)), width, height);
}

/** Draw visits as bands, and their passages as bars that `open(passage)`; nothing without a visit. */
export function drawSpans(plot, visits, open) {
  plot.hidden = !visits.length;
  if (!visits.length) return;
  const passages = visits.flatMap((visit) => visit.passages);
  const [first, last] = [Math.min(...visits.map((visit) => visit.first_s)), Math.max(...visits.map((visit) => visit.last_s))];
  const cameras = [...new Set(passages.map((passage) => passage.camera))];
  const label = t("visitsLabel", { visits: count(visits.length), passages: count(passages.length), first: clock(first), last: clock(last) });
  const { svg, x, y, height } = frame(plot, cameras, first, last, label);
  visits.forEach((visit, number) => {
    const left = x(visit.first_s) - 6;
    svg.append(drawn("rect", { class: "visit", x: left, y: TOP, width: x(visit.last_s) + 6 - left, height: height - TOP - BOTTOM, rx: 4 },
      drawn("title", {}, `${number + 1} · ${clock(visit.first_s)} – ${clock(visit.last_s)}`)));
  });
  for (const passage of passages) {
    if (y(passage.camera) === null) continue;
    const wide = Math.max(8, x(passage.last_s) - x(passage.first_s));
    const bar = drawn("rect", { class: "dot match", x: (x(passage.first_s) + x(passage.last_s) - wide) / 2, y: y(passage.camera) - 6, width: wide, height: 12, rx: 4 },
      drawn("title", {}, `${passage.camera} · ${clock(passage.first_s)} – ${clock(passage.last_s)}`));
    bar.addEventListener("click", () => open(passage));
    svg.append(bar);
  }
}

function brush(svg, finish, width, height) {
  let start = null, mark = null;
  const at = (event) => ((event.clientX - svg.getBoundingClientRect().left) / svg.getBoundingClientRect().width) * width;
  svg.addEventListener("pointerdown", (event) => {
    if (event.target.classList.contains("dot")) return;
    start = at(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const here = at(event);
    mark ??= svg.appendChild(drawn("rect", { class: "brush", y: TOP, height: height - TOP - BOTTOM }));
    mark.setAttribute("x", Math.max(LEFT, Math.min(start, here)));
    mark.setAttribute("width", Math.max(0, Math.max(start, here) - Math.max(LEFT, Math.min(start, here))));
  });
  svg.addEventListener("pointerup", (event) => {
    const here = at(event);
    if (start !== null && Math.abs(here - start) > 8) finish(Math.min(start, here), Math.max(start, here));
    start = null;
    mark?.remove();
    mark = null;
  });
}
