// Every page that the gate itself shows: how it looks, what it says, and what it must not do.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { start as startBackend } from "./backend.mjs";
import { inspect, launch, leads, signIn, visit } from "./browser.mjs";
import { start } from "./gate.mjs";

let backend, gate, slowGate, browser;

before(async () => {
  backend = await startBackend();
  gate = await start({ backend: backend.url });
  // Where failures can't slow down the other tests.
  slowGate = await start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await gate?.stop();
  await slowGate?.stop();
  backend?.stop();
});

/** Opens a page of the application that wants everybody signed in. */
async function atDesk(page, path) {
  await page.goto(gate.at("/form", "desk"));
  await signIn(page, gate.account);
  return page.goto(gate.at(path, "desk"));
}

const contact = /it@example\.com/;

const PAGES = [
  { name: "sign-in", status: 200, open: (page) => page.goto(gate.at("/.portcullis/sign-in")) },
  {
    name: "wrong-password",
    status: 403,
    async open(page) {
      await page.goto(gate.at("/"));
      await signIn(page, { ...gate.account, password: "wrong" });
    },
  },
  {
    name: "too-many-attempts",
    status: 429,
    async open(page) {
      await page.goto(slowGate.at("/"));
      for (let times = 0; times < 10; times++) await signIn(page, { name: "eve", password: "wrong" });
    },
    says: /Wait \d+\s(second|minute)s?, then try again/,
  },
  {
    name: "form-expired",
    status: 403,
    async open(page) {
      await page.goto(gate.at("/"));
      await page.context().clearCookies();
      await signIn(page, gate.account);
    },
    says: /open for too long/,
  },
  {
    name: "signed-in",
    status: 200,
    async open(page) {
      await page.goto(gate.at("/"));
      await page.getByLabel("User name").fill(gate.account.name);
      await page.getByLabel("Password").fill(gate.account.password);
      // It leads on at once; for as long as what it leads to does not come, a person sees it.
      await page.route(gate.at("/"), (route) => route.abort("aborted"));
      await page.keyboard.press("Enter");
      await page.getByRole("heading", { name: "You are signed in" }).waitFor();
    },
    says: /Continue/,
  },
  {
    name: "whoami",
    status: 200,
    async open(page) {
      await page.goto(gate.at("/"));
      await signIn(page, gate.account);
    },
    says: /x-portcullis-user/,
  },
  {
    name: "denied",
    status: 403,
    async open(page) {
      await page.goto(gate.at("/", "members"));
      await signIn(page, gate.account);
    },
    says: /signed in as ada[^]*Use another account/,
  },
  {
    name: "expired-post",
    status: 401,
    async open(page) {
      await atDesk(page, "/form");
      await page.context().clearCookies();
      await leads(page, () => page.getByRole("button", { name: "Send" }).click());
    },
    says: /not passed on/,
  },
  { name: "not-found", status: 404, open: (page) => page.goto(gate.at("/.portcullis/no-such-page")) },
  { name: "unknown-host", status: 421, open: (page) => page.goto(gate.at("/", "unheard-of")) },
  { name: "backend-down", status: 502, open: (page) => page.goto(gate.at("/", "down")), says: contact },
  { name: "backend-slow", status: 504, open: (page) => atDesk(page, "/slow"), says: contact },
  { name: "backend-failed", status: 500, open: (page) => atDesk(page, "/fail"), says: contact },
  { name: "backend-overloaded", status: 503, open: (page) => atDesk(page, "/overloaded"), says: contact },
  {
    name: "too-many-requests",
    status: 429,
    async open(page) {
      for (let times = 0; times < 4; times++) await page.goto(gate.at("/", "busy"));
    },
    says: /Wait \d+\s(minutes|hour)/,
  },
  { name: "bad-request", status: 400, open: (page) => page.goto(gate.at("/public/%00")) },
  { name: "long-address", status: 414, open: (page) => page.goto(gate.at(`/?${"a".repeat(9000)}`)) },
  {
    name: "too-many-cookies",
    status: 431,
    async open(page) {
      const many = [...Array(12).keys()];
      const cookies = many.map((at) => ({ name: `c${at}`, value: "x".repeat(3500), url: gate.at("/") }));
      await page.context().addCookies(cookies);
      await page.goto(gate.at("/"));
    },
    says: /Delete this site’s cookies/,
  },
  {
    name: "sign-out",
    status: 200,
    async open(page) {
      await page.goto(gate.at("/"));
      await signIn(page, gate.account);
      await page.goto(gate.at("/.portcullis/sign-out"));
    },
  },
  {
    name: "sessions",
    status: 200,
    async open(page) {
      const other = await visit(browser);
      await other.page.goto(gate.at("/"));
      await signIn(other.page, gate.account);
      await other.context.close();
      await page.goto(gate.at("/"));
      await signIn(page, gate.account);
      await page.goto(gate.at("/.portcullis/sessions"));
    },
    says: /Chrome on Linux\s+this device[^]*Chrome on Linux[^]*Sign out everywhere/,
  },
  {
    name: "signed-out",
    status: 200,
    async open(page) {
      await page.goto(gate.at("/"));
      await signIn(page, gate.account);
      await page.goto(gate.at("/.portcullis/sign-out"));
      await leads(page, () => page.getByRole("button", { name: "Sign out" }).click());
    },
  },
];

for (const { name, status, open, says } of PAGES) {
  test(`the ${name} page is right on a phone and at a desk, in light, dark and forced colours`, async () => {
    const { context, page, misdeeds } = await visit(browser);
    let last;
    page.on("response", (response) => {
      if (response.request().isNavigationRequest()) last = response;
    });
    await open(page);
    assert.equal(last.status(), status);
    if (says) assert.match(await page.locator("body").innerText(), says);
    const headers = await last.allHeaders();
    const policy = headers["content-security-policy"] ?? "";
    assert.match(policy, /default-src 'none'/);
    assert.match(policy, /frame-ancestors 'none'/);
    assert.doesNotMatch(policy, /unsafe-/);
    assert.match(headers["cache-control"] ?? "", /no-store/);
    assert.equal(headers["x-content-type-options"], "nosniff");
    assert.equal(headers.server, undefined);
    assert.equal(headers.via, undefined);
    // The development certificate: a browser would hold all of localhost to https.
    assert.equal(headers["strict-transport-security"], undefined);
    await inspect(page, name);
    assert.deepEqual(misdeeds, []);
    await context.close();
  });
}

test("a page that refuses says the request's id, and what to do", async () => {
  const { context, page } = await visit(browser);
  const answer = await page.goto(gate.at("/", "down"));
  const id = (await answer.allHeaders())["x-request-id"];
  assert.match(id, /^[0-9a-f]{32}$/);
  assert.ok((await page.locator("body").innerText()).includes(id), "the id is on the page");
  await context.close();
});

test("what a backend says of itself when it fails stays inside", async () => {
  const { context, page } = await visit(browser);
  for (const path of ["/fail", "/overloaded", "/slow"]) {
    await atDesk(page, path);
    assert.doesNotMatch(await page.content(), /Exception|internal|127\.0\.0\.1/, path);
    await context.clearCookies();
  }
  await context.close();
});

test("what a person sends is not repeated as markup", async () => {
  const { context, page } = await visit(browser);
  await page.goto(gate.at(`/.portcullis/sign-in?error=${encodeURIComponent("<svg/onload=alert(1)>")}`));
  await signIn(page, { name: '"><svg/onload=alert(1)>', password: "x" });
  assert.equal(await page.locator("svg").count(), 0);
  assert.equal(await page.getByLabel(/name/i).inputValue(), '"><svg/onload=alert(1)>');
  await context.close();
});
