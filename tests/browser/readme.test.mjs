// What the README says of single sign-on, word by word, against a certified provider.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { start as startBackend } from "./backend.mjs";
import { launch, visit } from "./browser.mjs";
import { findsProvider, freePort, start } from "./gate.mjs";
import { signInThere } from "./provider.mjs";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** The blocks of a language in a section of the README. */
function blocks(section, language) {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  const [, after] = readme.split(`\n## ${section}\n`);
  assert.ok(after, `the README has no section ${section}`);
  const [text] = after.split("\n## ");
  return [...text.matchAll(new RegExp("```" + language + "\n(.*?)```", "gs"))].map(([, block]) => block);
}

test("the README leads from nothing to an application behind single sign-on", async () => {
  const section = "Let people in through your provider";
  const backend = await startBackend();
  const port = await freePort();
  const [settings, policy] = blocks(section, "toml");
  const [commands] = blocks(section, "sh");
  const gate = await start({
    settings: settings.replace("127.0.0.1:9000", `127.0.0.1:${port}`),
    files: { "policies/wiki.toml": policy.replace("http://127.0.0.1:8081", backend.url) },
    before: (home) => {
      const [, secret] = commands.match(/^echo "(.*)" > state\/corp\.secret$/m);
      writeFileSync(join(home, "state/corp.secret"), `${secret}\n`);
    },
  });
  const [, variables, program] = commands.match(/^((?:\w+=\S+ )+)node (\S+)$/m);
  const env = Object.fromEntries(variables.trim().split(" ").map((one) => one.split(/=(.*)/s)));
  env.GATE = env.GATE.replace("8443", gate.ports.https);
  env.PORT = String(port);
  const provider = spawn(process.execPath, [join(ROOT, program)], { env: { ...process.env, ...env }, stdio: ["pipe", "pipe", "ignore"] });
  const browser = await launch();
  try {
    await once(createInterface({ input: provider.stdout }), "line");
    await findsProvider(gate, "wiki");
    const { page, misdeeds } = await visit(browser, { alsoAsks: "127.0.0.1" });
    await page.goto(gate.at("/form", "wiki"));
    await signInThere(page, "ada");
    await page.waitForURL(gate.at("/form", "wiki"));
    await page.getByLabel("Note").waitFor();
    assert.deepEqual(misdeeds, []);
  } finally {
    await browser.close();
    provider.kill("SIGTERM");
    backend.stop();
    assert.equal(await gate.stop(), 0);
  }
});
