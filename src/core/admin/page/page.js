// The status page: asks for /status once a second and shows it. Everything that comes
// from outside (keys, errors, addresses) is escaped before it is part of the page.
"use strict";

const $ = (id) => document.getElementById(id);
const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const hue = (name) => `var(--${name})`;

// As in /status, with the words of the page.
const CLASSES = [
  ["own", "answered", "by the service itself"],
  ["hit", "hit", "from the cache"],
  ["stale", "stale", "cached, past its ttl"],
  ["collapsed", "coalesced", "by another's fetch"],
  ["miss", "miss", "by a fetch of its own"],
  ["failure", "failed", "not whole"],
];
// What this proxy's fetches did in its fleet.
const FLEET = [["follow", "Followed"], ["lead", "Led"], ["alone", "Alone"], ["takeover", "Taken over"]];
// And what is 0 while all is well.
const FLEET_TROUBLE = [["unproven", "Not proven"], ["deposed", "Lease lost"], ["purges_owed", "Purges owed"]];
const STEPS = 150; // the samples of five minutes
const SPAN = 300e3; // five minutes, in ms
const MINUTE = 30; // the samples of one minute

// ---- how figures are written

const thin = "\u2009";
const fixed = (n) => n.toFixed(n < 100 ? 1 : 0);

function count(n) {
  if (n < 1e4) return String(Math.round(n));
  return n < 1e6 ? fixed(n / 1e3) + thin + "k" : fixed(n / 1e6) + thin + "M";
}

const whole = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, thin);

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < 4) { n /= 1024; unit++; }
  return (unit ? fixed(n) : Math.round(n)) + thin + units[unit];
}

function secs(s) {
  if (s === null || s === undefined) return "–";
  if (s < 1e-3) return `<1${thin}ms`;
  if (s < 1) return Math.round(s * 1e3) + thin + "ms";
  if (s < 10) return s.toFixed(1) + thin + "s";
  if (s < 120) return Math.round(s) + thin + "s";
  if (s < 5400) return Math.round(s / 60) + thin + "min";
  return s < 172800 ? Math.round(s / 3600) + thin + "h" : Math.round(s / 86400) + thin + "d";
}

const clock = (date) => new Date(date).toISOString().slice(11, 19);
const sum = (list) => list.reduce((a, b) => a + b, 0);
const minute = (list) => sum(list.slice(-MINUTE));
const say = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };

// The value below which this part of all lies, as well as buckets can say.
function quantile(bounds, counts, part) {
  const wanted = part * sum(counts);
  if (!wanted) return null;

  let seen = 0;
  for (let i = 0; i < counts.length; i++) {
    if (counts[i] && seen + counts[i] >= wanted) {
      const low = i ? bounds[i - 1] : 0;
      const high = bounds[i] ?? low;
      return low + (high - low) * ((wanted - seen) / counts[i]);
    }
    seen += counts[i];
  }
  return null;
}

// ---- pictures

// A line; a null is a gap. A short history stands at the right.
function spark(id, values, color, isShare) {
  const w = 240, h = 34, some = values.filter((v) => v !== null);
  const top = isShare ? 1 : Math.max(...some, 1e-9);
  const low = isShare ? Math.min(...some, .98) * .98 : 0;
  const x = (i) => ((i + STEPS - values.length) / (STEPS - 1) * w).toFixed(1);
  const y = (v) => (h - (v - low) / (top - low) * (h - 3) - 1).toFixed(1);

  let line = "", fill = "", run = [];
  const end = () => {
    if (!run.length) return;
    const points = run.map((i) => `${x(i)} ${y(values[i])}`).join("L");
    line += "M" + points;
    fill += `M${x(run[0])} ${h}L${points}L${x(run[run.length - 1])} ${h}Z`;
    run = [];
  };
  values.forEach((v, i) => v === null ? end() : run.push(i));
  end();

  const svg = $(id);
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.innerHTML = !line ? "" : `<path d="${fill}" fill="${color}" opacity=".13"/>
    <path d="${line}" fill="none" stroke="${color}" stroke-width="1.6"
      vector-effect="non-scaling-stroke" stroke-linejoin="round"/>`;
}

function nice(top) {
  const power = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((v) => v >= top);
}

let drawn = null; // what the chart shows

// Requests by class, stacked, with a tick where something happened.
function chart(history, classes, notices) {
  const svg = $("chart").firstElementChild, w = $("chart").clientWidth, h = 218;
  const left = 34, base = h - 20, n = history.t.length;
  const sums = history.t.map((_, i) => sum(classes.map(([c]) => history[c][i])));
  const top = nice(Math.max(...sums, 1) * 1.04);
  const x = (i) => left + (i + STEPS - n) / (STEPS - 1) * (w - left);
  const y = (v) => base - v / top * (base - 8);

  let out = "";
  for (const f of [0, .5, 1]) {
    const at = y(top * f);
    out += `<line x1="${left}" x2="${w}" y1="${at}" y2="${at}" stroke="var(--line)"/>
      <text x="${left - 7}" y="${at + 4}" text-anchor="end">${top * f < 100 ? top * f : count(top * f)}</text>`;
  }
  for (let m = 5; m >= 0; m--) {
    if (w < 480 && m !== 5 && m !== 2 && m !== 0) continue;
    const anchor = m === 5 ? "start" : m ? "middle" : "end";
    const text = m ? `−${m}${thin}min` : "now";
    out += `<text x="${left + (1 - m / 5) * (w - left)}" y="${h - 3}" text-anchor="${anchor}">${text}</text>`;
  }

  const below = new Array(n).fill(0);
  for (const [name] of n > 1 ? classes : []) {
    const low = below.map((v, i) => `${x(i).toFixed(1)} ${y(v).toFixed(1)}`).reverse();
    history[name].forEach((v, i) => below[i] += v);
    const high = below.map((v, i) => `${x(i).toFixed(1)} ${y(v).toFixed(1)}`);
    out += `<path d="M${high.join("L")}L${low.join("L")}Z" fill="${hue(name)}" opacity=".78"/>`;
  }

  const now = n ? Date.parse(history.t[n - 1]) : 0;
  for (const note of notices) {
    const at = 1 - (now - Date.parse(note.time)) / SPAN;
    if (at < 0 || at > 1.01) continue;
    const color = { error: "var(--bad)", warn: "var(--warn)" }[note.level] ?? "var(--soft)";
    out += `<path d="M${left + Math.min(at, 1) * (w - left)} 7l-4 -7h8z" fill="${color}">
      <title>${clock(note.time)} ${escaped(note.text)}</title></path>`;
  }

  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.innerHTML = `${out}<line id="hair" y1="6" y2="${base}" stroke="var(--ink)" visibility="hidden"/>`;
  drawn = { history, classes, notices, x, n, left, w };
  if (moment !== null) point(moment);
}

let moment = null; // the sample that is read out

function point(at) {
  if (!drawn?.n) return;
  const { history, classes, x, n, w } = drawn;
  moment = Math.max(0, Math.min(n - 1, at));

  const hair = $("hair"), tip = $("chart").querySelector(".tip"), px = x(moment);
  hair.setAttribute("x1", px);
  hair.setAttribute("x2", px);
  hair.setAttribute("visibility", "visible");

  const time = clock(history.t[moment]);
  const some = classes.filter(([c]) => history[c][moment] > 0).reverse();
  const line = ([c, word]) => `<div><span class="sw ${c}"></span>${word}<b>${history[c][moment].toFixed(1)}</b></div>`;
  tip.innerHTML = `<div class="soft">${time}</div>${some.map(line).join("")}`;
  tip.hidden = false;
  tip.style.left = (px > w / 2 ? px - tip.offsetWidth - 12 : px + 12) + "px";
  tip.style.top = "10px";

  const words = some.map(([c, word]) => `${word} ${history[c][moment].toFixed(1)}`);
  say("chart-said", `${time}: ${words.join(", ") || "no requests"}`);
}

function leave() {
  moment = null;
  $("hair")?.setAttribute("visibility", "hidden");
  $("chart").querySelector(".tip").hidden = true;
}

// Most are hits: the height is of the logarithm, so that the few that waited are seen.
function bars(wait) {
  const svg = $("bars"), w = svg.clientWidth || 360, h = svg.clientHeight || 86, step = w / wait.counts.length;
  const total = sum(wait.counts) || 1, top = Math.max(...wait.counts, 1);
  const name = (le, i) => le === null ? "…" : le < 1 ? le * 1e3 + (i ? "" : `${thin}ms`) : le + (le === 1 ? `${thin}s` : "");
  const bar = (c, i) => {
    const high = c ? Math.max(2, Math.log1p(c) / Math.log1p(top) * (h - 32)) : 0;
    const share = c / total * 100, middle = i * step + step / 2;
    const text = share < .1 ? "·" : share < 10 ? share.toFixed(1) : Math.round(share);
    const color = wait.le[i - 1] >= 1 ? "var(--stale)" : "var(--collapsed)";
    return `<rect x="${i * step + 1.5}" width="${step - 3}" y="${h - 16 - high}" height="${high}" rx="2.5" fill="${color}" opacity=".82"/>
      ${c ? `<text x="${middle}" y="${h - 20 - high}" text-anchor="middle">${text}</text>` : ""}
      <text x="${middle}" y="${h - 2}" text-anchor="middle">${name(wait.le[i], i)}</text>`;
  };
  const said = (c, i) => c ? `${(c / total * 100).toFixed(1)} percent ${wait.le[i] ? "up to " + secs(wait.le[i]) : "longer"}` : "";

  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.setAttribute("aria-label", "How long clients waited: " + (wait.counts.map(said).filter(Boolean).join(", ") || "no client yet"));
  svg.innerHTML = wait.counts.map(bar).join("");
}

// ---- one status, on the page

// On a phone a cell is named, and left out if there is nothing in it.
const cell = (name, html, kind = "") => `<td data-name="${name}" class="${kind}${html === "–" ? " none" : ""}">${html}</td>`;
const keyed = (item) => `<span class="key" title="${escaped(item.key)}">${escaped(item.key) || "<em>the poem</em>"}</span>`;
const state = (kind, word) => `<span class="state ${kind}"><i></i>${word}</span>`;

function rows(table, list, cells) {
  $(table).tBodies[0].innerHTML = list.map((item) => `<tr>${cells(item)}</tr>`).join("");
}

function show(s) {
  document.body.classList.remove("lost");
  document.body.classList.toggle("no-cache", !s.cache);
  document.body.classList.toggle("no-fetches", !s.queue);
  document.body.classList.toggle("no-feed", !s.feed);
  document.body.classList.toggle("no-store", !s.store);
  document.body.classList.toggle("no-fleet", !s.fleet);

  showHead(s);
  if (s.history) showFigures(s);
  bars(s.wait);
  if (s.cache) showCache(s.cache, s.warm);
  if (s.queue) showUpstreams(s);
  if (s.store) showStore(s.store, s.fleet);
  if (s.queue) showFlights(s.flights);
  if (s.feed) showFeed(s);
  showNotices(s.notices);
}

function pill(kind, word) {
  $("health").dataset.state = kind;
  if ($("health").lastElementChild.textContent !== word) $("health").lastElementChild.textContent = word;
}

function showHead(s) {
  const { poetry, settings, clients, health } = s;
  say("command", poetry.command);
  say("protocol", settings.protocol);
  say("foot", `poetry ${poetry.version}, process ${poetry.pid}`);

  const kept = settings.ttl_s === null ? "" : ` · ttl ${secs(settings.ttl_s)}${settings.grace_s ? `, grace ${secs(settings.grace_s)}` : ""}`;
  $("line").innerHTML = `on <span class="mono">${escaped(settings.listen.join(", "))}</span>${kept}
    · ${whole(clients.open)} of ${whole(clients.limit)} clients${refusedOf(clients)} · up ${secs(poetry.uptime_s)}`;

  pill(health.state, { ok: "well", degraded: "in trouble", draining: "stopping" }[health.state] ?? health.state);
  document.title = `${health.state === "ok" ? "" : "⚠ "}poetry ${poetry.command} ${settings.listen[0] ?? ""}`;
  why(health.reasons);
}

function refusedOf(clients) {
  const refused = sum(Object.values(clients.refused));
  return refused ? ` · ${whole(refused)} refused` : "";
}

function why(reasons) {
  $("why").hidden = !reasons.length;
  const lines = reasons.map((text) => Object.assign(document.createElement("p"), { textContent: text }));
  $("why").replaceChildren(...lines);
}

function showFigures(s) {
  const h = s.history, n = h.t.length;
  const all = h.t.map((_, i) => sum(CLASSES.map(([c]) => h[c][i])));
  const classes = CLASSES.filter(([c]) => c === "failure" || (s.cache ? c !== "own" || s.requests.own : c === (s.feed ? "collapsed" : "own")));
  const recent = (list) => n ? sum(list.slice(-5)) / Math.min(5, n) : 0;
  const share = (name, part, more, color) => {
    const ratio = minute(all) ? minute(part) / minute(all) : null;
    say("ratio-name", name);
    $("ratio").innerHTML = ratio === null ? "–" : `${(ratio * 100).toFixed(1)}<small>${thin}%</small>`;
    say("ratio-more", ratio === null ? "no requests in the last minute" : `the last minute${more}`);
    spark("ratio-spark", all.map((v, i) => v ? part[i] / v : null), hue(color), true);
  };

  if (s.cache) {
    const stale = minute(h.stale) / (minute(all) || 1);
    share("Answered from the cache", h.hit.map((v, i) => v + h.stale[i]), `; ${(stale * 100).toFixed(1)}${thin}% stale`, "hit");
    showSaved(s, all);
  } else {
    share("Answered whole", all.map((v, i) => v - h.failure[i]), "", "own");
    showClients(s);
  }

  say("rate", recent(all) < 10 ? recent(all).toFixed(1) : count(recent(all)));
  say("rate-more", `${bytes(recent(h.sent))}/s sent; ${count(s.requests.total)} since the start`);
  spark("rate-spark", all, hue("collapsed"));

  const part = (q) => secs(quantile(s.wait.le, s.wait.counts, q));
  $("wait").innerHTML = part(.95).replace("<", "&lt;").replace(/\u2009([a-z]+)$/, `<small>${thin}$1</small>`);
  say("wait-more", `half ${part(.5)}; 99 of 100 ${part(.99)}`);
  spark("wait-spark", h.wait95, hue("miss"));

  $("legend").innerHTML = classes.map(([c, word, what]) => `<li><span class="sw ${c}"></span><b>${word}</b>
    <span class="soft">${what}</span> ${recent(h[c]).toFixed(recent(h[c]) < 10 ? 1 : 0)}</li>`).join("");
  chart(h, classes, s.notices);
}

function showSaved(s, all) {
  const h = s.history, fetched = minute(h.fetches);
  const until = (list, i) => sum(list.slice(Math.max(0, i - MINUTE + 1), i + 1));
  say("saved-name", "Requests for each fetch");
  say("saved", fetched ? fixed(minute(all) / fetched) : "–");
  say("saved-more", `${bytes(s.received_bytes)} fetched, ${bytes(s.sent_bytes)} sent`);
  spark("saved-spark", all.map((_, i) => until(h.fetches, i) ? until(all, i) / until(h.fetches, i) : null), hue("stale"));
}

function showClients(s) {
  say("saved-name", "Clients");
  say("saved", whole(s.clients.open));
  say("saved-more", `open now, of ${whole(s.clients.limit)} at most`);
  spark("saved-spark", s.history.open, hue("stale"));
}

function showCache(c, warm) {
  const parts = [["cached", "cached", "hit"], ["in_flight", "in flight", "collapsed"], ["failures", "cached failures", "failure"]];
  const words = parts.map(([k, word]) => `${word} ${bytes(c.bytes[k])}`).join(", ");
  say("cache-of", `${bytes(c.bytes.total)} of ${bytes(c.capacity)}`);

  let left = 0;
  $("meter").innerHTML = parts.map(([k, , color]) => {
    const share = c.bytes[k] ? Math.max(c.bytes[k] / (c.capacity || 1) * 100, .5) : 0, at = left;
    left += share;
    return share ? `<rect x="${at}%" width="${Math.min(share, 100)}%" height="16" fill="${hue(color)}" stroke="var(--card)"/>` : "";
  }).join("");
  $("meter").setAttribute("aria-label", `${words} of ${bytes(c.capacity)}`);

  $("cache").innerHTML = parts.map(([k, word, color]) => `<dt><span class="sw ${color}"></span>${word}</dt>
    <dd class="soft">${whole(c.entries[k])}</dd><dd>${bytes(c.bytes[k])}</dd>`).join("") +
    `<dt class="soft">evicted, last minute</dt><dd></dd><dd>${whole(c.evictions_minute)}</dd>` +
    (warm ? warmLine(warm) : "");
}

// The requests of --warm: those that are not as they should be, and the fresh ones.
function warmLine(w) {
  const failed = w.failed ? `<span class="err">${whole(w.failed)} failed</span>` : "";
  const waiting = w.waiting ? `${whole(w.waiting)} waiting` : "";
  return `<dt class="soft">kept warm</dt><dd class="soft">${[failed, waiting].filter(Boolean).join(", ")}</dd>
    <dd>${whole(w.fresh)} fresh</dd>`;
}

const trouble = (e) => e ? `<span><span class="err">${escaped(e.text)}</span> <span class="soft nowrap">${secs(e.ago_s)} ago</span></span>` : `<span class="soft">none</span>`;

function showUpstreams(s) {
  const q = s.queue, waiting = q.waiting === 1 ? "1 fetch" : `${whole(q.waiting)} fetches`;
  say("queue", `${whole(q.running)} of ${whole(q.places)} connections in use; ` +
    (q.waiting ? `${waiting} in queue, the first for ${secs(q.oldest_wait_s)}` : "nothing in queue"));

  const states = {
    ok: () => state("ok", "answers"),
    failing: (u) => state("bad", "fails since " + clock(u.failing_since)),
    unknown: () => state("", "no answer yet"),
  };
  // One that fails says that; one that is only paused has answered.
  const paused = (u) => u.paused_s === null || u.state === "failing" ? "" :
    state("stale", `not asked for ${secs(u.paused_s)}`);
  rows("upstreams", s.upstreams, (u) => cell("Server", `<span class="key" title="${escaped(u.addr)}">${escaped(u.addr)}</span>`) +
    cell("State", paused(u) || (states[u.state] ?? states.unknown)(u), "state-of") +
    cell("Connected", whole(u.connections), "num") +
    cell("Fetches", whole(u.fetches), "num") +
    cell("Failed", u.failures ? `<span class="err">${whole(u.failures)}</span>` : "0", "num") +
    cell("Median", secs(u.median_s), "num") +
    cell("Last answer", u.last_ok_s === null ? "–" : secs(u.last_ok_s) + " ago", "nowrap") +
    cell("Last trouble", trouble(u.last_error), "said"));
}

// The sources of a feed. One is connected at a time; the figures are the feed's.
function showFeed(s) {
  const f = s.feed, slow = f.slow ? `<span class="err">${whole(f.slow)} slow</span>` : "";
  say("feed-of", `${bytes(f.held)} held for a backlog of ${bytes(f.backlog)}; ${whole(f.connections)} connections since the start`);

  const connected = (u) => u.connections ? state("ok", f.connected_s === null ? "connects" : "for " + secs(f.connected_s)) : state(u.state === "failing" ? "bad" : "", "not connected");
  rows("feed", s.upstreams, (u) => cell("Source", `<span class="key" title="${escaped(u.addr)}">${escaped(u.addr)}</span>`) +
    cell("State", connected(u), "state-of") +
    cell("Readers", `${whole(f.readers)} ${slow}`, "num") +
    cell("Lines", whole(f.lines), "num") +
    cell("Bytes", bytes(f.bytes), "num") +
    cell("Lost", f.lost ? `<span class="err">${whole(f.lost)}</span>` : "0", "num") +
    cell("Left out", whole(f.too_long + f.cut), "num") +
    cell("Last trouble", trouble(u.last_error), "said"));
}

// A store in a file, or the server of a fleet, which has no figures of a disk.
function showStore(st, fleet) {
  const since = st.since ? " since " + clock(st.since) : "";
  const states = {
    ok: () => state("ok", "in use" + since),
    unwritable: () => state("stale", "not written" + since),
    off: () => state("bad", "not used" + since),
  };
  say("store-of", fleet ? "shared with a fleet" : `${bytes(st.bytes)} of ${bytes(st.capacity)}`);

  const bad = (n) => n ? `<span class="err">${whole(n)}</span>` : "0";
  const written = fleet ? ["Shared", "Not shared"] : ["Written", "Not written"];
  table("store", [
    ["Where", `<span class="key" title="${escaped(st.name)}">${escaped(st.name)}</span>`, ""],
    ["State", (states[st.state] ?? states.off)(), "state-of"],
    ...(fleet ? [] : [["Poems", whole(st.entries), "num"]]),
    ["Found", whole(st.hits), "num"],
    ["Found, stale", whole(st.stale), "num"],
    ["Not found", whole(st.misses), "num"],
    ["Too late", whole(st.late), "num"],
    [written[0], whole(st.written), "num"],
    [written[1], bad(st.dropped), "num"],
    ["Errors", bad(st.errors), "num"],
  ]);

  if (!fleet) return;
  const figures = FLEET.map(([field, name]) => [name, whole(fleet[field]), "num"]);
  const troubles = FLEET_TROUBLE.map(([field, name]) => [name, bad(fleet[field]), "num"]);
  table("fleet", [["In the fleet", "this proxy", "soft"], ...figures, ...troubles]);
}

// A table of one row: each column has its name, its text and its class.
function table(id, columns) {
  const head = `<tr>${columns.map(([name, , kind]) => `<th class="${kind}">${name}</th>`).join("")}</tr>`;
  if ($(id).tHead.innerHTML !== head) $(id).tHead.innerHTML = head;
  rows(id, [columns], (list) => list.map(([name, html, kind]) => cell(name, html, kind)).join(""));
}

let before = new Map(); // the bytes of each fetch at the last look

function showFlights(flights) {
  $("flights-unshown").hidden = !!flights;
  $("flights").hidden = !flights?.length;
  $("flights-none").hidden = !flights || !!flights.length;
  say("flights-n", flights?.length ? `${flights.length}, the oldest first` : "");

  const seen = new Map();
  const rate = (f) => {
    const last = before.get(f.id);
    seen.set(f.id, f);
    const time = last ? f.age_s - last.age_s : 0;
    return time > 0 && f.bytes > last.bytes ? bytes((f.bytes - last.bytes) / time) + "/s" : "–";
  };
  rows("flights", flights ?? [], (f) => cell("Key", keyed(f)) +
    cell("Phase", escaped(f.phase), "nowrap") +
    cell("Age", secs(f.age_s), "num") +
    cell("Bytes", f.bytes ? bytes(f.bytes) : "–", "num") +
    cell("Rate", rate(f), "num") +
    cell("Readers", whole(f.readers), "num"));
  before = seen;
}

function showNotices(notices) {
  const line = (n) => `<li><time datetime="${escaped(n.time)}">${clock(n.time)}</time>
    <span class="${n.level === "error" ? "err" : ""}">${escaped(n.text)}</span>
    <span class="n">${n.count > 1 ? "×" + thin + whole(n.count) : ""}</span></li>`;
  $("log").innerHTML = notices.map(line).join("") || `<li class="soft">none</li>`;
}

// ---- keys

const LOOK = 8; // keys that are shown
const MOST_LOOKS = 50; // a look for a rare prefix may need several pages

async function look() {
  const keys = [];
  let cursor = null, total = 0;
  for (let i = 0; i < MOST_LOOKS; i++) {
    const prefix = encodeURIComponent($("prefix").value);
    const answer = await ask(`keys?limit=${LOOK - keys.length}&prefix=${prefix}${cursor === null ? "" : `&cursor=${cursor}`}`);
    if (!answer.ok) return showNoKeys(answer.status === 404 ? "" : "Keys are not shown here.");

    const page = await answer.json();
    keys.push(...page.keys);
    total = page.total;
    cursor = page.next;
    if (cursor === null || keys.length >= LOOK) break;
  }
  showKeys(keys, total);
}

function showNoKeys(text) {
  rows("keys", [], () => "");
  $("keys").hidden = true;
  $("keys-none").hidden = false;
  say("keys-none", text);
  say("keys-n", "");
}

function showKeys(keys, total) {
  if (!keys.length) return showNoKeys(total ? "No key begins like this." : "Nothing is cached yet.");
  $("keys").hidden = false;
  $("keys-none").hidden = true;
  say("keys-n", `${whole(keys.length)} of ${whole(total)} shown`);

  const focused = document.activeElement.dataset;
  const wanted = [focused.do, focused.id, focused.at];
  let at = 0;
  rows("keys", keys, (k) => keyRow(k, at++));
  restoreFocus(...wanted);
}

const STATES = { fresh: ["ok", "fresh"], stale: ["stale", "stale"], failed: ["bad", "cached failure"], empty: ["", "in flight"] };

function keyRow(k, at) {
  const fresh = k.fresh_for_s ? k.fresh_for_s / (k.fresh_for_s + (k.age_s ?? 0)) : 0;
  const left = { fresh: secs(k.fresh_for_s), stale: `grace for ${secs(k.served_for_s)}`, failed: `for ${secs(k.served_for_s)}`, empty: "–" }[k.state];
  const [kind, word] = STATES[k.state] ?? ["", escaped(k.state)];
  const name = escaped(k.key) || "the poem";
  const button = (act, text, label, more) => `<button class="quiet ${more}" data-do="${act}" data-at="${at}"
    data-id="${escaped(k.id)}" data-key="${name}" aria-label="${label}">${text}</button>`;

  return cell("Key", keyed(k)) +
    cell("State", state(kind, word), "state-of") +
    cell("Bytes", bytes(k.bytes), "num") +
    cell("Age", secs(k.age_s), "num") +
    cell("Stale in", `<div class="left"><svg class="thin" aria-hidden="true"><rect width="${fresh * 100}%" height="6" fill="${hue("hit")}"/></svg>
      <span class="soft small nowrap">${left}</span></div>`, "bar") +
    `<td class="right nowrap acts">${button("refresh", "Fetch again", `Fetch ${name} again`, "")}${button("purge", "Purge", `Purge ${name}`, "danger")}</td>`;
}

// The button that had the focus, or the one that stands in its place now.
function restoreFocus(act, id, at) {
  if (!act) return;
  const buttons = [...$("keys").querySelectorAll(`button[data-do="${act}"]`)];
  const same = buttons.find((b) => b.dataset.id === id) ?? buttons[Math.min(at, buttons.length - 1)];
  (same ?? $("prefix")).focus();
}

async function act(path, said) {
  try {
    const answer = await ask(path, { method: "POST" });
    toast(answer.ok ? said : `refused: ${(await answer.text()).slice(0, 200) || answer.status}`);
  } catch {
    toast("no answer");
  }
  await look().catch(() => {});
}

let fading;
function toast(text) {
  $("toast").textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => $("toast").textContent = "", 4000);
}

$("keys").addEventListener("click", (e) => {
  const button = e.target.closest("button[data-do]");
  if (!button) return;
  const { do: what, id, key } = button.dataset;
  act(`${what}?key=${id}`, `${what === "purge" ? "purged" : "fetching again"}: ${key}`);
});
$("purge-all").onclick = () => $("sure").showModal();
// Not when the dialog has closed: that is told later, when it may be open again.
$("sure").querySelector("[value=yes]").onclick = () => act("purge?all", "all is purged");
$("find").addEventListener("submit", (e) => { e.preventDefault(); look().catch(() => {}); });

// ---- the chart, by hand

$("chart").addEventListener("pointermove", (e) => {
  if (!drawn?.n) return;
  const { left, w, n } = drawn;
  const share = (e.clientX - $("chart").getBoundingClientRect().left - left) / (w - left);
  point(Math.round(share * (STEPS - 1)) - (STEPS - n));
});
$("chart").addEventListener("pointerleave", leave);
$("chart").addEventListener("blur", leave);
$("chart").addEventListener("keydown", (e) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
  if (step && drawn) { e.preventDefault(); point((moment ?? drawn.n) + step); }
});
addEventListener("resize", () => { if (drawn) chart(drawn.history, drawn.classes, drawn.notices); });

// ---- keys of the keyboard, light and dark

let theme = null; // until it is chosen, the system's
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => theme ? theme === "dark" : prefersDark.matches;

function paint() {
  if (theme) document.documentElement.dataset.theme = theme;
  say("theme", isDark() ? "Light" : "Dark");
}
$("theme").onclick = () => { theme = isDark() ? "light" : "dark"; paint(); };
prefersDark.addEventListener("change", paint);

let paused = false;
$("pause").onclick = () => {
  paused = !paused;
  say("pause", paused ? "Go on" : "Pause");
  $("pause").setAttribute("aria-pressed", paused);
};
$("help").onclick = () => $("keys-help").showModal();

addEventListener("keydown", (e) => {
  const isBusy = e.target.matches("input") || document.querySelector("dialog[open]");
  if (isBusy || e.ctrlKey || e.metaKey || e.altKey) return;
  const key = { p: () => $("pause").click(), t: () => $("theme").click(), "?": () => $("help").click(), "/": () => $("prefix").focus() }[e.key];
  if (key) { e.preventDefault(); key(); }
});

// ---- the pulse: a question a second, none while the page is hidden or paused, and
// slower while there is no answer

const ask = (path, how) => fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000), ...how });
const KEYS_EVERY = 5; // keys grow old on the page

function lose(word, reasons) {
  document.body.classList.add("lost");
  pill("down", word);
  document.title = "⚠ poetry: " + word;
  if (reasons) why(reasons);
}

async function beat() {
  const answer = await ask("status?history=300");
  if (answer.status === 401 || answer.status === 403) {
    lose("not allowed", ["This address wants a token, which a browser can't send: open the page over a tunnel to a loopback address."]);
    return 4000;
  }

  if (!answer.ok) throw new Error(`status ${answer.status}`);
  show(await answer.json());
  return 1000;
}

let beats = 0;
async function pulse() {
  let next = 1000;
  if (!paused && !document.hidden) {
    try {
      next = await beat();
      if (beats++ % KEYS_EVERY === 0 && !document.body.classList.contains("no-cache")) await look();
    } catch {
      lose("no answer");
      next = 4000;
    }
  }
  setTimeout(pulse, next);
}

paint();
pulse();
