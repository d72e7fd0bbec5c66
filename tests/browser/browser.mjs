// A headless Chromium that notices what no page of the gate may do.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const OUTPUT = resolve(dirname(fileURLToPath(import.meta.url)), "../output/browser");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Debian's Chromium; as root, as in a container, it has no sandbox of its own. */
export function launch() {
  assert.ok(existsSync(CHROMIUM), `no Chromium at ${CHROMIUM}; install Debian's package chromium`);
  return chromium.launch({ executablePath: CHROMIUM, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
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

/** Does what leads to another page, and waits until that is there. */
export async function leads(page, act) {
  await Promise.all([page.waitForEvent("load"), act()]);
}

/** Fills in the sign-in form by what a person reads, and sends it with the keyboard. */
export async function signIn(page, { name, password }) {
  await page.getByLabel("User name").fill(name);
  await page.getByLabel("Password").fill(password);
  await leads(page, () => page.keyboard.press("Enter"));
}

/** Sizes and colours that every page must look right in. */
const LOOKS = [
  { name: "phone-light", colorScheme: "light", viewport: { width: 320, height: 640 } },
  { name: "phone-dark", colorScheme: "dark", viewport: { width: 320, height: 640 } },
  { name: "desk-light", colorScheme: "light", viewport: { width: 1280, height: 800 } },
  { name: "desk-dark", colorScheme: "dark", viewport: { width: 1280, height: 800 } },
];

/** Looks at the page in every size and colour, keeps a picture of each, and checks what can be. */
export async function inspect(page, name) {
  mkdirSync(OUTPUT, { recursive: true });
  for (const look of LOOKS) {
    await page.setViewportSize(look.viewport);
    await page.emulateMedia({ colorScheme: look.colorScheme });
    await page.screenshot({ path: join(OUTPUT, `${name}-${look.name}.png`), fullPage: true });
    const seen = await page.evaluate(examine);
    const where = `${name}, ${look.name}`;
    assert.ok(seen.width <= look.viewport.width, `${where}: scrolls sideways, ${seen.width} px wide`);
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
  for (const target of document.querySelectorAll("button, input:not([type=hidden])")) {
    const { height } = target.getBoundingClientRect();
    need(height >= 24, `${target.name || target.textContent}: ${height} px are too few for a finger`);
  }

  const channels = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  };
  const pale = [];
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!says || !element.checkVisibility()) continue;
    const lights = [luminance(channels(getComputedStyle(element).color)), luminance(background(element))];
    const ratio = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
    if (ratio < 4.5) pale.push(`${ratio.toFixed(1)}: ${element.textContent.trim().slice(0, 40)}`);
  }
  return { faults, pale, width: document.documentElement.scrollWidth };
}
