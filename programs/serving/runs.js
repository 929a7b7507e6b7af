// SPDX-License-Identifier: MIT
// The dashboard of runs: says which runs are shown, and asks for the pictures again when they go on. The pictures come from the server,
// with every text in them escaped, and the page's policy lets no script but this file run.
"use strict";
const $ = id => document.getElementById(id);
const element = (name, text) => { const e = document.createElement(name); if (text !== undefined) e.textContent = text; return e; };
let key = "", shown = null, asked = 0;

async function call(path) {
  const answer = await fetch(path, { headers: key ? { Authorization: "Bearer " + key } : {} });
  if (answer.ok) return answer;
  if (answer.status === 401) $("locked").hidden = false;
  throw new Error(answer.status + " " + answer.statusText);
}

async function showRuns() {
  const list = await (await call("runs/list")).json(), box = $("runs");
  if (!shown) shown = new Set(list.slice(0, 4).map(r => r.name));
  const rows = list.map(run => {
    const label = element("label"), tick = element("input");
    tick.type = "checkbox";
    tick.checked = shown.has(run.name);
    tick.onchange = () => { tick.checked ? shown.add(run.name) : shown.delete(run.name); draw(); };
    const ago = run.seconds_since < 90 ? "live" : run.seconds_since < 5400 ? Math.round(run.seconds_since / 60) + " min ago" : run.seconds_since < 172800 ? Math.round(run.seconds_since / 3600) + " h ago" : Math.round(run.seconds_since / 86400) + " days ago";
    label.append(tick, " " + run.name + " (" + ago + ")");
    return label;
  });
  box.replaceChildren(...rows);
  if (!list.length) box.textContent = "no run yet";
}

async function draw() {
  const number = ++asked;
  const query = new URLSearchParams([...shown].map(name => ["run", name]));
  query.append("smooth", $("smooth").value);
  const text = await (await call("runs/main?" + query)).text();
  if (number !== asked) return; // a later one is on its way
  const page = new DOMParser().parseFromString("<!doctype html><main>" + text + "</main>", "text/html");
  document.querySelector("main").replaceChildren(...page.querySelector("main").childNodes);
}

// fetch rather than EventSource, which sends no key
async function listen() {
  for (;;) {
    try {
      const answer = await call("runs/events"), reader = answer.body.getReader();
      $("live").textContent = "live";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        if (new TextDecoder().decode(value).includes("data:")) { await showRuns(); await draw(); }
      }
      $("live").textContent = "not connected";
    } catch (error) { $("live").textContent = error.message; }
    await new Promise(resolve => setTimeout(resolve, 2000));
  }
}

async function begin() {
  try { await showRuns(); await draw(); $("locked").hidden = true; }
  catch (error) { $("live").textContent = error.message; return; }
  listen();
}
$("smooth").onchange = draw;
$("unlock").onclick = () => { key = $("key").value; begin(); };
begin();
