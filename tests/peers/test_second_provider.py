"""Single sign-on by a provider of another make than the one that the browser's tests have."""

import http.client
import json
import re
import subprocess
import sys
import unittest
import urllib.parse
from pathlib import Path

from gate import PASSWORD, PATIENCE_S, SIGN_OUT, Form, Gate, cookies_of, unverified, wait_until

# Everything that HTTP basic has to encode but a space, which many read in another way than RFC 6749 writes it.
SECRET = "known+to/the%test&the=provider:alone"
POLICY = """
host = "localhost"
backends = ["whoami"]
[sign_in]
with = ["corp"]
[access]
groups = ["engineering"]
[headers]
identity = ["user", "groups"]
"""


class Provider:
    """Canaille in a process of its own."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("second_provider.py")], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.issuer = self.process.stdout.readline().strip()

    def tell(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def close(self):
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


class Page:
    def __init__(self, url, status, text):
        self.url, self.status, self.text = url, status, text

    def fill(self, **fields):
        """Where its form leads, and what it is sent with."""
        form = Form(self.text)
        return urllib.parse.urljoin(self.url, form.action or self.url), form.hidden | fields


class Browser:
    """Follows redirects and keeps cookies, each host's for itself."""

    def __init__(self):
        self.cookies = {}

    def get(self, url):
        return self._ask("GET", url)

    def post(self, target):
        return self._ask("POST", *target)

    def _ask(self, method, url, form=None):
        for _ in range(12):
            parts = urllib.parse.urlsplit(url)
            jar = self.cookies.setdefault(parts.netloc, {})
            if parts.scheme == "https":
                connection = http.client.HTTPSConnection("127.0.0.1", parts.port, context=unverified(), timeout=PATIENCE_S)
            else:
                connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=PATIENCE_S)
            origin = f"{parts.scheme}://{parts.netloc}"
            headers = {"Host": parts.netloc, "Accept": "text/html", "Origin": origin, "Referer": url, "Sec-Fetch-Site": "same-origin",
                       "Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
            if form is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = None if form is None else urllib.parse.urlencode(form)
            connection.request(method, f"{parts.path or '/'}?{parts.query}".removesuffix("?"), body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            jar.update(cookie.split("=", 1) for cookie in cookies_of(answer.headers))
            if answer.status not in (301, 302, 303):
                return Page(url, answer.status, text)
            method, form, url = "GET", None, urllib.parse.urljoin(url, answer.headers["Location"])
        raise AssertionError(f"too many redirects, the last to {url}")


class SecondProvider(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.provider = Provider()
        cls.addClassCleanup(cls.provider.close)
        cls.gate = Gate({"app": POLICY}, f"""
[provider.corp]
kind = "oidc"
title = "Corp"
issuer = "{cls.provider.issuer}"
client_id = "gate"
client_secret = {{ file = "corp.secret" }}
scopes = ["profile", "email", "groups"]
groups_claim = "groups"
refresh = "2s"
""", files={"corp.secret": SECRET})
        cls.addClassCleanup(cls.gate.close)
        for name in ("ada", "bob"):
            cls.provider.tell(user={"user_name": name, "password": PASSWORD})
        cls.provider.tell(group={"display_name": "engineering", "members": ["ada"]})
        cls.provider.tell(group={"display_name": "staff", "members": ["ada", "bob"]})
        cls.provider.tell(client={
            "client_id": "gate", "client_secret": SECRET, "origin": cls.gate.url(""),
            "redirect_uris": [cls.gate.url("/.portcullis/callback/corp")],
            "post_logout_redirect_uris": [cls.gate.url("/.portcullis/signed-out")]})

    def sign_in(self, browser, name, path="/"):
        page = browser.get(self.gate.url(path))
        self.assertTrue(page.url.startswith(self.provider.issuer), page.url)
        page = browser.post(page.fill(login=name))
        return browser.post(page.fill(password=PASSWORD))

    def test_who_signs_in_arrives_with_the_groups_of_the_provider(self):
        page = self.sign_in(Browser(), "ada", "/reports?quarter=3")
        self.assertEqual((page.url, page.status), (self.gate.url("/reports?quarter=3"), 200), page.text)
        self.assertRegex(page.text, "(?i)x-portcullis-user.*ada")
        self.assertRegex(page.text, "(?i)x-portcullis-groups.*engineering")
        self.assertIn("staff", page.text)
        self.assertNotIn("canaille", page.text)

    def test_who_is_in_another_group_is_denied_and_told_so(self):
        page = self.sign_in(Browser(), "bob")
        self.assertEqual((page.url, page.status), (self.gate.url("/"), 403), page.text)

    def test_a_wrong_password_there_is_no_session_here(self):
        browser = Browser()
        page = browser.post(browser.get(self.gate.url("/")).fill(login="ada"))
        page = browser.post(page.fill(password="wrong"))
        self.assertTrue(page.url.startswith(self.provider.issuer), page.url)
        self.assertTrue(browser.get(self.gate.url("/")).url.startswith(self.provider.issuer))

    def test_who_loses_a_group_there_loses_it_here(self):
        browser = Browser()
        self.provider.tell(user={"user_name": "eve", "password": PASSWORD})
        self.provider.tell(group={"display_name": "engineering", "members": ["ada", "eve"]})
        self.assertEqual(self.sign_in(browser, "eve").status, 200)
        self.provider.tell(group={"display_name": "engineering", "members": ["ada"]})
        wait_until(lambda: browser.get(self.gate.url("/")).status == 403, "the group is gone")

    def test_signing_out_ends_the_session_here_and_there(self):
        browser = Browser()
        self.assertEqual(self.sign_in(browser, "ada").status, 200)
        page = browser.post(browser.get(self.gate.url(SIGN_OUT)).fill())
        there = re.search(r'href="([^"]*end_session[^"]*)"', page.text)
        self.assertTrue(there, page.text)
        page = browser.get(there[1].replace("&amp;", "&"))
        page = browser.post(page.fill(answer="logout"))
        self.assertEqual((page.url.partition("?")[0], page.status), (self.gate.url("/.portcullis/signed-out"), 200), page.text)
        page = browser.get(self.gate.url("/"))
        self.assertTrue(page.url.startswith(self.provider.issuer) and "login" in Form(page.text).name, page.url)


if __name__ == "__main__":
    unittest.main()
