// The console's only script. Every page works without it; it adds one-click copying, times in the
// viewer's zone, rows that appear by themselves, an export that says how far it is, and a question before
// what cannot be undone.
"use strict";
(() => {
  document.documentElement.classList.remove("no-script");

  const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  const localTimes = (root) => {
    const today = new Date().toDateString();
    for (const element of root.querySelectorAll("time[data-local]")) {
      const at = new Date(element.dateTime);
      element.textContent = at.toDateString() === today ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
      element.title = `${zone.format(at)} (your time)\n${element.dateTime}`;
      element.removeAttribute("data-local");
    }
  };
  localTimes(document);

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

  // A part of the page that keeps itself fresh: its address answers the same part as it is now.
  const POLL_MS = 2000, SLOW_MS = 15000;
  for (const part of document.querySelectorAll("[data-poll]")) {
    const sign = document.getElementById(part.dataset.sign || "");
    let pause = POLL_MS;
    const look = async () => {
      if (!document.hidden) {
        try {
          const answer = await fetch(part.dataset.poll, { headers: { "X-Fragment": "1" }, credentials: "same-origin" });
          if (answer.redirected || answer.status === 401) { location.reload(); return; }
          if (!answer.ok) throw new Error(String(answer.status));
          refresh(part, await answer.text());
          sign?.classList.add("is-live");
          pause = POLL_MS;
        } catch {
          sign?.classList.remove("is-live");
          pause = Math.min(pause * 2, SLOW_MS);
        }
      }
      if (part.isConnected && part.dataset.poll) setTimeout(look, pause);
    };
    setTimeout(look, pause);
  }

  const refresh = (part, html) => {
    const fresh = new DOMParser().parseFromString(`<table>${part.tagName === "TBODY" ? html : ""}</table>`, "text/html");
    if (part.tagName !== "TBODY") {
      const box = new DOMParser().parseFromString(html, "text/html").body;
      if (box.querySelector("[data-over]")) part.removeAttribute("data-poll");
      if (box.innerHTML === part.dataset.last) return;
      part.dataset.last = box.innerHTML;
      part.replaceChildren(...box.childNodes);
      localTimes(part);
      return;
    }
    const known = new Map([...part.rows].map((row) => [row.id, row]));
    const rows = [...fresh.querySelectorAll("tr[id]")];
    if (rows.length === 0) return;
    part.querySelector("tr.nothing")?.remove();
    // The first page stays as long as it is: what falls off its end is on the next one.
    const most = Math.max(part.rows.length, rows.length, Number(part.dataset.most || 50));
    let before = part.firstElementChild;
    for (const row of rows) {
      const old = known.get(row.id);
      if (old) {
        if (old.dataset.state !== row.dataset.state) { localTimes(row); old.replaceWith(row); if (before === old) before = row; }
        before = (document.getElementById(row.id) || row).nextElementSibling;
      } else {
        row.classList.add("new-row");
        localTimes(row);
        part.insertBefore(row, before);
      }
    }
    while (part.rows.length > most) part.lastElementChild.remove();
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
      const search = document.querySelector("input[name=q]");
      if (search) { event.preventDefault(); search.focus(); }
    } else if (event.key === "j" || event.key === "k") {
      const links = [...document.querySelectorAll("tbody a.row-link")];
      const at = links.indexOf(document.activeElement);
      links[event.key === "j" ? Math.min(at + 1, links.length - 1) : Math.max(at - 1, 0)]?.focus();
    }
  });
})();
