// Drawings: pure functions from data to SVG elements. All text goes in as text nodes.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; strings become text nodes, null is left out. */
export function el(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

function build(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 1234 -> 1,234; 123456 -> 123.5K. */
export const count = (number) => (Math.abs(number) < 10000 ? whole : short).format(Math.round(number));

/** With its sign, as Elo differences are written. */
export const signed = (number) => (number > 0 ? "+" : number < 0 ? "−" : "±") + Math.abs(Math.round(number));

const title = (text) => svg("title", {}, text);

// ---------------------------------------------------------------- the loop

/** The steps, clockwise from the top; `kinds` are the jobs that work on them. */
export const STEPS = [
  { stage: "selfplay", label: "Self-play", kinds: ["selfplay"], icon: "M-5 -7 L7 0 L-5 7 Z" },
  { stage: "consolidation", label: "Check", kinds: ["check"], icon: "M-7 0 L-2 6 L8 -6" },
  { stage: "export", label: "Samples", kinds: ["export"], icon: "M-7 -7 h5 v5 h-5 Z M2 -7 h5 v5 h-5 Z M-7 2 h5 v5 h-5 Z M2 2 h5 v5 h-5 Z" },
  { stage: "combination", label: "Window", kinds: ["combine"], icon: "M-8 -3 L0 -8 L8 -3 L0 2 Z M-8 2 L0 7 L8 2" },
  { stage: "training", label: "Train", kinds: ["train", "seed"], icon: "M-8 6 C-3 6 -4 -6 0 -6 C4 -6 3 3 8 3" },
  { stage: "evaluation", label: "Gauntlet", kinds: ["gauntlet"], icon: "M-7 -7 L7 7 M7 -7 L-7 7 M-8 3 L-3 8 M8 3 L3 8" },
  { stage: "promotion", label: "Verdict", kinds: [], icon: "M0 -8 V8 M-7 -5 H7 M-7 -5 L-10 3 H-4 Z M7 -5 L4 3 H10 Z" },
  { stage: "distribution", label: "Hand out", kinds: [], icon: "M-7 4 V8 H7 V4 M0 -8 V3 M-5 -2 L0 3 L5 -2" },
];

/**
 * The ring of one config.
 * @param loop   the config's section
 * @param works  the work in hand of this config
 * @param counts what went over the arrow after each step, one text each
 */
export function ring(loop, works, counts) {
  const [cx, cy, radius, body] = [220, 216, 146, 25];
  const at = (step, r = radius) => {
    const angle = (step / STEPS.length) * 2 * Math.PI - Math.PI / 2;
    return [cx + r * Math.cos(angle), cy + r * Math.sin(angle)];
  };
  const gap = (body + 7) / radius;
  const now = STEPS.findIndex((step) => step.stage === loop.stage);
  const busy = STEPS.map((step) => works.filter((work) => work.pid && step.kinds.includes(work.kind)));
  const waiting = [
    loop.works.selfplay.queued, loop.waiting.unchecked_batches, loop.waiting.unexported_batches,
    loop.waiting.uncombined_samples, loop.works.train.queued, loop.works.gauntlet.queued,
    loop.waiting.unjudged ? 1 : 0, 0,
  ];
  const parts = [];
  STEPS.forEach((step, index) => {
    const from = (index / STEPS.length) * 2 * Math.PI - Math.PI / 2 + gap;
    const to = ((index + 1) / STEPS.length) * 2 * Math.PI - Math.PI / 2 - gap;
    const point = (angle) => `${(cx + radius * Math.cos(angle)).toFixed(1)} ${(cy + radius * Math.sin(angle)).toFixed(1)}`;
    const arc = `M${point(from)} A${radius} ${radius} 0 0 1 ${point(to)}`;
    const flows = busy[index].length > 0;
    parts.push(svg("path", { d: arc, class: "track" }));
    if (flows) parts.push(svg("path", { d: arc, class: "flow" }));
    const turn = (to * 180) / Math.PI + 90;
    parts.push(svg("path", { d: "M-7 -6 L5 0 L-7 6 Z", class: flows ? "tip on" : "tip", transform: `translate(${point(to)}) rotate(${turn})` }));
    if (counts[index]) {
      const [x, y] = at(index + 0.5, 101);
      parts.push(svg("text", { x, y: y + 4, class: "count" }, counts[index]));
    }
  });
  STEPS.forEach((step, index) => {
    const [x, y] = at(index);
    const works = busy[index];
    const names = ["node", works.length ? "work" : "", index === now ? "stage" : ""].join(" ");
    const total = works.reduce((sum, work) => sum + work.total, 0);
    const done = total ? works.reduce((sum, work) => sum + work.done, 0) / total : 0;
    const said = `${step.label}: ${index === now ? "the loop stands here" : works.length ? "at work" : "nothing in hand"}`
      + (total ? `, ${Math.round(done * 100)} % done` : "") + (waiting[index] ? `, ${waiting[index]} waiting` : "");
    const side = Math.cos((index / STEPS.length) * 2 * Math.PI - Math.PI / 2);
    const anchor = side > 0.3 ? "start" : side < -0.3 ? "end" : "middle";
    // Left and right of the ring is no room for a word: there it stands below its step.
    const [lx, ly] = Math.abs(side) > 0.9 ? [x + side * 3, y + body + 15] : at(index, radius + body + 13);
    const round = 2 * Math.PI * (body + 2);
    parts.push(svg("g", { class: names },
      title(said),
      index === now ? svg("circle", { class: "halo", cx: x, cy: y, r: body + 8 }) : null,
      svg("circle", { class: "body", cx: x, cy: y, r: body }),
      total ? svg("circle", {
        class: "done", cx: x, cy: y, r: body + 2, transform: `rotate(-90 ${x} ${y})`,
        "stroke-dasharray": `${(round * Math.min(done, 1)).toFixed(1)} ${round.toFixed(1)}`,
      }) : null,
      svg("path", { d: step.icon, transform: `translate(${x} ${y})` }),
      svg("text", { class: "label", x: lx, y: ly + 5, "text-anchor": anchor, "data-anchor": anchor }, step.label),
      waiting[index] ? svg("g", { class: "badge" },
        svg("circle", { cx: x + 19, cy: y - 19, r: 10 }),
        svg("text", { x: x + 19, y: y - 15.5 }, waiting[index] > 99 ? "99+" : waiting[index])) : null,
    ));
  });
  const hub = loop.champion
    ? ["champion", `m${String(loop.champion.generation).padStart(4, "0")}`, loop.champion.generation === 0 ? "random weights" : `generation ${loop.champion.generation}`]
    : ["no model yet", "–", "the first is on its way"];
  hub.forEach((text, index) => parts.push(svg("text", { class: `hub${index + 1}`, x: cx, y: cy + [-22, 8, 30][index] }, text)));
  const stage = now < 0 ? "nothing has begun" : `the loop stands at ${STEPS[now].label}`;
  return svg("svg", { viewBox: "4 4 432 428", class: "ring", role: "img", "aria-label": `${loop.config}: ${stage}, ${hub[0]} ${hub[1]}` }, parts);
}

// ---------------------------------------------------------------- the board

const BOARDS = {
  hex8: { hex: 4 }, hexagonal: { hex: 12 }, square8: { side: 8 }, square19: { side: 19 },
};

/** A position on its board. */
export function board(view) {
  const shape = BOARDS[view.config.split("_")[0]];
  const unit = 24;
  const places = [];
  if (shape.hex) {
    for (let x = -shape.hex; x <= shape.hex; x++)
      for (let y = -shape.hex; y <= shape.hex; y++) if (Math.abs(x + y) <= shape.hex) places.push([x, y]);
  } else {
    for (let x = 0; x < shape.side; x++) for (let y = 0; y < shape.side; y++) places.push([x, y]);
  }
  const where = ([x, y]) => (shape.hex ? [unit * Math.sqrt(3) * (x + y / 2), unit * 1.5 * y] : [unit * 1.75 * x, unit * 1.75 * y]);
  const corners = shape.hex
    ? [...Array(6).keys()].map((k) => [unit * Math.sin((k * Math.PI) / 3), unit * Math.cos((k * Math.PI) / 3)])
    : [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => [x * unit * 0.875, y * unit * 0.875]);
  const outline = (scale) => corners.map(([x, y]) => `${(x * scale).toFixed(1)},${(y * scale).toFixed(1)}`).join(" ");
  const [cell, inner] = [outline(0.97), outline(0.74)];
  const parts = places.map((place) => svg("polygon", { class: "cell", points: cell, transform: move(where(place)) }));
  const cells = [...view.cells].sort((a, b) => where(a.at)[1] - where(b.at)[1]);
  for (const thing of cells) {
    const to = move(where(thing.at));
    if (thing.collapsed) {
      parts.push(svg("g", { class: `seat${thing.collapsed}`, transform: to }, title(`territory of player ${thing.collapsed}`),
        svg("polygon", { class: "land", points: cell }), svg("polygon", { class: "land-mark", points: inner })));
    } else if (thing.marker) {
      parts.push(svg("g", { class: `seat${thing.marker}`, transform: to }, title(`marker of player ${thing.marker}`),
        svg("circle", { class: "marker", r: unit * 0.3 })));
    } else if (thing.stack) {
      parts.push(stack(thing.stack, to, unit));
    }
  }
  parts.push(...trace(view.last_move, where, unit));
  const xs = places.map((place) => where(place)[0]);
  const ys = places.map((place) => where(place)[1]);
  const pad = unit * 1.15;
  const [left, top] = [Math.min(...xs) - pad, Math.min(...ys) - pad];
  const box = [left, top, Math.max(...xs) + pad - left, Math.max(...ys) + pad - top].map((n) => n.toFixed(1)).join(" ");
  const stacks = view.cells.filter((thing) => thing.stack).length;
  return svg("svg", { viewBox: box, class: "board", role: "img", "aria-label": `Board of ${view.config} after ${view.move_number} moves: ${stacks} stacks` }, parts);
}

const move = ([x, y]) => `translate(${x.toFixed(1)} ${y.toFixed(1)})`;

/** Rings from the bottom up, each in its player's colour, the height on the cap. */
function stack(rings, transform, unit) {
  const cap = rings.findIndex((seat) => seat !== rings[0]);
  const capHeight = cap < 0 ? rings.length : cap;
  const shown = rings.slice(0, 7).reverse();
  const lift = 3.1;
  const parts = [title(`stack of ${rings.length}, cap ${capHeight}, controlled by player ${rings[0]}`)];
  shown.forEach((seat, level) => parts.push(svg("g", { class: `seat${seat}` },
    svg("ellipse", { class: "disc", cy: (shown.length - 1) * lift * 0.5 - level * lift, rx: unit * 0.62, ry: unit * 0.5 }))));
  const top = (shown.length - 1) * lift * 0.5 - (shown.length - 1) * lift;
  parts.push(svg("g", { class: `seat${rings[0]}` },
    svg("ellipse", { class: "hole", cy: top, rx: unit * 0.34, ry: unit * 0.27 }),
    svg("text", { class: "height", y: top + 0.5 }, rings.length)));
  return svg("g", { transform }, parts);
}

function trace(last, where, unit) {
  if (!last || !last.to) return [];
  const [x, y] = where(last.to);
  const parts = [svg("circle", { class: "target", cx: x, cy: y, r: unit * 0.78 })];
  if (last.from) {
    const [x0, y0] = where(last.from);
    const angle = Math.atan2(y - y0, x - x0);
    const end = [x - Math.cos(angle) * unit * 0.82, y - Math.sin(angle) * unit * 0.82];
    parts.push(svg("path", { class: "trace", d: `M${x0} ${y0} L${end[0]} ${end[1]}` }));
    parts.push(svg("path", { class: "trace-tip", d: "M2 0 L-8 -5 L-8 5 Z", transform: `${move(end)} rotate(${(angle * 180) / Math.PI})` }));
  }
  return parts;
}

// ---------------------------------------------------------------- charts

/** A round number not below `value`. */
function roof(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/**
 * Bars per minute over the last hour, the configs one upon the other.
 * @param series [{minutes: [{at_ms, ...}]}], tinted in order
 * @param width  of the place it is drawn in, so that its text has the size of other text
 */
export function bars(series, key, nowMs, label, width) {
  const [height, bottom, left] = [130, 18, 38];
  const last = Math.floor(nowMs / 60000);
  const columns = [...Array(60).keys()].map((index) => {
    const minute = last - 59 + index;
    return series.map((one) => one.minutes.find((at) => Math.floor(at.at_ms / 60000) === minute)?.[key] ?? 0);
  });
  const top = roof(Math.max(1, ...columns.map((column) => column.reduce((a, b) => a + b, 0))));
  const scale = (height - bottom - 8) / top;
  const step = (width - left) / 60;
  const parts = [0, 0.5, 1].map((share) => {
    const y = height - bottom - share * top * scale;
    return [svg("line", { class: "grid", x1: left, x2: width, y1: y, y2: y }), svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, count(share * top))];
  }).flat();
  columns.forEach((column, index) => {
    let base = height - bottom;
    column.forEach((value, which) => {
      if (!value) return;
      base -= value * scale;
      parts.push(svg("g", { class: `tint${which % 4}` }, svg("rect", { x: left + index * step + 0.8, y: base, width: step - 1.6, height: value * scale, rx: 1.5 },
        title(`${value} ${label} of ${series[which].config}, ${59 - index} min ago`))));
    });
  });
  parts.push(svg("text", { x: left, y: height - 3 }, "60 min ago"), svg("text", { x: width, y: height - 3, "text-anchor": "end" }, "now"));
  const sum = columns.flat().reduce((a, b) => a + b, 0);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": `${sum} ${label} in the last hour` }, parts);
}

/** Elo by generation with 95 % intervals; the champions are joined. A point that is chosen is handed to `choose`. */
export function curve(config, rated, tint, width, choose) {
  const [height, left, bottom, right, top] = [Math.min(260, width * 0.6), 44, 26, 16, 14];
  const points = rated.models;
  const highest = Math.max(...points.map((point) => point.elo_high), 50);
  const lowest = Math.min(...points.map((point) => point.elo_low), 0);
  const span = roof((highest - lowest) / 4);
  const [from, to] = [Math.floor(lowest / span) * span, Math.ceil(highest / span) * span];
  const last = Math.max(points.at(-1).generation, 1);
  const x = (generation) => left + 10 + (generation / last) * (width - left - right - 20);
  const y = (elo) => top + (1 - (elo - from) / (to - from)) * (height - top - bottom);
  const parts = [];
  for (let elo = from; elo <= to + 1e-6; elo += span) {
    parts.push(svg("line", { class: elo === 0 ? "zero" : "grid", x1: left, x2: width - right, y1: y(elo), y2: y(elo) }),
      svg("text", { x: left - 7, y: y(elo) + 4, "text-anchor": "end" }, Math.round(elo)));
  }
  const every = Math.max(1, Math.ceil(last / 10));
  for (let generation = 0; generation <= last; generation += every)
    parts.push(svg("text", { x: x(generation), y: height - 8, "text-anchor": "middle" }, generation));
  const champions = points.filter((point) => point.status === "champion" || point.status === "former");
  parts.push(svg("path", { class: "path", d: champions.map((point, index) => `${index ? "L" : "M"}${x(point.generation).toFixed(1)} ${y(point.elo).toFixed(1)}`).join(" ") }));
  for (const point of points) {
    const said = `${point.id} (${point.status}): ${signed(point.elo)} Elo [${signed(point.elo_low)}, ${signed(point.elo_high)}], ${point.games} games`;
    const dot = svg("circle", { class: `dot ${point.status}`, cx: x(point.generation), cy: y(point.elo), r: point.status === "champion" ? 6.5 : 4.5, tabindex: 0, role: "button", "aria-label": said }, title(said));
    dot.addEventListener("click", () => choose(point));
    dot.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(point); } });
    parts.push(svg("line", { class: "whisker", x1: x(point.generation), x2: x(point.generation), y1: y(point.elo_low), y2: y(point.elo_high) }),
      dot);
  }
  const best = champions.at(-1);
  if (best) {
    const end = x(best.generation) > width - 110;
    parts.push(svg("text", { class: "now", x: x(best.generation) + (end ? -11 : 11), y: y(best.elo) - 9, "text-anchor": end ? "end" : "start" }, `${signed(best.elo)} Elo`));
  }
  const said = best ? `champion ${best.id} at ${signed(best.elo)} Elo over ${rated.anchor}` : "no champion has played";
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: `chart tint${tint % 4}`, role: "group", "aria-label": `${config}: ${said}` }, parts);
}

/** An interval of Elo on a line from -200 to +200. */
export function eloBar(result) {
  const x = (elo) => 75 + Math.max(-1, Math.min(1, elo / 200)) * 68;
  return svg("svg", { viewBox: "0 0 150 16", class: "elobar", "aria-hidden": "true" },
    svg("line", { x1: 5, x2: 145, y1: 8, y2: 8 }), svg("line", { x1: 75, x2: 75, y1: 1, y2: 15 }),
    svg("line", { class: "range", x1: x(result.elo_low), x2: x(result.elo_high), y1: 8, y2: 8 }),
    svg("circle", { cx: x(result.elo), cy: 8, r: 4 }));
}
