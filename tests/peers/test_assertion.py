"""The functions in docs/assertion.md, run as they stand there against assertions of a real gate."""

import base64
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from gate import ROOT, Gate

ISSUER = "https://wiki.example.com"
KEYS = f"{ISSUER}/.portcullis/jwks.json"
PEERS = Path(__file__).resolve().parent

# What makes a program of each function: its arguments in, the user's name out; else it fails.
PROGRAMS = {
    "python": ("check.py", [sys.executable], "", "\nimport sys\nprint(who_asks(*sys.argv[1:])['sub'], end='')\n"),
    "js": ("check.mjs", ["node"], "", "\nprocess.stdout.write((await whoAsks(...process.argv.slice(2))).sub);\n"),
    "php": ("check.php", ["php", "-d", "display_errors=stderr"], "<?php\n", "\necho who_asks(...array_slice($argv, 1))['sub'];\n"),
}


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.received.append((self.command, self.path, self.headers))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Assertions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        cls.backend.received = []
        threading.Thread(target=cls.backend.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.backend.server_close)
        cls.addClassCleanup(cls.backend.shutdown)
        policy = (f'backends = ["http://127.0.0.1:{cls.backend.server_port}"]\naccess = "signed-in"\n'
                  '[headers]\nidentity = ["groups", "assertion"]\n')
        cls.gate = Gate({"wiki": f'host = "localhost"\n{policy}', "shop": f'host = "shop.localhost"\n{policy}'},
                        f'[assertion]\nissuer = "{ISSUER}"\n')
        cls.addClassCleanup(cls.gate.close)
        # Where node finds its packages from.
        cls.home = tempfile.TemporaryDirectory(dir=PEERS / "node_modules", prefix=".check-")
        cls.addClassCleanup(cls.home.cleanup)
        page = (ROOT / "docs/assertion.md").read_text()
        cls.commands = {}
        for language, (file, command, before, after) in PROGRAMS.items():
            snippets = re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)
            assert len(snippets) == 1 and snippets[0].count(KEYS) == 1, language
            # Only where the keys are is another place here.
            text = snippets[0].replace(KEYS, f"http://localhost:{cls.gate.plain_port}/.portcullis/jwks.json")
            program = Path(cls.home.name) / file
            program.write_text(before + text + after)
            cls.commands[language] = [*command, program]

    def request(self, method="GET", path="/page/a%20b?x=1&y", host="localhost"):
        """The assertion of a request, and what the backend knows of the request."""
        cookie = self.gate.sign_in(host)
        status, _, _ = self.gate.request(method, path, {"Cookie": cookie, "X-Portcullis-Assertion": "forged"}, host=host)
        self.assertEqual(status, 200)
        method, target, headers = self.backend.received.pop()
        assertions = headers.get_all("X-Portcullis-Assertion")
        self.assertEqual(len(assertions), 1)
        path, mark, query = target.partition("?")
        return assertions[0], [method, headers["Host"], path] + ([query] if mark else [])

    def resigned(self, assertion, key=None, header=None, **changes):
        """The same with other claims, signed by the gate's own key or another."""
        line = (self.gate.home / "state/assertion.keys").read_text().split()[1]
        own = load_der_private_key(base64.urlsafe_b64decode(line + "=="), None)
        claims = jwt.decode(assertion, options={"verify_signature": False}) | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        headers = jwt.get_unverified_header(assertion) | (header or {})
        return jwt.encode(claims, key or own, "ES256", headers)

    def run_all(self, assertion, request):
        return {language: subprocess.run([*command, assertion, *request], capture_output=True, text=True, timeout=60)
                for language, command in self.commands.items()}

    def accepted(self, assertion, request):
        for language, done in self.run_all(assertion, request).items():
            with self.subTest(language):
                self.assertEqual((done.returncode, done.stdout), (0, "ada"), done.stderr)

    def refused(self, assertion, request, **why):
        """Refused by each, for the reason that its own words give."""
        for language, done in self.run_all(assertion, request).items():
            with self.subTest(language):
                self.assertNotEqual(done.returncode, 0, "it was accepted")
                self.assertEqual(done.stdout, "")
                self.assertIn(why[language].lower(), done.stderr.lower())

    def test_the_assertion_of_a_request_is_accepted_for_it(self):
        self.accepted(*self.request())
        self.accepted(*self.request("POST", "/"))
        self.accepted(*self.request(path="/?"))

    def test_what_signs_the_forgeries_here_would_be_accepted(self):
        assertion, request = self.request()
        self.accepted(self.resigned(assertion), request)

    def test_an_assertion_for_another_application_is_refused(self):
        assertion, request = self.request(host="shop.localhost")
        self.refused(assertion, request, python="audience", js='unexpected "aud"', php="another `aud`")

    def test_an_assertion_of_another_gate_is_refused(self):
        assertion, request = self.request()
        other = self.resigned(assertion, iss="https://other.example.com")
        self.refused(other, request, python="issuer", js='unexpected "iss"', php="another `iss`")

    def test_an_assertion_for_another_request_is_refused(self):
        assertion, [method, host, path, query] = self.request()
        for other, php in [
            (["POST", host, path, query], "htm"),
            ([method, "other.test", path, query], "host"),
            ([method, host, path + "/c", query], "path"),
            ([method, host, path, query + "=2"], "qsh"),
            ([method, host, path, ""], "qsh"),
            ([method, host, path], "qsh"),
        ]:
            self.refused(assertion, other, python="for another request", js="for another request", php=f"another `{php}`")

    def test_an_assertion_that_has_expired_is_refused(self):
        assertion, request = self.request()
        now = int(time.time())
        late = self.resigned(assertion, iat=now - 70, exp=now - 10)
        self.refused(late, request, python="expired", js="exp", php="too late")
        endless = self.resigned(assertion, exp=None)
        self.refused(endless, request, python="exp", js="exp", php="too late")
        early = self.resigned(assertion, iat=now + 300, exp=now + 360)
        self.refused(early, request, python="not yet valid", js="iat", php="too early")

    def test_an_assertion_that_was_changed_is_refused(self):
        assertion, request = self.request()
        header, body, signature = assertion.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        claims["sub"] = "ada"
        claims["groups"] = ["admins"]
        forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        reasons = dict(python="signature verification failed", js="signature verification failed", php="a bad signature")
        self.refused(f"{header}.{forged}.{signature}", request, **reasons)
        self.refused(f"{header}.{body}.{'A' * 86}", request, **reasons)
        other = ec.generate_private_key(ec.SECP256R1())
        self.refused(self.resigned(assertion, key=other), request, **reasons)

    def test_an_assertion_by_an_unknown_key_or_none_is_refused(self):
        assertion, request = self.request()
        unknown = self.resigned(assertion, header={"kid": "another"})
        self.refused(unknown, request, python="unable to find a signing key", js="no applicable key", php="no such key")
        kid = jwt.get_unverified_header(assertion)["kid"]
        claims = jwt.decode(assertion, options={"verify_signature": False})
        unsigned = jwt.encode(claims, None, "none", {"kid": kid, "typ": "portcullis-assertion+jwt"})
        self.refused(unsigned, request, python="is not allowed", js="alg", php="a bad signature")

    def test_a_token_of_another_kind_is_refused(self):
        assertion, request = self.request()
        token = self.resigned(assertion, header={"typ": "JWT"})
        self.refused(token, request, python="a token of another kind", js='unexpected "typ"', php="another `typ`")


if __name__ == "__main__":
    unittest.main()
