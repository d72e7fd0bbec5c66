// A headless Chromium that notices what no page of the gate may do.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

/** Where pictures of the pages are kept. */
const OUTPUT = resolve(process.env.SCREENSHOTS ?? resolve(dirname(fileURLToPath(import.meta.url)), "../output/browser"));
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Debian's Chromium; as root, as in a container, it has no sandbox of its own. */
export function launch(options = {}) {
  return chromium.launch(debian(options));
}

/** Runs `visit` in a browser with these settings, by the names that they have in a profile's file. */
export async function withPreferences(preferences, visit) {
  const profile = mkdtempSync(join(tmpdir(), "portcullis-profile-"));
  mkdirSync(join(profile, "Default"));
  writeFileSync(join(profile, "Default", "Preferences"), JSON.stringify(preferences));
  const context = await chromium.launchPersistentContext(profile, debian({ ignoreHTTPSErrors: true }));
  try {
    await visit(await context.newPage(), context);
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 20 });
  }
}

function debian({ args = [], ...options }) {
  assert.ok(existsSync(CHROMIUM), `no Chromium at ${CHROMIUM}; install Debian's package chromium`);
  const sandbox = process.getuid() === 0 ? ["--no-sandbox"] : [];
  return { executablePath: CHROMIUM, args: [...sandbox, ...args], ...options };
}

/** A fresh browser profile, and a page in it whose misdeeds are gathered. */
export async function visit(browser, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  const misdeeds = [];
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to|Mixed Content/i.test(message.text())) misdeeds.push(message.text());
  });
  page.on("pageerror", (error) => misdeeds.push(`error: ${error.message}`));
  page.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    const ours = hostname === "localhost" || hostname.endsWith(".localhost") || options.alsoAsks === hostname;
    if (!ours && protocol !== "data:") misdeeds.push(`asks ${request.url()}`);
  });
  return { context, page, misdeeds };
}

/** Does what leads to another page, and waits until that is there; pages that only lead on don't count. */
export async function leads(page, act) {
  let last;
  const keep = (response) => {
    if (response.frame() === page.mainFrame() && response.request().isNavigationRequest()) last = response;
  };
  page.on("response", keep);
  try {
    await Promise.all([page.waitForEvent("load", () => last && !("refresh" in last.headers())), act()]);
  } finally {
    page.off("response", keep);
  }
}

/** Fills in the sign-in form by what a person reads, and sends it with the keyboard. */
export async function signIn(page, { name, password }) {
  await page.getByLabel("User name").fill(name);
  await page.getByLabel("Password").fill(password);
  await leads(page, () => page.keyboard.press("Enter"));
}

/** Sizes and colours that every page must look right in; 320 px are a desk at 400 % (WCAG 1.4.10), too. */
const PHONE = { width: 360, height: 740 };
const DESK = { width: 1280, height: 800 };
const LOOKS = [
  { name: "phone-light", colorScheme: "light", forcedColors: "none", viewport: PHONE },
  { name: "phone-dark", colorScheme: "dark", forcedColors: "none", viewport: PHONE },
  { name: "narrow", colorScheme: "light", forcedColors: "none", viewport: { width: 320, height: 568 } },
  { name: "desk-light", colorScheme: "light", forcedColors: "none", viewport: DESK },
  { name: "desk-dark", colorScheme: "dark", forcedColors: "none", viewport: DESK },
  { name: "desk-forced", colorScheme: "dark", forcedColors: "active", viewport: DESK },
];

/** Looks at the page in every size and colour, keeps a picture of each, and checks what can be. */
export async function inspect(page, name) {
  mkdirSync(OUTPUT, { recursive: true });
  for (const { name: look, viewport, colorScheme, forcedColors } of LOOKS) {
    await page.setViewportSize(viewport);
    await page.emulateMedia({ colorScheme, forcedColors });
    const seen = await page.evaluate(examine);
    // To hide the caret, Playwright would write styles of its own into the page.
    await page.screenshot({ path: join(OUTPUT, `${name}-${look}.png`), fullPage: true, caret: "initial" });
    const where = `${name}, ${look}`;
    assert.ok(seen.width <= viewport.width, `${where}: scrolls sideways, ${seen.width} px wide`);
    assert.deepEqual(seen.pale, [], `${where}: too little contrast`);
    assert.deepEqual(seen.faults, [], where);
  }
}

/** Runs in the page: what a screen reader, a phone and weak eyes need. */
function examine() {
  const faults = [];
  const need = (condition, fault) => condition || faults.push(fault);
  need(document.documentElement.lang, "no language");
  need(document.title.trim(), "no title");
  need(document.querySelector('meta[name="viewport"]'), "no viewport");
  need(document.querySelectorAll("h1").length === 1, "not exactly one h1");
  need(document.querySelector("main"), "no main landmark");
  need(document.querySelectorAll("script").length === 0, "a script");
  need(document.querySelectorAll("[style], [onclick], [onload]").length === 0, "inline style or handler");
  for (const input of document.querySelectorAll("input:not([type=hidden])")) {
    need(input.labels.length > 0, `no label for ${input.name}`);
  }
  for (const button of document.querySelectorAll("button")) need(button.textContent.trim(), "a button without words");
  for (const target of document.querySelectorAll("button, .button, input:not([type=hidden])")) {
    const { height } = target.getBoundingClientRect();
    need(height >= 44, `${target.name || target.textContent}: ${height} px are too few for a finger`);
  }
  for (const link of document.querySelectorAll("a")) need(link.textContent.trim(), "a link without words");
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  need(new Set(ids).size === ids.length, "an id twice");
  for (const told of document.querySelectorAll("[aria-describedby]")) {
    need(document.getElementById(told.getAttribute("aria-describedby")), `${told.name} is described by nothing`);
  }
  for (const element of document.querySelectorAll("main, main *, header, footer")) {
    const { left, right } = element.getBoundingClientRect();
    need(left >= 0 && right <= innerWidth, `${element.tagName} sticks out`);
  }

  const channels = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const over = (one, other) => {
    const lights = [luminance(one), luminance(other)];
    return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return faults.push("no ground");
  };
  const pale = [];
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!says || !element.checkVisibility()) continue;
    const ratio = over(channels(getComputedStyle(element).color), background(element));
    if (ratio < 4.5) pale.push(`${ratio.toFixed(1)}: ${element.textContent.trim().slice(0, 40)}`);
  }
  // What can be used must be seen (WCAG 1.4.11): the border of a field, the ground of a button.
  for (const control of document.querySelectorAll("button, .button, input:not([type=hidden])")) {
    const around = background(control.parentElement);
    const { borderTopColor, backgroundColor } = getComputedStyle(control);
    const ratio = Math.max(over(channels(borderTopColor), around), over(channels(backgroundColor), around));
    if (ratio < 3) pale.push(`${ratio.toFixed(1)}: the edge of ${control.name || control.textContent}`);
  }
  return { faults, pale, width: document.documentElement.scrollWidth };
}
