// Signing in and out, as people do it.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { launch, leads, signIn, visit } from "./browser.mjs";
import { start } from "./gate.mjs";

let gate, browser;

before(async () => {
  gate = await start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  assert.equal(await gate?.stop(), 0, "the gate ends well when it is told to stop");
});

/** A test with a fresh profile, which fails when the page did something that no page of ours may. */
function person(what, run, options) {
  test(what, async () => {
    const { context, page, misdeeds } = await visit(browser, options);
    try {
      await run(page, context);
      assert.deepEqual(misdeeds, []);
    } finally {
      await context.close();
    }
  });
}

const onSignInPage = (page) => assert.match(new URL(page.url()).pathname, /^\/\.portcullis\/sign-in$/);
const content = (page) => page.locator("body").innerText();

person("the first start makes an account that can sign in", async (page) => {
  await page.goto(gate.at("/"));
  onSignInPage(page);
  const account = gate.firstAccount();
  await signIn(page, account);
  assert.equal(new URL(page.url()).pathname, "/");
  assert.match(await content(page), new RegExp(account.name));
});

person("after sign-in the person is where they were going", async (page) => {
  await page.goto(gate.at("/reports/2026?quarter=3&lang=de"));
  onSignInPage(page);
  await signIn(page, gate.account);
  assert.equal(page.url(), gate.at("/reports/2026?quarter=3&lang=de"));
});

person("the backend is told who asks, and never sees the gate's cookies", async (page, context) => {
  await page.goto(gate.at("/"));
  await signIn(page, gate.account);
  const [session] = (await context.cookies()).filter((cookie) => cookie.name.includes("session"));
  const seen = await content(page);
  assert.match(seen, /x-portcullis-user/i);
  assert.match(seen, new RegExp(gate.account.name));
  assert.doesNotMatch(seen, /__Host-portcullis/);
  assert.ok(!seen.includes(session.value));
});

person("the session's cookie is out of reach of scripts, other sites and plain http", async (page, context) => {
  await page.goto(gate.at("/"));
  await signIn(page, gate.account);
  const [session] = (await context.cookies()).filter((cookie) => cookie.name.includes("session"));
  assert.ok(session.name.startsWith("__Host-"), session.name);
  assert.deepEqual(
    [session.httpOnly, session.secure, session.sameSite, session.path, session.domain],
    [true, true, "Lax", "/", "localhost"],
  );
  assert.ok(session.value.length >= 43, "256 bits in base64");
  assert.equal(await page.evaluate(() => document.cookie), "");
});

person("a sign-in makes a new session and never takes one that the browser brought", async (page, context) => {
  const planted = "A".repeat(43);
  const cookie = { name: "__Host-portcullis_session", value: planted, url: gate.at("/"), secure: true };
  await context.addCookies([cookie]);
  await page.goto(gate.at("/"));
  onSignInPage(page);
  await signIn(page, gate.account);
  const [session] = (await context.cookies()).filter(({ name }) => name === cookie.name);
  assert.notEqual(session.value, planted);
});

person("a wrong password says so, keeps the name, and lets nobody in", async (page, context) => {
  await page.goto(gate.at("/private?x=1"));
  await signIn(page, { ...gate.account, password: "wrong" });
  onSignInPage(page);
  assert.match(await page.getByRole("alert").innerText(), /\w/);
  assert.equal(await page.getByLabel(/name/i).inputValue(), gate.account.name);
  assert.equal(await page.getByLabel(/password/i).inputValue(), "");
  assert.ok(!(await context.cookies()).some((cookie) => cookie.name.includes("session")));
  await signIn(page, gate.account);
  assert.equal(page.url(), gate.at("/private?x=1"), "the second try goes where the first wanted to");
});

person("an unknown name and a wrong password look the same", async (page) => {
  const said = [];
  for (const account of [{ name: "nobody", password: "wrong" }, { ...gate.account, password: "wrong" }]) {
    await page.goto(gate.at("/"));
    await signIn(page, account);
    said.push(await page.getByRole("alert").innerText());
  }
  assert.equal(said[0], said[1]);
});

person("the form works by keyboard alone", async (page) => {
  await page.goto(gate.at("/"));
  const focused = () => page.evaluate(() => document.activeElement.getAttribute("autocomplete"));
  for (let presses = 0; presses < 5 && (await focused()) !== "username"; presses++) await page.keyboard.press("Tab");
  assert.equal(await focused(), "username");
  await page.keyboard.type(gate.account.name);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "current-password");
  await page.keyboard.type(gate.account.password);
  await leads(page, () => page.keyboard.press("Enter"));
  assert.equal(new URL(page.url()).pathname, "/");
});

person("signing in needs no script", async (page) => {
  await page.goto(gate.at("/plain"));
  await signIn(page, gate.account);
  assert.equal(page.url(), gate.at("/plain"));
}, { javaScriptEnabled: false });

person("two tabs can sign in one after the other", async (page, context) => {
  const other = await context.newPage();
  await page.goto(gate.at("/one"));
  await other.goto(gate.at("/two"));
  await signIn(page, gate.account);
  await signIn(other, gate.account);
  assert.equal(page.url(), gate.at("/one"));
  assert.equal(other.url(), gate.at("/two"));
});

async function signOut(page) {
  await page.goto(gate.at("/.portcullis/sign-out"));
  await leads(page, () => page.getByRole("button", { name: "Sign out" }).click());
}

person("after signing out neither the address, the back button nor the old cookie shows anything", async (page, context) => {
  await page.goto(gate.at("/secret"));
  await signIn(page, gate.account);
  const old = (await context.cookies()).filter((cookie) => cookie.name.includes("session"));
  await signOut(page);
  assert.doesNotMatch(await content(page), /x-portcullis-user/i);
  assert.ok(!(await context.cookies()).some((cookie) => cookie.name.includes("session")), "the cookie is gone");

  for (let steps = 0; steps < 3; steps++) {
    await page.goBack().catch(() => null);
    assert.doesNotMatch(await content(page), /x-portcullis-user/i, page.url());
  }
  await page.goto(gate.at("/secret"));
  onSignInPage(page);
  await context.addCookies(old);
  await page.goto(gate.at("/secret"));
  onSignInPage(page);
});

person("opening the sign-out page ends nothing by itself", async (page) => {
  await page.goto(gate.at("/"));
  await signIn(page, gate.account);
  await page.goto(gate.at("/.portcullis/sign-out"));
  await page.goto(gate.at("/still"));
  assert.equal(page.url(), gate.at("/still"));
});

/** Another site, with one page. */
async function elsewhere(markup, run) {
  const server = createServer((_, answer) => answer.setHeader("content-type", "text/html").end(markup));
  await new Promise((fulfil) => server.listen(0, "127.0.0.1", fulfil));
  try {
    await run(`http://127.0.0.1:${server.address().port}/`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const other = { alsoAsks: "127.0.0.1" };

person("another site can't sign anybody out", async (page, context) => {
  await page.goto(gate.at("/"));
  await signIn(page, gate.account);
  const tab = await context.newPage();
  const form = `<form method="post" action="${gate.at("/.portcullis/sign-out")}"><button>go</button></form>`;
  await elsewhere(form, async (site) => {
    await tab.goto(site);
    await leads(tab, () => tab.getByRole("button").click());
  });
  await page.goto(gate.at("/still"));
  assert.equal(page.url(), gate.at("/still"));
}, other);

person("another site can't sign anybody in", async (page, context) => {
  const { name, password } = gate.account;
  const form = `<form method="post" action="${gate.at("/.portcullis/sign-in")}">
    <input name="name" value="${name}"><input name="password" value="${password}"><button>go</button></form>`;
  await elsewhere(form, async (site) => {
    await page.goto(site);
    await leads(page, () => page.getByRole("button").click());
  });
  assert.ok(!(await context.cookies()).some((cookie) => cookie.name.includes("session")));
}, other);

test("another site can't put the sign-in page into a frame", async () => {
  const { context, page } = await visit(browser, other);
  await elsewhere(`<iframe src="${gate.at("/.portcullis/sign-in")}"></iframe>`, async (site) => {
    await page.goto(site, { waitUntil: "networkidle" });
    for (const frame of page.frames().slice(1)) {
      assert.equal(await frame.locator("input").count(), 0, "the form is in the frame");
    }
  });
  await context.close();
});

person("nobody is led to another site after signing in", async (page) => {
  for (const target of ["//evil.test", "/\\evil.test", "https://evil.test/", "/%09/evil.test", "javascript:alert(1)"]) {
    await page.context().clearCookies();
    await page.goto(gate.at(`/.portcullis/sign-in?to=${encodeURIComponent(target)}`));
    await signIn(page, gate.account);
    assert.equal(new URL(page.url()).host, new URL(gate.at("/")).host, target);
  }
});

test("no password and no session is in anything that the gate wrote", async () => {
  const { context, page } = await visit(browser);
  await page.goto(gate.at("/?token=query-secret"));
  await signIn(page, gate.account);
  const [session] = (await context.cookies()).filter((cookie) => cookie.name.includes("session"));
  await context.close();
  for (const secret of [session.value, gate.account.password, "query-secret"]) {
    assert.ok(!gate.said().includes(secret), "a secret is in the log");
  }
});
