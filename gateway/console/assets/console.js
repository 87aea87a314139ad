// The console's only script. Every page works without it; it adds one-click copying, another
// zone, rows that appear by themselves, an export that says how far it is, and a question before
// what cannot be undone.
"use strict";
(() => {
  document.documentElement.classList.remove("no-script");

  // The page's one clock: its zone is written on it, and may be the viewer's own.
  const named = document.getElementById("clock");
  const timeZone = named?.dataset.zone;
  const clock = new Intl.DateTimeFormat("en-US", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone });
  const day = new Intl.DateTimeFormat("en-US", { month: "short", day: "numeric", timeZone });
  if (named) {
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const account = named.dataset.accountZone;
    const other = timeZone === account ? own : account;
    if (other && other !== timeZone) {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: `Use ${other}` });
      button.addEventListener("click", () => {
        const age = other === account ? 0 : 31536000;
        document.cookie = `trueup_zone=${other}; path=/; max-age=${age}; samesite=lax`;
        location.reload();
      });
      named.append(" ", button);
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = said; }, 1600);
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.ask;
    if (question && !confirm(question)) { event.preventDefault(); return; }
    // A filter that is left empty does not go into the address.
    if (event.target.method === "get") {
      const empty = [...event.target.elements].filter((field) => field.name && !field.value && !field.disabled);
      for (const field of empty) field.disabled = true;
      setTimeout(() => { for (const field of empty) field.disabled = false; }, 0);
    }
    // One click, one action.
    for (const button of event.target.querySelectorAll("button")) setTimeout(() => { button.disabled = true; }, 0);
  });
  // A page that comes back from the browser's memory is used again.
  addEventListener("pageshow", (event) => {
    if (event.persisted) for (const button of document.querySelectorAll("form button")) button.disabled = false;
  });

  // One tick for all rows of a page.
  for (const all of document.querySelectorAll("input[data-selects]")) {
    all.addEventListener("change", () => {
      for (const box of document.querySelectorAll(`input[name="${all.dataset.selects}"][type="checkbox"]`)) box.checked = all.checked;
    });
  }

  // On a narrow screen the rows of every table stand as cards; the style sheet needs each cell's heading for it.
  for (const table of document.querySelectorAll("main table:not(.stack)")) {
    const heads = [...(table.tHead?.rows[0]?.cells || [])].map((head) => head.textContent.trim());
    if (heads.length === 0) continue;
    table.classList.add("stack");
    table.setAttribute("role", "table");
    for (const part of table.querySelectorAll("thead, tbody, tfoot")) part.setAttribute("role", "rowgroup");
    for (const row of table.rows) {
      row.setAttribute("role", "row");
      let at = 0;
      for (const cell of row.cells) {
        const isHead = cell.tagName === "TH";
        cell.setAttribute("role", isHead ? (row.parentElement === table.tHead ? "columnheader" : "rowheader") : "cell");
        if (row.parentElement !== table.tHead && heads[at] && !cell.classList.contains("across")) cell.dataset.label = heads[at];
        at += cell.colSpan;
      }
    }
  }

  for (const select of document.querySelectorAll("select[data-submits]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }

  const theme = document.getElementById("theme");
  theme?.addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme === "dark" ||
      (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    const next = dark ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    document.cookie = `trueup_theme=${next}; path=/; max-age=31536000; samesite=lax`;
  });

  // A part of the page that keeps itself fresh: its address answers the same part as it is now. Figures follow
  // the rows: they are asked for when a row has come or changed, and now and then.
  const POLL_MS = 2000, SLOW_MS = 15000;
  const parts = [...document.querySelectorAll("[data-poll]")];
  const fetchPart = async (part) => {
    const answer = await fetch(part.dataset.poll, { headers: { "X-Fragment": "1" }, credentials: "same-origin" });
    if (answer.redirected || answer.status === 401) { location.reload(); return false; }
    if (!answer.ok) throw new Error(String(answer.status));
    return refresh(part, await answer.text());
  };
  for (const part of parts) {
    const sign = document.getElementById(part.dataset.sign || "");
    const usual = "follows" in part.dataset ? SLOW_MS : POLL_MS;
    let pause = usual;
    const look = async () => {
      if (!document.hidden) {
        try {
          if (await fetchPart(part) && part.tagName === "TBODY") {
            for (const follower of parts.filter((other) => "follows" in other.dataset)) await fetchPart(follower);
          }
          sign?.classList.add("is-live");
          pause = usual;
        } catch {
          sign?.classList.remove("is-live");
          pause = Math.min(pause * 2, SLOW_MS);
        }
      }
      if (part.isConnected && part.dataset.poll) setTimeout(look, pause);
    };
    setTimeout(look, pause);
  }

  // True if anything has changed.
  const refresh = (part, html) => {
    const fresh = new DOMParser().parseFromString(`<table>${part.tagName === "TBODY" ? html : ""}</table>`, "text/html");
    if (part.tagName !== "TBODY") {
      const box = new DOMParser().parseFromString(html, "text/html").body;
      if (box.querySelector("[data-over]")) part.removeAttribute("data-poll");
      if (box.innerHTML === part.dataset.last) return false;
      part.dataset.last = box.innerHTML;
      part.replaceChildren(...box.childNodes);
      return true;
    }
    const known = new Map([...part.rows].map((row) => [row.id, row]));
    const rows = [...fresh.querySelectorAll("tr[id]")];
    if (rows.length === 0) return false;
    let changed = false;
    part.querySelector("tr.nothing")?.remove();
    // The first page stays as long as it is: what falls off its end is on the next one.
    const most = Math.max(part.rows.length, rows.length, Number(part.dataset.most || 50));
    let before = part.firstElementChild;
    for (const row of rows) {
      const old = known.get(row.id);
      if (old) {
        if (old.dataset.state !== row.dataset.state) { changed = true; old.replaceWith(row); if (before === old) before = row; }
        before = (document.getElementById(row.id) || row).nextElementSibling;
      } else {
        changed = true;
        row.classList.add("new-row");
        part.insertBefore(row, before);
      }
    }
    while (part.rows.length > most) part.lastElementChild.remove();
    return changed;
  };

  // An export is fetched here, so that it can say how far it is and be stopped; rows come newest first, so
  // the time of the last one tells the share. Pieces become blobs at once: the browser keeps them on disk.
  const PIECE = 4 << 20;
  const count = new Intl.NumberFormat("en-US");
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-export]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const bar = document.querySelector("[data-exporting]");
    if (!bar) return;
    event.preventDefault();
    if (!bar.hidden) return;
    const [progress, text, stop] = [bar.querySelector("progress"), bar.querySelector("span"), bar.querySelector("button")];
    const ended = new AbortController();
    stop.onclick = () => ended.abort();
    bar.hidden = false;
    progress.value = 0;
    text.textContent = "Exporting…";
    let rows = -1;
    try {
      const answer = await fetch(link.href, { credentials: "same-origin", signal: ended.signal });
      if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
      const oldest = Date.parse(answer.headers.get("X-Oldest")), newest = Date.parse(answer.headers.get("X-Newest"));
      const reader = answer.body.getReader(), decoder = new TextDecoder();
      let parts = [], loose = [], bytes = 0, tail = "";
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        loose.push(piece.value);
        bytes += piece.value.length;
        if (bytes >= PIECE) { parts.push(new Blob(loose)); loose = []; bytes = 0; }
        const lines = (tail + decoder.decode(piece.value, { stream: true })).split("\r\n");
        tail = lines.pop();
        rows += lines.length;
        const at = Date.parse((lines.at(-1) || "").split(",")[1]?.replaceAll('"', ""));
        if (at && newest > oldest) progress.value = Math.min(99, 100 * (newest - at) / (newest - oldest));
        text.textContent = `${count.format(Math.max(rows, 0))} rows` + (at ? `, back to ${day.format(at)}, ${clock.format(at)}` : "");
      }
      const file = new Blob([...parts, ...loose], { type: "text/csv" });
      const address = URL.createObjectURL(file);
      const save = Object.assign(document.createElement("a"), { href: address, download: link.download });
      save.click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
      progress.value = 100;
      text.textContent = `${count.format(Math.max(rows, 0))} rows exported.`;
      setTimeout(() => { bar.hidden = true; }, 6000);
    } catch (error) {
      text.textContent = ended.signal.aborted ? "Stopped." : "It broke off. Try again, or export less of it.";
      setTimeout(() => { bar.hidden = true; }, ended.signal.aborted ? 1500 : 8000);
    }
  });

  // j and k walk along the rows of a list, Enter opens one, / goes to the search.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "/") {
      const search = document.querySelector("main input[name=q]") || document.querySelector("input[name=q]");
      if (search) { event.preventDefault(); search.focus(); }
    } else if (event.key === "j" || event.key === "k") {
      const links = [...document.querySelectorAll("tbody a.row-link")];
      const at = links.indexOf(document.activeElement);
      links[event.key === "j" ? Math.min(at + 1, links.length - 1) : Math.max(at - 1, 0)]?.focus();
    }
  });
})();
