// Pages of other origins, as browsers hold them to what the gate says.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { launch, signIn, visit } from "./browser.mjs";
import { start } from "./gate.mjs";

/** An API that lets every page read it, and says which methods it was asked with; and a page. */
async function startBackend() {
  const asked = [];
  const server = createServer((request, answer) => {
    asked.push(request.method);
    answer.setHeader("access-control-allow-origin", "*");
    answer.setHeader("x-total", "3");
    const isPage = request.url === "/";
    answer.setHeader("content-type", isPage ? "text/html" : "application/json");
    answer.end(isPage ? '<!doctype html><link rel="icon" href="data:,">' : '{"orders":3}');
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { asked, url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
}

let backend, gate, browser;

before(async () => {
  backend = await startBackend();
  const page = `access = "public"\nbackends = ["${backend.url}"]\n`;
  const api = `access = "signed-in"\nbackends = ["${backend.url}"]\n[cors]
origins = ["https://spa.corp.localhost:8443", "https://elsewhere.localhost:8443"]
methods = ["GET", "PUT"]
headers = ["Content-Type"]
expose = ["X-Total"]
credentials = true
`;
  // One site: corp.localhost. The other two are none of it, or not listed.
  const applications = { "spa.corp": page, "unlisted.corp": page, elsewhere: page, "api.corp": api };
  gate = await start({ applications });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  backend?.stop();
  assert.equal(await gate?.stop(), 0, "the gate ends well when it is told to stop");
});

/** What a page learns that asks the API with the browser's cookies. */
function asks(page, options = {}) {
  return page.evaluate(
    async ([url, options]) => {
      try {
        const answer = await fetch(url, { credentials: "include", ...options });
        const fields = Object.fromEntries(answer.headers);
        return { status: answer.status, url: answer.url, content: await answer.json(), fields };
      } catch (error) {
        return { blocked: error.name };
      }
    },
    [gate.at("/orders", "api.corp"), options],
  );
}

const BLOCKED = { blocked: "TypeError" };
const PUT = { method: "PUT", headers: { "content-type": "application/json" }, body: "{}" };

test("a page reads the 401, leads to the sign-in page, and then works", async () => {
  const { context, page, misdeeds } = await visit(browser);
  await page.goto(gate.at("/", "spa.corp"));
  const before = backend.asked.length;
  for (const options of [{}, PUT]) {
    const stranger = await asks(page, options);
    assert.equal(stranger.status, 401);
    assert.equal(stranger.content.sign_in, "/.portcullis/sign-in");
    assert.match(stranger.fields["www-authenticate"], /form-action/);
  }
  assert.equal(backend.asked.length, before, "a stranger reaches no backend, nor do preflights");

  const { content, url } = await asks(page);
  const window = await context.newPage();
  await window.goto(new URL(content.sign_in, url).href);
  await signIn(window, gate.account);

  const orders = await asks(page);
  assert.deepEqual([orders.status, orders.content], [200, { orders: 3 }]);
  assert.equal(orders.fields["x-total"], "3");
  const put = await asks(page, PUT);
  assert.deepEqual([put.status, put.content], [200, { orders: 3 }]);
  const seen = backend.asked.length;
  assert.deepEqual(await asks(page, { method: "DELETE" }), BLOCKED);
  assert.deepEqual(await asks(page, { headers: { "x-other": "1" } }), BLOCKED);
  assert.equal(backend.asked.length, seen);
  assert.ok(!backend.asked.includes("OPTIONS"));

  await page.goto(gate.at("/", "unlisted.corp"));
  assert.deepEqual(await asks(page), BLOCKED);
  assert.deepEqual(await asks(page, PUT), BLOCKED);

  // Of another site, so without the session's cookie: SameSite=Lax.
  await page.goto(gate.at("/", "elsewhere"));
  assert.equal((await asks(page)).status, 401);
  assert.deepEqual(misdeeds, []);
  await context.close();
});
