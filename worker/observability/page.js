"use strict";
const EVERY = 5000;
let answeredAt = Date.now(), failed = false, busy = false;

async function refresh() {
  // A person who copies a text keeps it; a page that nobody sees asks for nothing.
  if (busy || document.hidden || !getSelection().isCollapsed) return;
  busy = true;
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    answeredAt = Date.now();
    failed = false;
  } catch {
    failed = true;
  }
  busy = false;
  show();
}

function show() {
  const seconds = Math.round((Date.now() - answeredAt) / 1000);
  document.getElementById("age").textContent = `${seconds} s ago`;
  const stale = document.getElementById("stale");
  if (failed) stale.textContent = `The worker does not answer. This page shows it as it was ${seconds} s ago.`;
  stale.hidden = !failed;
  document.body.classList.toggle("stale", failed);
}

setInterval(refresh, EVERY);
setInterval(show, 1000);
document.addEventListener("visibilitychange", refresh);
