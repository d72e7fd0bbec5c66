"""A certified OpenID provider, and people with browsers who sign in there at a gate."""

import functools
import http.client
import http.server
import itertools
import json
import os
import re
import subprocess
import threading
import urllib.parse
from dataclasses import dataclass, field

from gate import PATIENCE_S, ROOT, Form, Gate, unverified, wait_until

SERVER = ROOT / "tests/provider/server.mjs"
PASSWORD = "correct horse"
SECRET = "a secret that only the tests and the provider know"
SESSION = "__Host-portcullis_session"
CALLBACK = "/.portcullis/callback/"
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
SCRIPT = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
# More than any sign-in has.
MOST_HOPS = 20
NUMBERS = itertools.count()
TLS = unverified()

os.environ["PORTCULLIS_TESTS_CLIENT_SECRET"] = SECRET


class Provider:
    """A running provider, which does as its control API is told."""

    def __init__(self):
        self.process = subprocess.Popen(["node", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    @functools.cached_property
    def at(self):
        """Where it is, once it is there."""
        line = self.process.stdout.readline()
        assert line, f"{SERVER} does not start: `npm ci` in its directory may be missing"
        return json.loads(line)

    @property
    def issuer(self):
        return self.at["issuer"]

    def tell(self, path, content=None):
        control = urllib.parse.urlsplit(self.at["control"])
        connection = http.client.HTTPConnection(control.hostname, control.port, timeout=PATIENCE_S)
        try:
            connection.request("GET" if content is None else "POST", path,
                               None if content is None else json.dumps(content))
            answer = connection.getresponse()
            said = json.loads(answer.read())
        finally:
            connection.close()
        assert answer.status == 200, f"{path}: {said}"
        return said

    def mode(self, **modes):
        self.tell("/mode", modes)

    def forge(self, forgery):
        self.mode(id_token=forgery)

    def counts(self):
        return self.tell("/counts")

    def refreshes(self):
        return self.counts()["token"].get("refresh_token", 0)

    def issued(self):
        """The tokens that were given out, as the token endpoint named them; the newest last."""
        return self.tell("/issued")

    def mint(self, **token):
        return self.tell("/token", token)["access_token"]

    def logout_token(self, client_id, **of):
        return self.tell("/logout", {"client_id": client_id, "send": False, **of})["token"]

    def sessions(self, sub):
        """Names of the sessions of a user, the oldest first."""
        return list(dict.fromkeys(one["sid"] for one in self.tell("/sessions") if one["sub"] == sub))

    @property
    def stopped(self):
        return self.process.poll() is not None

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def close(self):
        self.stop()
        self.process.stdin.close()
        self.process.stdout.close()


class Backend:
    """An application that remembers what it was sent, and tells whoever asks who they are to it."""

    def __init__(self):
        seen, received = self.seen, self.received = [], []

        class Remembering:
            def __init__(self, file):
                self.file = file

            def readline(self, *most):
                received.append(self.file.readline(*most))
                return received[-1]

            def read(self, *most):
                received.append(self.file.read(*most))
                return received[-1]

            def close(self):
                self.file.close()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                self.rfile = Remembering(self.rfile)

            def answer(self):
                fields = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(fields.get("content-length", 0)))
                seen.append({"line": self.requestline, "fields": fields, "body": body})
                content = json.dumps({"user": fields.get("x-portcullis-user"), "fields": fields}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_POST = answer

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 256

            def handle_error(self, *_):
                """The gate closes connections as it likes."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def seen_of(self, agent):
        """The requests of a browser that names itself so."""
        return [one for one in list(self.seen) if one["fields"].get("user-agent") == agent]

    def received_text(self):
        return b"".join(list(self.received)).decode("latin-1")

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Answer:
    """What a server answered."""

    url: str
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def location(self):
        return self.headers.get("Location") if 300 <= self.status < 400 else None

    @property
    def request_id(self):
        return self.headers.get("X-Request-Id")

    def sets(self, name):
        """The values that it gives a cookie."""
        pairs = (one.partition(";")[0].partition("=") for one in self.headers.get_all("Set-Cookie", []))
        return [value for own, _, value in pairs if own == name and value]

    def json(self):
        return json.loads(self.text)


@dataclass
class Person:
    """Somebody with a browser of their own, which follows redirects and keeps cookies.

    Cookies are told apart by port, as those of the hosts are which all are this machine here. `heard`
    is everything that servers have told the browser, addresses and fields included.
    """

    gate: object
    agent: str = field(default_factory=lambda: f"browser-{next(NUMBERS)}")
    jar: dict = field(default_factory=dict)
    heard: list = field(default_factory=list)

    def at(self, path, app=""):
        return self.gate.url(path, f"{app}.localhost" if app else "localhost")

    def ask(self, url, method="GET", form=None, headers=None, from_elsewhere=False):
        """One request. What comes `from_elsewhere` and is no link has no cookies, for they are `SameSite=Lax`."""
        at = urllib.parse.urlsplit(url)
        kept = self.jar.setdefault(at.netloc, {})
        fields = {"Host": at.netloc, "User-Agent": self.agent, **NAVIGATION, "Sec-Fetch-Site": "none"} | (headers or {})
        lax = [f"{name}={value}" for (name, path), value in list(kept.items()) if at.path.startswith(path)]
        if lax and not (from_elsewhere and method == "POST"):
            fields["Cookie"] = "; ".join(lax)
        body = form
        if isinstance(form, dict):
            body = urllib.parse.urlencode(form)
        if form is not None:
            fields.setdefault("Content-Type", "application/x-www-form-urlencoded")
        if at.scheme == "https":
            connection = http.client.HTTPSConnection("127.0.0.1", at.port, context=TLS, timeout=PATIENCE_S)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=PATIENCE_S)
        try:
            connection.request(method, at.path + (f"?{at.query}" if at.query else ""), body, fields)
            got = connection.getresponse()
            answer = Answer(url, got.status, got.headers, got.read().decode(errors="replace"))
        finally:
            connection.close()
        for line in answer.headers.get_all("Set-Cookie", []):
            pair, *attributes = line.split(";")
            name, _, value = pair.partition("=")
            attributes = {key.strip().lower(): of for key, _, of in (one.partition("=") for one in attributes)}
            key = (name, attributes.get("path", "/"))
            if attributes.get("max-age") == "0" or "1970" in attributes.get("expires", ""):
                kept.pop(key, None)
            else:
                kept[key] = value
        self.heard.append(f"{method} {url}\n{answer.headers}\n{answer.text}")
        return answer

    def go(self, url, sub=None, stop=None):
        """Goes to a page and wherever that leads, signing in as `sub` where a provider asks.

        Ends with the address that has `stop` in it, which the browser is not sent to, or with the answer that leads
        no further.
        """
        answer = self.ask(url)
        for _ in range(MOST_HOPS):
            if answer.location:
                url = urllib.parse.urljoin(answer.url, answer.location)
                if stop and stop in url:
                    return url
                answer = self.ask(url, headers={"Sec-Fetch-Site": "cross-site"})
            elif sub and 'id="login"' in answer.text:
                answer = self.ask(answer.url, "POST", {"login": sub, "password": PASSWORD})
            elif 'name="state"' in answer.text:
                form = Form(answer.text)
                if stop:
                    return form.action, form.hidden
                answer = self.post_from_elsewhere(form.action, form.hidden)
            else:
                return answer
        raise AssertionError(f"it goes round in circles: {answer.url}")

    def post_from_elsewhere(self, url, form):
        """What a page of another site makes a browser send."""
        headers = {"Origin": "null", "Sec-Fetch-Site": "cross-site"}
        return self.ask(url, "POST", form, headers, from_elsewhere=True)

    def sign_in(self, sub, app="", path="/"):
        return self.go(self.at(path, app), sub)

    def answer_for(self, sub, app="", path="/"):
        """Signs in, up to where the provider's answer would be brought to the gate: what it would bring."""
        answer = self.go(self.at(path, app), sub, stop=CALLBACK)
        assert not isinstance(answer, Answer), f"no answer of a provider: {answer.status} {answer.url} {answer.text[:300]}"
        return answer

    def session(self, app=""):
        """The session's cookie at an application."""
        at = urllib.parse.urlsplit(self.at("/", app)).netloc
        return self.jar.get(at, {}).get((SESSION, "/"))

    def carries(self, value, app=""):
        """Puts a session's cookie into the browser, as somebody with a hand on it could."""
        at = urllib.parse.urlsplit(self.at("/", app)).netloc
        self.jar.setdefault(at, {})[(SESSION, "/")] = value

    def whoami(self, app="", path="/whoami"):
        """Who the application takes them for; nobody where the gate does not let them through."""
        answer = self.ask(self.at(path, app), headers=SCRIPT)
        return answer.json().get("user") if answer.status == 200 else None

    def knows_nobody(self, app=""):
        """Whether the gate asks them to sign in."""
        answer = self.ask(self.at("/whoami", app), headers=SCRIPT)
        return answer.status == 401


def oidc(name, provider, client="gate", more=""):
    """A provider as the gate's configuration states it."""
    return f"""
[provider.{name}]
kind = "oidc"
issuer = "{provider.issuer}"
client_id = "{client}"
client_secret = {{ env = "PORTCULLIS_TESTS_CLIENT_SECRET" }}
scopes = ["profile", "email", "groups"]
groups_claim = "groups"
{more}
"""


class World:
    """Two providers, an application that remembers, and the gate between it and its people.

    `policies` are by the name before `.localhost`; `settings` makes the gate's own of the two providers.
    """

    def __init__(self, settings, policies):
        self.closing = []
        try:
            self.backend = self._opened(Backend())
            self.corp, self.rival = self._opened(Provider()), self._opened(Provider())
            settings = settings(self.corp, self.rival)
            apps = {name or "app": self._policy(f"{name}.localhost" if name else "localhost", policy)
                    for name, policy in policies.items()}
            self.gate = self._opened(Gate(apps, settings))
            names = re.findall(r"^\[provider\.(\w+)\]", settings, re.MULTILINE)
            redirects = [self.gate.url(CALLBACK + name, f"{app}.localhost" if app else "localhost")
                         for app in policies for name in names]
            for provider in (self.corp, self.rival):
                for client in ("gate", "quick"):
                    provider.tell("/clients", {"client_id": client, "client_secret": SECRET, "redirect_uris": redirects})
        except BaseException:
            self.close()
            raise
        self.numbers = itertools.count()

    def _policy(self, host, policy):
        keys, bracket, tables = policy.partition("\n[")
        backend = "" if "backends" in keys else f'backends = ["{self.backend.url}"]\n'
        rate = '[rate]\nper_client = "100000/s"\nburst = 100000\n'
        return f'host = "{host}"\n{backend}{keys}\n{rate}{bracket}{tables}'

    def _opened(self, thing):
        self.closing.append(thing)
        return thing

    def close(self):
        for thing in reversed(self.closing):
            thing.close()

    def person(self):
        return Person(self.gate)

    def somebody(self, provider=None, **claims):
        """A user whom nobody else is; their name."""
        sub = f"user-{next(self.numbers)}"
        (provider or self.corp).tell("/users", {
            "sub": sub, "email": f"{sub}@example.com", "email_verified": True, "groups": ["staff"]} | claims)
        return sub

    def logged(self, answer):
        """The line of the access log about an exchange."""
        assert answer.request_id, f"an answer without request id: {answer.url}"
        start = f'"request_id":"{answer.request_id}"'

        def line():
            for text in reversed(self.gate.lines):
                if start in text and '"stages_us"' in text:
                    return json.loads(text)
            return None

        return wait_until(line, f"a line in the log for {answer.url}")
