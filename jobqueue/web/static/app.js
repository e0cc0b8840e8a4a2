// Keeps a page up to date, and gives it keys. Everything works without it, but for being up to date by itself.
"use strict";

(() => {
  const POLL = 5000; // milliseconds between two polls, where there is no stream
  const PATIENCE = 4000; // for a stream that ended to be open again: each ends now and then
  const TRY_STREAM = 60000; // until a stream that was refused is tried again
  const LEAST = 1000; // between two refreshes
  const body = document.body;
  const live = () => document.getElementById("live");
  const skew = Date.parse(body.dataset.now) - Date.now();

  // -- whether now is a bad moment ------------------------------------------------------------------

  function isBusy() {
    const main = live();
    if (!main || document.hidden) return true;
    if (main.querySelector("input[type=checkbox]:checked, [popover]:popover-open")) return true;
    const focused = document.activeElement;
    if (focused && main.contains(focused) && focused.matches("input:not([type=checkbox]), textarea, select")) return true;
    const selection = document.getSelection();
    return Boolean(selection && !selection.isCollapsed && main.contains(selection.anchorNode));
  }

  // -- refreshing -----------------------------------------------------------------------------------

  let wanted = false;
  let last = 0;
  let loading = false;

  function refresh() {
    wanted = true;
    attempt();
  }

  function attempt() {
    if (!wanted || loading || isBusy()) return;
    const wait = last + LEAST - Date.now();
    if (wait > 0) {
      setTimeout(attempt, wait);
      return;
    }
    wanted = false;
    last = Date.now();
    htmx.trigger(live(), "refresh");
  }

  const open = new Set();
  body.addEventListener("htmx:beforeRequest", () => { loading = true; });
  body.addEventListener("htmx:beforeSwap", (event) => {
    const text = event.detail.xhr.responseText;
    if (!text.includes('id="live"')) event.detail.shouldSwap = false; // not a page of ours: a proxy's, perhaps
    if (isBusy()) { // since it was asked for
      event.detail.shouldSwap = false;
      wanted = true;
    }
    open.clear();
    for (const each of live().querySelectorAll("details[open][id]")) open.add(each.id);
  });
  body.addEventListener("htmx:afterSwap", () => {
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    tick();
    choose();
  });
  body.addEventListener("htmx:afterRequest", (event) => {
    loading = false;
    const status = event.detail.xhr ? event.detail.xhr.status : 0;
    if (status === 0) show("gone");
    else if (status === 503) show("away");
    else show(source && source.readyState === EventSource.OPEN ? "live" : "poll");
    attempt();
  });
  setInterval(attempt, 1500);

  // -- the stream -----------------------------------------------------------------------------------

  const words = { live: "live", poll: "polling", away: "store away", gone: "no answer", off: "static" };
  let source = null;
  let tried = 0;

  function show(state) {
    const pulse = document.getElementById("pulse");
    if (!pulse || pulse.dataset.state === state) return;
    pulse.dataset.state = state;
    pulse.lastElementChild.textContent = words[state];
  }

  function listen() {
    if (source || !body.dataset.stream || !window.EventSource) return;
    tried = Date.now();
    source = new EventSource(body.dataset.stream);
    source.addEventListener("open", () => show("live"));
    source.addEventListener("changed", refresh);
    source.addEventListener("away", () => { show("away"); refresh(); });
    source.addEventListener("error", () => {
      // Closed: refused, so poll. Else the browser opens it again by itself.
      if (source && source.readyState === EventSource.CLOSED) {
        mute();
        show("poll");
        return;
      }
      setTimeout(() => { if (source && source.readyState !== EventSource.OPEN) show("poll"); }, PATIENCE);
    });
  }

  function mute() {
    if (source) source.close();
    source = null;
  }

  function poll() {
    const main = live();
    if (!main || !main.hasAttribute("hx-get") || document.hidden) return;
    if (source && source.readyState === EventSource.OPEN && document.getElementById("pulse")?.dataset.state === "live") return;
    if (!source && Date.now() - tried > TRY_STREAM) listen();
    refresh();
  }

  // A page in the background holds no stream: others may want it.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      mute();
      return;
    }
    listen();
    refresh();
  });
  window.addEventListener("pagehide", mute);
  window.addEventListener("pageshow", (event) => { if (event.persisted) { listen(); refresh(); } });
  if (live() && live().hasAttribute("hx-get")) {
    listen();
    if (!body.dataset.stream) show("poll");
    setInterval(poll, POLL + Math.random() * 1000);
  }

  // -- times ----------------------------------------------------------------------------------------

  function span(seconds) {
    for (const [least, unit, name] of [[172800, 86400, "d"], [7200, 3600, "h"], [120, 60, "min"]]) {
      if (seconds >= least) return `${Math.floor(seconds / unit)} ${name}`;
    }
    return seconds >= 10 ? `${Math.floor(seconds)} s` : `${Math.round(seconds * 10) / 10} s`;
  }

  function tick() {
    const now = Date.now() + skew;
    for (const each of document.querySelectorAll("time[datetime]")) {
      const seconds = (now - Date.parse(each.dateTime)) / 1000;
      const text = seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
      if (each.textContent !== text) each.textContent = text;
    }
  }
  setInterval(() => { if (!document.hidden) tick(); }, 1000);

  // -- choosing jobs --------------------------------------------------------------------------------

  function choose() {
    for (const form of document.querySelectorAll("form.jobs")) {
      const boxes = [...form.querySelectorAll("input[name=id]")];
      const chosen = boxes.filter((box) => box.checked).length;
      const label = form.querySelector("[data-chosen]");
      if (label) label.textContent = chosen ? `${chosen} chosen` : "none chosen";
      form.classList.toggle("choosing", chosen > 0);
      const all = form.querySelector("[data-all]");
      if (all) {
        all.checked = chosen > 0 && chosen === boxes.length;
        all.indeterminate = chosen > 0 && chosen < boxes.length;
      }
    }
  }
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-all]")) {
      for (const box of event.target.form.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
    }
    choose();
  });

  // -- keys -----------------------------------------------------------------------------------------

  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    if (event.key === "/") {
      const field = document.querySelector("[data-search]");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
      return;
    }
    if (Date.now() - going < 1500) {
      going = 0;
      const link = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === event.key);
      if (link) { event.preventDefault(); link.click(); }
    } else if (event.key === "g") {
      going = Date.now();
    }
  });
})();
