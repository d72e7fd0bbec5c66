// Starts the gate in a directory of its own, as a newcomer would, and stops it.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:https";
import { createServer } from "node:net";
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
  down: 'access = "public"\nbackends = ["http://127.0.0.1:1"]\ncontact = "it@example.com"\n',
  busy: 'access = "public"\nbackends = ["whoami"]\n[rate]\nper_client = "1/h"\nburst = 1\n',
};

/** An application with a backend of its own. */
const desk = (backend) =>
  `access = "signed-in"\nbackends = ["${backend}"]\ncontact = "it@example.com"\n[backend]\nfirst_byte = "1s"\n`;

/** A port that nothing listens on, for what must know it beforehand. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/**
 * A running gate: where it listens, and the account it made. `settings` are added to its own, `files` to
 * its directory; `applications` take the place of the usual ones, with the gate's port for `:8443`. `before` is
 * what is done there by hand.
 */
export async function start({ settings = "", backend, applications: stated, files = {}, session = "", before } = {}) {
  const home = mkdtempSync(join(tmpdir(), "portcullis-browser-"));
  if (stated) mkdirSync(join(home, "policies"));
  else cpSync(join(ROOT, "policies"), join(home, "policies"), { recursive: true });
  const shipped = readFileSync(join(ROOT, "portcullis.toml"), "utf8");
  const https = await freePort();
  const here = shipped.replaceAll("8443", https).replace(/(127\.0\.0\.1|\[::1\]):8080/g, "$1:0");
  writeFileSync(join(home, "portcullis.toml"), `${here}\n${session && `[session]\n${session}\n`}${settings}`);
  const usual = backend ? { ...APPLICATIONS, desk: desk(backend) } : APPLICATIONS;
  const applications = stated ?? usual;
  for (const [name, content] of Object.entries(files)) writeFileSync(join(home, name), content);
  for (const [name, policy] of Object.entries(applications)) {
    const host = name === "whoami" ? "localhost" : `${name}.localhost`;
    writeFileSync(join(home, "policies", `${name}.toml`), `host = "${host}"\n${policy.replaceAll(":8443", `:${https}`)}`);
  }
  mkdirSync(join(home, "state"), { recursive: true });
  before?.(home);

  const gate = spawn(BINARY, ["--config", home, "run"], { cwd: home, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  const listening = new Promise((fulfil, reject) => {
    const hear = (bytes) => {
      said += bytes;
      if (/http:\/\/127\.0\.0\.1:\d+/.test(said)) fulfil();
    };
    gate.stdout.setEncoding("utf8").on("data", hear);
    gate.stderr.setEncoding("utf8").on("data", hear);
    gate.once("error", reject);
    gate.once("exit", (status) => reject(new Error(`the gate ended with ${status}:\n${said}`)));
    setTimeout(() => reject(new Error(`the gate does not say where it listens:\n${said}`)), STARTS_WITHIN_MS).unref();
  });
  await listening;
  const plain = Number(said.match(/http:\/\/127\.0\.0\.1:(\d+)/)[1]);
  const account = { name: "ada", password: "correct horse battery staple" };
  const added = spawnSync(BINARY, ["--config", home, "users", "add", account.name, "--password-stdin"], {
    cwd: home,
    input: `${account.password}\n`,
    encoding: "utf8",
  });
  if (added.status !== 0) throw new Error(`users add: ${added.stderr}`);

  return {
    account,
    /** Where its files are. */
    home,
    /** The account that the first start made, as it was printed. */
    firstAccount: () => firstAccount(said),
    /** What the gate has written so far. */
    said: () => said,
    /** The address of an application; the shipped one without a name. */
    at: (path, application) => `https://${application ? `${application}.` : ""}localhost:${https}${path}`,
    /** The port that speaks TLS, and the one that only leads there. */
    ports: { https, plain },
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
  const name = said.match(/^\s*user:\s+(\S+)$/m)?.[1];
  const password = said.match(/^\s*password:\s+(\S+)$/m)?.[1];
  if (!name || !password) throw new Error(`the first start printed no account:\n${said}`);
  return { name, password };
}

/** A request by no browser's profile, as a person would make it; redirects are not followed. */
export async function fetchPlainly(url, cookies = []) {
  const { hostname, port, pathname, search, host } = new URL(url);
  const headers = { host, accept: "text/html", cookie: cookies.map(({ name, value }) => `${name}=${value}`).join("; ") };
  const options = { host: "127.0.0.1", servername: hostname, port, path: pathname + search, headers, rejectUnauthorized: false };
  const asked = get(options).setTimeout(STARTS_WITHIN_MS, () => asked.destroy(new Error(`no answer: ${url}`)));
  const [answer] = await once(asked, "response");
  answer.resume();
  await once(answer, "end");
  return { status: answer.statusCode, headers: answer.headers };
}

/** Waits until the gate, which has just met its provider, can send people there. */
export async function findsProvider(gate, host) {
  const until = Date.now() + STARTS_WITHIN_MS;
  let answer;
  do {
    if (answer) await new Promise((fulfil) => setTimeout(fulfil, 100));
    answer = await fetchPlainly(gate.at("/.portcullis/sign-in?with=corp", host));
  } while (answer.status === 503 && Date.now() < until);
  if (answer.status !== 303) throw new Error(`the gate does not find its provider: ${answer.status}`);
}
