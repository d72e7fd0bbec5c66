"""Debian's nginx, Caddy and HAProxy in front, each as docs/forward-auth.md has it, asking the gate."""

import http.client
import http.server
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from gate import PASSWORD, PATIENCE_S, ROOT, SIGN_OUT, Form, Gate, certificate, cookies_of, free_port, listens, sign_in, unverified, wait_until

HOST = "app.example.com"
KEY = "5" * 64
POLICY = """
host = "app.example.com"
backends = ["http://127.0.0.1:1"]
access = "signed-in"
[rate]
per_client = "100000/s"
burst = 100000
[[path]]
prefix = "/public"
access = "public"
[[path]]
prefix = "/admin"
access = { groups = ["admins"] }
[[path]]
prefix = "/office"
access = "public"
network = { allow = ["192.0.2.0/24"] }
"""
SPOOFED = {"X-Portcullis-User": "root", "X-Portcullis-Email": "root@example.com", "x-portcullis-groups": "admins"}


def blocks(language):
    """The fenced blocks of the page in one language."""
    page = (ROOT / "docs/forward-auth.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def replaced(text, changes):
    """The text with each thing that is another on this machine, which must be there."""
    for old, new in changes.items():
        assert old in text, f"the page has no `{old}`"
        text = text.replace(old, str(new))
    return text


class Backend:
    """An application that keeps the fields and the content of every request."""

    def __init__(self):
        seen = self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fields = [(name.lower(), value) for name, value in self.headers.items()]
                seen.append((self.command, self.path, fields, content))
                self.send_response(200)
                self.send_header("Content-Length", "5")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(b"hello")

            do_GET = do_POST = do_HEAD = do_DELETE = answer

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                """Proxies drop connections as they like."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Beside:
    """What holds whichever proxy asks."""

    style = "x-forwarded"

    @classmethod
    def setUpClass(cls):
        cls.home = Path(tempfile.mkdtemp(prefix="portcullis-proxy-"))
        cls.home.chmod(0o755)
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        cls.backend = Backend()
        cls.addClassCleanup(cls.backend.close)
        cls.ports = {"127.0.0.1:9080": f"127.0.0.1:{free_port()}", "127.0.0.1:9081": f"127.0.0.1:{free_port()}",
                     "127.0.0.1:8081": f"127.0.0.1:{cls.backend.port}"}
        cls.start_gate()
        cls.chain, cls.key = certificate(cls.home, HOST)
        cls.port = free_port()
        command = cls.configure()
        log = (cls.home / "proxy.log").open("wb")
        cls.addClassCleanup(log.close)
        environment = os.environ | {"PORTCULLIS_VERIFY_KEY": KEY, "HOME": str(cls.home), "XDG_DATA_HOME": str(cls.home)}
        cls.proxy = subprocess.Popen(command, cwd=cls.home, env=environment, stdout=log, stderr=log, start_new_session=True)
        cls.addClassCleanup(cls.stop_proxy)
        wait_until(cls.is_up, f"{command[0]} listens")

    @classmethod
    def is_up(cls):
        log = (cls.home / "proxy.log").read_text()
        assert cls.proxy.poll() is None, f"the proxy ended:\n{log}"
        return listens(cls.port)

    @classmethod
    def stop_proxy(cls):
        os.killpg(cls.proxy.pid, signal.SIGKILL)
        cls.proxy.wait(PATIENCE_S)

    @classmethod
    def start_gate(cls):
        ports = {port: cls.ports[port] for port in ("127.0.0.1:9080", "127.0.0.1:9081")}
        (toml,) = blocks("toml")
        toml = replaced(toml, ports | {'style   = "x-original"': f'style = "{cls.style}"'})
        cls.gate = Gate({"app": POLICY}, more=toml, files={"state/verify.key": KEY + "\n"})
        cls.addClassCleanup(cls.gate.close)
        wait_until(lambda: all(listens(int(port.rpartition(":")[2])) for port in ports.values()), "the gate listens to proxies")

    def setUp(self):
        self.backend.seen.clear()

    def connect(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        connection.sock = unverified().wrap_socket(plain, server_hostname=HOST)
        return connection

    def request(self, method, path, headers=None, body=None):
        """One request through the proxy: status, headers and content."""
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers={"Host": f"{HOST}:{self.port}"} | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def sign_in(self):
        # The form and its answer on one connection, which no proxy here closes in between.
        return sign_in(self.port, "ada", PASSWORD, HOST, self.connect())

    def identity(self):
        """The fields of the one request that the application got which name somebody; Caddy sends empty ones too."""
        ((_, _, fields, _),) = self.backend.seen
        self.backend.seen.clear()
        return [(name, value) for name, value in fields if value and re.sub("[^a-z]", "-", name).startswith("x-portcullis-")]

    def is_turned_away(self, status, *request):
        got, headers, content = self.request(*request)
        self.assertEqual((got, self.backend.seen), (status, []), content)
        return headers

    def test_a_stranger_is_turned_away(self):
        for path in ("/", "/a?x=/public", "/publicity", "/public%2f..%2fadmin/"):
            status, _, _ = self.request("GET", path)
            self.assertIn(status, (400, 401, 403), path)
        headers = self.is_turned_away(401, "POST", "/", None, "secret")
        self.assertIn("cookie", headers["WWW-Authenticate"].lower())
        self.assertEqual(self.backend.seen, [])

    def test_a_person_is_led_to_the_sign_in_page_of_the_application(self):
        headers = self.is_turned_away(303, "GET", "/a?b=c&d", {"Accept": "text/html"})
        match = re.fullmatch(rf"https://{HOST}(?::{self.port})?(/\.portcullis/sign-in\?to=%2Fa%3Fb%3Dc%26d)", headers["Location"])
        self.assertTrue(match, headers["Location"])
        status, _, page = self.request("GET", match[1], {"Accept": "text/html"})
        self.assertEqual(status, 200)
        self.assertTrue(Form(page.decode()).password)

    def test_who_is_signed_in_reaches_the_application_which_learns_who_it_is(self):
        session = self.sign_in()
        for cookies in (session, f"{session}; theme=dark", f"theme=dark; {session}", f"a=b; {session}; theme=dark"):
            status, _, content = self.request("POST", "/a?b=c", {"Cookie": cookies}, "content")
            self.assertEqual((status, content), (200, b"hello"))
            ((method, path, fields, content),) = self.backend.seen
            self.assertEqual((method, path, content), ("POST", "/a?b=c", b"content"))
            self.assertEqual(self.identity(), [("x-portcullis-user", "ada")])
            self.assertNotIn("__Host-portcullis", str(fields))
            self.assertEqual("theme=dark" in str(fields), "theme" in cookies)
        self.is_turned_away(403, "GET", "/admin", {"Cookie": session})
        browser = {"Cookie": session, "Origin": f"https://{HOST}:{self.port}", "Sec-Fetch-Site": "same-origin"}
        _, headers, page = self.request("GET", SIGN_OUT, browser | {"Accept": "text/html"})
        form = Form(page.decode())
        browser["Cookie"] = "; ".join([session, *cookies_of(headers)])
        body = "&".join(f"{name}={value}" for name, value in form.hidden.items())
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        self.assertEqual(self.request("POST", SIGN_OUT, browser | kind, body)[0], 200)
        self.is_turned_away(401, "GET", "/", {"Cookie": session})

    def test_a_spoofed_identity_never_reaches_the_application(self):
        self.assertEqual(self.request("GET", "/public", SPOOFED)[0], 200)
        self.assertEqual(self.identity(), [])
        self.assertEqual(self.request("GET", "/", SPOOFED | {"Cookie": self.sign_in()})[0], 200)
        self.assertEqual(self.identity(), [("x-portcullis-user", "ada")])
        for alias in ("X_Portcullis_User", "X-Portcullis_User", "X.Portcullis.User"):
            self.request("GET", "/public", {alias: "root"})
            self.assertNotIn("root", str(self.backend.seen), alias)

    def test_what_a_client_says_in_the_proxys_place_opens_nothing(self):
        spoofed = {"X-Original-URL": f"https://{HOST}/public", "X-Original-Method": "GET", "X-Original-Uri": "/public",
                   "X-Forwarded-Uri": "/public", "X-Forwarded-Method": "GET", "X-Forwarded-Host": HOST,
                   "X-Forwarded-Proto": "https", "X-Rewrite-Url": "/public", "X-Portcullis-Key": KEY}
        self.is_turned_away(401, "GET", "/", spoofed)
        self.is_turned_away(403, "GET", "/office", {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"})
        self.is_turned_away(403, "GET", "/office", {"X-Forwarded-For": "192.0.2.1, 192.0.2.1", "X-Real-Ip": "192.0.2.1"})
        for path in ("/verify", "/portcullis"):
            self.assertIn(self.request("GET", path, spoofed)[0], (401, 404), path)
        self.assertEqual(self.backend.seen, [])

    def test_a_page_of_another_host_opens_no_websocket(self):
        session = self.sign_in()
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                     "Sec-WebSocket-Version": "13", "Cookie": session}
        self.is_turned_away(403, "GET", "/", handshake | {"Origin": "https://evil.example"})

    def test_no_answer_of_the_gate_is_no(self):
        session = self.sign_in()
        self.gate.stop()
        self.addCleanup(type(self).start_gate_again)
        for path in ("/", "/public"):
            status, _, _ = self.request("GET", path, {"Cookie": session})
            self.assertIn(status, (500, 502, 503), path)
        self.assertEqual(self.backend.seen, [])

    def test_another_key_is_no(self):
        key = self.gate.home / "state/verify.key"
        self.replace_key(key, "6" * 64)
        self.addCleanup(self.replace_key, key, KEY)
        status, _, _ = self.request("GET", "/public")
        self.assertEqual((status, self.backend.seen), (403, []))

    def replace_key(self, file, text):
        before = len(self.gate.lines)
        file.with_suffix(".new").write_text(text)
        file.with_suffix(".new").rename(file)
        self.gate.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any('"reloaded"' in line for line in self.gate.lines[before:]), "the key is taken up")

    @classmethod
    def start_gate_again(cls):
        cls.gate.start()
        port = int(cls.ports["127.0.0.1:9081"].rpartition(":")[2])
        wait_until(lambda: listens(port), "the gate listens to proxies")


class BesideNginx(Beside, unittest.TestCase):
    style = "x-original"

    @classmethod
    def configure(cls):
        (cls.home / "key.conf").write_text(f'proxy_set_header X-Portcullis-Key "{KEY}";\n')
        (site,) = blocks("nginx")
        site = replaced(site, cls.ports | {
            "listen 443 ssl;": f"listen 127.0.0.1:{cls.port} ssl;", "/etc/ssl/app.pem": cls.chain, "/etc/ssl/app.key": cls.key,
            "/etc/nginx/portcullis-key.conf": cls.home / "key.conf"})
        temporary = "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        (cls.home / "nginx.conf").write_text(
            f"{user} worker_processes 1; daemon off; pid nginx.pid; events {{}}\nhttp {{ {temporary} access_log off;\n{site}}}\n")
        return ["nginx", "-p", cls.home, "-c", cls.home / "nginx.conf", "-e", cls.home / "error.log"]

    def test_the_host_decided_on_is_the_one_that_chose_the_server(self):
        connection = self.connect()
        self.addCleanup(connection.close)
        connection.sock.sendall(f"GET https://{HOST}/ HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n".encode())
        self.assertIn(connection.sock.recv(4096).split()[1], (b"400", b"401"))
        self.assertEqual(self.backend.seen, [])


class BesideCaddy(Beside, unittest.TestCase):
    @classmethod
    def configure(cls):
        (site,) = blocks("caddyfile")
        site = replaced(site, cls.ports | {
            f"{HOST} {{": f"https://{HOST}:{cls.port} {{", "/etc/ssl/app.pem": cls.chain, "/etc/ssl/app.key": cls.key})
        (cls.home / "Caddyfile").write_text(f"{{\nadmin off\nauto_https disable_redirects\n}}\n{site}")
        return ["caddy", "run", "--config", cls.home / "Caddyfile", "--adapter", "caddyfile"]


class BesideHaproxy(Beside, unittest.TestCase):
    @classmethod
    def configure(cls):
        (lua,) = blocks("lua")
        verify = "127.0.0.1:9081"
        (cls.home / "portcullis.lua").write_text(replaced(lua, {verify: cls.ports[verify]}))
        (cls.home / "app-and-key.pem").write_bytes(cls.chain.read_bytes() + cls.key.read_bytes())
        (site,) = blocks("haproxy")
        others = {port: new for port, new in cls.ports.items() if port != verify}
        site = replaced(site, others | {
            "bind :443": f"bind 127.0.0.1:{cls.port}", "/etc/ssl/app-and-key.pem": cls.home / "app-and-key.pem",
            "/etc/haproxy/portcullis.lua": cls.home / "portcullis.lua"})
        (cls.home / "haproxy.cfg").write_text(site)
        return ["haproxy", "-db", "-f", cls.home / "haproxy.cfg"]


if __name__ == "__main__":
    unittest.main()
