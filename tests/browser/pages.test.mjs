// Every page that the gate itself shows: how it looks, what it says, and what it must not do.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { inspect, launch, leads, signIn, visit } from "./browser.mjs";
import { start } from "./gate.mjs";

let gate, browser;

before(async () => {
  gate = await start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await gate?.stop();
});

const PAGES = [
  { name: "sign-in", status: 200, open: (page) => page.goto(gate.at("/.portcullis/sign-in")) },
  {
    name: "wrong-password",
    async open(page) {
      await page.goto(gate.at("/"));
      await signIn(page, { ...gate.account, password: "wrong" });
    },
  },
  {
    name: "whoami",
    async open(page) {
      await page.goto(gate.at("/"));
      await signIn(page, gate.account);
    },
  },
  {
    name: "denied",
    status: 403,
    async open(page) {
      await page.goto(gate.at("/", "members"));
      await signIn(page, gate.account);
      return page.reload();
    },
    says: /ada/,
  },
  { name: "not-found", status: 404, open: (page) => page.goto(gate.at("/.portcullis/no-such-page")) },
  { name: "unknown-host", status: 421, open: (page) => page.goto(gate.at("/", "unheard-of")) },
  { name: "backend-down", status: 502, open: (page) => page.goto(gate.at("/", "down")) },
  {
    name: "too-many-requests",
    status: 429,
    async open(page) {
      let answer;
      for (let times = 0; times < 4; times++) answer = await page.goto(gate.at("/", "busy"));
      return answer;
    },
  },
  { name: "bad-request", status: 400, open: (page) => page.goto(gate.at("/public/%00")) },
  {
    name: "sign-out",
    async open(page) {
      await page.goto(gate.at("/"));
      await signIn(page, gate.account);
      return page.goto(gate.at("/.portcullis/sign-out"));
    },
  },
  {
    name: "signed-out",
    async open(page) {
      await page.goto(gate.at("/"));
      await signIn(page, gate.account);
      await page.goto(gate.at("/.portcullis/sign-out"));
      await leads(page, () => page.getByRole("button", { name: "Sign out" }).click());
    },
  },
];

for (const { name, status, open, says } of PAGES) {
  test(`the ${name} page is right on a phone and at a desk, in light and dark`, async () => {
    const { context, page, misdeeds } = await visit(browser);
    let last;
    page.on("response", (response) => {
      if (response.request().isNavigationRequest()) last = response;
    });
    await open(page);
    if (status) assert.equal(last.status(), status);
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

test("what a person sends is not repeated as markup", async () => {
  const { context, page } = await visit(browser);
  await page.goto(gate.at(`/.portcullis/sign-in?error=${encodeURIComponent("<svg/onload=alert(1)>")}`));
  await signIn(page, { name: '"><svg/onload=alert(1)>', password: "x" });
  assert.equal(await page.locator("svg").count(), 0);
  assert.equal(await page.getByLabel(/name/i).inputValue(), '"><svg/onload=alert(1)>');
  await context.close();
});
