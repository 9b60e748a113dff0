// When and where: a lane for each camera, a point for each hit. The same facts stand in the list, which keys reach;
// this picture is for eyes and pointers.
import { $, clock, count, drawn, t } from "/page/base.js";

const LANE = 24, LEFT = 110, RIGHT = 16, TOP = 8, BOTTOM = 26, MAX_LANES = 12;
const STEPS = [60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 7776000, 31536000];

/** Draw hits; `narrow(first, last)` is called with seconds, `open(place)` with the place of a hit in the list. */
export function drawTimeline(hits, { kindOf, narrow, open }) {
  const timed = hits.map((hit, place) => ({ ...hit, place })).filter((hit) => hit.time_s !== null);
  $("timeline").hidden = timed.length < 2;
  if (timed.length < 2) return;
  const plot = $("timeline-plot");
  const width = Math.max(320, plot.clientWidth || 640);
  const lanes = [...new Set(timed.map((hit) => hit.camera))].slice(0, MAX_LANES);
  lanes.sort(new Intl.Collator(undefined, { numeric: true }).compare);
  const times = timed.map((hit) => hit.time_s);
  let [first, last] = [Math.min(...times), Math.max(...times)];
  const margin = Math.max(30, (last - first) * 0.03);
  [first, last] = [first - margin, last + margin];
  const x = (seconds) => LEFT + ((seconds - first) / (last - first)) * (width - LEFT - RIGHT);
  const seconds = (at) => first + (Math.min(1, Math.max(0, (at - LEFT) / (width - LEFT - RIGHT)))) * (last - first);
  const height = TOP + lanes.length * LANE + BOTTOM;
  const label = t("timelineLabel", {
    count: count(timed.length), cameras: lanes.join(", "), first: clock(Math.min(...times)), last: clock(Math.max(...times)),
  });
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });

  lanes.forEach((camera, lane) => {
    const y = TOP + lane * LANE + LANE / 2;
    const name = camera.length > 15 ? `${camera.slice(0, 14)}…` : camera;
    svg.append(drawn("text", { x: 0, y: y + 4 }, name), drawn("line", { class: "lane", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
  });
  const room = Math.max(2, Math.floor((width - LEFT) / 60));
  const step = STEPS.find((each) => (last - first) / each <= room) ?? STEPS.at(-1);
  const shift = new Date(first * 1000).getTimezoneOffset() * 60;
  for (let at = Math.ceil((first - shift) / step) * step + shift; at <= last; at += step) {
    const form = step >= 86400 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit", hour12: false };
    const text = new Intl.DateTimeFormat(document.documentElement.lang, form).format(new Date(at * 1000));
    svg.append(
      drawn("line", { class: "tick", x1: x(at), x2: x(at), y1: TOP, y2: height - BOTTOM }),
      drawn("text", { x: x(at), y: height - 8, "text-anchor": "middle" }, text),
    );
  }
  for (const hit of [...timed].reverse()) { // the best are drawn last, on top
    const lane = lanes.indexOf(hit.camera);
    if (lane < 0) continue;
    const dot = drawn("circle", {
      class: `dot ${kindOf(hit)}`, r: hit.place < 10 ? 7 : 5, cx: x(hit.time_s), cy: TOP + lane * LANE + LANE / 2,
    }, drawn("title", {}, `${hit.place + 1} · ${hit.camera} · ${clock(hit.time_s)}`));
    dot.addEventListener("click", () => open(hit.place));
    svg.append(dot);
  }
  brush(svg, (from, to) => narrow(seconds(from), seconds(to)), width, height);
  plot.replaceChildren(svg);
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
