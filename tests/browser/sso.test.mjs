// Single sign-on, as people meet it: a certified provider, and the gate in front of two applications.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { start as startBackend } from "./backend.mjs";
import { inspect, launch, leads, visit } from "./browser.mjs";
import { fetchPlainly, findsProvider, freePort, start } from "./gate.mjs";
import { signInThere, start as startProvider } from "./provider.mjs";

const SECRET = "a secret that only the test and the provider know";
const SETTLES_WITHIN_MS = 20_000;

let backend, gate, provider, browser;

const policy = (target, access, more = "") =>
  `backends = ["${target}"]\ncontact = "it@example.com"\n[sign_in]\nwith = ["corp"]\n[access]\n${access}\n${more}`;

before(async () => {
  backend = await startBackend();
  const port = await freePort();
  // The gate is there before its provider, and finds it when it comes.
  gate = await start({
    files: { "corp.secret": `${SECRET}\n` },
    settings: `
      [provider.corp]
      kind = "oidc"
      title = "Corp"
      issuer = "http://127.0.0.1:${port}"
      client_id = "gate"
      client_secret = { file = "corp.secret" }
      scopes = ["profile", "email", "groups"]
      groups_claim = "groups"
      email_domains = ["example.com"]
      refresh = "2s"`,
    applications: {
      whoami: policy("whoami", 'groups = ["engineering", "staff", "g499"]', '[headers]\nidentity = ["user", "email", "groups"]'),
      wiki: policy(backend.url, 'groups = ["engineering"]', '[[path]]\nprefix = "/fresh"\naccess = { groups = ["engineering"], signed_in_within = "3s" }'),
      both: `backends = ["whoami"]\naccess = "signed-in"\n[sign_in]\nwith = ["corp", "local"]\n`,
    },
  });
  browser = await launch();
  const { context, page } = await visit(browser, { alsoAsks: "127.0.0.1" });
  await page.goto(gate.at("/"));
  await page.getByRole("heading", { name: "Nobody can sign in just now" }).waitFor();
  await inspect(page, "provider-away");
  await context.close();
  provider = await startProvider({ port, authority: join(gate.home, "certs", "development-ca.pem") });
  const hosts = [undefined, "wiki", "both"];
  await provider.tell("/clients", {
    client_id: "gate",
    client_secret: SECRET,
    redirect_uris: hosts.map((host) => gate.at("/.portcullis/callback/corp", host)),
    post_logout_redirect_uris: hosts.map((host) => gate.at("/.portcullis/signed-out", host)),
    backchannel_logout_uri: gate.at("/.portcullis/back-channel-logout/corp"),
  });
  await findsProvider(gate);
});

after(async () => {
  await browser?.close();
  await provider?.stop();
  backend?.stop();
  assert.equal(await gate?.stop(), 0, "the gate ends well when it is told to stop");
});

/** A test with a fresh profile, which fails when a page did something that no page of ours may. */
function person(what, run) {
  test(what, async () => {
    const { context, page, misdeeds } = await visit(browser, { alsoAsks: "127.0.0.1" });
    try {
      await run(page, context);
      assert.deepEqual(misdeeds, []);
    } finally {
      await context.close();
      await provider.tell("/mode", {});
    }
  });
}

const content = (page) => page.locator("body").innerText();
const sessions = (cookies) => cookies.filter(({ name }) => name === "__Host-portcullis_session");
const session = async (context) => sessions(await context.cookies())[0];
const signsIn = async (page, name, path = "/", host) => {
  await page.goto(gate.at(path, host));
  await signInThere(page, name);
  await page.waitForURL(gate.at(path, host));
};

person("a deep link leads through the provider and back to itself", async (page, context) => {
  const link = gate.at("/reports/2026?quarter=3&lang=de&next=https://evil.test/");
  await page.goto(link);
  assert.equal(new URL(page.url()).hostname, "127.0.0.1");
  await signInThere(page, "ada");
  await page.waitForURL(link);
  const seen = await content(page);
  assert.match(seen, /ada@example\.com/);
  assert.match(seen, /engineering/);
  assert.doesNotMatch(seen, /__Host-portcullis/);
  const cookie = await session(context);
  assert.ok(cookie.secure && cookie.httpOnly && cookie.sameSite === "Lax" && cookie.path === "/");
});

person("who sends identity fields is told apart from who is signed in", async (page, context) => {
  await signsIn(page, "bob");
  const answer = await context.request.get(gate.at("/"), {
    headers: { "x-forwarded-user": "mallory", "x-forwarded-groups": "admins", "remote-user": "mallory" },
  });
  const seen = await answer.text();
  assert.doesNotMatch(seen, /mallory|admins/);
  assert.match(seen, /staff/);
});

person("five hundred groups are five hundred groups", async (page) => {
  await signsIn(page, "carol");
  assert.match(await content(page), /g499/);
});

person("tabs that begin side by side all arrive", async (first, context) => {
  const tabs = [first, await context.newPage(), await context.newPage()];
  for (const [number, tab] of tabs.entries()) await tab.goto(gate.at(`/tab/${number}`));
  for (const number of [1, 2, 0]) {
    await signInThere(tabs[number], "ada");
    await tabs[number].waitForURL(gate.at(`/tab/${number}`));
  }
  for (const number of [0, 1, 2]) {
    await tabs[number].goto(gate.at(`/again/${number}`));
    assert.equal(tabs[number].url(), gate.at(`/again/${number}`));
  }
});

person("the back button does no harm", async (page) => {
  await signsIn(page, "ada", "/one");
  await page.goto(gate.at("/two"));
  await page.goBack();
  assert.equal(page.url(), gate.at("/one"));
  await page.goBack();
  // Wherever that is, the way on is open.
  await page.goto(gate.at("/three"));
  assert.equal(page.url(), gate.at("/three"));
});

person("an answer counts once, and in the browser that asked alone", async (page, context) => {
  let answer;
  page.on("request", (request) => {
    if (new URL(request.url()).pathname === "/.portcullis/callback/corp") answer = request.url();
  });
  await signsIn(page, "ada");
  const stranger = await fetchPlainly(answer);
  assert.equal(stranger.status, 400);
  assert.equal(stranger.headers["set-cookie"], undefined);
  await page.goto(answer);
  await page.getByRole("heading", { name: "You are not signed in yet" }).waitFor();
  await inspect(page, "sign-in-over");
  assert.ok(await session(context));
});

person("who is in the wrong group is told as whom they are signed in", async (page) => {
  await page.goto(gate.at("/", "wiki"));
  await signInThere(page, "bob");
  await page.getByRole("heading", { name: "You don’t have access" }).waitFor();
  assert.match(await content(page), /it@example\.com/);
});

person("who is denied at the provider is told so", async (page) => {
  await provider.tell("/mode", { deny: true });
  await page.goto(gate.at("/"));
  await page.getByRole("heading", { name: "You were not let in" }).waitFor();
  await inspect(page, "sign-in-denied");
});

person("the choice has the provider, the form and the address", async (page) => {
  await page.goto(gate.at("/x?y=z", "both"));
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await inspect(page, "sign-in-choice");
  await page.getByLabel("E-mail address").fill("ada@elsewhere.test");
  await leads(page, () => page.keyboard.press("Enter"));
  assert.match(await content(page), /Nobody signs in here with such an address/);
  await page.getByLabel("E-mail address").fill("ada@Example.com");
  await page.keyboard.press("Enter");
  await page.waitForURL(/127\.0\.0\.1/);
  assert.equal(await page.locator("#login").inputValue(), "ada@Example.com");
  await page.goto(gate.at("/x?y=z", "both"));
  await page.getByRole("link", { name: "Continue with Corp" }).click();
  await signInThere(page, "ada");
  await page.waitForURL(gate.at("/x?y=z", "both"));
});

person("while the provider is down who is signed in stays so, and then everybody comes in", async (page) => {
  await signsIn(page, "ada");
  await provider.tell("/mode", { down: true });
  const until = Date.now() + 3_000;
  // Longer than the provider is trusted without being asked.
  while (Date.now() < until) {
    await page.goto(gate.at("/still"));
    assert.equal(page.url(), gate.at("/still"));
  }
  await provider.tell("/mode", {});
  await page.goto(gate.at("/again"));
  assert.equal(page.url(), gate.at("/again"));
});

person("new keys of the provider are learned", async (page) => {
  await provider.tell("/rotate", { drop: true });
  await signsIn(page, "ada");
});

person("a disabled user is out, and what is open for them closes", async (page, context) => {
  await provider.tell("/users", { sub: "dan", groups: ["engineering"], email: "dan@example.com" });
  await signsIn(page, "dan", "/talk", "wiki");
  await page.getByText("heard hello").waitFor();
  const cookie = await session(context);
  await provider.tell("/users", { sub: "dan", disabled: true });
  await page.getByText("closed").waitFor({ timeout: SETTLES_WITHIN_MS });
  assert.equal((await fetchPlainly(gate.at("/", "wiki"), [cookie])).status, 303);
});

person("who loses a group loses what it opened", async (page) => {
  await provider.tell("/users", { sub: "eve", groups: ["engineering"], email: "eve@example.com" });
  await signsIn(page, "eve", "/talk", "wiki");
  await page.getByText("heard hello").waitFor();
  await provider.tell("/users", { sub: "eve", groups: ["staff"] });
  await page.getByText("closed").waitFor({ timeout: SETTLES_WITHIN_MS });
  const until = Date.now() + SETTLES_WITHIN_MS;
  let status;
  do {
    status = (await page.goto(gate.at("/", "wiki"))).status();
  } while (status === 200 && Date.now() < until);
  assert.equal(status, 403);
});

person("signing out ends the session here and at the provider", async (page, context) => {
  await signsIn(page, "ada", "/talk", "wiki");
  await page.getByText("heard hello").waitFor();
  const cookie = await session(context);
  const other = await context.newPage();
  await other.goto(gate.at("/.portcullis/sign-out", "wiki"));
  await leads(other, () => other.getByRole("button", { name: "Sign out" }).click());
  await page.getByText("closed").waitFor({ timeout: SETTLES_WITHIN_MS });
  assert.equal((await fetchPlainly(gate.at("/", "wiki"), [cookie])).status, 303);
  await inspect(other, "signed-out-there-too");
  await other.getByRole("link", { name: "Sign out of Corp, too" }).click();
  await other.locator("#sign-out").click();
  await other.waitForURL(gate.at("/.portcullis/signed-out", "wiki"));
  assert.doesNotMatch(other.url(), /token/);
  // The provider asks anew.
  await other.goto(gate.at("/", "wiki"));
  await other.locator("#login").waitFor();
});

person("a provider that ends a session ends it in every application", async (page, context) => {
  await signsIn(page, "ada", "/talk", "wiki");
  await page.getByText("heard hello").waitFor();
  const other = await context.newPage();
  await other.goto(gate.at("/"));
  await other.waitForURL(gate.at("/"));
  const [there] = await context.cookies(gate.at("/", "wiki")).then(sessions);
  const [here] = await context.cookies(gate.at("/")).then(sessions);
  assert.notEqual(there.value, here.value);
  const { status } = await provider.tell("/logout", { sub: "ada", client_id: "gate" });
  assert.equal(status, 200);
  await page.getByText("closed").waitFor({ timeout: SETTLES_WITHIN_MS });
  assert.equal((await fetchPlainly(gate.at("/", "wiki"), [there])).status, 303);
  assert.equal((await fetchPlainly(gate.at("/"), [here])).status, 303);
});

person("a page that wants a fresh sign-in gets one", async (page) => {
  await signsIn(page, "ada", "/", "wiki");
  await new Promise((fulfil) => setTimeout(fulfil, 4_100));
  await page.goto(gate.at("/fresh", "wiki"));
  await signInThere(page, "ada");
  await page.waitForURL(gate.at("/fresh", "wiki"));
});
