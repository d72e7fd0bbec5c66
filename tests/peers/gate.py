"""A gate of the built program, and the real servers and programs around it."""

import html.parser
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20
PASSWORD = "correct horse battery staple"
SIGN_IN = "/.portcullis/sign-in"
SIGN_OUT = "/.portcullis/sign-out"


def binary():
    """The program under test; PORTCULLIS names another."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return Path(os.environ.get("PORTCULLIS", target / "debug/portcullis")).resolve()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until(condition, what):
    """What `condition` gives as soon as it gives something true."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {PATIENCE_S} s: {what}")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def certificate(directory, name="localhost"):
    """A self-signed certificate and its key."""
    chain, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1",
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", chain],
        check=True, capture_output=True)
    return chain, key


class Gate:
    """A running gate in a directory of its own, with an account `ada`."""

    def __init__(self, policies, more="", command=(), files=None):
        self.home = Path(tempfile.mkdtemp(prefix="portcullis-peers-"))
        (self.home / "policies").mkdir()
        for name, content in (files or {}).items():
            (self.home / name).parent.mkdir(exist_ok=True)
            (self.home / name).write_text(content)
        chain, key = certificate(self.home)
        self.plain_port, self.port = free_port(), free_port()
        (self.home / "portcullis.toml").write_text(f"""
{more.partition("[")[0]}
[[listen]]
address = "127.0.0.1:{self.port}"
[[listen]]
address = "127.0.0.1:{self.plain_port}"
tls = false
[tls]
certificates = [{{ chain = "{chain}", key = "{key}" }}]
[log]
format = "json"
{"".join(more.partition("[")[1:])}
""")
        for name, policy in policies.items():
            self.write_policy(name, policy)
        self.command = list(command)
        self.process, self.reader, self.lines = None, None, []
        self.portcullis("users", "add", "ada", "--password-stdin", told=PASSWORD + "\n")
        self.start()

    def write_policy(self, name, policy):
        """Replaces a policy in one step, as careful editors do."""
        new = self.home / f"{name}.new"
        new.write_text(policy)
        new.rename(self.home / "policies" / f"{name}.toml")

    def portcullis(self, *arguments, told=""):
        done = subprocess.run([binary(), "--config", self.home, *arguments], cwd=self.home, input=told,
                              text=True, capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 0, f"portcullis {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def start(self):
        self.process = subprocess.Popen([*self.command, binary(), "--config", self.home, "run"], cwd=self.home,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True)
        self.reader.start()
        wait_until(lambda: self._alive() and listens(self.port) and listens(self.plain_port), "the gate listens")

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.append(line)

    def _alive(self):
        assert self.process.poll() is None, f"the gate ended with {self.process.returncode}:\n{''.join(self.lines)}"
        return True

    def stop(self, how=signal.SIGTERM):
        """Stops the gate; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(PATIENCE_S * 2)
        self.reader.join(PATIENCE_S)
        if self.process.stdout:
            self.process.stdout.close()
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def resident_bytes(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def url(self, path, host="localhost"):
        return f"https://{host}:{self.port}{path}"

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=unverified(), timeout=PATIENCE_S)

    def request(self, method, path, headers=None, body=None, host="localhost"):
        """One request on a connection of its own: status, headers and content."""
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers={"Host": f"{host}:{self.port}"} | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def sign_in(self, host="localhost"):
        """Signs Ada in by the form, as a browser does; her cookie as `name=value`."""
        return sign_in(self.port, "ada", PASSWORD, host)

    def sign_out(self, cookie, host="localhost"):
        browser = same_origin(self.port, host) | {"Cookie": cookie}
        _, headers, page = self.request("GET", SIGN_OUT, browser, host=host)
        form = Form(page.decode())
        body = urllib.parse.urlencode(form.hidden)
        cookies = "; ".join([cookie, *cookies_of(headers)])
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookies}
        return self.request("POST", form.action or SIGN_OUT, browser | kind, body, host=host)[0]

    def curl(self, *arguments, path="/", cookie=None, host="localhost"):
        """curl, which must succeed: what it printed."""
        identity = ["--cookie", cookie] if cookie else []
        done = subprocess.run(
            ["curl", "-sSk", "--max-time", "120", "--resolve", f"{host}:{self.port}:127.0.0.1", *identity, *arguments,
             self.url(path, host)],
            capture_output=True, timeout=PATIENCE_S + 120)
        assert done.returncode == 0, f"curl {' '.join(map(str, arguments))}: {done.stderr.decode()}"
        return done.stdout


def unverified():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes, and its fields."""

    def __init__(self, page):
        super().__init__()
        self.action, self.hidden, self.name, self.password = None, {}, None, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attribute = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = attribute.get("action", "")
        if tag == "input" and "name" in attribute:
            match attribute.get("type", "text"):
                case "hidden":
                    self.hidden[attribute["name"]] = attribute.get("value", "")
                case "password":
                    self.password = attribute["name"]
                case "text" | "email":
                    self.name = attribute["name"]


def same_origin(port, host):
    return {"Host": f"{host}:{port}", "Accept": "text/html", "Origin": f"https://{host}:{port}",
            "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def cookies_of(headers):
    return [one.partition(";")[0] for one in headers.get_all("Set-Cookie", [])]


def sign_in(port, name, password, host="localhost", connection=None):
    """Signs in by the form at a gate on loopback; the session's cookie as `name=value`."""
    connection = connection or http.client.HTTPSConnection("127.0.0.1", port, context=unverified(), timeout=PATIENCE_S)
    browser = same_origin(port, host)
    connection.request("GET", SIGN_IN, headers=browser)
    answer = connection.getresponse()
    page = answer.read().decode()
    form = Form(page)
    assert form.password, f"no sign-in form: {answer.status} {page[:500]}"
    fields = form.hidden | {form.name: name, form.password: password}
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "; ".join(cookies_of(answer.headers))}
    connection.request("POST", urllib.parse.urljoin(SIGN_IN, form.action or SIGN_IN),
                       body=urllib.parse.urlencode(fields), headers=browser | kind)
    answer = connection.getresponse()
    page = answer.read().decode(errors="replace")
    connection.close()
    session = [one for one in cookies_of(answer.headers) if "session" in one.partition("=")[0]]
    assert len(session) == 1, f"no session: {answer.status} {page[:500]}"
    return session[0]


class Nginx:
    """Debian's nginx, with `server` as the inside of its server block."""

    def __init__(self, server, listen=None, **files):
        self.home = Path(tempfile.mkdtemp(prefix="portcullis-nginx-"))
        self.home.chmod(0o755)
        self.port = free_port()
        self.listen = listen or f"127.0.0.1:{self.port}"
        for name, content in files.items():
            (self.home / name).write_bytes(content)
        temporary = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        (self.home / "nginx.conf").write_text(f"""
{user}
worker_processes 1; daemon off; pid nginx.pid; error_log error.log;
events {{ worker_connections 1024; }}
http {{
  {temporary}
  access_log access.log;
  client_max_body_size 0;
  server {{
    listen {self.listen.replace("HOME", str(self.home))};
    root {self.home};
    {server.replace("HOME", str(self.home))}
  }}
}}
""")
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(["nginx", "-p", self.home, "-c", self.home / "nginx.conf", "-e", self.home / "error.log"],
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        unix = re.match(r"unix:(\S+)", self.listen.replace("HOME", str(self.home)))
        wait_until(lambda: Path(unix[1]).exists() if unix else listens(self.port), "nginx listens")

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def kill(self):
        """Kills it with its workers, which outlive a master that is killed alone."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def requests(self):
        log = self.home / "access.log"
        return log.read_text().splitlines() if log.exists() else []

    def close(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
