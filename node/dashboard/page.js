"use strict";
// All that a node tells is put on the page as text (textContent), never as HTML: keys are written by anybody.
const page = (() => {
  const every = 2000, patience = 15000, probeEvery = 4000, heatEvery = 5000, rowsAtOnce = 50, barsGap = 4;
  const $ = (id) => document.getElementById(id);
  let state = null, stateAt = 0, failure = "", ready = null;
  let sortBy = "start", descending = false, rows = rowsAtOnce, picked = 0;
  let operators = null, ended = [];

  // Texts of figures. A dash is what is not known.
  const none = "–";
  const rate = (n) => n >= 100 ? Math.round(n).toLocaleString("en") : n >= 0.05 ? n.toFixed(1) : "0";
  function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let i = 0;
    for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
    return (i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)) + " " + units[i];
  }
  const ago = (ms) => ms < 0 ? "never" : ms < 120000 ? Math.round(ms / 1000) + " s ago" : Math.round(ms / 60000) + " min ago";
  const some = (n, what) => n + " " + what + (n === 1 ? "" : "s");

  function make(tag, text, kind) {
    const e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (kind) e.className = kind;
    return e;
  }
  // Only what has changed is written, so that a selection in the page survives.
  function say(e, text, kind) {
    if (e.textContent !== text) e.textContent = text;
    if (kind !== undefined && e.className !== kind) e.className = kind;
  }
  function list(id, texts, empty) {
    const ul = $(id), wanted = texts.length ? texts : empty ? [empty] : [];
    while (ul.children.length > wanted.length) ul.lastChild.remove();
    while (ul.children.length < wanted.length) ul.append(make("li"));
    wanted.forEach((text, i) => say(ul.children[i], text));
  }
  // Rows keep their elements from one look to the next.
  const kept = new Map();
  function fill(body, items, key, columns) {
    let at = body.firstElementChild;
    const wanted = new Set();
    for (const item of items) {
      const id = body.parentElement.id + "/" + key(item);
      wanted.add(id);
      let tr = kept.get(id);
      if (!tr) {
        tr = make("tr");
        for (const c of columns) tr.append(make("td", "", c.kind || ""));
        kept.set(id, tr);
      }
      columns.forEach((c, i) => {
        const td = tr.children[i];
        if (c.draw) { c.draw(td, item); return; }
        say(td, c.text(item));
        if (c.kind && c.kind.startsWith("key") && td.title !== td.textContent) td.title = td.textContent;
      });
      if (at === tr) at = at.nextElementSibling;
      else body.insertBefore(tr, at);
    }
    for (const [id, tr] of kept) {
      if (tr.parentElement === body && !wanted.has(id)) { tr.remove(); kept.delete(id); }
    }
  }

  const took = (micros) => micros >= 100000 ? Math.round(micros / 1000) + " ms" : (micros / 1000).toFixed(1) + " ms";
  function span(ms) {
    const s = Math.floor(ms / 1000);
    return s < 120 ? s + " s" : s < 7200 ? Math.floor(s / 60) + " min" : s < 172800 ? Math.floor(s / 3600) + " h" : Math.floor(s / 86400) + " d";
  }
  // The slowest of a node's leaders, by what 99 of 100 of its log entries took.
  function slowest(name) {
    const led = state.shards.filter((d) => d.leader === name && d.commit_slow_micros);
    if (!led.length) return none;
    const top = led.reduce((a, b) => b.commit_slow_micros > a.commit_slow_micros ? b : a);
    return took(top.commit_slow_micros) + " (shard " + top.id + ")";
  }
  // The replica that is furthest behind the leader; -1 if that is unknown.
  const lag = (d) => Math.max(-1, ...(d.replicas || []).map((r) => r.lag));

  function nodeState(n) {
    if (n.heard_millis < 0) return "✖ not heard of (" + n.state + ")";
    if (n.silent) return "✖ no answer, heard " + ago(n.heard_millis) + " (" + n.state + ")";
    if (n.clock) return "✖ does not propose: " + n.clock + " (" + n.state + ")";
    return (n.state === "active" ? "● " : "◐ ") + n.state + ((n.waits || []).length ? ": waits, " + n.waits.join("; ") : "");
  }
  const nodeColumns = [
    { text: (n) => n.name + " (" + n.id + ")" },
    { draw: (td, n) => say(td, nodeState(n), "wrap " + (n.silent || n.clock ? "bad" : n.state === "active" ? "good" : "warn")) },
    { kind: "n", text: (n) => n.silent ? none : String(n.leaders) },
    { kind: "n", text: (n) => String(n.replicas) },
    { kind: "n", text: (n) => n.silent ? none : rate(n.writes) },
    { draw: disk },
    { kind: "n", text: (n) => n.silent || !n.fsync_micros ? none : (n.fsync_micros / 1000).toFixed(1) + " ms" },
    { kind: "n", text: (n) => n.silent ? none : slowest(n.name) },
    { text: (n) => n.version || none },
    { kind: "n", text: (n) => n.silent || !n.uptime_millis ? none : span(n.uptime_millis) },
    { text: (n) => (n.client_urls || []).join(" ") },
  ];
  function disk(td, n) {
    if (n.silent || !n.disk_total) { say(td, none); return; }
    if (!td.firstElementChild) {
      const m = make("meter");
      m.max = 100; m.high = 90; m.low = 80; m.optimum = 0;
      td.replaceChildren(m, make("span"));
    }
    const used = Math.round(100 * (1 - n.disk_free / n.disk_total));
    td.firstElementChild.value = used;
    say(td.lastElementChild, " " + used + " %, " + bytes(n.disk_free) + " free");
    td.firstElementChild.setAttribute("aria-label", "disk of " + n.name + " used, " + used + " %");
  }

  function stepText(s) {
    let t = s.kind;
    if (s.phase) t += s.kind === "merge" && s.with ? " shard " + s.with + " into shard " + s.shard : " shard " + s.shard;
    else if (s.kind === "merge") t += " shard " + s.with + " into shard " + s.shard;
    else if (s.kind === "add" || s.kind === "remove" || s.kind === "move") t += " a replica of shard " + s.shard;
    else t += " shard " + s.shard;
    if (s.key && s.kind === "split") t += " at " + s.key;
    if (s.child) t += ", new shard " + s.child;
    if (s.from) t += " from " + s.from;
    if (s.to) t += " to " + s.to;
    if (s.bytes) t += ", copying " + bytes(s.bytes);
    if (s.phase) t += " (" + s.phase + ")";
    if (s.why) t += ": " + s.why;
    if (s.effect) t += " → " + s.effect;
    return t;
  }
  const doing = { move: "moving", split: "splitting", merge: "merging" };
  // What is to be seen of a shard, as words.
  function shardState(d) {
    const words = [];
    if (d.operator) words.push((doing[d.operator.kind] || d.operator.kind) + " (" + d.operator.phase + ")" + (d.operator.why ? ": " + d.operator.why : ""));
    const group = mergedInto.get(d.id);
    if (group && !d.operator) words.push("merging into shard " + group.shard + " (" + group.phase + ")" + (group.phase !== "prepared" ? ", frozen" : ""));
    if (!d.leader) words.push("✖ no known leader");
    for (const r of d.replicas || []) {
      if (r.silent) words.push("✖ " + r.node + " does not answer");
      else if (r.unfit) words.push("✖ " + r.node + " is unfit: " + r.unfit);
      else if (r.lag > lagShown) words.push("◐ " + r.node + " is " + r.lag.toLocaleString("en") + " entries behind");
    }
    if (d.locked) words.push("locked: " + d.locked);
    return words.join("; ");
  }
  // A replica is a few entries behind all the time; a thousand is one that does not keep up or has just come.
  const lagShown = 1000;
  let mergedInto = new Map();
  const replicaText = (r) => r.node + (r.learner ? " (learner)" : "") + (r.silent ? " ✖" : r.unfit ? " (unfit)" : "");
  const figure = (f) => (d) => d.leader ? f(d) : none;
  const columns = [
    { name: "id", title: "ID", kind: "n", text: (d) => String(d.id), value: (d) => d.id },
    { name: "start", title: "Start", kind: "key", text: (d) => d.start, value: (d) => d.order },
    { name: "end", title: "End", kind: "key", text: (d) => d.end },
    { name: "size", title: "Size", kind: "n", text: figure((d) => bytes(d.bytes)), value: (d) => d.bytes },
    { name: "writes", title: "Writes/s", kind: "n", text: figure((d) => rate(d.writes)), value: (d) => d.writes },
    { name: "wbytes", title: "Written/s", kind: "n", text: figure((d) => bytes(d.write_bytes)), value: (d) => d.write_bytes },
    { name: "reads", title: "Reads/s", kind: "n", text: figure((d) => rate(d.reads)), value: (d) => d.reads },
    { name: "commit", title: "Commit", kind: "n", text: figure((d) => d.commit_micros ? took(d.commit_micros) : none), value: (d) => d.commit_micros },
    { name: "slow", title: "99 %", kind: "n", text: figure((d) => d.commit_slow_micros ? took(d.commit_slow_micros) : none), value: (d) => d.commit_slow_micros },
    { name: "lag", title: "Lag", kind: "n", text: figure((d) => lag(d) < 0 ? none : lag(d).toLocaleString("en")), value: (d) => d.leader ? lag(d) : -1 },
    { name: "leader", title: "Leader", text: (d) => d.leader || none, value: (d) => d.leader },
    { name: "replicas", title: "Replicas", text: (d) => (d.replicas || []).map(replicaText).join(" ") },
    { name: "state", title: "State", kind: "wrap", text: (d) => d.words || "ok", value: (d) => d.words },
  ];
  for (const c of columns) {
    const th = make("th", undefined, c.kind === "n" ? "n" : "");
    th.scope = "col";
    if (c.value) {
      const b = make("button", c.title);
      b.type = "button";
      b.addEventListener("click", () => {
        if (sortBy === c.name) descending = !descending;
        else { sortBy = c.name; descending = !["id", "start", "leader"].includes(c.name); }
        drawShards();
      });
      th.append(b);
    } else th.textContent = c.title;
    c.head = th;
    $("shard-head").append(th);
  }

  function drawShards() {
    for (const c of columns) {
      if (c.value) c.head.setAttribute("aria-sort", c.name !== sortBy ? "none" : descending ? "descending" : "ascending");
    }
    if (!state) return;
    const text = $("filter").value.trim().toLowerCase(), only = $("troubled").checked;
    const found = state.shards.filter((d) => (!only || d.words) && (text === "" ||
      (text.startsWith("#") ? String(d.id) === text.slice(1) : d.search.includes(text))));
    const by = columns.find((c) => c.name === sortBy).value;
    found.sort((a, b) => {
      const x = by(a), y = by(b);
      return (x < y ? -1 : x > y ? 1 : 0) * (descending ? -1 : 1) || a.order - b.order;
    });
    const shown = found.slice(0, rows);
    fill($("shard-table").tBodies[0], shown, (d) => d.id, columns);
    for (const d of shown) kept.get("shard-table/" + d.id).classList.toggle("picked", d.id === picked);
    say($("count"), (shown.length < found.length ? shown.length + " of " : "") + some(found.length, "shard") +
      (found.length < state.shards.length ? ", of " + state.shards.length + " in all" : ""));
    $("more").hidden = shown.length === found.length;
  }

  // The strip: as many bars as fit; shards that share one are told by the busiest of them.
  let bars = [];
  function drawStrip() {
    const canvas = $("strip"), box = canvas.getBoundingClientRect(), scale = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(box.width * scale));
    canvas.height = Math.max(1, Math.round(box.height * scale));
    if (!state) return;
    const g = canvas.getContext("2d"), css = getComputedStyle(document.documentElement), colour = (n) => css.getPropertyValue(n).trim();
    const all = state.shards, count = Math.max(1, Math.min(all.length, Math.floor(box.width / 3)));
    bars = [];
    for (let i = 0; i < count; i++) {
      const part = all.slice(Math.floor(i * all.length / count), Math.floor((i + 1) * all.length / count));
      const top = part.reduce((a, b) => (b.leader ? b.writes : 0) > (a.leader ? a.writes : 0) ? b : a);
      bars.push({ part, top, writes: top.leader ? top.writes : 0, lost: part.some((d) => !d.leader) });
    }
    const most = Math.max(1e-9, ...bars.map((b) => b.writes));
    const width = canvas.width / bars.length, gap = width > barsGap * scale ? scale : 0;
    bars.forEach((b, i) => {
      const share = most > 0.05 ? b.writes / most : 0, height = Math.max(2 * scale, share * (canvas.height - 6 * scale));
      b.x = i * width;
      g.fillStyle = colour("--bar-low");
      g.fillRect(b.x, canvas.height - height, width - gap, height);
      g.globalAlpha = share;
      g.fillStyle = colour("--bar");
      g.fillRect(b.x, canvas.height - height, width - gap, height);
      g.globalAlpha = 1;
      if (b.lost) { // a cross from the top: its figures are not known
        g.fillStyle = colour("--bad");
        g.fillRect(b.x, 0, width - gap, 4 * scale);
      }
      if (b.part.some((d) => d.id === picked)) {
        g.strokeStyle = colour("--front");
        g.lineWidth = 2 * scale;
        g.strokeRect(b.x + scale, scale, Math.max(width - gap - 2 * scale, 1), canvas.height - 2 * scale);
      }
    });
    const hot = bars.length ? bars.reduce((a, b) => b.writes > a.writes ? b : a).top : null;
    canvas.setAttribute("aria-label", some(all.length, "shard") + " in the order of keys, by writes" +
      (hot && hot.leader ? "; the busiest is shard " + hot.id + " with " + rate(hot.writes) + " writes/s" : ""));
    const chosen = all.find((d) => d.id === picked) || (hot && hot.writes >= 0.05 ? hot : null);
    say($("strip-text"), !chosen ? "Nothing is written." : (chosen.id === picked ? "" : "Busiest: ") + "shard " + chosen.id + " from " + chosen.start + " to " + chosen.end +
      ": " + (chosen.leader ? rate(chosen.writes) + " writes/s, " + rate(chosen.reads) + " reads/s, " + bytes(chosen.bytes) + ", led by " + chosen.leader : "no known leader"));
  }
  function pick(i) {
    if (!bars.length) return;
    picked = bars[Math.max(0, Math.min(bars.length - 1, i))].top.id;
    drawStrip();
    drawShards();
  }
  $("strip").addEventListener("click", (e) => {
    const box = $("strip").getBoundingClientRect();
    pick(Math.floor((e.clientX - box.left) / box.width * bars.length));
  });
  $("strip").addEventListener("keydown", (e) => {
    const at = bars.findIndex((b) => b.part.some((d) => d.id === picked));
    const to = { ArrowLeft: Math.max(at, 0) - 1, ArrowRight: at + 1, Home: 0, End: bars.length - 1 }[e.key];
    if (to !== undefined) { pick(to); e.preventDefault(); }
    if (e.key === "Enter" && picked) { $("filter").value = "#" + picked; drawShards(); $("filter").focus(); }
    if (e.key === "Escape") { picked = 0; drawStrip(); drawShards(); }
  });

  // The map of the last hour. Colours are by the square root, so that what is a hundredth of the busiest is still seen.
  let heat = null, spot = null;
  function ramp() {
    const css = getComputedStyle(document.documentElement).getPropertyValue("--heat").trim().split(/\s+/);
    const stops = css.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
    return (share) => {
      const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
      return stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * (at - i)));
    };
  }
  function drawHeat() {
    const canvas = $("heat"), box = canvas.getBoundingClientRect(), scale = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(box.width * scale));
    canvas.height = Math.max(1, Math.round(box.height * scale));
    if (!heat || !heat.values.length || !heat.rows.length) {
      say($("heat-text"), heat ? "Nothing is recorded yet: the first column comes within seconds of the start." : "");
      return;
    }
    const g = canvas.getContext("2d"), colour = ramp(), columns = heat.values.length, rows = heat.rows.length;
    const most = heat.values.reduce((top, c) => (c || []).reduce((a, v) => Math.max(a, v), top), 0);
    // A picture of one dot for each square, stretched without smoothing.
    const dots = document.createElement("canvas");
    dots.width = columns;
    dots.height = rows;
    const d = dots.getContext("2d"), image = d.createImageData(columns, rows);
    heat.values.forEach((column, x) => (column || []).forEach((v, y) => {
      if (v === null) return;
      const [r, gr, b] = colour(most >= 0.05 ? Math.sqrt(v / most) : 0);
      image.data.set([r, gr, b, 255], 4 * (y * columns + x));
    }));
    d.putImageData(image, 0, 0);
    g.imageSmoothingEnabled = false;
    g.drawImage(dots, 0, 0, canvas.width, canvas.height);
    if (spot) {
      const w = canvas.width / columns, h = canvas.height / rows;
      g.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--front").trim();
      g.lineWidth = 2 * scale;
      g.strokeRect(spot.x * w, spot.y * h, Math.max(w, 3 * scale), Math.max(h, 3 * scale));
    }
    const legend = $("heat-scale");
    legend.width = 64;
    legend.height = 1;
    for (let i = 0; i < 64; i++) {
      legend.getContext("2d").fillStyle = "rgb(" + colour(Math.sqrt(i / 63)).join(",") + ")";
      legend.getContext("2d").fillRect(i, 0, 1, 1);
    }
    say($("heat-most"), rate(most) + "/s");
    say($("heat-from"), columns > 1 ? span(columns * heat.interval_millis) + " ago" : "");
    canvas.setAttribute("aria-label", heat.measure + " per second of " + some(rows, "range") + " of keys over " + span(columns * heat.interval_millis) + "; at most " + rate(most));
    say($("heat-text"), spot ? heatText(spot) : most >= 0.05 ? "At most " + rate(most) + " " + heat.measure + "/s in one row." : "No " + heat.measure + ".");
  }
  const ownerAt = (at) => (heat.owners[at.y] || []).filter((o) => o.c <= at.x).pop();
  function heatText(at) {
    const column = heat.values[at.x], owner = ownerAt(at), ago = (heat.values.length - 1 - at.x) * heat.interval_millis;
    const when = ago ? span(ago) + " ago, " : "now, ";
    const range = "from " + heat.rows[at.y] + " to " + (heat.rows[at.y + 1] || "∞") + ": ";
    if (!column) return when + range + "nothing was recorded";
    const value = column[at.y];
    return when + range + (value === null ? "unknown" : rate(value) + " " + heat.measure + "/s") + (!owner ? "" :
      ", shard " + owner.s + (owner.n > 1 ? " and " + some(owner.n - 1, "other") : "") + (owner.l ? ", led by " + owner.l : ", no known leader"));
  }
  function point(x, y) {
    if (!heat || !heat.values.length || !heat.rows.length) return;
    spot = { x: Math.max(0, Math.min(heat.values.length - 1, x)), y: Math.max(0, Math.min(heat.rows.length - 1, y)) };
    drawHeat();
  }
  function pointAt(e) {
    if (!heat) return;
    const box = $("heat").getBoundingClientRect();
    point(Math.floor((e.clientX - box.left) / box.width * heat.values.length), Math.floor((e.clientY - box.top) / box.height * heat.rows.length));
  }
  $("heat").addEventListener("pointermove", pointAt);
  $("heat").addEventListener("click", pointAt);
  $("heat").addEventListener("pointerleave", () => { spot = null; drawHeat(); });
  $("heat").addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (step && heat) {
      const from = spot || { x: heat.values.length - 1 - step[0], y: -step[1] };
      point(from.x + step[0], from.y + step[1]);
      e.preventDefault();
    }
    const owner = e.key === "Enter" && spot && ownerAt(spot);
    if (owner) { picked = owner.s; $("filter").value = "#" + owner.s; drawStrip(); drawShards(); $("filter").focus(); }
    if (e.key === "Escape") { spot = null; drawHeat(); }
  });
  async function lookAtHeat() {
    const measure = $("heat-measure").value;
    const r = await fetch("/dashboard/heat?measure=" + measure, { cache: "no-store", signal: AbortSignal.timeout(patience) });
    const told = await r.json();
    if (!r.ok) throw new Error(told.error || "HTTP " + r.status);
    if (measure !== $("heat-measure").value) return; // another was chosen meanwhile
    heat = told;
    if (spot) point(spot.x, spot.y);
    else drawHeat();
  }

  function drawHealth() {
    const known = state && !failure, problems = known ? state.problems : [];
    let kind = "warn", mark = "…", text = "asking the node";
    if (failure) [kind, mark, text] = ["bad", "✖", "This node does not answer: " + failure];
    else if (ready && !ready.ok) [kind, mark, text] = ["bad", "✖", "Not ready: " + ready.why];
    else if (known && problems.length) [kind, mark, text] = ["warn", "▲", (ready ? "Ready, but " : "But ") + problems[0] + (problems.length > 1 ? ", and " + (problems.length - 1) + " more" : "")];
    else if (known && ready) [kind, mark, text] = ["good", "✔", "Ready: " + some(state.nodes.length, "node") + ", " + some(state.shards.length, "shard") + ", " +
      rate(state.shards.reduce((sum, d) => sum + (d.leader ? d.writes : 0), 0)) + " writes/s"];
    say($("health-mark"), mark);
    say($("health-text"), text);
    $("health").className = "health " + kind;
    list("problems", problems);
    document.body.classList.toggle("stale", failure !== "");
    document.title = (kind === "good" ? "" : mark + " ") + "Flotilla" + (state ? " · " + state.node : "");
    say($("age"), !state ? "" : failure ? "What is below is " + Math.round((Date.now() - stateAt) / 1000) + " s old." : document.hidden ? "Paused." : "");
  }

  function draw() {
    say($("source"), "As " + state.node + " sees it, every two seconds; rates are averages of about a minute.");
    mergedInto = new Map(state.balancer.operators.filter((o) => o.kind === "merge" && o.with).map((o) => [o.with, o]));
    state.shards.forEach((d, i) => {
      d.order = i;
      d.words = shardState(d);
      d.search = ("#" + d.id + " " + d.start + " " + d.end + " " + (d.replicas || []).map(replicaText).join(" ") + " leader:" + d.leader + " " + d.words).toLowerCase();
    });
    fill($("nodes").tBodies[0], state.nodes, (n) => n.id, nodeColumns);
    say($("meta"), !state.meta ? "" : "Placement table (meta group): leader " + (state.meta.leader || "unknown") + ", replicas " +
      (state.meta.replicas || []).map(replicaText).join(" ") + ", version " + state.version + ". " +
      (state.alarms.length ? "Alarms: " + state.alarms.map((a) => a.alarm + " of " + a.node).join(", ") + "." : "No alarms."));
    const b = state.balancer;
    say($("balancer"), b.on ? "On" + (b.waits ? ", but waits: " + b.waits : "") : "Paused: what has begun goes on, nothing else begins by itself.");
    list("operators", b.operators.map(stepText), "nothing");
    list("steps", b.steps.map(stepText), "nothing");
    list("reasons", b.reasons.map((r) => r.rule + ": " + r.text + (r.shards.length ? " (" + (r.shards.length > 5 ? some(r.shards.length, "shard") : "shard " + r.shards.join(", ")) + ")" : "")), "–");
    const now = new Map(b.operators.map((o) => [o.id, o]));
    for (const [id, o] of operators || []) {
      if (!now.has(id)) ended.unshift(new Date().toLocaleTimeString() + "  " + stepText({ ...o, phase: "" }));
    }
    ended = ended.slice(0, 30);
    operators = now;
    list("ended", ended, "nothing");
    drawStrip();
    drawShards();
    $("keys-off").hidden = state.keys;
    $("keys-on").hidden = !state.keys;
  }

  async function look() {
    const r = await fetch("/dashboard/state", { cache: "no-store", signal: AbortSignal.timeout(patience) });
    const told = await r.json();
    if (!r.ok) throw new Error(told.error || "HTTP " + r.status);
    state = told;
    stateAt = Date.now();
    draw();
  }
  async function probe() {
    const r = await fetch("/readyz?verbose", { cache: "no-store", signal: AbortSignal.timeout(patience) });
    const lines = (await r.text()).split("\n");
    ready = { ok: r.ok, why: lines.filter((l) => l.startsWith("[-]")).map((l) => l.slice(3)).join("; ") || "HTTP " + r.status };
  }
  // Each goes on by itself: a probe that waits for a leader does not hold up the rest. Nothing is asked while nobody looks.
  function again(f, pause, failed) {
    let running = false, due = 0;
    const run = async () => {
      clearTimeout(due);
      if (running || document.hidden) return;
      running = true;
      try { await f(); failed(""); } catch (e) { failed(e.name === "TimeoutError" ? "no answer in " + patience / 1000 + " s" : e.message); }
      running = false;
      drawHealth();
      due = setTimeout(run, pause);
    };
    document.addEventListener("visibilitychange", run);
    run();
  }
  again(look, every, (text) => { failure = text; });
  again(probe, probeEvery, (text) => { if (text) ready = { ok: false, why: text }; });
  again(lookAtHeat, heatEvery, () => {}); // that the node does not answer is told already
  $("heat-measure").addEventListener("change", () => { heat = null; drawHeat(); lookAtHeat().catch(() => {}); });
  document.addEventListener("visibilitychange", drawHealth);
  $("filter").addEventListener("input", () => { rows = rowsAtOnce; drawShards(); });
  $("troubled").addEventListener("change", () => { rows = rowsAtOnce; drawShards(); });
  $("more").addEventListener("click", () => { rows += rowsAtOnce; drawShards(); });
  const redraw = () => { drawStrip(); drawHeat(); };
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  return { $, make, say, fill, some, bytes, state: () => state };
})();
