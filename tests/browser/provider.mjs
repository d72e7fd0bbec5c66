// A certified OpenID provider, as tests/provider runs it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const SERVER = resolve(dirname(fileURLToPath(import.meta.url)), "../provider/server.mjs");
export const PASSWORD = "correct horse";

/** Starts it at a port that was chosen beforehand; it trusts `authority` when it calls the gate. */
export async function start({ port, authority }) {
  const server = spawn(process.execPath, [SERVER], {
    env: { ...process.env, PORT: String(port), NODE_EXTRA_CA_CERTS: authority },
    stdio: ["pipe", "pipe", "ignore"],
  });
  const [line] = await once(createInterface({ input: server.stdout }), "line");
  const { issuer, control } = JSON.parse(line);
  return {
    issuer,
    /** Tells it something by its control port. */
    async tell(path, content) {
      const answer = await fetch(control + path, {
        method: content === undefined ? "GET" : "POST",
        headers: { "content-type": "application/json" },
        body: content === undefined ? undefined : JSON.stringify(content),
      });
      const said = await answer.json();
      if (!answer.ok) throw new Error(`${path}: ${JSON.stringify(said)}`);
      return said;
    },
    async stop() {
      if (server.exitCode !== null) return;
      server.kill("SIGTERM");
      await once(server, "exit");
    },
  };
}

/** Signs in on the provider's own page. */
export async function signInThere(page, name, password = PASSWORD) {
  await page.locator("#login").fill(name);
  await page.locator("#password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}
