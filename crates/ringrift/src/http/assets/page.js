// The page: follows /api/stream and redraws what changed. No framework, nothing from elsewhere.

import { STEPS, bars, board, count, curve, el, eloBar, ring, signed } from "/draw.js";

const $ = (id) => document.getElementById(id);
/** Sections as the server sent them last. */
let state = {};
let startedOnce = false;

// ---------------------------------------------------------------- words

const BOARD_NAMES = { hex8: "Hex 8", hexagonal: "Hexagonal", square8: "Square 8", square19: "Square 19" };

function nameOf(config) {
  const [board, players] = config.split("_");
  return `${BOARD_NAMES[board] ?? board}, ${parseInt(players, 10)} players`;
}

function ago(ms) {
  const seconds = Math.max(0, Math.round((Date.now() - ms) / 1000));
  if (seconds < 5) return "just now";
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

function lasted(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [d, h, m, s] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
}

function time(ms) {
  const at = new Date(ms);
  return el("time", { datetime: at.toISOString(), title: at.toLocaleString(), "data-ms": ms }, ago(ms));
}

const empty = (text) => el("p", { class: "empty" }, text);
const configs = () => state.manager?.configs ?? [];
const loopOf = (config) => state[`config:${config}`];
const works = () => state.live?.works ?? [];

// ---------------------------------------------------------------- sections

function drawHeader() {
  const manager = state.manager;
  if (!manager) return;
  $("node").textContent = `on ${manager.node}`;
  $("data").textContent = `data in ${manager.data}`;
  const sum = (key) => configs().reduce((total, config) => total + (loopOf(config)?.totals?.[key] ?? 0), 0);
  const vital = (term, value) => el("div", {}, el("dt", {}, term), el("dd", {}, value));
  $("vitals").replaceChildren(
    vital("up", el("span", { "data-since": manager.started_ms }, lasted(Date.now() - manager.started_ms))),
    vital("daemons", `${manager.running} of ${manager.asked}`),
    vital("workers", `${works().filter((work) => work.pid).length} of ${manager.slots}`),
    vital("games", count(sum("games_accepted") + sum("games_unchecked"))),
    vital("promotions", count(sum("promotions"))),
  );
  const best = configs().map((config) => loopOf(config)?.champion?.id).filter(Boolean);
  document.title = best.length ? `${best.join(", ")} – RingRift` : "RingRift";
}

function drawNotices() {
  const found = (state.manager?.obstacles ?? []).map((obstacle) =>
    el("p", { class: "notice" }, el("strong", {}, "Production stands still: "), `${obstacle.reason}. It goes on with: ${obstacle.needs}. `,
      el("span", { class: "muted" }, `(${obstacle.cause})`)));
  if (state.trouble) found.push(el("p", { class: "notice" }, state.trouble));
  if (state.manager?.stopping) found.push(el("p", { class: "notice mild" }, "The manager is shutting down; work in hand is being saved."));
  $("notices").replaceChildren(...found);
}

/** Loop cards are kept, so that the focus stays where it is; only their insides change. */
const cards = new Map();

function drawLoops() {
  const place = $("loops");
  if (!configs().length) {
    cards.clear();
    place.replaceChildren(empty("The manager has not said yet what it plays."));
    return;
  }
  if ([...cards.keys()].join() !== configs().join()) {
    cards.clear();
    for (const config of configs()) {
      const why = el("button", { type: "button", "aria-label": `Why does ${config} stand where it stands?` }, "Why?");
      why.addEventListener("click", () => askWhy(config));
      const card = { why, stage: el("p", { class: "muted" }), ring: el("div"), figures: el("dl", { class: "figures" }) };
      card.root = el("article", { class: "loop", "aria-label": nameOf(config) },
        el("header", {}, el("div", {}, el("h2", {}, nameOf(config)), card.stage), why), card.ring, card.figures);
      cards.set(config, card);
    }
    place.replaceChildren(...[...cards.values()].map((card) => card.root));
  }
  for (const config of configs()) drawLoop(config, cards.get(config));
}

function drawLoop(config, card) {
  const loop = loopOf(config);
  if (!loop) {
    card.stage.textContent = "waiting for the catalogue";
    return;
  }
  const totals = loop.totals;
  const some = (number, one) => (number ? `${count(number)} ${one}${number === 1 ? "" : "s"}` : "");
  const counts = [
    some(totals.games_accepted + totals.games_unchecked, "game"), some(totals.games_accepted, "game"), some(totals.sample_rows, "sample"),
    some(totals.windows, "window"), some(totals.trainings, "model"), some(totals.matches, "match").replace("matchs", "matches"),
    some(totals.promotions, "promotion"), loop.waiting.distributed && loop.champion ? `m${String(loop.champion.generation).padStart(4, "0")}` : "",
  ];
  const drawing = ring(loop, works().filter((work) => work.config === config), counts);
  // A new drawing goes on where the old one was in its motion.
  drawing.style.setProperty("--beat", `-${Math.round(performance.now() % 22000)}ms`);
  card.ring.replaceChildren(drawing);
  const step = STEPS.find((step) => step.stage === loop.stage);
  const stands = step ? `now: ${step.label.toLowerCase()}` : "about to begin: model 0 gets random weights";
  const share = loop.share === null ? "" : ` · ${Math.round(loop.share * 100)} % of self-play`;
  const since = loop.champion ? [" · champion since ", time(loop.champion.since_ms)] : [];
  card.stage.replaceChildren(stands + share, ...since);
  const figure = (term, value) => el("div", {}, el("dt", {}, term), el("dd", {}, value));
  card.figures.replaceChildren(
    figure("games", count(totals.games_accepted + totals.games_unchecked)), figure("samples", count(totals.sample_rows)),
    figure("models", count(totals.models)), figure("promotions", count(totals.promotions)),
  );
}

function drawGame() {
  const game = state.live?.game;
  if (!game) {
    const busy = works().filter((work) => work.pid).map((work) => `${work.kind} ${work.config}`);
    const bare = configs().slice(0, 1).map((config) => board({ config, cells: [], move_number: 0 }));
    $("game").replaceChildren(...bare, empty(busy.length
      ? `No self-play game is on: the workers are busy with ${busy.join(", ")}.`
      : "No game is on. One appears here as soon as a worker plays."));
    return;
  }
  const view = game.board;
  const last = view.last_move ? view.last_move.text : "the game begins";
  const turn = view.winner ? `player ${view.winner} wins` : `player ${view.to_move}: ${view.phase.replaceAll("_", " ")}`;
  const seats = view.seats.map((seat, index) => el("li", { class: `seat seat${index + 1}${!view.winner && view.to_move === index + 1 ? " turn" : ""}` },
    el("i", { "aria-hidden": "true" }), el("b", {}, `Player ${index + 1}`),
    el("span", {}, `${seat.hand} in hand · ${seat.eliminated} of ${game.limits?.ring_victory ?? "?"} eliminated · ${seat.territory} of ${game.limits?.territory_victory ?? "?"} territory`)));
  $("game").replaceChildren(
    board(view),
    el("p", { class: "caption" }, el("span", {}, el("b", {}, nameOf(view.config)), ` · move ${view.move_number} · ${last}`), el("span", { class: "muted" }, `${turn} · ${game.done} of ${game.total} games done`)),
    el("ul", { class: "seats" }, seats),
  );
}

function drawWorks() {
  const found = works();
  if (!found.length) {
    $("works").replaceChildren(empty("Nothing is in work. Self-play, training and gauntlets appear here, one line per worker process."));
    return;
  }
  $("works").replaceChildren(...found.map((work) => {
    const share = work.total ? work.done / work.total : 0;
    const figures = work.total ? `${count(work.done)} of ${count(work.total)}` : work.done ? count(work.done) : "";
    return el("div", { class: "work" },
      el("div", {}, el("b", {}, work.work), el("span", {}, figures)),
      work.pid && work.total ? el("progress", { value: share, max: 1, "aria-label": `${work.work}: ${Math.round(share * 100)} %` }) : null,
      el("div", {}, el("small", {}, [work.note, work.attempt > 1 ? `attempt ${work.attempt}` : ""].filter(Boolean).join(" · ")),
        el("small", {}, work.pid ? `pid ${work.pid}, ` : "", time(work.since_ms))));
  }));
}

const legend = () => el("ul", { class: "legend" }, configs().map((config, index) => el("li", { class: `tint${index % 4}` }, el("span", {}, nameOf(config)))));

function drawPace() {
  const series = configs().map((config) => ({ config, minutes: loopOf(config)?.minutes ?? [] }));
  if (!series.some((one) => one.minutes.length)) {
    $("pace").replaceChildren(empty("No game was finished in the last hour."));
    return;
  }
  const now = Date.now();
  const chart = (key, label) => {
    // The running minute is not over; the five before it are.
    const from = (Math.floor(now / 60000) - 5) * 60000;
    const recent = series.flatMap((one) => one.minutes).filter((minute) => minute.at_ms >= from && minute.at_ms < from + 300000);
    const rate = recent.reduce((sum, minute) => sum + minute[key], 0) / 5;
    const figure = el("figure", {}, el("p", { class: "big" }, el("b", {}, rate < 10 ? rate.toFixed(1) : count(rate)), el("span", {}, `${label} per minute, last 5 min`)));
    return [figure, (width) => bars(series, key, now, label, width)];
  };
  charts($("pace"), "paces", [chart("games", "games"), chart("rows", "samples")], legend());
}

/** Puts figures into a grid, then draws each as wide as its place. */
function charts(place, name, figures, ...after) {
  const grid = el("div", { class: name }, figures.map(([figure]) => figure));
  place.replaceChildren(grid, ...after);
  const width = Math.max(240, parseFloat(getComputedStyle(grid).gridTemplateColumns) || 480);
  for (const [figure, drawing] of figures) figure.append(drawing(width));
}

function drawRatings() {
  const found = configs().map((config, index) => [config, state[`ratings:${config}`], index]).filter(([, rated]) => rated?.models?.length);
  if (!found.length) {
    $("ratings").replaceChildren(empty("No candidate has been matched yet. After the first gauntlet every model appears here with its Elo and a 95 % interval."));
    return;
  }
  charts($("ratings"), "curves", found.map(([config, rated, index]) => {
    const under = el("div", { class: "behind" });
    const choose = (point) => {
      chosen.set(config, point.id);
      under.replaceChildren(...behind(config, point));
    };
    const again = rated.models.find((point) => point.id === chosen.get(config));
    if (again) choose(again);
    const figure = el("figure", {}, el("figcaption", {}, el("b", {}, nameOf(config)), el("span", { class: "muted" }, ` · Elo over ${rated.anchor}`)));
    return [figure, (width) => el("div", {}, curve(config, rated, index, width, choose), under)];
  }), el("p", { class: "muted caption" }, "Bradley-Terry over all stored matches, with 95 % intervals. Joined: champions. Hollow: judged and not taken. Dashed: not judged yet. Choose a point to see its matches."));
}

/** The point of each config's curve whose matches are shown. */
const chosen = new Map();

/** The matches behind a point. */
function behind(config, point) {
  const rows = point.matches.map((met) => el("li", {}, el("b", {}, `${met.wins}-${met.losses}`), ` against ${player(met.against, config)} `, time(met.created_ms)));
  return [el("p", {}, el("b", {}, player(point.id, config)), ` ${signed(point.elo)} Elo rests on ${rows.length} ${rows.length === 1 ? "match" : "matches"}`), el("ol", {}, rows)];
}

/** `model:hex8_2p-m0003@32` -> `m0003@32`: the config stands beside it. */
const player = (text, config) => text.replace(/^model:/, "").replace(`${config}-`, "");

function drawGauntlets() {
  const found = state.matches ?? [];
  if (!found.length) {
    $("gauntlets").replaceChildren(empty("No gauntlet yet. A trained candidate plays pairs of games with swapped colours against the champion until a sequential test decides."));
    return;
  }
  const words = { stronger: "stronger", not_stronger: "not stronger", undecided: "undecided" };
  $("gauntlets").replaceChildren(el("ol", {}, found.map(({ config, result, created_ms: created }) => el("li", { class: "match" },
    el("p", {}, el("b", {}, player(result.a, config)), el("span", { class: "muted" }, " against "), el("b", {}, player(result.b, config)), " ", el("span", { class: "tag" }, config)),
    el("span", { class: `verdict ${result.decision ?? ""}` }, words[result.decision] ?? "guard match"),
    el("p", { class: "elo" }, el("b", {}, `${signed(result.elo)} Elo`), ` [${signed(result.elo_low)}, ${signed(result.elo_high)}]`), eloBar(result),
    el("p", { class: "fine" }, `${(result.score * 100).toFixed(1)} % of ${result.games} games · pairs won twice, once, never: ${result.pairs[2]}, ${result.pairs[1]}, ${result.pairs[0]}`,
      result.decision ? ` · LLR ${result.llr.toFixed(2)}` : "", " · ", time(created))))));
}

/** How a node looks: a class, a word, and a rank that puts trouble first. */
function standing(node) {
  if (node.state === "silent") return ["bad", "silent", 0];
  if (node.state !== "alive") return ["off", node.state, 4];
  if (node.report?.troubles.length || node.report?.obstacles.length) return ["degraded", node.draining ? "drained" : "in trouble", 1];
  return node.report?.idle ? ["wait", "idle", 2] : ["well", "at work", 3];
}

function drawNodes() {
  const cluster = state.cluster;
  $("cluster").hidden = !cluster;
  if (!cluster) return;
  const shown = cluster.nodes.map((name) => state[`node:${name}`]).filter(Boolean);
  shown.sort((a, b) => b.leads - a.leads || standing(a)[2] - standing(b)[2] || a.node.localeCompare(b.node));
  const tally = new Map();
  for (const node of shown) tally.set(standing(node)[1], (tally.get(standing(node)[1]) ?? 0) + 1);
  const few = cluster.few_copies ? `${count(cluster.few_copies)} of ${count(cluster.artefacts)} artefacts have fewer than 2 living copies` : `${count(cluster.artefacts)} artefacts, each with 2 living copies or more`;
  $("nodes-sum").textContent = [cluster.leader ? `${cluster.leader} leads` : "nobody leads", ...[...tally].map(([word, number]) => `${number} ${word}`), few].join(" · ");
  $("nodes").replaceChildren(...shown.map((node) => {
    const [look, word] = standing(node);
    const report = node.report;
    const marks = [node.leads ? "leads" : report?.competes ? "stands by" : "", node.here ? "this one" : ""].filter(Boolean);
    const slots = report && node.workers !== null ? `${Math.max(0, node.workers - report.free_slots)} of ${node.workers} workers` : "";
    const disk = typeof report?.disk_free === "number" ? `${Math.round(report.disk_free / 2 ** 30)} GiB free` : "";
    const held = node.artefacts ? `${count(node.artefacts)} artefacts${node.artefacts_alone ? `, ${count(node.artefacts_alone)} of them nowhere else` : ""}` : "";
    const facts = [node.runs, slots, held, disk, node.version ? `version ${node.version}` : ""].filter(Boolean).join(" · ");
    const wrong = [...(report?.obstacles ?? []), ...(report?.troubles ?? [])].map((why) => el("small", { class: "wrong" }, `${why.by}: ${why.reason}`));
    return el("li", { class: `daemon ${look}` }, el("p", {}, el("span", { class: "mark", "aria-hidden": "true" }), el("b", {}, node.node), ...marks.map((mark) => el("span", { class: "tag" }, mark)), el("span", { class: "word" }, word)),
      el("p", {}, node.does), el("small", { class: "muted" }, facts), ...wrong);
  }));
}

const told = new Map();

function drawFacts() {
  const found = state.facts ?? [];
  const list = $("facts");
  if (!found.length) {
    told.clear();
    list.replaceChildren(el("li", { class: "empty" }, "Nothing is recorded yet."));
    return;
  }
  const first = told.size === 0;
  const keys = new Set();
  const items = found.map((fact) => {
    const key = `${fact.stream}:${fact.position}`;
    keys.add(key);
    if (!told.has(key)) {
      told.set(key, el("li", { class: `${fact.tone}${first ? "" : " new"}` }, time(fact.time_ms),
        el("p", { title: `${fact.topic}, by ${fact.source}` }, fact.config ? el("span", { class: "tag" }, fact.config) : null, fact.sentence)));
    }
    return told.get(key);
  });
  for (const key of told.keys()) if (!keys.has(key)) told.delete(key);
  if (items.some((item, index) => list.children[index] !== item) || list.children.length !== items.length) list.replaceChildren(...items);
}

// What an operator may do, once the token was typed in; this tab alone keeps it.
const TOKEN = "operator-token";
const token = () => sessionStorage.getItem(TOKEN);

/** Which actions make sense in a state. */
function actions(daemon) {
  if (daemon.state === "stopped") return ["start"];
  if (["failed", "import_failed", "degraded", "restarting"].includes(daemon.state)) return ["retry", "stop"];
  const paused = /(^|\W)operator(\W|$)/.test(daemon.message ?? "");
  return daemon.state === "running" ? ["restart", paused ? "resume" : "pause", "stop"] : ["stop"];
}

async function act(name, verb, button) {
  button.disabled = true;
  tell(`${verb} ${name} …`);
  try {
    const answer = await fetch(`/api/daemons/${encodeURIComponent(name)}/${verb}`, { method: "POST", headers: { authorization: `Bearer ${token()}` } });
    const body = await answer.json();
    if (answer.status === 401) lock();
    tell(answer.ok ? `${verb} ${name}: done` : body.error, !answer.ok);
  } catch (error) {
    tell(`No answer: ${error.message}`, true);
  }
  button.disabled = false;
}

function tell(text, bad) {
  $("said").textContent = text;
  $("said").className = bad ? "bad" : "";
}

function lock() {
  sessionStorage.removeItem(TOKEN);
  showLock();
}

function showLock() {
  $("operate").textContent = token() ? "Lock" : "Operate";
  drawDaemons();
}

function buttons(name, daemon, card) {
  const wanted = token() ? actions(daemon) : [];
  // Kept while they are the same, so that the focus stays where it is.
  if (card.verbs !== wanted.join()) {
    card.verbs = wanted.join();
    card.buttons.replaceChildren(...wanted.map((verb) => {
      const button = el("button", { type: "button", "aria-label": `${verb} ${name}` }, verb);
      button.addEventListener("click", () => act(name, verb, button));
      return button;
    }));
    card.buttons.hidden = !wanted.length;
  }
}

$("operate").addEventListener("click", () => {
  if (token()) {
    lock();
    tell("locked");
  } else {
    $("token-text").value = "";
    $("token").showModal();
  }
});
$("token-cancel").addEventListener("click", () => $("token").close());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token-text").value.trim());
  $("token").close();
  showLock();
  tell("unlocked: open a daemon to act on it");
});

const daemons = new Map();

/** How a daemon looks: a class, and a rank that puts trouble first. */
function looks(daemon) {
  if (!daemon.asked && daemon.state === "stopped") return ["off", 4];
  if (daemon.state === "running") {
    if (daemon.health === "unhealthy") return ["bad", 0];
    return daemon.health === "degraded" ? ["degraded", 1] : ["well", 3];
  }
  if (["starting", "stopping"].includes(daemon.state)) return ["wait", 2];
  return daemon.state === "restarting" ? ["degraded", 0.5] : ["bad", 0];
}

function drawDaemons() {
  const names = state.daemons ?? [];
  if (!names.length) {
    daemons.clear();
    $("daemons").replaceChildren(empty("The supervisor has not begun."));
    $("daemons-sum").textContent = "";
    return;
  }
  const shown = names.map((name, order) => ({ name, order, daemon: state[`daemon:${name}`] })).filter((one) => one.daemon);
  shown.sort((a, b) => looks(a.daemon)[1] - looks(b.daemon)[1] || a.order - b.order);
  for (const { name, daemon } of shown) {
    if (!daemons.has(name)) {
      const card = { word: el("span", { class: "word" }), message: el("span", { class: "message" }), more: el("dl"), buttons: el("p", { class: "acts" }), verbs: "" };
      const mark = el("span", { class: "mark", "aria-hidden": "true" });
      card.root = el("details", { class: "daemon" }, el("summary", {}, mark, el("span", { class: "name", title: name }, name), card.word, card.message), card.buttons, card.more);
      card.buttons.hidden = true;
      card.root.addEventListener("toggle", () => drawDaemons());
      daemons.set(name, card);
    }
    drawDaemon(name, daemon, daemons.get(name));
  }
  for (const name of daemons.keys()) if (!names.includes(name)) daemons.delete(name);
  const place = $("daemons");
  const wanted = shown.map(({ name }) => daemons.get(name).root);
  if (wanted.some((item, index) => place.children[index] !== item) || place.children.length !== wanted.length) place.replaceChildren(...wanted);
  const tally = (which) => shown.filter(({ daemon }) => looks(daemon)[0] === which).length;
  $("daemons-sum").textContent = [[tally("well"), "well"], [tally("degraded"), "degraded"], [tally("bad"), "failed"], [tally("wait"), "starting or stopping"], [tally("off"), "not wanted"]]
    .filter(([number]) => number).map(([number, word]) => `${number} ${word}`).join(" · ");
}

function drawDaemon(name, daemon, card) {
  const [look] = looks(daemon);
  card.root.className = `daemon ${look}`;
  const running = daemon.state === "running";
  card.word.textContent = running ? (daemon.health === "unknown" ? "running" : daemon.health) : daemon.state.replaceAll("_", " ");
  card.message.textContent = daemon.message ?? "";
  card.message.hidden = !daemon.message;
  if (!card.root.open) return;
  buttons(name, daemon, card);
  const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);
  const rows = [
    ["state", daemon.state.toUpperCase()], ["health", daemon.health], ["critical", daemon.critical ? "yes" : null],
    ["since", daemon.started_ms && running ? time(daemon.started_ms) : null], ["cycles", daemon.cycles ? count(daemon.cycles) : null],
    ["last cycle", daemon.last_cycle_seconds === null ? null : seconds(daemon.last_cycle_seconds)],
    ["restarts", daemon.restarts || null], ["next try", daemon.next_retry_in_seconds === null ? null : `in ${seconds(daemon.next_retry_in_seconds)}`],
    ["last error", daemon.last_error],
    ...Object.entries(daemon.details ?? {}).map(([key, value]) => [key.replaceAll("_", " "), typeof value === "object" ? JSON.stringify(value) : value]),
  ];
  card.more.replaceChildren(...rows.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}

async function askWhy(config) {
  $("why-title").textContent = `Why ${nameOf(config)} stands where it stands`;
  $("why-text").replaceChildren(el("p", { class: "muted" }, "asking"));
  $("why").showModal();
  try {
    const answer = await fetch(`/api/why/${encodeURIComponent(config)}`);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error);
    const said = body.sentences.map((sentence) => el("li", { class: sentence.open ? "open" : "closed" },
      el("span", { class: "tag" }, sentence.gate), el("p", {}, sentence.reason),
      sentence.needs ? el("small", {}, `needs: ${sentence.needs}`) : null,
      sentence.since ? el("small", {}, "since ", time(sentence.since)) : null));
    $("why-text").replaceChildren(said.length ? el("ul", {}, said) : el("p", {}, "Nothing holds it back."));
  } catch (error) {
    $("why-text").replaceChildren(el("p", {}, `No answer: ${error.message}`));
  }
}

// ---------------------------------------------------------------- redrawing

/** Which drawing depends on which sections. */
const DRAWINGS = [
  [drawHeader, (key) => key === "manager" || key === "live" || key.startsWith("config:")],
  [drawNotices, (key) => key === "manager" || key === "trouble"],
  [drawLoops, (key) => key === "manager" || key === "live" || key.startsWith("config:")],
  [drawGame, (key) => key === "live"],
  [drawWorks, (key) => key === "live"],
  [drawPace, (key) => key.startsWith("config:")],
  [drawRatings, (key) => key.startsWith("ratings:")],
  [drawGauntlets, (key) => key === "matches"],
  [drawNodes, (key) => key === "cluster" || key.startsWith("node:")],
  [drawFacts, (key) => key === "facts"],
  [drawDaemons, (key) => key === "daemons" || key.startsWith("daemon:")],
];

function draw(keys) {
  for (const [drawing, depends] of DRAWINGS) if (!keys || keys.some(depends)) drawing();
}

function take(sections, whole) {
  if (whole) state = {};
  for (const [key, value] of Object.entries(sections)) {
    if (value === null) delete state[key];
    else state[key] = value;
  }
  draw(whole ? null : Object.keys(sections));
}

setInterval(() => {
  for (const element of document.querySelectorAll("time[data-ms]")) {
    const text = ago(Number(element.dataset.ms));
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of document.querySelectorAll("[data-since]")) element.textContent = lasted(Date.now() - Number(element.dataset.since));
}, 1000);

let resized;
new ResizeObserver(() => {
  clearTimeout(resized);
  resized = setTimeout(() => { drawPace(); drawRatings(); }, 150);
}).observe($("main"));

$("quiet").addEventListener("change", (event) => $("facts").classList.toggle("calm", !event.target.checked));
$("facts").classList.add("calm");

// ---------------------------------------------------------------- the stream

let pause = 1000;

function link(name, text) {
  $("link").className = `pill ${name}`;
  if ($("link").textContent !== text) $("link").textContent = text;
  document.body.classList.toggle("stale", name === "lost" && startedOnce);
}

function connect() {
  const stream = new EventSource("/api/stream");
  const heard = (whole) => (event) => {
    startedOnce = true;
    pause = 1000;
    link("live", "live");
    take(JSON.parse(event.data), whole);
  };
  stream.addEventListener("full", heard(true));
  stream.addEventListener("delta", heard(false));
  stream.addEventListener("error", () => {
    link("lost", startedOnce ? "connection lost, trying again" : "no connection, trying again");
    // A refusal (503 while the manager stops or starts) ends an EventSource for good.
    if (stream.readyState === EventSource.CLOSED) {
      setTimeout(connect, pause);
      pause = Math.min(pause * 2, 15000);
    }
  });
}

showLock();
connect();
