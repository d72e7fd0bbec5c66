// An OpenID provider for the tests, with a control API to set it up and to make it misbehave.

import { createHmac, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";

import Provider, { errors, interactionPolicy } from "oidc-provider";

console.info = console.error;

const HOST = process.env.ISSUER_HOST ?? "127.0.0.1";
const MTLS = process.env.MTLS_URL;
const ACRS = ["pwd", "mfa"];
const COOKIE = { httpOnly: true, sameSite: "lax" };
const COOKIE_KEYS = [randomUUID()];
const CLAIMS = {
  openid: ["sub", "acr", "amr", "auth_time"],
  profile: ["name", "preferred_username"],
  email: ["email", "email_verified"],
  groups: ["groups"],
};
const SCOPED = new Set(Object.values(CLAIMS).flat());
const ENDPOINTS = {
  "/.well-known/openid-configuration": "discovery",
  "/jwks": "jwks",
  "/auth": "authorize",
  "/token": "token",
  "/me": "userinfo",
  "/token/introspection": "introspection",
  "/token/revocation": "revocation",
  "/request": "par",
  "/session/end": "end_session",
  "/v1.0/me/getMemberObjects": "groups",
};
const OVERAGE = { groups: null, _claim_names: { groups: "src1" } };
const MODES = [
  "id_token",
  "down",
  "slow_ms",
  "huge",
  "no_iss",
  "wrong_iss_param",
  "userinfo_wrong_sub",
  "userinfo_claims",
  "deny",
  "refresh_refused",
  "refresh_without_id_token",
  "overage",
  "groups_answer",
  "access_token_ttl",
];

const now = () => Math.floor(Date.now() / 1000);
const base64url = (content) => Buffer.from(content).toString("base64url");
const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
const without = (object, unwanted) => Object.fromEntries(Object.entries(object).filter(([name]) => !unwanted(name)));

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const clients = new Map();
const stored = new Map();
const users = new Map();
let mode = {};
let counts;
let issued;

function forget() {
  issued = [];
  counts = Object.fromEntries(Object.values(ENDPOINTS).map((endpoint) => [endpoint, 0]));
  counts.token = { total: 0 };
}

function addUser({ sub, ...rest }) {
  if (!sub) throw new Refused(400, "a user has a sub");
  users.set(sub, { sub, password: "correct horse", ...users.get(sub), ...rest });
  return users.get(sub);
}

function findUser(sub) {
  const user = users.get(sub);
  return user && !user.disabled ? user : undefined;
}

forget();
addUser({
  sub: "ada",
  name: "Ada Lovelace",
  preferred_username: "ada",
  email: "ada@example.com",
  email_verified: true,
  groups: ["engineering", "admins"],
});
addUser({
  sub: "bob",
  name: "Bob",
  preferred_username: "bob",
  email: "bob@example.com",
  email_verified: false,
  groups: ["staff"],
});
addUser({
  sub: "carol",
  name: "Carol",
  preferred_username: "carol",
  email: "carol@example.com",
  email_verified: true,
  groups: Array.from({ length: 500 }, (_, number) => `g${String(number).padStart(3, "0")}`),
});

function makeKey(alg) {
  const pair = alg === "ES256"
    ? generateKeyPairSync("ec", { namedCurve: "P-256" })
    : generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { alg, kid: randomUUID(), ...pair };
}

const makeKeys = () => ["RS256", "ES256"].map(makeKey);
const foreignKeys = {};
let keys = makeKeys();

function keyFor(alg) {
  const key = keys.find((candidate) => candidate.alg === alg);
  if (!key) throw new Refused(400, `no key for ${alg}`);
  return key;
}

const foreignKey = (alg) => (foreignKeys[alg] ??= makeKey(alg));

/** The ways to spoil a token; each is still properly signed where it does not set `sign`. */
const FORGERIES = {
  alg_none: (token) => {
    token.header.alg = "none";
    token.sign = () => "";
  },
  foreign_key: (token) => {
    token.key = foreignKey(token.header.alg);
  },
  hs256_public_key: (token) => {
    const secret = token.key.publicKey.export({ type: "spki", format: "pem" });
    token.header.alg = "HS256";
    token.sign = (input) => createHmac("sha256", secret).update(input).digest();
  },
  jwk_header: (token) => {
    token.key = foreignKey(token.header.alg);
    token.header.jwk = token.key.publicKey.export({ format: "jwk" });
  },
  r_s_zero: (token) => {
    Object.assign(token.header, { alg: "ES256", kid: keyFor("ES256").kid });
    token.sign = () => Buffer.alloc(64);
  },
  unknown_crit: (token) => Object.assign(token.header, { crit: ["urn:example:unknown"], "urn:example:unknown": true }),
  wrong_typ: (token) => {
    token.header.typ = token.header.typ === "at+jwt" ? "logout+jwt" : "at+jwt";
  },
  trailing: (token) => {
    token.suffix = ".trailing";
  },
  trailing_claims: (token) => {
    token.payload = `${JSON.stringify(token.claims)}{}`;
  },
  duplicate_claims: (token) => {
    token.payload = `${JSON.stringify(token.claims).slice(0, -1)},"sub":"mallory"}`;
  },
  wrong_iss: (token) => Object.assign(token.claims, { iss: "https://mallory.example" }),
  wrong_aud: (token) => Object.assign(token.claims, { aud: "another" }),
  wrong_azp: (token) => Object.assign(token.claims, { aud: [token.claims.aud, "another"].flat(), azp: "another" }),
  wrong_nonce: (token) => Object.assign(token.claims, { nonce: "another" }),
  nonce: (token) => Object.assign(token.claims, { nonce: "another" }),
  bad_at_hash: (token) => Object.assign(token.claims, { at_hash: base64url(Buffer.alloc(16, 1)) }),
  expired: (token) => Object.assign(token.claims, { iat: now() - 7200, exp: now() - 3600 }),
  future_iat: (token) => Object.assign(token.claims, { iat: now() + 3600, exp: now() + 7200 }),
  no_exp: (token) => delete token.claims.exp,
  no_iat: (token) => delete token.claims.iat,
  no_jti: (token) => delete token.claims.jti,
  no_events: (token) => delete token.claims.events,
  no_sub_sid: (token) => {
    delete token.claims.sub;
    delete token.claims.sid;
  },
};

function patch(target, changes = {}) {
  Object.assign(target, changes);
  for (const name of Object.keys(changes)) if (changes[name] === null) delete target[name];
}

function checkForgery(forgery) {
  if (forgery == null || typeof forgery === "object" || Object.hasOwn(FORGERIES, forgery)) return;
  throw new Refused(400, `unknown forgery ${forgery}`);
}

/** Signs a token; `forgery` is the name of one, `{header, claims}` to lay over the token's own, or `{token}` in its place. */
function issue(header, claims, forgery) {
  checkForgery(forgery);
  if (typeof forgery?.token === "string") return forgery.token;
  const key = keyFor(header.alg);
  const token = { header: { kid: key.kid, ...header }, claims: { ...claims }, key, suffix: "" };
  token.sign = (input) => sign("sha256", Buffer.from(input), { key: token.key.privateKey, dsaEncoding: "ieee-p1363" });
  if (typeof forgery === "string") FORGERIES[forgery](token);
  patch(token.header, forgery?.header);
  patch(token.claims, forgery?.claims);
  const input = `${base64url(JSON.stringify(token.header))}.${base64url(token.payload ?? JSON.stringify(token.claims))}`;
  return `${input}.${base64url(token.sign(input))}${token.suffix}`;
}

function reissue(jwt, forgery) {
  const [header, claims] = jwt.split(".").map((part) => Buffer.from(part, "base64url").toString());
  return issue(JSON.parse(header), JSON.parse(claims), forgery);
}

class Adapter {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    stored.set(this.key(id), payload);
  }

  async find(id) {
    return this.model === "Client" ? clients.get(id) : stored.get(this.key(id));
  }

  async findByUid(uid) {
    return [...stored].find(([key, { uid: own }]) => key.startsWith(`${this.model}:`) && own === uid)?.[1];
  }

  async consume(id) {
    stored.get(this.key(id)).consumed = now();
  }

  async destroy(id) {
    stored.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of stored) if (payload.grantId === grantId) stored.delete(key);
  }
}

async function grantAll(ctx) {
  const { client, session, result, params } = ctx.oidc;
  const id = result?.consent?.grantId ?? session.grantIdFor(client.clientId);
  const grant = (id && (await provider.Grant.find(id)))
    ?? new provider.Grant({ accountId: session.accountId, clientId: client.clientId });
  grant.addOIDCScope(params.scope ?? "");
  grant.addOIDCClaims([...ctx.oidc.requestParamClaims]);
  await grant.save();
  return grant;
}

function policy() {
  const { Check, base } = interactionPolicy;
  const prompts = base();
  const login = prompts.get("login");
  login.checks.add(new Check("denied", "access is denied", "access_denied", () => Boolean(mode.deny)));
  login.checks.add(new Check("no_account", "the account is gone", "login_required", ({ oidc }) => {
    return Boolean(oidc.session.accountId) && !oidc.account;
  }));
  login.checks.add(new Check("acr_values", "a stronger sign-in is asked for", "login_required", ({ oidc }) => {
    const asked = (oidc.params.acr_values ?? "").split(" ").filter((acr) => ACRS.includes(acr));
    return asked.length > 0 && !asked.includes(oidc.session.acr) && !oidc.result?.login;
  }));
  return prompts;
}

function aliases() {
  return {
    token_endpoint: `${MTLS}/token`,
    userinfo_endpoint: `${MTLS}/me`,
    pushed_authorization_request_endpoint: `${MTLS}/request`,
  };
}

function makeProvider() {
  const made = new Provider(issuer, {
    acrValues: ACRS,
    adapter: Adapter,
    claims: CLAIMS,
    conformIdTokenClaims: false,
    cookies: { keys: COOKIE_KEYS, long: COOKIE, short: COOKIE },
    clientAuthMethods: [
      "none",
      "client_secret_basic",
      "client_secret_post",
      "private_key_jwt",
      ...(MTLS ? ["self_signed_tls_client_auth"] : []),
    ],
    clientBasedCORS: () => false,
    discovery: MTLS ? { mtls_endpoint_aliases: aliases() } : {},
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256"] },
    extraTokenClaims: (_, token) => token.extra,
    features: {
      backchannelLogout: { enabled: true },
      claimsParameter: { enabled: true },
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: {
        enabled: true,
        allowedPolicy: (_, __, token) => !token.accountId || Boolean(findUser(token.accountId)),
      },
      mTLS: {
        enabled: Boolean(MTLS),
        selfSignedTlsClientAuth: true,
        getCertificate: (ctx) => decodeURIComponent(ctx.get("client-cert")) || undefined,
      },
      resourceIndicators: { enabled: false },
      revocation: { enabled: true },
      rpInitiatedLogout: {
        logoutSource: (ctx, form) => {
          const logout = '<input type="hidden" name="logout" value="yes">';
          ctx.body = page("Sign out", form.replace("</form>", `${logout}<button id="sign-out">Sign out</button></form>`));
        },
        postLogoutSuccessSource: (ctx) => {
          ctx.body = page("Signed out", "");
        },
      },
    },
    findAccount: (_, sub) => {
      const user = findUser(sub);
      return user && {
        accountId: sub,
        claims: () => without(user, (name) => ["password", "disabled"].includes(name)),
      };
    },
    interactions: { policy: policy(), url: (_, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: (_, client) => client.grantTypeAllowed("refresh_token"),
    jwks: {
      keys: keys.map(({ alg, kid, privateKey }) => ({ ...privateKey.export({ format: "jwk" }), alg, kid, use: "sig" })),
    },
    loadExistingGrant: grantAll,
    renderError: (ctx, out) => {
      ctx.type = "text";
      ctx.body = `${out.error}: ${out.error_description}`;
    },
    responseTypes: ["code"],
    rotateRefreshToken: () => {
      if (mode.refresh_refused === true) throw new errors.InvalidGrant("refresh refused");
      if (mode.refresh_refused) throw new errors.CustomOIDCProviderError(mode.refresh_refused, "refresh refused");
      return true;
    },
    scopes: ["openid", "offline_access", "profile", "email", "groups"],
    ttl: {
      AccessToken: () => mode.access_token_ttl ?? 3600,
      ClientCredentials: () => mode.access_token_ttl ?? 3600,
      Grant: 86400,
      IdToken: 3600,
      Interaction: 3600,
      RefreshToken: 86400,
      Session: 86400,
    },
  });
  const { result } = made.Claims.prototype;
  made.Claims.prototype.result = async function () {
    return { ...without(this.available, (name) => SCOPED.has(name)), ...(await result.call(this)) };
  };
  made.Client.prototype.includeSid = () => true;
  made.use(misbehave);
  return made;
}

async function misbehave(ctx, next) {
  await next();
  const endpoint = ENDPOINTS[ctx.path];
  if (endpoint === "token") {
    const grantType = ctx.oidc?.params?.grant_type;
    if (grantType) counts.token[grantType] = (counts.token[grantType] ?? 0) + 1;
    if (ctx.body?.id_token && mode.overage) ctx.body.id_token = reissue(ctx.body.id_token, { claims: overage() });
    if (grantType === "refresh_token" && mode.refresh_without_id_token) delete ctx.body.id_token;
    if (ctx.body?.id_token && mode.id_token) ctx.body.id_token = reissue(ctx.body.id_token, mode.id_token);
    if (ctx.body?.access_token) issued.push(without(ctx.body, (name) => !name.endsWith("_token")));
  }
  if (endpoint === "userinfo" && ctx.body?.sub && mode.userinfo_wrong_sub) ctx.body.sub = "mallory";
  if (endpoint === "userinfo" && ctx.body?.sub) Object.assign(ctx.body, mode.userinfo_claims);
  if (endpoint === "userinfo" && ctx.body?.sub && mode.overage) delete ctx.body.groups;
  if (ctx.path.startsWith("/auth") && (mode.no_iss || mode.wrong_iss_param)) changeIss(ctx);
}

/** What a token says of groups that do not fit it; the place that it names for them is a trap. */
function overage() {
  return { ...OVERAGE, _claim_sources: { src1: { endpoint: String(mode.overage) } } };
}

/** All groups of the holder of an access token, as Microsoft Graph tells them. */
async function tellGroups(request, answer) {
  const asked = await read(request);
  const [, bearer] = /^Bearer (\S+)$/.exec(request.headers.authorization ?? "") ?? [];
  const token = bearer && (await provider.AccessToken.find(bearer));
  const user = token && findUser(token.accountId);
  const fits = request.method === "POST" && request.headers["content-type"] === "application/json"
    && asked === '{"securityEnabledOnly":true}';
  const say = (status, content, headers) => {
    answer.writeHead(status, { "content-type": "application/json;charset=utf-8", ...headers });
    answer.end(typeof content === "string" ? content : JSON.stringify(content));
  };
  if (!user) return say(401, { error: { code: "InvalidAuthenticationToken" } });
  if (!fits) return say(400, { error: { code: "BadRequest" } });
  const { status, content, headers } = mode.groups_answer ?? {};
  say(status ?? 200, content ?? { "@odata.context": `${issuer}/$metadata`, value: user.groups }, headers);
}

function changeIss(ctx) {
  const wrong = mode.no_iss ? "" : "https://mallory.example";
  const change = (parameters) => {
    if (!parameters.has("iss")) return parameters;
    if (wrong) parameters.set("iss", wrong);
    else parameters.delete("iss");
    return parameters;
  };
  const location = ctx.response.get("location");
  if (location) {
    const url = new URL(location, issuer);
    if (url.origin === issuer) return;
    change(url.searchParams);
    if (url.hash) url.hash = change(new URLSearchParams(url.hash.slice(1)));
    ctx.set("location", url.href);
  } else if (typeof ctx.body === "string") {
    const replacement = wrong && `<input type="hidden" name="iss" value="${wrong}"/>`;
    ctx.body = ctx.body.replace(/<input type="hidden" name="iss" value="[^"]*"\/>/, replacement);
  }
}

async function read(request) {
  let content = "";
  for await (const piece of request) content += piece;
  return content;
}

function page(title, content) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><link rel="icon" href="data:,"><main><h1>${title}</h1>${content}</main>`;
}

function showForm(answer, status, login) {
  answer.writeHead(status, { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" });
  answer.end(page("Sign in", `<form method="post">
<label>Login <input id="login" name="login" autocomplete="username" value="${escape(login)}"></label>
<label>Password <input id="password" name="password" type="password" autocomplete="current-password"></label>
<button>Sign in</button></form>`));
}

async function interact(request, answer) {
  const { prompt, params } = await provider.interactionDetails(request, answer);
  const finish = (result) => provider.interactionFinished(request, answer, result);
  if (mode.deny) return finish({ error: "access_denied", error_description: "access is denied" });
  if (prompt.name === "consent") return finish({ consent: {} });
  if (request.method !== "POST") return showForm(answer, 200, params.login_hint ?? "");
  const form = new URLSearchParams(await read(request));
  const login = form.get("login") ?? "";
  const user = findUser(login);
  if (!user || form.get("password") !== user.password) return showForm(answer, 403, login);
  const acr = (params.acr_values ?? "").split(" ").find((asked) => ACRS.includes(asked)) ?? "pwd";
  return finish({ login: { accountId: login, acr, amr: acr === "mfa" ? ["pwd", "otp"] : ["pwd"] } });
}

function* garbage() {
  yield '{"keys":[{"kty":"';
  for (;;) yield "A".repeat(65536);
}

const meant = (setting, endpoint, all) => (Array.isArray(setting) ? setting : setting ? all : []).includes(endpoint);

async function serve(request, answer) {
  const { pathname } = new URL(request.url, issuer);
  const endpoint = ENDPOINTS[pathname];
  if (endpoint === "token") counts.token.total += 1;
  else if (endpoint) counts[endpoint] += 1;
  const delay = typeof mode.slow_ms === "object" ? mode.slow_ms[endpoint] : mode.slow_ms;
  if (delay) await sleep(delay);
  if (meant(mode.down, endpoint, [endpoint])) {
    answer.writeHead(503).end("down");
  } else if (meant(mode.huge, endpoint, ["jwks", "token", "userinfo"])) {
    answer.writeHead(200, { "content-type": "application/json" });
    await pipeline(Readable.from(garbage()), answer).catch(() => {});
  } else if (endpoint === "groups") {
    await tellGroups(request, answer);
  } else if (pathname.startsWith("/interaction/")) {
    await interact(request, answer);
  } else {
    await provider.callback()(request, answer);
  }
}

const algOf = (client) => client.id_token_signed_response_alg ?? "RS256";

async function deliver(client, token) {
  try {
    const response = await fetch(client.backchannel_logout_uri, {
      method: "POST",
      body: new URLSearchParams({ logout_token: token }),
      redirect: "manual",
      signal: AbortSignal.timeout(10_000),
    });
    return { status: response.status, body: await response.text() };
  } catch (error) {
    return { status: 0, body: String(error.cause ?? error) };
  }
}

async function logOut({ client_id, sub, sid, token, forge, send = true, end_session }) {
  const receivers = [...clients.values()].filter((client) => {
    return client_id ? client.client_id === client_id : client.backchannel_logout_uri;
  });
  if (receivers.length === 0 || receivers.some((client) => send && !client.backchannel_logout_uri)) {
    throw new Refused(404, "no such client with a backchannel_logout_uri");
  }
  if (end_session) {
    for (const { key, ...session } of sessions()) if (session.sub === sub || session.sid === sid) stored.delete(key);
  }
  const sent = [];
  for (const client of receivers) {
    const own = token ?? issue({ alg: algOf(client), typ: "logout+jwt" }, {
      iss: issuer,
      aud: client.client_id,
      iat: now(),
      exp: now() + 120,
      jti: randomUUID(),
      events: { "http://schemas.openid.net/event/backchannel-logout": {} },
      sub,
      sid,
    }, forge === "replay" ? undefined : forge);
    const entry = { client_id: client.client_id, token: own };
    if (send) {
      if (forge === "replay") entry.first_status = (await deliver(client, own)).status;
      Object.assign(entry, await deliver(client, own));
    }
    sent.push(entry);
  }
  return { ...sent[0], sent };
}

function sessions() {
  return [...stored].filter(([key]) => key.startsWith("Session:")).flatMap(([key, session]) => {
    return Object.entries(session.authorizations ?? {}).map(([client_id, { sid }]) => {
      return { key, sub: session.accountId, client_id, sid };
    });
  });
}

async function mint({ client_id, sub, aud, scope, typ, alg, format, expires_in, forge, ...extra }) {
  const lifetime = expires_in ?? 3600;
  if (format !== "opaque") {
    const token = issue({ alg: alg ?? "RS256", typ: typ ?? "at+jwt" }, {
      iss: issuer,
      sub: sub ?? client_id,
      aud,
      client_id,
      scope,
      iat: now(),
      exp: now() + lifetime,
      jti: randomUUID(),
      ...extra,
    }, forge);
    return { access_token: token };
  }
  const client = await provider.Client.find(client_id);
  if (!client) throw new Refused(404, "no such client");
  if (!sub) {
    const token = new provider.ClientCredentials({ client, scope, aud, extra, expiresIn: lifetime });
    return { access_token: await token.save() };
  }
  const grant = new provider.Grant({ accountId: sub, clientId: client_id });
  grant.addOIDCScope(scope ?? "");
  const token = new provider.AccessToken({
    client,
    accountId: sub,
    grantId: await grant.save(),
    gty: "authorization_code",
    scope,
    aud,
    extra,
    expiresIn: lifetime,
  });
  return { access_token: await token.save() };
}

async function addClient(metadata) {
  const code = Boolean(metadata.redirect_uris?.length);
  const client = {
    redirect_uris: [],
    response_types: code ? ["code"] : [],
    grant_types: code ? ["authorization_code", "refresh_token"] : ["client_credentials"],
    backchannel_logout_session_required: Boolean(metadata.backchannel_logout_uri),
    ...metadata,
  };
  await provider.Client.validate(client).catch((error) => {
    throw new Refused(400, error.error_description ?? error.message);
  });
  clients.set(client.client_id, client);
  return client;
}

function setMode(wanted) {
  const unknown = Object.keys(wanted).find((name) => !MODES.includes(name));
  if (unknown) throw new Refused(400, `unknown mode ${unknown}`);
  checkForgery(wanted.id_token);
  mode = wanted;
  return mode;
}

function rotate({ drop }) {
  keys = [...makeKeys(), ...(drop ? [] : keys)];
  provider = makeProvider();
  return { kids: keys.map(({ alg, kid }) => ({ alg, kid })) };
}

const CONTROL = {
  "POST /clients": addClient,
  "POST /users": (user) => without(addUser(user), (name) => name === "password"),
  "POST /rotate": rotate,
  "POST /mode": setMode,
  "GET /mode": () => mode,
  "POST /logout": logOut,
  "GET /sessions": () => sessions().map((session) => without(session, (name) => name === "key")),
  "GET /counts": () => counts,
  "GET /issued": () => issued,
  "POST /counts": () => {
    forget();
    return counts;
  },
  "POST /token": mint,
};

async function control(request, answer) {
  const action = CONTROL[`${request.method} ${new URL(request.url, issuer).pathname}`];
  if (!action) throw new Refused(404, "no such action");
  const result = await action(JSON.parse((await read(request)) || "{}"));
  answer.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(result));
}

function listen(port, handler) {
  const server = createServer((request, answer) => {
    handler(request, answer).catch((error) => {
      if (answer.headersSent) return answer.destroy();
      const status = error.status ?? 500;
      if (status === 500) console.error(error);
      answer.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error: error.message }));
    });
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject).listen(port, "127.0.0.1", () => resolve(server.address().port));
  });
}

const issuer = `http://${HOST}:${await listen(Number(process.env.PORT ?? 0), serve)}`;
let provider = makeProvider();
const controlPort = await listen(0, control);

// For whoever tries a gate out by hand: the client that the README registers.
if (process.env.GATE) {
  await addClient({
    client_id: "portcullis",
    client_secret: "for trying out only",
    redirect_uris: [`${process.env.GATE}/.portcullis/callback/corp`],
    post_logout_redirect_uris: [`${process.env.GATE}/.portcullis/signed-out`],
  });
}

const stop = () => process.exit(0);
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
process.stdin.on("end", stop).on("error", stop).resume();
console.log(JSON.stringify({ issuer, control: `http://127.0.0.1:${controlPort}` }));
