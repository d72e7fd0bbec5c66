// Signing in and out, as people do it.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { start as startBackend } from "./backend.mjs";
import { launch, leads, signIn, visit, withPreferences } from "./browser.mjs";
import { start } from "./gate.mjs";

let backend, gate, browser;

before(async () => {
  backend = await startBackend();
  gate = await start({ backend: backend.url });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  backend?.stop();
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
  assert.match(await content(page), /x-portcullis-user/i);
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

person("the back button shows nothing of an application that let its pages be kept", async (page) => {
  await page.goto(gate.at("/kept", "desk"));
  await signIn(page, gate.account);
  assert.match(await content(page), /a secret of ada's/);
  await page.goto(gate.at("/form", "desk"));
  await page.goto(gate.at("/.portcullis/sign-out", "desk"));
  await leads(page, () => page.getByRole("button", { name: "Sign out" }).click());
  for (let steps = 0; steps < 4; steps++) {
    await page.goBack().catch(() => null);
    assert.doesNotMatch(await content(page), /secret/, page.url());
  }
});

person("the back button shows nothing that the browser has kept as it was", async () => {
  // Playwright switches off that whole pages are kept for the back button, as people have it.
  const own = await launch({ ignoreDefaultArgs: ["--disable-back-forward-cache"] });
  try {
    const { page } = await visit(own);
    await page.goto(gate.at("/kept", "desk"));
    await signIn(page, gate.account);
    await page.goto(gate.at("/.portcullis/sign-out", "desk"));
    await leads(page, () => page.getByRole("button", { name: "Sign out" }).click());
    for (let steps = 0; steps < 3; steps++) {
      await page.evaluate(() => history.back());
      await page.waitForTimeout(200);
      assert.doesNotMatch(await content(page), /secret/, page.url());
    }
  } finally {
    await own.close();
  }
});

person("who stays signed in is at the front page", async (page) => {
  await page.goto(gate.at("/deep"));
  await signIn(page, gate.account);
  await page.goto(gate.at("/.portcullis/sign-out"));
  await leads(page, () => page.getByRole("link", { name: "Stay signed in" }).click());
  assert.equal(page.url(), gate.at("/"));
});

person("who is denied can sign in as somebody else", async (page) => {
  await page.goto(gate.at("/", "members"));
  await signIn(page, gate.account);
  await leads(page, () => page.getByRole("link", { name: "Use another account" }).click());
  await leads(page, () => page.getByRole("button", { name: "Sign out" }).click());
  await leads(page, () => page.getByRole("link", { name: "Sign in again" }).click());
  onSignInPage(page);
  assert.equal(await page.getByLabel("User name").inputValue(), "");
});

/** Ends the session where it is kept; the browser still has its cookie. */
async function endSession(context, application) {
  const cookies = await context.cookies();
  const tab = await context.newPage();
  await tab.goto(gate.at("/.portcullis/sign-out", application));
  await leads(tab, () => tab.getByRole("button", { name: "Sign out" }).click());
  await tab.close();
  await context.addCookies(cookies);
}

person("who comes back when the session is over signs in, and is where they were going", async (page, context) => {
  await page.goto(gate.at("/form", "desk"));
  await signIn(page, gate.account);
  await endSession(context, "desk");
  await page.goto(gate.at("/leave?to=/form", "desk"));
  onSignInPage(page);
  await signIn(page, gate.account);
  assert.equal(page.url(), gate.at("/form", "desk"));
});

test("a session ends by itself, and the person signs in again where they were", async () => {
  const short = await start({ settings: '[session]\nabsolute = "2s"\n' });
  const { context, page, misdeeds } = await visit(browser);
  try {
    await page.goto(short.at("/page?of=3"));
    await signIn(page, short.account);
    assert.equal(page.url(), short.at("/page?of=3"));
    await page.waitForTimeout(3000);
    await page.reload();
    onSignInPage(page);
    await signIn(page, short.account);
    assert.equal(page.url(), short.at("/page?of=3"));
    assert.deepEqual(misdeeds, []);
  } finally {
    await context.close();
    await short.stop();
  }
});

person("what is sent when the session is over is not passed on, and not lost", async (page, context) => {
  await page.goto(gate.at("/form", "desk"));
  await signIn(page, gate.account);
  await page.getByLabel("Note").fill("two hours of work");
  await endSession(context, "desk");
  await leads(page, () => page.getByRole("button", { name: "Send" }).click());
  assert.match(await content(page), /What you sent was not passed on/);
  assert.deepEqual(backend.taken, []);

  const [tab] = await Promise.all([
    context.waitForEvent("page"),
    page.getByRole("link", { name: "sign in" }).click(),
  ]);
  await tab.waitForLoadState();
  onSignInPage(tab);
  await signIn(tab, gate.account);
  await page.reload();
  assert.match(await content(page), /It was taken/);
  assert.deepEqual(backend.taken, ["two hours of work"]);
});

person("a WebSocket of a page speaks, and ends with the session", async (page, context) => {
  await page.goto(gate.at("/talk", "desk"));
  await signIn(page, gate.account);
  const said = page.locator("#said");
  await said.filter({ hasText: "heard hello" }).waitFor();
  await endSession(context, "desk");
  await said.filter({ hasText: "closed" }).waitFor();
  await page.reload();
  onSignInPage(page);
});

person("who asks by http is led to https and signs in there", async (page) => {
  await page.goto(`http://localhost:${gate.ports.plain}/reports?quarter=3`);
  onSignInPage(page);
  assert.equal(new URL(page.url()).origin, new URL(gate.at("/")).origin);
  await signIn(page, gate.account);
  assert.equal(page.url(), gate.at("/reports?quarter=3"));
});

test("signing in works on the port that https has by default", async () => {
  const own = await launch({ args: [`--host-resolver-rules=MAP localhost:443 127.0.0.1:${gate.ports.https}`] });
  try {
    const { page, misdeeds } = await visit(own);
    await page.goto("https://localhost/reports?quarter=3");
    await signIn(page, gate.account);
    assert.equal(page.url(), "https://localhost/reports?quarter=3");
    assert.deepEqual(misdeeds, []);
  } finally {
    await own.close();
  }
});

// Chromium holds every redirect after a form to `form-action`.
person("signing in leads on where the page asked for leads to another host", async (page) => {
  const away = gate.at("/", "busy");
  await page.goto(gate.at(`/leave?to=${encodeURIComponent(away)}`, "desk"));
  await signIn(page, gate.account);
  assert.equal(page.url(), away);
});

person("the back button after signing in does not go through the form again", async (page) => {
  await page.goto(gate.at("/first"));
  await signIn(page, gate.account);
  await page.goto(gate.at("/second"));
  await page.goBack();
  assert.equal(page.url(), gate.at("/first"));
});

test("who blocks cookies is told so, and not sent in circles", async () => {
  const blocked = { profile: { default_content_setting_values: { cookies: 2 } } };
  await withPreferences(blocked, async (page, context) => {
    await page.goto(gate.at("/deep"));
    await signIn(page, gate.account);
    assert.deepEqual(await context.cookies(), []);
    onSignInPage(page);
    assert.match(await page.getByRole("alert").innerText(), /cookies are blocked/);
    assert.equal(await page.getByLabel("User name").inputValue(), gate.account.name);
  });
});

person("a screen reader is told what the form wants, and what was wrong", async (page) => {
  await page.goto(gate.at("/"));
  const main = page.getByRole("main");
  assert.equal(await page.title(), "Sign in · whoami");
  assert.equal(
    await main.ariaSnapshot(),
    `- main:
  - heading "Sign in" [level=1]
  - paragraph: Enter your user name and password to continue to whoami.
  - text: User name
  - textbox "User name"
  - text: Password
  - textbox "Password"
  - button "Sign in"`,
  );
  await signIn(page, { ...gate.account, password: "wrong" });
  const alert = await page.getByRole("alert").innerText();
  const password = page.getByLabel("Password");
  assert.equal(await password.evaluate((input) => document.activeElement === input), true);
  const described = await password.evaluate((input) => document.getElementById(input.getAttribute("aria-describedby")).innerText);
  assert.equal(described, alert);
  assert.equal(await password.getAttribute("aria-invalid"), "true");
});

person("what has the keyboard's focus is seen to have it", async (page) => {
  const outline = () =>
    page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return [document.activeElement.tagName, outlineStyle, parseFloat(outlineWidth) >= 2];
    });
  await page.goto(gate.at("/"));
  for (const tag of ["INPUT", "INPUT", "BUTTON"]) {
    assert.deepEqual(await outline(), [tag, "solid", true]);
    await page.keyboard.press("Tab");
  }
  await signIn(page, gate.account);
  await page.goto(gate.at("/.portcullis/sign-out"));
  for (const tag of ["BUTTON", "A"]) {
    await page.keyboard.press("Tab");
    assert.deepEqual(await outline(), [tag, "solid", true]);
  }
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
