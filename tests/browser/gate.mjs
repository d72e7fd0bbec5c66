// Starts the gate in a directory of its own, as a newcomer would, and stops it.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const BINARY = resolve(process.env.PORTCULLIS ?? join(ROOT, "target/debug/portcullis"));
const STARTS_WITHIN_MS = 30_000;

/** Applications that the shipped ones do not show, by the name before `.localhost`. */
const APPLICATIONS = {
  members: 'backends = ["whoami"]\n[sign_in]\nwith = ["local"]\n[access]\ngroups = ["members"]\n',
  // Nobody listens on port 1.
  down: 'access = "public"\nbackends = ["http://127.0.0.1:1"]\n',
  busy: 'access = "public"\nbackends = ["whoami"]\n[rate]\nper_client = "1/h"\nburst = 1\n',
};

/** A running gate: where it listens, and the account it made. */
export async function start() {
  const home = mkdtempSync(join(tmpdir(), "portcullis-browser-"));
  cpSync(join(ROOT, "policies"), join(home, "policies"), { recursive: true });
  const settings = readFileSync(join(ROOT, "portcullis.toml"), "utf8");
  writeFileSync(join(home, "portcullis.toml"), settings.replace(/(127\.0\.0\.1|\[::1\]):\d+/g, "$1:0"));
  for (const [name, policy] of Object.entries(APPLICATIONS)) {
    writeFileSync(join(home, "policies", `${name}.toml`), `host = "${name}.localhost"\n${policy}`);
  }
  mkdirSync(join(home, "state"), { recursive: true });

  const gate = spawn(BINARY, ["--config", home, "run"], { cwd: home, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  const listening = new Promise((fulfil, reject) => {
    const hear = (bytes) => {
      said += bytes;
      if (/https:\/\/[^\s]+:\d+/.test(said)) fulfil();
    };
    gate.stdout.setEncoding("utf8").on("data", hear);
    gate.stderr.setEncoding("utf8").on("data", hear);
    gate.once("error", reject);
    gate.once("exit", (status) => reject(new Error(`the gate ended with ${status}:\n${said}`)));
    setTimeout(() => reject(new Error(`the gate does not say where it listens:\n${said}`)), STARTS_WITHIN_MS).unref();
  });
  await listening;
  const port = Number(said.match(/https:\/\/[^\s]+:(\d+)/)[1]);
  const account = { name: "ada", password: "correct horse battery staple" };
  const added = spawnSync(BINARY, ["--config", home, "users", "add", account.name, "--password-stdin"], {
    cwd: home,
    input: `${account.password}\n`,
    encoding: "utf8",
  });
  if (added.status !== 0) throw new Error(`users add: ${added.stderr}`);

  return {
    account,
    /** The account that the first start made, as it was printed. */
    firstAccount: () => firstAccount(said),
    /** What the gate has written so far. */
    said: () => said,
    /** The address of an application; the shipped one without a name. */
    at: (path, application) => `https://${application ? `${application}.` : ""}localhost:${port}${path}`,
    async stop() {
      if (gate.exitCode === null) {
        gate.kill("SIGTERM");
        await once(gate, "exit");
      }
      rmSync(home, { recursive: true, force: true });
      return gate.exitCode;
    },
  };
}

/** Reads name and password off the first start's message. */
function firstAccount(said) {
  const name = said.match(/(?:name|user|account)[^\S\n]*[:=]?[^\S\n]+`?([a-z]+)`?/i)?.[1];
  const password = said.match(/password[^\S\n]*[:=]?[^\S\n]+`?([^\s`]+)`?/i)?.[1];
  if (!name || !password) throw new Error(`the first start printed no account:\n${said}`);
  return { name, password };
}
