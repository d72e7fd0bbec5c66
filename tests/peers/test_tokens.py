"""Tokens of a certified OpenID provider: opaque ones by its introspection, signed ones, and step-up."""

import html.parser
import http.cookiejar
import json
import os
import subprocess
import unittest
import urllib.parse
import urllib.request

from gate import PATIENCE_S, ROOT, Gate, unverified, wait_until

SECRET = "introspector's own secret, of some length"
METADATA = "/.well-known/oauth-protected-resource"


class Provider:
    """The provider of tests/provider, and its control port."""

    def __init__(self):
        self.process = subprocess.Popen(["node", ROOT / "tests/provider/server.mjs"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        said = json.loads(self.process.stdout.readline())
        self.issuer, self.control = said["issuer"], said["control"]

    def tell(self, path, content=None):
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.control + path, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def token(self, **claims):
        return self.tell("/token", {"client_id": "cli", **claims})["access_token"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()


class Page(html.parser.HTMLParser):
    """Where the first form of a page goes."""

    def __init__(self, text):
        super().__init__()
        self.has_form, self.action = False, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "form" and not self.has_form:
            self.has_form, self.action = True, dict(attributes).get("action")


class Browser:
    """Follows redirects, keeps cookies, fills in forms."""

    def __init__(self):
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(cookies, urllib.request.HTTPSHandler(context=unverified()))
        self.opener.addheaders = [("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]

    def open(self, url, form=None):
        body = None if form is None else urllib.parse.urlencode(form).encode()
        with self.opener.open(url, body, timeout=PATIENCE_S) as answer:
            return answer.url, answer.read().decode()

    def sign_in(self, url, page, name):
        action = urllib.parse.urljoin(url, Page(page).action or url)
        return self.open(action, {"login": name, "password": "correct horse"})


class Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.provider = Provider()
        cls.addClassCleanup(cls.provider.close)
        os.environ["PORTCULLIS_TEST_SECRET"] = SECRET
        secret = '{ env = "PORTCULLIS_TEST_SECRET" }'
        issuer = cls.provider.issuer
        cls.gate = Gate({"app": """
host = "localhost"
backends = ["whoami"]
[rate]
per_client = "1000/s"
burst = 1000
[sign_in]
with = ["corp", "signed", "opaque"]
[access]
who = "signed-in"
[[path]]
prefix = "/read"
access = { scopes = ["wiki.read", "wiki.admin"] }
[[path]]
prefix = "/strong"
access = { who = "signed-in", acr = ["mfa"] }
"""}, f"""
[provider.signed]
kind = "jwt"
issuer = "{issuer}"
audience = ["https://wiki.example"]
jwks_url = "{issuer}/jwks"
[provider.opaque]
kind = "introspection"
issuer = "{issuer}"
introspection_url = "{issuer}/token/introspection"
client_id = "introspector"
client_secret = {secret}
audience = ["https://wiki.example"]
[provider.corp]
kind = "oidc"
issuer = "{issuer}"
client_id = "gate"
client_secret = {secret}
""")
        cls.addClassCleanup(cls.gate.close)
        tell = cls.provider.tell
        tell("/clients", {"client_id": "introspector", "client_secret": SECRET})
        tell("/clients", {"client_id": "cli", "client_secret": SECRET})
        tell("/clients", {"client_id": "gate", "client_secret": SECRET, "redirect_uris": [cls.gate.url("/.portcullis/callback/corp")]})

    def setUp(self):
        self.provider.tell("/mode", {})
        self.provider.tell("/counts", {})

    def ask(self, token, path="/"):
        return self.gate.request("GET", path, {"Authorization": f"Bearer {token}"} if token else {})

    def opaque(self, **claims):
        return self.provider.token(format="opaque", **({"sub": "ada", "aud": "https://wiki.example"} | claims))

    def signed(self, **claims):
        return self.provider.token(**({"sub": "ada", "aud": "https://wiki.example"} | claims))

    def introspected(self):
        return self.provider.tell("/counts")["introspection"]

    def test_an_opaque_token_is_its_users_and_is_asked_about_once(self):
        token = self.opaque(scope="wiki.read")
        for path in ["/", "/read", "/"]:
            status, _, page = self.ask(token, path)
            self.assertEqual((status, b"ada" in page), (200, True), path)
        self.assertEqual(self.introspected(), 1)

    def test_an_opaque_token_for_somebody_else_or_of_nobody_lets_nobody_in(self):
        for claims in [{"aud": "https://shop.example"}, {"aud": None}, {"sub": None}]:
            token = self.provider.token(format="opaque", **{name: value for name, value in
                                        ({"sub": "ada", "aud": "https://wiki.example"} | claims).items() if value})
            self.assertEqual(self.ask(token)[0], 401, claims)
        self.assertEqual(self.ask("made-up")[0], 401)
        self.assertEqual(self.introspected(), 4)

    def test_whoever_is_disabled_there_is_out_here_with_a_token_that_is_not_known(self):
        self.provider.tell("/users", {"sub": "eve"})
        token = self.opaque(sub="eve")
        self.provider.tell("/users", {"sub": "eve", "disabled": True})
        self.assertEqual(self.ask(token)[0], 401)

    def test_while_the_provider_is_away_nobody_is_let_in_who_is_not_known(self):
        known, fresh = self.opaque(), self.opaque()
        self.assertEqual(self.ask(known)[0], 200)
        for mode in [{"down": ["introspection"]}, {"slow_ms": {"introspection": 7000}}, {"huge": ["introspection"]}]:
            self.provider.tell("/mode", mode)
            self.assertEqual((self.ask(known)[0], self.ask(fresh)[0]), (200, 503), mode)
        self.provider.tell("/mode", {})
        self.assertEqual(self.ask(fresh)[0], 200)

    def test_a_signed_token_needs_the_scope_that_is_asked_for(self):
        self.assertEqual(self.ask(self.signed(scope="openid wiki.admin"), "/read")[0], 200)
        for scope in [{}, {"scope": "wiki"}, {"scope": "wiki.reader"}]:
            status, headers, _ = self.ask(self.signed(**scope), "/read")
            self.assertEqual(status, 403, scope)
            self.assertIn('error="insufficient_scope", scope="wiki.read"', headers["WWW-Authenticate"])
        self.assertEqual(self.introspected(), 0, "what can be read here is asked of nobody")

    def test_a_signed_token_that_is_forged_lets_nobody_in(self):
        for forge in ["wrong_iss", "wrong_aud", "no_exp", "expired", "future_iat", "duplicate_claims", "trailing",
                      "wrong_typ", "unknown_crit", "alg_none", "hs256_public_key", "jwk_header", "foreign_key"]:
            self.assertEqual(self.ask(self.signed(forge=forge))[0], 401, forge)

    def test_a_program_finds_the_issuer_and_comes_back_with_a_stronger_token(self):
        status, headers, _ = self.ask(None)
        self.assertEqual(status, 401)
        bearer = next(one for one in headers.get_all("WWW-Authenticate") if one.startswith("Bearer"))
        where = bearer.partition('resource_metadata="')[2].partition('"')[0]
        self.assertEqual(where, self.gate.url(METADATA))
        metadata = json.loads(self.gate.request("GET", METADATA)[2])
        self.assertEqual(metadata["resource"], self.gate.url(""))
        self.assertEqual(metadata["authorization_servers"], [self.provider.issuer])
        self.assertEqual(metadata["scopes_supported"], ["wiki.read", "wiki.admin"])
        with urllib.request.urlopen(f"{self.provider.issuer}/.well-known/openid-configuration") as answer:
            self.assertEqual(json.load(answer)["issuer"], self.provider.issuer)
        status, headers, _ = self.ask(self.signed(acr="pwd"), "/strong")
        self.assertEqual(status, 401)
        self.assertIn('error="insufficient_user_authentication", acr_values="mfa"', headers["WWW-Authenticate"])
        self.assertEqual(self.ask(self.signed(acr="mfa"), "/strong")[0], 200)
        self.assertEqual(self.ask(self.opaque(acr="mfa"), "/strong")[0], 200)

    def test_a_person_is_led_to_a_stronger_sign_in_and_back(self):
        browser = Browser()
        home = self.gate.url("/")
        wait_until(lambda: self.gate.request("GET", "/.portcullis/sign-in", {"Accept": "text/html"})[0] == 303, "the provider is known")
        url, page = browser.sign_in(*browser.open(home), "ada")
        self.assertEqual((url, "ada" in page), (home, True))
        asked, page = browser.open(self.gate.url("/strong"))
        self.assertTrue(asked.startswith(self.provider.issuer), asked)
        url, page = browser.sign_in(asked, page, "ada")
        self.assertEqual((url, "ada" in page), (self.gate.url("/strong"), True))
        self.assertEqual(browser.open(self.gate.url("/strong"))[0], self.gate.url("/strong"), "once is enough")


if __name__ == "__main__":
    unittest.main()
