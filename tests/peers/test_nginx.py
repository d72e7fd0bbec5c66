"""Debian's nginx as the backend, curl as the client."""

import hashlib
import json
import os
import re
import tempfile
import threading
import time
import unittest
from pathlib import Path

from gate import Gate, Nginx, certificate

BIG = os.urandom(1 << 20) * 48
RATE = '[rate]\nper_client = "100000/s"\nburst = 100000\n'


def policy(backend, host="localhost", access='access = "public"', more=""):
    return f'host = "{host}"\nbackends = ["{backend}"]\n{access}\n{RATE}{more}'


class WithNginx(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # An application that says as much about itself as real ones do.
        cls.nginx = Nginx(
            """
            location /echo/ {
                default_type application/json;
                add_header X-Powered-By PHP/8.2.7;
                add_header Via "1.1 inner";
                add_header X-AspNet-Version 4.0;
                return 200 '{"uri":"$request_uri","host":"$http_host","for":"$http_x_forwarded_for",
                    "proto":"$http_x_forwarded_proto","user":"$http_x_portcullis_user","cookie":"$http_cookie",
                    "connection":"$http_connection","te":"$http_te","id":"$http_x_request_id"}';
            }
            location /moved { return 302 http://127.0.0.1:$server_port/echo/there; }
            location /broken { return 500 "Traceback: secret internals of 10.0.0.5"; }
            location /upload { client_body_buffer_size 64k; proxy_pass http://127.0.0.1:$server_port/echo/uploaded; }
            location /gzip/ { alias HOME/; gzip on; gzip_types *; gzip_min_length 1; }
            """,
            big=BIG, small=b"small file\n")
        cls.gate = Gate({
            "app": policy(f"http://127.0.0.1:{cls.nginx.port}"),
            "private": policy(f"http://127.0.0.1:{cls.nginx.port}", "private.localhost", 'access = "signed-in"',
                              '[headers]\nidentity = ["user"]\n'),
        })

    @classmethod
    def tearDownClass(cls):
        cls.gate.close()
        cls.nginx.close()

    def echo(self, *arguments, **more):
        return json.loads(self.gate.curl(*arguments, **more).replace(b"\n", b""))

    def test_the_backend_sees_one_well_formed_request_of_either_version(self):
        # Nobody offers HTTP/1.0 by ALPN.
        for version in (["--http1.0", "--no-alpn"], ["--http1.1"], ["--http2"]):
            with self.subTest(version):
                seen = self.echo(*version, "-H", "TE: trailers", "-H", "X-Forwarded-For: 10.0.0.1", path="/echo/a%41?b=%20")
                self.assertEqual(seen["uri"], "/echo/aA?b=%20")
                # In HTTP/1.1 it is this connection's only where Connection says so.
                te = "trailers" if "--http2" in version else ""
                self.assertEqual((seen["for"], seen["proto"], seen["te"]), ("127.0.0.1", "https", te))
                self.assertRegex(seen["id"], r"^[0-9a-f]{32}$")

    def test_a_signed_in_user_is_named_and_the_session_is_not(self):
        cookie = self.gate.sign_in("private.localhost")
        for version in ("--http1.1", "--http2"):
            seen = self.echo(version, "-H", "X-Portcullis-User: root", path="/echo/", cookie=f"{cookie}; theme=dark", host="private.localhost")
            self.assertEqual((seen["user"], seen["cookie"]), ("ada", "theme=dark"))

    def test_a_stranger_leaves_no_line_in_the_backends_log(self):
        before = len(self.nginx.requests())
        # Again and again: whether the refusal or the content is first differs.
        for version in ["--http1.1", "--http2"] * 15:
            status = self.gate.curl(version, "-o", "/dev/null", "-w", "%{http_code}", "-d", "x=y", path="/echo/", host="private.localhost")
            self.assertEqual(status, b"401")
        self.gate.curl(path="/echo/")
        self.assertEqual(len(self.nginx.requests()), before + 1)

    def test_nothing_tells_what_the_backend_is(self):
        for version in ("--http1.1", "--http2"):
            head = self.gate.curl(version, "-D-", "-o", "/dev/null", path="/echo/").decode().lower()
            for telling in ("nginx", "php", "via:", "x-aspnet", "server:"):
                self.assertNotIn(telling, head)

    def test_a_redirect_names_the_public_address(self):
        head = self.gate.curl("-D-", "-o", "/dev/null", path="/moved").decode().lower()
        self.assertNotIn(str(self.nginx.port), head)
        self.assertRegex(head, rf"location: (https://localhost:{self.gate.port})?/echo/there")

    def test_an_error_page_of_the_backend_stays_inside(self):
        page = self.gate.curl("-D-", path="/broken").decode()
        self.assertRegex(page, r"^HTTP/\S+ 500")
        self.assertNotIn("Traceback", page)
        self.assertNotIn("10.0.0.5", page)

    def test_a_large_file_arrives_whole_by_either_version(self):
        for version in ("--http1.1", "--http2"):
            with self.subTest(version):
                self.assertEqual(hashlib.sha256(self.gate.curl(version, path="/big")).digest(), hashlib.sha256(BIG).digest())

    def test_an_upload_arrives_whole_with_or_without_a_length_and_an_expectation(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(BIG)
            file.flush()
            for version in ("--http1.1", "--http2"):
                for how in (["-T", file.name, "-X", "POST"], ["-H", "Transfer-Encoding: chunked", "-T", file.name, "-X", "POST"],
                            ["-H", "Expect: 100-continue", "--data-binary", f"@{file.name}"]):
                    if version == "--http2" and "Transfer-Encoding: chunked" in how:
                        continue
                    with self.subTest(version=version, how=how):
                        self.assertIn("uploaded", self.echo(version, *how, path="/upload")["uri"])

    def test_ranges_conditions_and_head_are_the_backends_affair(self):
        head = self.gate.curl("-I", path="/small").decode().lower()
        self.assertIn("content-length: 11", head)
        tag = re.search(r"etag: (\S+)", head)[1]
        self.assertEqual(self.gate.curl("-r", "0-4", path="/small"), b"small")
        status = self.gate.curl("-o", "/dev/null", "-w", "%{http_code}", "-H", f"If-None-Match: {tag}", path="/small")
        self.assertEqual(status, b"304")

    def test_compressed_content_passes_as_it_is(self):
        self.assertEqual(self.gate.curl("--compressed", path="/gzip/small"), b"small file\n")
        self.assertIn(b"content-encoding: gzip", self.gate.curl("-D-", "-o", "/dev/null", "--compressed", path="/gzip/small").lower())

    def test_many_streams_of_one_connection_are_answered_each(self):
        urls = [f"/echo/{number}" for number in range(200)]
        out = self.gate.curl("--http2", "-Z", *[self.gate.url(path) for path in urls[1:]], path=urls[0])
        self.assertEqual({match for match in re.findall(r'"uri":"(/echo/\d+)"', out.decode())}, set(urls))


class OtherWaysToABackend(unittest.TestCase):
    def through(self, nginx, backend, more=""):
        self.addCleanup(nginx.close)
        gate = Gate({"app": policy(backend, more=more)})
        self.addCleanup(gate.close)
        return gate

    def test_by_unix_socket(self):
        nginx = Nginx('location / { return 200 "by socket"; }', listen="unix:HOME/app.sock")
        self.assertEqual(self.through(nginx, f"unix:{nginx.home}/app.sock").curl(), b"by socket")

    def test_by_tls_with_an_authority_of_its_own(self):
        with tempfile.TemporaryDirectory() as directory:
            chain, key = certificate(Path(directory), "app.internal")
            nginx = Nginx('ssl_certificate HOME/chain; ssl_certificate_key HOME/key; location / { return 200 "by TLS $ssl_server_name"; }',
                          chain=chain.read_bytes(), key=key.read_bytes())
            self.addCleanup(nginx.close)
            nginx.stop()
            text = (nginx.home / "nginx.conf").read_text()
            (nginx.home / "nginx.conf").write_text(text.replace(f"listen {nginx.listen};", f"listen {nginx.listen} ssl;"))
            nginx.start()
            backend = f"https://127.0.0.1:{nginx.port}"
            trusting = f'[backend]\nca = "{chain}"\nserver_name = "app.internal"\n'
            gate = self.through(nginx, backend, trusting)
            self.assertEqual(gate.curl(), b"by TLS app.internal")
            gate.write_policy("app", policy(backend, more='[backend]\nserver_name = "app.internal"\n'))
            deadline = time.monotonic() + 10
            while (status := gate.request("GET", "/")[0]) == 200 and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(status, 502, "a certificate of an authority nobody named is not trusted")


class BackendsThatComeAndGo(unittest.TestCase):
    def test_connections_that_the_backend_closes_cost_no_client_an_error(self):
        nginx = Nginx('keepalive_timeout 1s; keepalive_requests 7; location / { return 200 "ok"; }')
        self.addCleanup(nginx.close)
        gate = Gate({"app": policy(f"http://127.0.0.1:{nginx.port}")})
        self.addCleanup(gate.close)
        connection = gate.connect()
        for number in range(200):
            method = "POST" if number % 2 else "GET"
            connection.request(method, "/", body="x" if method == "POST" else None, headers={"Host": "localhost"})
            answer = connection.getresponse()
            answer.read()
            self.assertEqual(answer.status, 200, f"request {number}, {method}")
            if number % 50 == 49:
                time.sleep(1.0 + number / 2000)
        connection.close()

    def test_a_killed_backend_is_502_while_it_is_away_and_never_after(self):
        nginx = Nginx('location / { return 200 "ok"; }')
        self.addCleanup(nginx.close)
        gate = Gate({"app": policy(f"http://127.0.0.1:{nginx.port}")})
        self.addCleanup(gate.close)
        seen, phase, stop = [], ["up"], threading.Event()

        def ask():
            connection = gate.connect()
            while not stop.is_set():
                asked = phase[0]
                connection.request("GET", "/", headers={"Host": "localhost"})
                answer = connection.getresponse()
                answer.read()
                seen.append((asked, phase[0], answer.status))
            connection.close()

        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        for _ in range(3):
            time.sleep(0.3)
            phase[0] = "away"
            nginx.kill()
            time.sleep(0.3)
            nginx.start()
            phase[0] = "up"
        time.sleep(0.3)
        stop.set()
        for client in clients:
            client.join()
        self.assertEqual({status for _, _, status in seen} - {200, 502}, set())
        # Asked and answered while the backend was there.
        self.assertEqual({status for asked, answered, status in seen if (asked, answered) == ("up", "up")}, {200})
        self.assertIn(502, {status for _, _, status in seen})


if __name__ == "__main__":
    unittest.main()
