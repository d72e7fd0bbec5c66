// One sign-on for many hosts: by a sign-in host, with a cookie of its own for each.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { start as startBackend } from "./backend.mjs";
import { launch, leads, signIn, visit } from "./browser.mjs";
import { findsProvider, freePort, start } from "./gate.mjs";
import { signInThere, start as startProvider } from "./provider.mjs";

const SECRET = "a secret that only the test and the provider know";

let backend, gate, provider, browser;

before(async () => {
  backend = await startBackend();
  const port = await freePort();
  const policy = (target, methods, more = "") =>
    `backends = ["${target}"]\naccess = "signed-in"\n[sign_in]\nwith = [${methods}]\n${more}`;
  gate = await start({
    files: { "corp.secret": SECRET },
    session: 'sign_in_host = "login.localhost"',
    settings: `
      [provider.corp]
      kind = "oidc"
      title = "Corp"
      issuer = "http://127.0.0.1:${port}"
      client_id = "gate"
      client_secret = { file = "corp.secret" }
      groups_claim = "groups"
      scopes = ["profile", "email", "groups"]
      refresh = "2s"`,
    applications: {
      whoami: policy("whoami", '"corp"', '[headers]\nidentity = ["user", "email", "groups"]'),
      login: policy("whoami", '"corp"'),
      wiki: policy(backend.url, '"corp"', '[[path]]\nprefix = "/fresh"\naccess = { who = "signed-in", signed_in_within = "3s" }'),
      both: policy("whoami", '"local", "corp"'),
      files: policy("whoami", '"local"'),
    },
  });
  browser = await launch();
  provider = await startProvider({ port, authority: join(gate.home, "certs", "development-ca.pem") });
  // The provider knows the sign-in host alone.
  await provider.tell("/clients", {
    client_id: "gate",
    client_secret: SECRET,
    redirect_uris: [gate.at("/.portcullis/callback/corp", "login")],
    post_logout_redirect_uris: [gate.at("/.portcullis/signed-out", "login")],
    backchannel_logout_uri: gate.at("/.portcullis/back-channel-logout/corp"),
  });
  await findsProvider(gate, "login");
});

after(async () => {
  await browser?.close();
  await provider?.stop();
  backend?.stop();
  assert.equal(await gate?.stop(), 0, "the gate ends well when it is told to stop");
});

function person(what, run) {
  test(what, async () => {
    const { context, page, misdeeds } = await visit(browser, { alsoAsks: "127.0.0.1" });
    try {
      await run(page, context);
      assert.deepEqual(misdeeds, []);
    } finally {
      await context.close();
    }
  });
}

const content = (page) => page.locator("body").innerText();
const session = async (context, host) =>
  (await context.cookies(gate.at("/", host))).find(({ name }) => name === "__Host-portcullis_session")?.value;
const signsIn = async (page, name, path, host) => {
  await page.goto(gate.at(path, host));
  await signInThere(page, name);
  await page.waitForURL(gate.at(path, host));
};

person("who has signed in once is signed in everywhere, with a cookie for each host", async (page, context) => {
  await signsIn(page, "ada", "/deep?link=1", "wiki");
  await page.goto(gate.at("/other?link=2"));
  assert.equal(page.url(), gate.at("/other?link=2"));
  assert.match(await content(page), /ada@example\.com/);
  const all = await Promise.all([undefined, "wiki", "login"].map((host) => session(context, host)));
  assert.ok(all.every(Boolean));
  assert.equal(new Set(all).size, 3);
});

person("an admission is for the browser that asked, once", async (page, context) => {
  let admission;
  page.on("request", (request) => {
    if (new URL(request.url()).pathname === "/.portcullis/admit") admission = request.url();
  });
  await signsIn(page, "ada", "/", "wiki");
  await page.goto(admission);
  await page.getByRole("heading", { name: "You are not signed in yet" }).waitFor();
  // One that nobody has used yet, in a browser that did not ask.
  await page.route("**/.portcullis/admit?*", (route) => {
    admission = route.request().url();
    return route.abort();
  });
  await context.clearCookies({ domain: "wiki.localhost" });
  await page.goto(gate.at("/", "wiki")).catch(() => {});
  const stranger = await visit(browser);
  await stranger.page.goto(admission);
  await stranger.page.getByRole("heading", { name: "You are not signed in yet" }).waitFor();
  assert.equal(await session(stranger.context, "wiki"), undefined);
  await stranger.context.close();
});

person("signing out at one host signs out at all, and closes what is open", async (page, context) => {
  await signsIn(page, "ada", "/talk", "wiki");
  await page.getByText("heard hello").waitFor();
  const other = await context.newPage();
  await other.goto(gate.at("/"));
  await other.goto(gate.at("/.portcullis/sign-out"));
  await leads(other, () => other.getByRole("button", { name: "Sign out" }).click());
  await page.getByText("closed").waitFor();
  await other.getByRole("link", { name: "Sign out of Corp, too" }).click();
  await other.locator("#sign-out").click();
  await other.waitForURL(gate.at("/.portcullis/signed-out", "login"));
  await other.goto(gate.at("/", "wiki"));
  await other.locator("#login").waitFor();
});

person("on the page of sessions a device is signed out everywhere at once", async (page, context) => {
  await provider.tell("/users", { sub: "cyd", groups: ["engineering"], email: "cyd@example.com" });
  await signsIn(page, "cyd", "/", "wiki");
  await page.goto(gate.at("/"));
  const lost = await visit(browser);
  await signsIn(lost.page, "cyd", "/talk", "wiki");
  await lost.page.getByText("heard hello").waitFor();

  await page.goto(gate.at("/.portcullis/sessions"));
  const devices = page.getByRole("listitem");
  assert.equal(await devices.count(), 2, "one for each browser, however many hosts");
  assert.match(await devices.first().innerText(), /this device[^]*wiki\.localhost/);
  await leads(page, () => devices.last().getByRole("button", { name: "Sign out" }).click());
  assert.equal(await devices.count(), 1);
  await lost.page.getByText("closed").waitFor();
  await page.goto(gate.at("/", "wiki"));
  assert.equal(page.url(), gate.at("/", "wiki"), "this device stays");

  await page.goto(gate.at("/.portcullis/sessions"));
  await leads(page, () => page.getByRole("button", { name: "Sign out everywhere" }).click());
  await page.getByRole("heading", { name: "You are signed out" }).waitFor();
  await page.getByRole("link", { name: "Sign out of Corp, too" }).waitFor();
  assert.equal(await session(context), undefined);
  assert.ok(await session(context, "wiki"), "a cookie that is good for nothing");
  await page.goto(gate.at("/.portcullis/sessions", "wiki"));
  assert.notEqual(page.url(), gate.at("/.portcullis/sessions", "wiki"));
  await lost.context.close();
});

person("a provider that ends a session ends it at every host", async (page, context) => {
  await signsIn(page, "ada", "/talk", "wiki");
  await page.getByText("heard hello").waitFor();
  const { status } = await provider.tell("/logout", { sub: "ada", client_id: "gate", end_session: true });
  assert.equal(status, 200);
  await page.getByText("closed").waitFor();
  await page.goto(gate.at("/"));
  await page.locator("#login").waitFor();
  assert.equal(await session(context), undefined);
});

person("a user who is disabled is out at every host", async (page) => {
  await provider.tell("/users", { sub: "dan", groups: ["engineering"], email: "dan@example.com" });
  await signsIn(page, "dan", "/talk", "wiki");
  await page.getByText("heard hello").waitFor();
  await provider.tell("/users", { sub: "dan", disabled: true });
  await page.getByText("closed").waitFor({ timeout: 20_000 });
});

person("a password that is given once is for every host that takes accounts", async (page) => {
  await page.goto(gate.at("/x?y=z", "files"));
  assert.equal(new URL(page.url()).hostname, "login.localhost");
  await signIn(page, gate.account);
  await page.waitForURL(gate.at("/x?y=z", "files"));
  await page.goto(gate.at("/", "both"));
  assert.equal(page.url(), gate.at("/", "both"));
  // An application that takes the provider alone is not satisfied by a password.
  await page.goto(gate.at("/", "wiki"));
  await page.locator("#login").waitFor();
});

person("a wrong password is said so, and the right one leads on", async (page) => {
  await page.goto(gate.at("/a", "both"));
  await signIn(page, { ...gate.account, password: "wrong" });
  assert.match(await content(page), /wrong/);
  await page.getByRole("link", { name: "Continue with Corp" }).waitFor();
  await signIn(page, gate.account);
  await page.waitForURL(gate.at("/a", "both"));
});

person("a page that wants a fresh sign-in gets one by the sign-in host", async (page) => {
  await signsIn(page, "ada", "/", "wiki");
  await new Promise((fulfil) => setTimeout(fulfil, 8_500));
  await page.goto(gate.at("/fresh", "wiki"));
  await signInThere(page, "ada");
  await page.waitForURL(gate.at("/fresh", "wiki"));
});
