"""How the gate proves who it is to a certified OpenID provider: by secrets, by keys, by a certificate."""

import base64
import http.client
import itertools
import json
import os
import subprocess
import tempfile
import unittest
import urllib.parse
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from gate import PATIENCE_S, ROOT, Gate, Nginx, certificate, free_port, unverified, wait_until

SECRET = "a secret that only the test and the provider know"
KEYS = "/.portcullis/client-keys.json"
FILE = "state/client.keys"
DAY_S = 24 * 3600
NUMBERS = itertools.count()


class Provider:
    """The provider in `tests/provider`, as its control API has it."""

    def __init__(self, **environment):
        self.process = subprocess.Popen(["node", ROOT / "tests/provider/server.mjs"], env=os.environ | environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        at = json.loads(self.process.stdout.readline())
        self.issuer, self.control = at["issuer"], urllib.parse.urlsplit(at["control"])

    def tell(self, path, content=None):
        connection = http.client.HTTPConnection(self.control.hostname, self.control.port, timeout=PATIENCE_S)
        connection.request("GET" if content is None else "POST", path, content and json.dumps(content))
        answer = connection.getresponse()
        said = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, f"{path}: {said}"
        return said

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.process.stdin.close()
        self.process.stdout.close()


class Browser:
    """Somebody who follows redirects, keeps cookies, and signs in as Ada where the provider asks."""

    def __init__(self):
        self.jars = {}

    def ask(self, url, form=None):
        at = urllib.parse.urlsplit(url)
        jar = self.jars.setdefault(at.netloc, {})
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        more = {"context": unverified()} if at.scheme == "https" else {}
        connection = kind("127.0.0.1", at.port, timeout=PATIENCE_S, **more)
        fields = {"Host": at.netloc, "Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        if form:
            fields["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("POST" if form else "GET", at.path + (f"?{at.query}" if at.query else ""),
                           form and urllib.parse.urlencode(form), fields)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        for line in answer.headers.get_all("Set-Cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            jar[name] = value
        return answer.status, answer.headers.get("Location"), text

    def go(self, url):
        """The status and the text of the page at the end."""
        form = None
        for _ in range(20):
            status, location, text = self.ask(url, form)
            form = None
            if location:
                url = urllib.parse.urljoin(url, location)
            elif 'id="login"' in text:
                form = {"login": "ada", "password": "correct horse"}
            else:
                return status, text
        raise AssertionError(f"it goes round in circles: {url}")


def table(name, issuer, more):
    return (f'[provider.{name}]\nkind = "oidc"\nissuer = "{issuer}"\nclient_id = "{name}"\n'
            f'scopes = ["profile", "email", "groups"]\n{more}\n')


def host(name):
    """The application's; the provider's machine knows no more of loopback than this one name."""
    return "localhost" if name == "published" else f"{name}.localhost"


def policy(name):
    return f'host = "{host(name)}"\nbackends = ["whoami"]\naccess = "signed-in"\n[sign_in]\nwith = ["{name}"]\n'


def number(value):
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def public(key, **more):
    """The public half of a key, as a JWK."""
    numbers = key.public_key().public_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **more}
    x, y = (base64.urlsafe_b64encode(one.to_bytes(32, "big")).rstrip(b"=").decode() for one in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, **more}


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class ClientAuthentication(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.home.cleanup)
        chain, key = certificate(Path(cls.home.name), "client")
        server, server_key = certificate(Path(cls.home.name))
        port, front = free_port(), free_port()
        cls.provider = Provider(PORT=str(port), MTLS_URL=f"https://localhost:{front}")
        cls.addClassCleanup(cls.provider.close)
        cls.front = Nginx(f"""
            listen 127.0.0.1:{front} ssl;
            ssl_certificate {server}; ssl_certificate_key {server_key};
            ssl_client_certificate {chain}; ssl_verify_client on;
            location / {{
              proxy_pass http://127.0.0.1:{port};
              proxy_set_header Host 127.0.0.1:{port};
              proxy_set_header client-cert $ssl_client_escaped_cert;
            }}""")
        cls.addClassCleanup(cls.front.close)
        cls.ec = ec.generate_private_key(ec.SECP256R1())
        cls.rsa = rsa.generate_private_key(65537, 2048)
        secret = 'client_secret = { file = "secret" }\n'
        by_key = 'client_auth = "private_key_jwt"\n'
        ways = {
            "header": f'client_auth = "client_secret_basic"\n{secret}',
            "post": f'client_auth = "client_secret_post"\n{secret}',
            "published": f'{by_key}refresh = "2s"\n',
            "inline": f'{by_key}client_assertion_audience = "token_endpoint"\n',
            "ec": f'{by_key}client_key = "ec.pem"\nclient_key_id = "e1"\n',
            "rsa": f'{by_key}client_key = "rsa.pem"\nclient_key_id = "r1"\n',
            "wrong": f'{by_key}client_key = "ec.pem"\n',
            "tls": f'client_auth = "tls"\nca = "{server}"\ncertificate = "{chain}"\nkey = "{key}"\n',
            "untrusted": f'client_auth = "tls"\nca = "{server}"\ncertificate = "{server}"\nkey = "{server_key}"\n',
        }
        more = "".join(table(name, cls.provider.issuer, way) for name, way in ways.items())
        files = {"secret": SECRET, "ec.pem": pem(cls.ec), "rsa.pem": pem(cls.rsa)}
        cls.gate = Gate({name: policy(name) for name in ways}, more, files=files)
        cls.addClassCleanup(cls.gate.close)
        certificate_der = x509.load_pem_x509_certificate(chain.read_bytes()).public_bytes(Encoding.DER)
        of_the_certificate = load_pem_private_key(key.read_bytes(), None)
        other = ec.generate_private_key(ec.SECP256R1())
        x5c = [base64.b64encode(certificate_der).decode()]
        cls.register("header", "client_secret_basic", client_secret=SECRET)
        cls.register("post", "client_secret_post", client_secret=SECRET)
        cls.register("ec", "private_key_jwt", jwks={"keys": [public(cls.ec, kid="e1")]})
        cls.register("rsa", "private_key_jwt", jwks={"keys": [public(cls.rsa, kid="r1")]},
                     token_endpoint_auth_signing_alg="PS256")
        cls.register("wrong", "private_key_jwt", jwks={"keys": [public(other)]})
        for name in ("tls", "untrusted"):
            cls.register(name, "self_signed_tls_client_auth",
                         jwks={"keys": [public(of_the_certificate, x5c=x5c)]})

    @classmethod
    def register(cls, name, method, **more):
        uri = f"https://{host(name)}:{cls.gate.port}/.portcullis/callback/{name}"
        cls.provider.tell("/clients", {
            "client_id": name, "redirect_uris": [uri], "token_endpoint_auth_method": method,
            "grant_types": ["authorization_code", "refresh_token"], **more})

    def register_anew(self):
        """Has the provider forget the keys that it keeps, as it does within an hour."""
        # Over plain HTTP and loopback, as the provider does not trust the certificate of a test.
        uri = f"http://localhost:{self.gate.plain_port}{KEYS}?{next(NUMBERS)}"
        self.register("published", "private_key_jwt", jwks_uri=uri)

    @classmethod
    def published(cls, name):
        status, headers, content = cls.gate.request("GET", KEYS, host=host(name))
        assert status == 200, status
        assert headers["Cache-Control"] == "public, max-age=3600", headers
        assert headers["Content-Type"] == "application/jwk-set+json", headers
        return json.loads(content)

    def arrive(self, name, browser=None):
        return (browser or Browser()).go(f"https://{host(name)}:{self.gate.port}/")

    def signs_in(self, name):
        self.provider.tell("/counts", {})
        browser = Browser()
        status, text = self.arrive(name, browser)
        self.assertEqual(status, 200, text[-900:])
        self.assertIn("ada", text)
        counts = self.provider.tell("/counts")
        # At both endpoints, and nowhere by less.
        self.assertEqual((counts["par"], counts["token"]["authorization_code"]), (1, 1))
        return browser

    def test_secrets_prove_it_in_both_ways(self):
        self.signs_in("header")
        self.signs_in("post")

    def test_the_provider_fetches_the_published_keys(self):
        self.register_anew()
        before = self.fetched()
        browser = self.signs_in("published")
        wait_until(lambda: self.fetched() > before, "the log has that they were fetched")
        refreshed = lambda: self.provider.tell("/counts")["token"].get("refresh_token", 0) >= 2
        wait_until(lambda: self.arrive("published", browser)[0] == 200 and refreshed(), "it is refreshed by the key, too")

    def test_registered_keys_and_another_audience_do_as_well(self):
        self.register("inline", "private_key_jwt", jwks=self.published("inline"))
        self.signs_in("inline")

    def test_keys_of_the_operator(self):
        self.signs_in("ec")
        self.signs_in("rsa")

    def test_only_public_halves_are_published_and_only_where_they_are_needed(self):
        for key in self.published("published")["keys"]:
            self.assertEqual(set(key), {"alg", "crv", "kid", "kty", "use", "x", "y"})
        for name in ("header", "ec", "tls"):
            self.assertEqual(self.gate.request("GET", KEYS, host=host(name))[0], 404)
        self.assertEqual(self.gate.request("POST", KEYS, body="")[0], 405)
        # What backends verify are other keys, and none were asked for.
        self.assertEqual(self.gate.request("GET", "/.portcullis/jwks.json")[0], 404)
        self.assertEqual((self.gate.home / FILE).stat().st_mode & 0o777, 0o600)

    def test_a_wrong_key_is_told_as_what_it_is(self):
        status, text = self.arrive("wrong")
        self.assertEqual(status, 502)
        self.assertIn("does not take this site’s requests", text)
        wait_until(lambda: any("oidc.misconfigured" in line for line in self.gate.lines), "the reason is in the log")

    def test_keys_are_rotated_without_a_gap(self):
        self.register_anew()
        self.signs_in("published")
        both = self.aged([40])
        self.assertEqual(len(both), 2)
        # The provider knows the old key alone, and it signs yet.
        self.signs_in("published")
        self.register_anew()
        self.signs_in("published")
        self.assertEqual(self.aged([40, 3]), both[1:])
        wait_until(self.fetched, "the log has what this test has fetched")
        # The provider has had the new one since before it signs.
        self.signs_in("published")
        self.assertEqual(self.fetched(), 1)
        log = "".join(self.gate.lines)
        for line in (self.gate.home / FILE).read_text().splitlines():
            self.assertNotIn(line.rpartition(" ")[2], log)

    def fetched(self):
        """How often the keys were fetched since the gate started."""
        return sum(KEYS in line for line in self.gate.lines)

    def aged(self, days):
        """Makes the keys in the file as old as this, and starts the gate anew: the ids of those that it publishes."""
        self.gate.stop()
        file = self.gate.home / FILE
        newest = max(int(line.partition(" ")[0]) for line in file.read_text().splitlines())
        now = max(newest, int(file.stat().st_mtime))
        pairs = [line.partition(" ")[2] for line in file.read_text().splitlines()]
        file.write_text("".join(f"{now - age * DAY_S} {pair}\n" for age, pair in zip(days, pairs, strict=True)))
        self.gate.start()
        return [key["kid"] for key in self.published("published")["keys"]]

    def test_a_certificate_goes_to_the_endpoints_that_ask_for_one(self):
        before = len(self.front.requests())
        self.signs_in("tls")
        asked = [line.split('"')[1].split()[1] for line in self.front.requests()[before:]]
        self.assertEqual([path for path in asked if path != "/me"], ["/request", "/token"])
        before = len(self.front.requests())
        self.signs_in("header")
        self.assertEqual(len(self.front.requests()), before)

    def test_another_certificate_proves_nothing(self):
        status, text = self.arrive("untrusted")
        self.assertNotEqual(status, 200)
        self.assertIn("Nobody can sign in just now", text)


if __name__ == "__main__":
    unittest.main()
