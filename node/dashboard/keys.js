
// The key browser. It reads only when it is told to.
(() => {
  const { $, make, say, fill, some, bytes, state } = page, patience = 15000;
  const epoch = 1735689600000, ticksPerMilli = 40; // of revisions
  const timeOf = (revision) => epoch + Math.floor(revision / 256) / ticksPerMilli;
  const day = (t) => t.getFullYear() + "-" + String(t.getMonth() + 1).padStart(2, "0") + "-" + String(t.getDate()).padStart(2, "0");
  const when = (ms) => { const t = new Date(ms); return day(t) + " " + t.toTimeString().slice(0, 8); };

  async function ask(path, query) {
    let r;
    try {
      r = await fetch(path + "?" + new URLSearchParams(query), { cache: "no-store", signal: AbortSignal.timeout(patience) });
    } catch (e) {
      throw new Error(e.name === "TimeoutError" ? "no answer in " + patience / 1000 + " s" : e.message);
    }
    const text = await r.text();
    let told;
    try { told = JSON.parse(text); } catch { throw new Error(text.slice(0, 300) || "HTTP " + r.status); }
    if (!r.ok) throw new Error(told.error || "HTTP " + r.status);
    return told;
  }

  // What is shown, and where the pages before began.
  let prefix = "", at = "", revision = 0, from = "", next = "", before = [], chosen = "";
  let turn = 0; // rises with each list that is asked for: an answer to an earlier one is dropped
  async function list() {
    const mine = ++turn;
    say($("keys-said"), "reading…", "note");
    let found;
    try {
      found = await ask("/dashboard/keys", { prefix, from, at: revision || at });
    } catch (e) {
      if (mine === turn) say($("keys-said"), e.message, "note bad");
      return;
    }
    if (mine !== turn) return;
    revision = found.revision;
    if (!revision) at = ""; // nothing was written since: it is the present
    next = found.next;
    found.keys.forEach((k, i) => { k.row = k.id || "#" + i; });
    fill($("key-table").tBodies[0], found.keys, (k) => k.row, columns);
    mark();
    $("keys-scroll").hidden = !found.keys.length;
    $("keys-pages").hidden = !next && !before.length;
    $("keys-back").disabled = !before.length;
    $("keys-next").disabled = !next;
    say($("keys-said"), (found.keys.length ? some(found.keys.length, "key") : "No keys") + (next ? ", and perhaps more" : before.length ? " on the last page" : "") +
      " in " + some(found.shards, "shard") + (revision ? ", as of " + when(timeOf(revision)) + " (revision " + revision + ")" : ""), "note");
  }
  const owner = (id) => { const d = state() && state().shards.find((s) => s.id === id); return id + (d && d.leader ? " (" + d.leader + ")" : ""); };
  const columns = [
    { kind: "key", draw: (td, k) => {
      td.parentElement.dataset.id = k.id;
      if (!k.id) { say(td, k.key); return; }
      if (!td.firstElementChild) {
        td.append(make("button", "", "link"));
        td.firstElementChild.type = "button";
        td.firstElementChild.addEventListener("click", () => open(k.id));
      }
      say(td.firstElementChild, k.key);
      td.title = k.key;
    } },
    { kind: "n", text: (k) => String(k.version) },
    { text: (k) => when(k.created) },
    { text: (k) => when(k.modified) },
    { kind: "n", text: (k) => String(k.revision) },
    { text: (k) => owner(k.shard) },
  ];
  function mark() {
    for (const tr of $("key-table").tBodies[0].rows) tr.classList.toggle("picked", chosen !== "" && tr.dataset.id === chosen);
  }

  // The history of one key, its newest version first.
  let older = 0, opened = 0;
  async function open(id, from) {
    const mine = ++opened;
    chosen = id;
    mark();
    say($("key-ends"), "reading…", "note");
    $("key").hidden = false;
    $("key-older").hidden = true;
    if (!from) {
      say($("key-name"), "");
      say($("key-facts"), "");
      $("key-versions").replaceChildren();
    }
    let told;
    try {
      told = await ask("/dashboard/key", { id, at: from || revision || at });
    } catch (e) {
      if (mine === opened) say($("key-ends"), e.message, "note bad");
      return;
    }
    if (mine !== opened) return;
    if (!from) {
      say($("key-name"), told.key);
      say($("key-facts"), "Shard " + owner(told.shard) + ". " + (told.lease ? "Lease " + told.lease.id + ": " + lease(told.lease) + "." : "No lease."));
      $("key-name").focus();
    }
    for (const v of told.versions) $("key-versions").append(describe(v));
    older = told.older;
    $("key-older").hidden = !older;
    say($("key-ends"), told.ends);
  }
  const lease = (l) => l.left === -2 ? "unknown" : l.left < 0 ? "has ended" : l.left + " s left of " + l.granted + " s, when this was read";
  function describe(v) {
    const li = make("li");
    if (v.deleted) {
      li.append(make("span", "Deleted " + when(v.at) + ", revision " + v.revision, "warn"));
      return li;
    }
    const what = v.value, kinds = { text: "text", json: what.indented ? "JSON, indented here" : "JSON", hex: "binary" };
    li.append(make("span", "Version " + v.version + ", " + when(v.at) + ", revision " + v.revision + ", created at " + v.created +
      (v.lease ? ", lease " + v.lease : "") + ": " + (what.bytes ? bytes(what.bytes) + " of " + kinds[what.kind] + (what.cut ? ", of which this is the beginning" : "") : "empty")));
    if (what.bytes) {
      const pre = make("pre", what.text, what.kind);
      pre.tabIndex = 0;
      li.append(pre);
    }
    return li;
  }

  $("keys-form").addEventListener("submit", (e) => {
    e.preventDefault();
    [prefix, at, revision, from, before] = [$("prefix").value, $("as-of").value.trim(), 0, "", []];
    list();
  });
  $("keys-next").addEventListener("click", () => { before.push(from); from = next; list(); });
  $("keys-back").addEventListener("click", () => { from = before.pop() || ""; list(); });
  $("key-older").addEventListener("click", () => open(chosen, older));
})();
