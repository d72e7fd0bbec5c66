"""What attackers do to sign-in by a provider: forged and misdirected tokens, answers, sessions and logouts.

A refusal is told by its reason in the log, by the cookie that was not set, and by what did not reach the application.
"""

import base64
import concurrent.futures
import http.client
import json
import secrets
import signal
import threading
import time
import unittest
import urllib.parse

from gate import SIGN_IN, SIGN_OUT, wait_until
from provider import CALLBACK, SCRIPT, SECRET, SESSION, World, oidc

HOUR_S = 3600
REFRESH_S = 2
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
MEMBER_OBJECTS = "/v1.0/me/getMemberObjects"
CLI = {"client_id": "cli", "sub": "robot", "aud": "api"}
BACK_CHANNEL = "/.portcullis/back-channel-logout/"
SESSIONS = "/.portcullis/sessions"
FRONT_CHANNEL = "/.portcullis/front-channel-logout/"
NO_METADATA = """
authorization_url = "{0}/auth"
token_url = "{0}/token"
jwks_url = "{0}/jwks"
userinfo_url = "{0}/me"
"""
API = """
[provider.api]
kind = "jwt"
issuer = "{0}"
audience = ["api"]
jwks_url = "{0}/jwks"
"""
PUBLIC = 'access = "public"\n'
# What makes a token somebody else's, whatever it is for: the forgery, and why it is refused.
FORGED = {
    "alg_none": ("alg_none", "sign_in.jwt_malformed"),
    "alg_none_with_a_signature": ({"header": {"alg": "none"}}, "sign_in.jwt_algorithm"),
    "alg_of_hs256": ({"header": {"alg": "HS256"}}, "sign_in.jwt_algorithm"),
    "alg_of_another_key": ({"header": {"alg": "ES256"}}, "sign_in.jwt_unknown_key"),
    "hs256_public_key": ("hs256_public_key", "sign_in.jwt_algorithm"),
    "jwk_header": ("jwk_header", "sign_in.jwt_header_parameter"),
    "jku": (lambda: {"header": {"jku": shared[0].backend.url + "/mallory"}}, "sign_in.jwt_header_parameter"),
    "x5u": (lambda: {"header": {"x5u": shared[0].backend.url + "/mallory"}}, "sign_in.jwt_header_parameter"),
    "x5c": ({"header": {"x5c": ["MIIB"]}}, "sign_in.jwt_header_parameter"),
    "compressed": ({"header": {"zip": "DEF"}}, "sign_in.jwt_header_parameter"),
    "encrypted": ({"header": {"enc": "A256GCM"}}, "sign_in.jwt_header_parameter"),
    "unknown_crit": ("unknown_crit", "sign_in.jwt_header_parameter"),
    "empty_crit": ({"header": {"crit": []}}, "sign_in.jwt_header_parameter"),
    "kid_that_is_a_path": ({"header": {"kid": "../../dev/null"}}, "sign_in.jwt_unknown_key"),
    "kid_that_is_no_text": ({"header": {"kid": 1}}, "sign_in.jwt_header"),
    "wrong_typ": ("wrong_typ", "sign_in.jwt_type"),
    "foreign_key": ("foreign_key", "sign_in.jwt_signature"),
    "r_s_zero": ("r_s_zero", "sign_in.jwt_signature"),
    "trailing": ("trailing", "sign_in.jwt_malformed"),
    "trailing_claims": ("trailing_claims", "sign_in.jwt_claims"),
    "duplicate_claims": ("duplicate_claims", "sign_in.jwt_claims"),
    "wrong_iss": ("wrong_iss", "sign_in.jwt_issuer"),
    "no_iss": ({"claims": {"iss": None}}, "sign_in.jwt_issuer"),
    "wrong_aud": ("wrong_aud", "sign_in.jwt_audience"),
    "no_aud": ({"claims": {"aud": None}}, "sign_in.jwt_audience"),
    "empty_aud": ({"claims": {"aud": []}}, "sign_in.jwt_audience"),
    "expired": ("expired", "sign_in.jwt_expired"),
    "no_exp": ("no_exp", "sign_in.jwt_expiry"),
    "exp_of_1e300": ({"claims": {"exp": 1e300}}, "sign_in.jwt_expiry"),
    "exp_beyond_64_bits": ({"claims": {"exp": 2**64}}, "sign_in.jwt_expiry"),
    "exp_beyond_lifetimes": ({"claims": {"exp": 2**52}}, "sign_in.jwt_expiry"),
    "exp_negative": ({"claims": {"exp": -1}}, "sign_in.jwt_expiry"),
    "exp_that_is_a_text": ({"claims": {"exp": "9999999999"}}, "sign_in.jwt_expiry"),
    "nbf_in_the_future": (lambda: {"claims": {"nbf": int(time.time()) + HOUR_S}}, "sign_in.jwt_not_yet_valid"),
    "nbf_that_is_a_text": ({"claims": {"nbf": "0"}}, "sign_in.jwt_not_yet_valid"),
    "future_iat": ("future_iat", "sign_in.jwt_issued_at"),
}
# R1 and R2 of the advisories, and their kin; `localhost` is the host of the gate.
ELSEWHERE = [
    "/\\evil.test", "/\t/evil.test", "/%09/evil.test", "/\n/evil.test", "/%0a/evil.test", "//evil.test", "/./\\evil.test",
    "https:evil.test", "https:/\\evil.test", "///evil.test", "https://evillocalhost", "https://localhost.evil.test",
    "https://localhost@evil.test", "https://localhost:443@evil.test", "https://evil.test/", "\\\\evil.test", "@evil.test",
    ".evil.test", "/\r/evil.test", " //evil.test", "/%5cevil.test", "/%2f%2fevil.test", "/..//evil.test",
    "javascript:alert(document.domain)//evil.test", "data:text/html,evil.test", "/\u3000/evil.test", "/.portcullis/sign-out",
    "/.Portcullis/sign-out?evil.test",
]

shared = []


def setUpModule():
    def settings(corp, rival):
        return "".join([
            oidc("corp", corp),
            oidc("rival", rival),
            oidc("posted", corp, more='response_mode = "form_post"'),
            oidc("quick", corp, "quick", f'refresh = "{REFRESH_S}s"'),
            oidc("named", corp, "quick", f'refresh = "{REFRESH_S}s"\nname_claim = "email"'),
            oidc("large", corp, "quick", f'refresh = "{REFRESH_S}s"\ngroups_url = "{corp.issuer}{MEMBER_OBJECTS}"'),
            oidc("strict", corp, more='acr_values = ["mfa"]\nmax_age = "1m"'),
            oidc("plain", corp, more=NO_METADATA.format(corp.issuer)),
            API.format(corp.issuer),
        ])

    shared.append(World(settings, {
        "": policy("corp"),
        "both": policy("corp", "rival"),
        "posted": policy("posted"),
        "quick": policy("quick"),
        "named": policy("named"),
        "stepped": policy("quick") + '[[path]]\nprefix = "/vault"\n[path.access]\nwho = "signed-in"\nacr = ["mfa"]\n',
        "large": policy("large"),
        "many": policy("large").replace('access = "signed-in"', "")
        + '[headers]\nidentity = ["user"]\n[access]\ngroups = ["000003ff-bbbb-cccc-dddd-eeeeeeeeeeee"]\n',
        "plain": policy("plain"),
        "api": policy("api"),
        "strict": policy("strict"),
        "wiki": policy("corp"),
        "mail": policy("corp").replace('access = "signed-in"', "") + '[access]\nemail_domains = ["example.com"]\n',
        "who": 'backends = ["whoami"]\n' + policy("corp"),
        "open": PUBLIC,
    }))


def tearDownModule():
    shared.pop().close()


def policy(*methods):
    return f'access = "signed-in"\n[sign_in]\nwith = {json.dumps(methods)}\n'


def of(forgery):
    """A forgery of now."""
    return forgery() if callable(forgery) else forgery


def at_once(jobs):
    """What functions give that run side by side."""
    jobs = list(jobs)
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        return [done.result() for done in [pool.submit(job) for job in jobs]]


def grow_stale():
    """Has all sessions grow as old as their provider is trusted without being asked."""
    since = int(time.time())
    wait_until(lambda: time.time() >= since + REFRESH_S, "the sessions have to be asked about")


def tell_logout(server, token, name="corp", app=""):
    """Tells the gate of a logout, as a provider's server does."""
    headers = {"Accept": "*/*", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}
    return server.ask(server.at(BACK_CHANNEL + name, app), "POST", {"logout_token": token}, headers)


def sign_out(person, app=""):
    person.ask(person.at(SIGN_OUT, app), "POST", {}, {"Sec-Fetch-Site": "same-origin", "Origin": person.at("", app)})


def with_header(token, **changes):
    """A token with another header under the same signature."""
    header, rest = token.split(".", 1)
    stated = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    text = json.dumps(stated | changes).encode()
    return f"{base64.urlsafe_b64encode(text).decode().rstrip('=')}.{rest}"


def changed(url, add=(), **changes):
    """An address with other parameters; one that becomes None is taken away."""
    parts = urllib.parse.urlsplit(url)
    pairs = [(name, changes.get(name, value)) for name, value in urllib.parse.parse_qsl(parts.query)]
    names = [name for name, _ in pairs]
    pairs += [pair for pair in changes.items() if pair[0] not in names]
    pairs = [(name, value) for name, value in [*pairs, *add] if value is not None]
    return parts._replace(query=urllib.parse.urlencode(pairs)).geturl()


def parameters(url):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.enters(shared[0])

    @classmethod
    def enters(cls, world):
        cls.world, cls.backend, cls.gate = world, world.backend, world.gate
        cls.corp, cls.rival = world.corp, world.rival

    def setUp(self):
        for provider in (self.corp, self.rival):
            if not provider.stopped:
                provider.mode()

    def person(self):
        return self.world.person()

    def signed_in(self, sub=None, app="", provider=None):
        """A browser with a live session."""
        person = self.person()
        sub = sub or self.world.somebody(provider)
        person.sign_in(sub, app)
        self.assertEqual(person.whoami(app), sub)
        return person

    def assert_refused(self, person, answer, status, reason, reached=0):
        """Refused for this reason, without a session, and with no more than `reached` requests ever sent on."""
        line = self.world.logged(answer)
        wanted = [("refuse", reason, status)]
        # A key that was looked up in vain is not looked up again for half a minute: that can't be said then.
        if reason == "sign_in.jwt_unknown_key" and status != 401:
            wanted.append(("refuse", "oidc.away", 503))
        self.assertIn((line.get("verdict"), line.get("reason"), answer.status), wanted)
        self.assertEqual(answer.sets(SESSION), [], "no session")
        self.assertEqual(len(self.backend.seen_of(person.agent)), reached, "nothing reaches the application")

    def assert_not_signed_in(self, status, reason, app="", sub=None):
        """A fresh browser goes all the way through a sign-in, and comes to nothing."""
        person = self.person()
        answer = person.sign_in(sub or self.world.somebody(), app)
        self.assert_refused(person, answer, status, reason)
        self.assertIsNone(person.session(app))
        return answer


class IdTokens(Case):
    def test_an_honest_one_signs_in(self):
        person = self.signed_in()
        seen = self.backend.seen_of(person.agent)[-1]["fields"]
        self.assertEqual(seen["x-portcullis-groups"], "staff")
        self.assertRegex(seen["x-portcullis-email"], r"^user-\d+@example\.com$")

    def test_a_forged_one_signs_nobody_in(self):
        only_here = {
            "logout_typ": ({"header": {"typ": "logout+jwt"}}, "sign_in.jwt_type"),
            "wrong_azp": ("wrong_azp", "oidc.authorized_party"),
            "azp_missing_for_two": ({"claims": {"aud": ["gate", "another"], "azp": None}}, "oidc.authorized_party"),
            "wrong_nonce": ("wrong_nonce", "oidc.nonce"),
            "no_nonce": ({"claims": {"nonce": None}}, "oidc.nonce"),
            "nonce_in_a_list": ({"claims": {"nonce": ["another"]}}, "oidc.nonce"),
            "no_iat": ("no_iat", "oidc.issued_at"),
            "no_sub": ({"claims": {"sub": None}}, "oidc.subject"),
            "empty_sub": ({"claims": {"sub": ""}}, "oidc.subject"),
            "bad_at_hash": ("bad_at_hash", "oidc.access_token_hash"),
        }
        for name, (forgery, reason) in (FORGED | only_here).items():
            with self.subTest(name):
                self.corp.forge(of(forgery))
                self.assert_not_signed_in(403, reason)
        self.assertNotIn("/mallory", self.backend.received_text(), "nothing is fetched that a token names")

    def test_claims_that_no_honest_provider_states_sign_nobody_in(self):
        for name, (claims, reason) in {
            "a line break in sub": ({"sub": "ada\r\nX-Portcullis-Groups: admins"}, "oidc.subject"),
            "a NUL in sub": ({"sub": "ada\0"}, "oidc.subject"),
            "a long sub": ({"sub": "a" * 256}, "oidc.subject"),
            "a sub that is a number": ({"sub": 1}, "oidc.subject"),
            "a space before sub": ({"sub": " ada"}, "sign_in.jwt_name"),
            "a line break in a group": ({"groups": ["staff\r\nX-Portcullis-User: root"]}, "sign_in.jwt_groups"),
            "groups that are numbers": ({"groups": [1]}, "sign_in.jwt_groups"),
            "groups that are no list": ({"groups": {"admins": True}}, "sign_in.jwt_groups"),
            "groups elsewhere": ({"_claim_names": {"groups": "src1"}}, "oidc.group_overage"),
            "too many groups": ({"hasgroups": True}, "oidc.group_overage"),
        }.items():
            with self.subTest(name):
                self.corp.forge({"claims": claims})
                self.assert_not_signed_in(403, reason)

    def test_a_group_with_a_comma_is_one_group(self):
        person = self.signed_in(self.world.somebody(groups=["staff,admins"]))
        self.assertEqual(self.backend.seen_of(person.agent)[-1]["fields"]["x-portcullis-groups"], "staff%2Cadmins")

    def test_a_directory_that_does_not_say_all_groups_signs_nobody_in(self):
        trap = self.backend.url + "/mallory"
        other = self.world.somebody(groups=["admins"])
        for name, (answer, status, reason) in {
            "refused": ({"status": 403}, 403, "oidc.groups_url"),
            "a token that counts no more": ({"status": 401}, 403, "oidc.groups_url"),
            "another success": ({"status": 201}, 403, "oidc.groups_url"),
            "elsewhere": ({"status": 302, "headers": {"location": trap}}, 403, "oidc.groups_url"),
            "elsewhere, by the same method": ({"status": 307, "headers": {"location": trap}}, 403, "oidc.groups_url"),
            "trouble": ({"status": 500}, 503, "oidc.away"),
            "asked too often": ({"status": 429}, 503, "oidc.away"),
            "a part": ({"content": {"value": ["staff"], "@odata.nextLink": trap}}, 403, "oidc.groups_url"),
            "two lists": ({"content": '{"value":[],"value":["admins"]}'}, 403, "oidc.groups_url"),
            "no list": ({"content": {"value": "admins"}}, 403, "oidc.groups_url"),
            "no JSON": ({"content": "admins"}, 403, "oidc.groups_url"),
            "numbers": ({"content": {"value": [1]}}, 403, "oidc.groups_url"),
            "a line break": ({"content": {"value": ["a\r\nX-Portcullis-User: root"]}}, 403, "sign_in.jwt_groups"),
            "more than a session keeps": ({"content": {"value": ["staff"] * 1025}}, 403, "oidc.group_overage"),
            "more than is read": ({"content": {"value": ["s" * 600] * 1024}}, 503, "oidc.away"),
        }.items():
            with self.subTest(name):
                self.corp.mode(overage=trap, groups_answer=answer)
                self.assert_not_signed_in(status, reason, "large")
        self.corp.mode(overage=trap, down=["groups"])
        self.assert_not_signed_in(503, "oidc.away", "large", other)
        self.corp.mode(overage=trap, huge=["groups"])
        self.assert_not_signed_in(503, "oidc.away", "large", other)
        for name, claims in {
            "another claim": {"_claim_names": {"roles": "src1"}},
            "no names": {"_claim_names": "groups"},
            "no truth": {"hasgroups": "true"},
        }.items():
            with self.subTest(name):
                self.corp.forge({"claims": {"groups": ["staff"]} | claims})
                self.assert_not_signed_in(403, "oidc.group_overage", "large")
        self.corp.mode(overage=trap)
        self.assert_not_signed_in(403, "oidc.group_overage", "", other)
        self.assertNotIn("/mallory", self.backend.received_text(), "what a token names is asked nothing")

    def test_a_sign_in_that_is_weaker_or_older_than_asked_for_is_none(self):
        self.signed_in(app="strict")
        for name, (claims, reason) in {
            "a weaker one": (lambda: {"acr": "pwd"}, "oidc.acr"),
            "one that does not say how": (lambda: {"acr": None}, "oidc.acr"),
            "several in one": (lambda: {"acr": ["mfa"]}, "oidc.acr"),
            "an older one": (lambda: {"auth_time": int(time.time()) - HOUR_S}, "oidc.auth_time"),
            "one that does not say when": (lambda: {"auth_time": None}, "oidc.auth_time"),
            "one that says when in words": (lambda: {"auth_time": "now"}, "oidc.auth_time"),
        }.items():
            with self.subTest(name):
                self.corp.forge({"claims": claims()})
                self.assert_not_signed_in(403, reason, "strict")

    def test_an_address_at_more_than_one_domain_or_unverified_is_at_none(self):
        def tries(**claims):
            person = self.person()
            return person, person.sign_in(self.world.somebody(**claims), "mail")

        self.assertEqual(tries(email="ada@EXAMPLE.com")[1].status, 200)
        for claims in (
            {"email": "mallory@evil.test@example.com"},
            {"email": '"mallory@evil.test"@example.com'},
            {"email": "mallory@example.com "},
            {"email": "mallory@example.com\n"},
            {"email": "mallory@evil.test,ada@example.com"},
            {"email": "mallory@notexample.com"},
            {"email": "mallory@example.com.evil.test"},
            {"email": "@example.com"},
            {"email": ["mallory@example.com"]},
            {"email_verified": False},
            {"email_verified": "true"},
            {"email_verified": 1},
            {"email_verified": None},
        ):
            with self.subTest(claims):
                person, answer = tries(**claims)
                line = self.world.logged(answer)
                self.assertEqual((answer.status, line["reason"]), (403, "access.denied"))
                self.assertEqual(self.backend.seen_of(person.agent), [])

    def test_a_token_for_another_purpose_is_none(self):
        sub = self.world.somebody()
        of_another_client = self.corp.mint(client_id="quick", sub=sub, aud="quick", typ="JWT", nonce="n")
        own = self.signed_in(sub) and self.corp.issued()[-1]["id_token"]
        ours = {"client_id": "gate", "sub": sub, "aud": "gate"}
        tokens = {
            "access token": (self.corp.mint(**ours), "sign_in.jwt_type"),
            "access token that calls itself JWT": (self.corp.mint(**ours, typ="JWT"), "oidc.nonce"),
            "logout token": (self.corp.logout_token("gate", sub=sub), "sign_in.jwt_type"),
            "another client's": (of_another_client, "sign_in.jwt_audience"),
            "one of an earlier sign-in": (own, "oidc.nonce"),
            "another issuer's": (self.rival.mint(**ours, typ="JWT", nonce="n"), "sign_in.jwt_unknown_key"),
            "encrypted": ("eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AA.AA.AA", "sign_in.jwt_malformed"),
            "opaque": ("opaque", "sign_in.jwt_malformed"),
            "empty": ("", "sign_in.jwt_malformed"),
            "without signature": (own.rsplit(".", 1)[0] + ".", "sign_in.jwt_malformed"),
            "padded": (own + "=", "sign_in.jwt_malformed"),
            "100 kB long": (own + "A" * 100_000, "sign_in.jwt_too_long"),
        }
        for name, (token, reason) in tokens.items():
            with self.subTest(name):
                self.corp.forge({"token": token})
                self.assert_not_signed_in(403, reason, sub=sub)


class BearerTokens(Case):
    def ask(self, token):
        person = self.person()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        return person, person.ask(person.at("/whoami", "api"), headers=headers)

    def assert_proves_nothing(self, token, reason):
        self.assert_refused(*self.ask(token), 401, reason)

    def test_an_honest_one_is_taken(self):
        _, answer = self.ask(self.corp.mint(**CLI))
        self.assertEqual(answer.json()["user"], "robot")
        self.assertNotIn("authorization", answer.json()["fields"])

    def test_a_forged_one_is_refused(self):
        only_here = {
            "wrong_iss": ("wrong_iss", "sign_in.jwt_other_issuer"),
            "no_iss": ({"claims": {"iss": None}}, "sign_in.jwt_other_issuer"),
            "bad_at_hash": ("bad_at_hash", "sign_in.jwt_type"),
            "no_sub": ({"claims": {"sub": None}}, "sign_in.jwt_name"),
        }
        for name, (forgery, reason) in (FORGED | only_here).items():
            with self.subTest(name):
                self.assert_proves_nothing(self.corp.mint(**CLI, forge=of(forgery)), reason)
        self.assertNotIn("/mallory", self.backend.received_text(), "nothing is fetched that a token names")

    def test_a_token_for_another_purpose_is_none(self):
        self.signed_in()
        issued = self.corp.issued()[-1]
        tokens = {
            "ID token": (issued["id_token"], "sign_in.jwt_audience"),
            "ID token for this audience": (self.corp.mint(**CLI, typ="JWT", at_hash="77QmUPtjPfzWtF2AnpK9RQ"), "sign_in.jwt_type"),
            "logout token": (self.corp.logout_token("gate", forge={"claims": {"aud": "api"}}), "sign_in.jwt_type"),
            "logout token that calls itself JWT": (self.corp.mint(**CLI, typ="JWT", events={LOGOUT_EVENT: {}}), "sign_in.jwt_type"),
            "proof of possession": (self.corp.mint(**CLI, typ="dpop+jwt"), "sign_in.jwt_type"),
            "Keycloak's refresh token": (self.corp.mint(**CLI, typ="JWT", forge={"claims": {"typ": "Refresh"}}), "sign_in.jwt_type"),
            "another issuer's": (self.rival.mint(**CLI), "sign_in.jwt_other_issuer"),
            "another issuer's under this name": (self.rival.mint(**CLI, iss=self.corp.issuer), "sign_in.jwt_unknown_key"),
            "access token of a sign-in": (issued["access_token"], "sign_in.jwt_malformed"),
            "encrypted": ("eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AA.AA.AA", "sign_in.jwt_malformed"),
        }
        for name, (token, reason) in tokens.items():
            with self.subTest(name):
                self.assert_proves_nothing(token, reason)

    def test_an_id_token_without_the_access_tokens_hash_is_no_access_token(self):
        self.assert_proves_nothing(self.corp.mint(**CLI, typ="JWT", nonce="n", auth_time=int(time.time())), "sign_in.jwt_type")

    def test_a_session_is_no_bearer_token(self):
        self.assert_proves_nothing(self.signed_in().session(), "sign_in.jwt_malformed")

    def test_a_flood_of_unknown_keys_fetches_keys_once(self):
        token = self.corp.mint(**CLI)
        before = self.corp.counts()["jwks"]
        flood = [with_header(token, kid=secrets.token_hex(8)) for _ in range(300)]

        def send(some):
            return [self.ask(one) for one in some]

        for answers in at_once(lambda start=start: send(flood[start::6]) for start in range(6)):
            for person, answer in answers:
                self.assert_refused(person, answer, 401, "sign_in.jwt_unknown_key")
        self.assertLessEqual(self.corp.counts()["jwks"] - before, 1)
        self.assertEqual(self.ask(token)[1].status, 200)


class Answers(Case):
    """What is brought to the callback."""

    def assert_bad(self, person, url, status, reason):
        self.assert_refused(person, person.ask(url), status, reason, len(self.backend.seen_of(person.agent)))

    def test_an_answer_counts_once(self):
        person = self.person()
        answer = person.answer_for(self.world.somebody())
        first = person.ask(answer)
        self.assertEqual((first.status, len(first.sets(SESSION))), (303, 1))
        self.assert_bad(person, answer, 400, "oidc.attempt_over")
        self.assertIsNotNone(person.whoami())

    def test_an_answer_that_is_brought_many_times_at_once_counts_once(self):
        person = self.person()
        answer = person.answer_for(self.world.somebody())
        before = self.corp.counts()["token"]["total"]
        told = at_once([lambda: person.ask(answer)] * 30)
        (first,) = (one for one in told if one.status == 303)
        self.assertEqual(len(first.sets(SESSION)), 1)
        for one in told:
            if one is not first:
                self.assert_refused(person, one, 400, "oidc.attempt_over")
        self.assertEqual(self.corp.counts()["token"]["total"], before + 1, "a code is redeemed once")

    def test_an_answer_with_a_state_of_nobody_is_refused(self):
        person = self.person()
        answer = person.answer_for(self.world.somebody())
        for state, reason in {
            secrets.token_urlsafe(32): "oidc.attempt_over",
            "": "oidc.state",
            "x": "oidc.state",
            parameters(answer)["state"] + "=": "oidc.state",
            parameters(answer)["state"][:-1]: "oidc.state",
            None: "oidc.state",
        }.items():
            with self.subTest(state):
                self.assert_bad(person, changed(answer, state=state), 400, reason)
        self.assertEqual(person.ask(answer).status, 303, "whoever began may still finish")

    def test_an_answer_that_says_something_twice_is_refused(self):
        person = self.person()
        answer = person.answer_for(self.world.somebody())
        for name in ("code", "state", "iss"):
            for value in (parameters(answer)[name], "another"):
                with self.subTest(name, value=value):
                    self.assert_bad(person, changed(answer, [(name, value)]), 400, "oidc.parameters")
        self.assertEqual(person.ask(answer).status, 303, "whoever began may still finish")

    def test_an_answer_is_a_code_or_an_error(self):
        person = self.person()
        answer = person.answer_for(self.world.somebody())
        for name, wrong in {
            "both": changed(answer, error="access_denied"),
            "neither": changed(answer, code=None),
            "empty": changed(answer, code="").replace("code=&", "code=&"),
        }.items():
            with self.subTest(name):
                self.assert_bad(person, wrong, 400, "oidc.outcome")
        self.assertEqual(person.ask(answer).status, 303, "whoever began may still finish")

    def test_an_answer_that_another_browser_brings_is_refused_and_not_used_up(self):
        begun, other = self.person(), self.person()
        sub = self.world.somebody()
        answer = begun.answer_for(sub)
        self.assert_bad(other, answer, 400, "oidc.other_browser")
        # Also by one that has begun a sign-in of its own: login CSRF.
        other.go(other.at("/"), stop="/auth")
        self.assert_bad(other, answer, 400, "oidc.other_browser")
        self.assertEqual(len(begun.ask(answer).sets(SESSION)), 1)
        self.assertEqual(begun.whoami(), sub)
        self.assertTrue(other.knows_nobody())

    def test_an_answer_at_another_application_is_refused(self):
        person = self.person()
        answer = person.answer_for(self.world.somebody())
        person.go(person.at("/", "wiki"), stop="/auth")
        self.assert_bad(person, answer.replace("//", "//wiki.", 1), 400, "oidc.other_browser")
        self.assertEqual(person.ask(answer).status, 303, "whoever began may still finish")

    def test_an_answer_of_another_provider_is_refused(self):
        """Mix-up: whoever answers is not who was asked (RFC 9207)."""
        providers = {"corp": self.corp, "rival": self.rival}
        for asked, answering in (("corp", "rival"), ("rival", "corp")):
            sub = self.world.somebody(self.corp)
            self.rival.tell("/users", {"sub": sub})

            def begin(person, name):
                return person.go(person.at(f"{SIGN_IN}?with={name}", "both"), sub, stop=CALLBACK)

            for name, has_state, issuer, status, reason in (
                ("at the other's address", False, providers[answering].issuer, 403, "oidc.other_issuer"),
                ("at the other's address under its name", False, providers[asked].issuer, 403, "oidc.other_issuer"),
                ("in the other's place", True, providers[answering].issuer, 403, "oidc.other_issuer"),
                ("in the other's place without a name", True, None, 403, "oidc.other_issuer"),
                ("in the other's place under its name", True, providers[asked].issuer, 400, "oidc.invalid_grant"),
            ):
                with self.subTest(name, asked=asked):
                    person = self.person()
                    honest, theirs = begin(person, asked), begin(person, answering)
                    state = parameters(honest if has_state else theirs)["state"]
                    misled = changed(theirs.replace(CALLBACK + answering, CALLBACK + asked), state=state, iss=issuer)
                    self.assert_bad(person, misled, status, reason)
                    self.assertIsNone(person.session("both"))

    def test_an_answer_under_the_wrong_name_or_none_is_refused(self):
        for mode in ("wrong_iss_param", "no_iss"):
            with self.subTest(mode):
                self.corp.mode(**{mode: True})
                self.assert_not_signed_in(403, "oidc.other_issuer")

    def test_steps_out_of_order_lead_nowhere(self):
        stranger = self.person()
        state, code = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        callback = stranger.at(CALLBACK + "corp")
        for query, status, reason in (
            ("", 400, "oidc.state"),
            (f"?code={code}", 400, "oidc.state"),
            (f"?state={state}", 400, "oidc.outcome"),
            (f"?state={state}&code={code}", 400, "oidc.attempt_over"),
            (f"?state={state}&error=access_denied", 400, "oidc.attempt_over"),
            (f"?posted={state}", 400, "oidc.attempt_over"),
            ("?posted=", 400, "oidc.attempt_over"),
        ):
            with self.subTest(query):
                self.assert_bad(stranger, callback + query, status, reason)
        for form, reason in (
            ({}, "oidc.state"),
            ({"state": state}, "oidc.outcome"),
            ({"state": state, "code": code}, "oidc.attempt_over"),
            ({"posted": state}, "oidc.state"),
        ):
            with self.subTest(form=form):
                self.assert_refused(stranger, stranger.post_from_elsewhere(callback, form), 400, reason)
        for name in ("rival", "nobody", "", "corp/", "CORP"):
            with self.subTest(name):
                self.assert_bad(stranger, stranger.at(CALLBACK + name), 404, "portal.no_page")

    def test_a_code_of_another_attempt_is_worth_nothing(self):
        """Code injection: the code is honest, fresh and of this client; only PKCE tells that it is another's."""
        for app in ("", "plain"):
            with self.subTest(app or "corp"):
                attacker, victim = self.person(), self.person()
                code = parameters(attacker.answer_for(self.world.somebody(), app))["code"]
                answer = victim.answer_for(self.world.somebody(), app)
                self.assert_bad(victim, changed(answer, code=code), 400, "oidc.invalid_grant")

    def test_a_code_without_its_verifier_is_worth_nothing(self):
        for app in ("", "plain"):
            with self.subTest(app or "corp"):
                answer = self.person().answer_for(self.world.somebody(), app)
                issuer = urllib.parse.urlsplit(self.corp.issuer)
                basic = base64.b64encode(f"gate:{urllib.parse.quote_plus(SECRET)}".encode()).decode()
                connection = http.client.HTTPConnection("127.0.0.1", issuer.port)
                self.addCleanup(connection.close)
                connection.request("POST", "/token", urllib.parse.urlencode({
                    "grant_type": "authorization_code", "code": parameters(answer)["code"],
                    "redirect_uri": answer.partition("?")[0],
                }), {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"})
                self.assertEqual(json.loads(connection.getresponse().read())["error"], "invalid_grant")

    def test_every_request_has_a_challenge_and_values_of_its_own(self):
        seen = {"state": set(), "nonce": set(), "code_challenge": set()}
        for _ in range(3):
            person = self.person()
            asked = parameters(person.go(person.at("/", "plain"), stop="/auth"))
            self.assertEqual((asked["code_challenge_method"], asked["response_type"]), ("S256", "code"))
            self.assertNotIn("code_verifier", asked)
            self.assertNotIn("client_secret", asked)
            for name, values in seen.items():
                self.assertEqual(len(asked[name]), 43, name)
                values.add(asked[name])
        self.assertEqual({len(values) for values in seen.values()}, {3})

    def test_a_request_is_left_with_the_provider_beforehand(self):
        before = self.corp.counts()["par"]
        person = self.person()
        asked = parameters(person.go(person.at("/?to=secret"), stop="/auth"))
        self.assertEqual(set(asked), {"client_id", "request_uri"})
        self.assertEqual(self.corp.counts()["par"], before + 1)

    def test_a_posted_answer_counts_once(self):
        person = self.person()
        sub = self.world.somebody()
        action, form = person.answer_for(sub, "posted")
        first = person.post_from_elsewhere(action, form)
        self.assertEqual(first.sets(SESSION), [], "another site's form signs nobody in by itself")
        back = urllib.parse.urljoin(first.url, first.location)
        self.assertNotIn(form["code"], back)
        self.assertEqual(len(person.ask(back).sets(SESSION)), 1)
        self.assertEqual(person.whoami("posted"), sub)
        self.assert_bad(person, back, 400, "oidc.attempt_over")
        again = person.post_from_elsewhere(action, form)
        self.assert_refused(person, again, 400, "oidc.attempt_over", 1)

    def test_a_posted_answer_counts_in_the_browser_that_began_alone(self):
        begun, other = self.person(), self.person()
        sub = self.world.somebody()
        action, form = begun.answer_for(sub, "posted")
        other.go(other.at("/", "posted"), stop="/auth")
        planted = other.post_from_elsewhere(action, form)
        self.assert_bad(other, urllib.parse.urljoin(planted.url, planted.location), 400, "oidc.other_browser")
        begun.go(urllib.parse.urljoin(action, begun.post_from_elsewhere(action, form).location))
        self.assertEqual(begun.whoami("posted"), sub)

    def test_methods_that_change_nothing_use_nothing_up(self):
        person = self.person()
        answer = person.answer_for(self.world.somebody())
        for method in ("HEAD", "PUT", "DELETE", "OPTIONS"):
            with self.subTest(method):
                self.assert_refused(person, person.ask(answer, method), 405, "portal.method")
        self.assertEqual(len(person.ask(answer).sets(SESSION)), 1)

    def test_a_provider_that_says_no_is_believed(self):
        self.corp.mode(deny=True)
        self.assert_not_signed_in(403, "oidc.access_denied")

    def test_what_an_answer_says_is_not_shown(self):
        markup = "<svg/onload=alert(1)>"
        for name, (status, reason) in {
            "error": (502, "oidc.provider_error"),
            "error_description": (403, "oidc.access_denied"),
            "iss": (403, "oidc.other_issuer"),
            "state": (400, "oidc.state"),
            "posted": (400, "oidc.attempt_over"),
        }.items():
            with self.subTest(name):
                person = self.person()
                answer = person.answer_for(self.world.somebody())
                told = person.ask(changed(answer, **{"code": None, "error": "access_denied", name: markup}))
                self.assert_refused(person, told, status, reason)
                self.assertNotIn("svg/onload", told.text)

    def test_no_sign_in_ends_elsewhere(self):
        person, sub = self.person(), self.world.somebody()
        person.sign_in(sub)
        for to in ELSEWHERE:
            with self.subTest(to):
                answer = person.go(person.at(f"{SIGN_IN}?{urllib.parse.urlencode({'to': to})}"), sub, stop=CALLBACK)
                done = person.ask(answer)
                self.assertEqual((done.status, len(done.sets(SESSION))), (303, 1))
                read = done.location.translate({ord("\\"): "/", 9: None, 10: None, 13: None})
                self.assertRegex(read, r"^/(?!/)")
                self.assertNotIn("/.portcullis/", read.lower())
                self.assertEqual(urllib.parse.urlsplit(urllib.parse.urljoin(done.url, read)).netloc,
                                 urllib.parse.urlsplit(person.at("/")).netloc)

    def test_no_page_leads_elsewhere(self):
        person = self.person()
        self.corp.mode(down=True)
        for to in ELSEWHERE:
            with self.subTest(to):
                query = urllib.parse.urlencode({"to": to, "rd": to, "post_logout_redirect_uri": to, "return_to": to})
                away = person.ask(person.at(f"{SIGN_IN}?{query}"))
                self.assert_refused(person, away, 503, "oidc.away")
                others = (SIGN_OUT, "/.portcullis/signed-out", CALLBACK + "corp")
                pages = [away, *(person.ask(person.at(f"{path}?{query}")) for path in others)]
                for page in pages:
                    self.assertIsNone(page.location)
                    # A path of this host may be called so.
                    leads = [link for link in page.text.split('href="')[1:] if "evil" in link.partition('"')[0]]
                    for link in leads:
                        self.assertRegex(urllib.parse.unquote(link.partition('"')[0]), rf"^{SIGN_IN}\?to=/[^/\\]")


class Logout(Case):
    def tell(self, token):
        server = self.person()
        return server, tell_logout(server, token)

    def test_a_forged_token_ends_nothing(self):
        sub = self.world.somebody()
        person = self.signed_in(sub)
        (sid,) = self.corp.sessions(sub)
        only_here = {
            "wrong_typ": ("wrong_typ", "sign_in.jwt_type"),
            "no_iat": ("no_iat", "oidc.issued_at"),
            "no_jti": ("no_jti", "oidc.logout_jti"),
            "nonce": ("nonce", "oidc.nonce"),
            "no_events": ("no_events", "oidc.logout_events"),
            "another_event": ({"claims": {"events": {"urn:example:event": {}}}}, "oidc.logout_events"),
            "event_that_is_no_object": ({"claims": {"events": {LOGOUT_EVENT: True}}}, "oidc.logout_events"),
            "no_sub_sid": ("no_sub_sid", "oidc.logout_whom"),
            "sid_in_a_list": ({"claims": {"sid": [sid]}}, "oidc.logout_whom"),
            "issued_long_ago": (lambda: {"claims": {"iat": int(time.time()) - HOUR_S}}, "oidc.logout_too_old"),
        }
        for name, (forgery, reason) in (FORGED | only_here).items():
            with self.subTest(name):
                token = self.corp.logout_token("gate", sub=sub, sid=sid, forge=of(forgery))
                self.assert_refused(*self.tell(token), 400, reason)
                self.assertEqual(person.whoami(), sub)

    def test_a_token_for_another_purpose_ends_nothing(self):
        sub = self.world.somebody()
        person = self.signed_in(sub)
        tokens = {
            "ID token": (self.corp.issued()[-1]["id_token"], "oidc.logout_events"),
            "access token": (self.corp.mint(client_id="gate", sub=sub, aud="gate"), "sign_in.jwt_type"),
            "another client's": (self.corp.logout_token("quick", sub=sub), "sign_in.jwt_audience"),
            "another provider's": (self.rival.logout_token("gate", sub=sub), "sign_in.jwt_unknown_key"),
            "garbage": ("garbage", "sign_in.jwt_malformed"),
        }
        for name, (token, reason) in tokens.items():
            with self.subTest(name):
                self.assert_refused(*self.tell(token), 400, reason)
                self.assertEqual(person.whoami(), sub)
        server = self.person()
        for form, reason in {
            "": "portal.form_type",
            "logout_token=": "sign_in.jwt_malformed",
            "logout_token=a&logout_token=b": "portal.form_type",
            "LOGOUT_TOKEN=a": "portal.form_type",
        }.items():
            with self.subTest(form=form):
                self.assert_refused(server, server.ask(server.at(BACK_CHANNEL + "corp"), "POST", form), 400, reason)

    def test_a_token_counts_once(self):
        sub = self.world.somebody()
        person = self.signed_in(sub)
        token = self.corp.logout_token("gate", sub=sub)
        self.assertEqual(self.tell(token)[1].status, 200)
        self.assertTrue(person.knows_nobody())
        person.sign_in(sub)
        self.assert_refused(*self.tell(token), 400, "oidc.logout_replayed")
        self.assertEqual(person.whoami(), sub)

    def test_a_token_for_a_session_ends_that_session_alone(self):
        sub = self.world.somebody()
        first, second, other = self.signed_in(sub), self.signed_in(sub), self.signed_in()
        ends, _ = self.corp.sessions(sub)
        self.assertEqual(self.tell(self.corp.logout_token("gate", sub=sub, sid=ends))[1].status, 200)
        self.assertTrue(first.knows_nobody())
        self.assertEqual(second.whoami(), sub)
        self.assertIsNotNone(other.whoami())

    def test_a_token_for_a_user_ends_all_their_sessions_and_nobody_elses(self):
        sub = self.world.somebody()
        self.rival.tell("/users", {"sub": sub})
        own = [self.signed_in(sub), self.signed_in(sub), self.signed_in(sub, "wiki")]
        other = self.signed_in()
        namesake = self.person()
        namesake.go(namesake.at(f"{SIGN_IN}?with=rival", "both"), sub)
        self.assertEqual(namesake.whoami("both"), sub)
        self.assertEqual(self.tell(self.corp.logout_token("gate", sub=sub))[1].status, 200)
        self.assertEqual([own[0].knows_nobody(), own[1].knows_nobody(), own[2].knows_nobody("wiki")], [True] * 3)
        self.assertIsNotNone(other.whoami())
        self.assertEqual(namesake.whoami("both"), sub)

    def test_an_unknown_session_or_user_ends_nobody(self):
        person = self.signed_in()
        for of in ({"sid": "nobody's"}, {"sub": "nobody"}):
            self.assertEqual(self.tell(self.corp.logout_token("gate", **of))[1].status, 200)
        self.assertIsNotNone(person.whoami())

    def test_a_frame_ends_the_session_that_it_names(self):
        sub = self.world.somebody()
        first, second = self.signed_in(sub), self.signed_in(sub)
        ends, stays = self.corp.sessions(sub)
        frame = self.person()

        def load(query, name="corp", method="GET"):
            headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}
            return frame.ask(frame.at(f"{FRONT_CHANNEL}{name}?{query}"), method, headers=headers)

        issuer = urllib.parse.quote(self.corp.issuer)
        for query in (f"iss=https://mallory.example&sid={ends}", f"iss={urllib.parse.quote(self.rival.issuer)}&sid={ends}",
                      f"iss={issuer}&sid=nobodys", f"iss={issuer}/&sid={ends}"):
            with self.subTest(query):
                self.assertEqual(load(query).status, 200)
                self.assertEqual((first.whoami(), second.whoami()), (sub, sub))
        for query in ("", f"iss={issuer}", f"sid={ends}", f"iss={issuer}&sid={stays}&sid={ends}"):
            with self.subTest(query):
                self.assert_refused(frame, load(query), 400, "portal.form_type")
                self.assertEqual((first.whoami(), second.whoami()), (sub, sub))
        self.assert_refused(frame, load(f"iss={issuer}&sid={ends}", method="HEAD"), 405, "portal.method")
        self.assertEqual(first.whoami(), sub)
        self.assertEqual(load(f"iss={issuer}&sid={ends}").status, 200)
        self.assertTrue(first.knows_nobody())
        self.assertEqual(second.whoami(), sub)

    def test_another_site_signs_nobody_out(self):
        person = self.signed_in()
        for site in ("cross-site", "same-site", "none"):
            image = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"}
            person.ask(person.at(SIGN_OUT), headers=image)
            self.assertIsNotNone(person.whoami())
        for headers in (
            {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.test"},
            {"Sec-Fetch-Site": "cross-site", "Origin": person.at("")},
            {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
            {"Sec-Fetch-Site": "same-site", "Origin": person.at("", "wiki")},
        ):
            with self.subTest(headers):
                reached = len(self.backend.seen_of(person.agent))
                # As if the cookie were not SameSite.
                answer = person.ask(person.at(SIGN_OUT), "POST", {}, headers)
                self.assert_refused(person, answer, 403, "portal.cross_site", reached)
                self.assertIsNotNone(person.whoami())
        self.assertEqual(person.post_from_elsewhere(person.at(SIGN_OUT), {}).status, 403)
        self.assertIsNotNone(person.whoami())


class Providers(Case):
    """Those that misbehave."""

    def test_userinfo_about_somebody_else_is_refused(self):
        sub = self.world.somebody(email=None)
        self.corp.mode(id_token={"claims": {"email": None}})
        self.signed_in(sub)
        self.corp.mode(id_token={"claims": {"email": None}}, userinfo_wrong_sub=True)
        self.assert_not_signed_in(403, "oidc.userinfo", sub=sub)

    def test_an_address_is_verified_for_itself_alone(self):
        """The ID token states an address and not that it is verified; userinfo has another that is."""
        self.corp.mode(id_token={"claims": {"email": "admin@example.com", "email_verified": None, "groups": None}})
        person = self.signed_in()
        seen = self.backend.seen_of(person.agent)[-1]["fields"]
        self.assertNotEqual(seen.get("x-portcullis-email"), "admin@example.com")

    def test_endless_answers_are_given_up(self):
        for endpoint in ("token", "userinfo", "par"):
            with self.subTest(endpoint):
                self.corp.mode(id_token={"claims": {"email": None}}, huge=[endpoint])
                begun = time.monotonic()
                self.assert_not_signed_in(503, "oidc.away")
                self.assertLess(time.monotonic() - begun, 10)
                self.assertEqual(self.person().ask(self.gate.url("/", "open.localhost")).status, 200)
        self.assertLess(self.gate.resident_bytes(), 256 << 20)

    def test_who_is_signed_in_stays_so_while_the_provider_is_down(self):
        sub = self.world.somebody()
        person = self.signed_in(sub, "quick")
        self.corp.mode(down=True)
        asked = self.corp.counts()["token"]["total"]
        grow_stale()
        self.assertEqual(person.whoami("quick"), sub)
        self.assertGreater(self.corp.counts()["token"]["total"], asked, "the provider was asked")
        away = self.person()
        answer = away.sign_in(sub)
        self.assert_refused(away, answer, 503, "oidc.away")
        self.assertIn("Nobody can sign in just now", answer.text)
        self.assertEqual(answer.headers["Retry-After"], "30")
        self.corp.mode()
        self.assertEqual(person.whoami("quick"), sub)
        self.signed_in(sub)

    def test_who_is_signed_out_while_the_provider_is_asked_about_them_stays_out(self):
        subs = [self.world.somebody(), self.world.somebody()]
        people = [self.signed_in(sub, "quick") for sub in subs]
        grow_stale()
        self.corp.mode(slow_ms={"token": 1000})
        before = self.corp.counts()["token"]["total"]
        with concurrent.futures.ThreadPoolExecutor(len(people)) as pool:
            asking = [pool.submit(person.whoami, "quick") for person in people]
            wait_until(lambda: self.corp.counts()["token"]["total"] == before + len(people), "the provider is asked")
            sign_out(people[0], "quick")
            tell_logout(self.person(), self.corp.logout_token("quick", sub=subs[1]), "quick", "quick")
        self.assertEqual([asked.result() for asked in asking], [None, None])
        self.assertEqual([person.knows_nobody("quick") for person in people], [True, True])

    def test_many_who_sign_in_at_once_are_never_mixed_up(self):
        users = [self.world.somebody(groups=["left"]), self.world.somebody(groups=["right"])]
        groups = dict(zip(users, ("left", "right")))

        def sign_in_twice(sub):
            person, seen = self.person(), []
            for number in range(2):
                seen.append(person.go(person.at(f"{SIGN_IN}?to=/{number}"), sub))
                seen.append(person.ask(person.at("/whoami"), headers=SCRIPT))
            return sub, person.session(), seen

        done = at_once(lambda sub=users[number % 2]: sign_in_twice(sub) for number in range(100))
        for sub, _, seen in done:
            for answer in seen:
                self.assertEqual(answer.status, 200, answer.text)
                fields = answer.json()["fields"]
                self.assertEqual((fields["x-portcullis-user"], fields["x-portcullis-groups"]), (sub, groups[sub]))
        self.assertEqual(len({session for _, session, _ in done}), 100)


class Trouble(Case):
    """Providers that are slow or never end, in a world of their own."""

    @classmethod
    def setUpClass(cls):
        def settings(corp, rival):
            return oidc("corp", corp) + oidc("rival", rival) + API.format(corp.issuer)

        cls.enters(World(settings, {"": policy("corp"), "rival": policy("rival"), "api": policy("api"), "open": PUBLIC}))
        cls.addClassCleanup(cls.world.close)

    def test_slow_answers_are_given_up_and_nobody_else_waits(self):
        self.signed_in()
        minutes_ms = 300_000
        token = with_header(self.corp.mint(**CLI), kid="unknown")
        self.corp.mode(slow_ms={"token": minutes_ms, "jwks": minutes_ms})
        self.rival.mode(slow_ms={"userinfo": minutes_ms}, id_token={"claims": {"email": None}})
        results = {}

        def timed(name, act):
            begun = time.monotonic()
            results[name] = (act(), time.monotonic() - begun)

        people = {name: self.person() for name in ("token", "userinfo", "jwks")}
        of_rival = self.world.somebody(self.rival)
        bearer = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        acts = {
            "token": lambda: people["token"].sign_in(self.world.somebody()),
            "userinfo": lambda: people["userinfo"].sign_in(of_rival, "rival"),
            "jwks": lambda: people["jwks"].ask(people["jwks"].at("/", "api"), headers=bearer),
        }
        threads = [threading.Thread(target=timed, args=one) for one in acts.items()]
        for thread in threads:
            thread.start()
        served = 0
        while any(thread.is_alive() for thread in threads):
            begun = time.monotonic()
            answer = self.person().ask(self.gate.url("/", "open.localhost"))
            self.assertEqual(answer.status, 200)
            self.assertLess(time.monotonic() - begun, 5)
            served += 1
        for thread in threads:
            thread.join()
        self.assertGreater(served, 10)
        for name, (status, reason) in {"token": (503, "oidc.away"), "userinfo": (503, "oidc.away"),
                                       "jwks": (401, "sign_in.jwt_unknown_key")}.items():
            with self.subTest(name):
                answer, took_s = results[name]
                self.assert_refused(people[name], answer, status, reason)
                self.assertLess(took_s, 13)

    def test_endless_keys_are_given_up(self):
        sub = self.world.somebody(self.rival)
        self.signed_in(sub, "rival")
        self.rival.mode(huge=["jwks"])
        self.rival.tell("/rotate", {"drop": True})
        begun = time.monotonic()
        self.assert_not_signed_in(503, "oidc.away", "rival", sub)
        self.assertLess(time.monotonic() - begun, 8)
        self.rival.mode()
        wait_until(lambda: self.person().sign_in(sub, "rival").status == 200, "the new keys are learned")
        self.assertLess(self.gate.resident_bytes(), 256 << 20)


class Keys(Case):
    """Keys of providers that change just when they can't be learned, in a world of its own."""

    @classmethod
    def setUpClass(cls):
        def settings(corp, rival):
            return oidc("quick", corp, "quick", f'refresh = "{REFRESH_S}s"') + oidc("rival", rival)

        cls.enters(World(settings, {"quick": policy("quick"), "rival": policy("rival")}))
        cls.addClassCleanup(cls.world.close)

    def test_keys_that_can_not_be_fetched_end_no_session(self):
        sub = self.world.somebody()
        person = self.signed_in(sub, "quick")
        grow_stale()
        self.corp.tell("/rotate", {})
        self.corp.mode(down=["jwks"])
        self.assertEqual(person.whoami("quick"), sub)

    def test_a_stranger_does_not_keep_new_keys_from_being_learned(self):
        """A logout token of an unknown key has them fetched; the provider changes them right after."""
        sub = self.world.somebody(self.rival)
        self.signed_in(sub, "rival")
        stranger = self.person()
        token = with_header(self.rival.logout_token("gate", sub="nobody"), kid="unknown")
        self.assert_refused(stranger, tell_logout(stranger, token, "rival", "rival"), 400, "sign_in.jwt_unknown_key")
        self.rival.tell("/rotate", {})
        self.assertEqual(self.signed_in(sub, "rival").whoami("rival"), sub)


class Ends(Case):
    """A gate or a provider that is killed, in a world of its own."""

    @classmethod
    def setUpClass(cls):
        def settings(corp, rival):
            return oidc("quick", corp, "quick", f'refresh = "{REFRESH_S}s"') + oidc("rival", rival)

        cls.enters(World(settings, {"quick": policy("quick"), "rival": policy("rival")}))
        cls.addClassCleanup(cls.world.close)

    def test_refresh_tokens_logouts_and_answers_count_across_a_kill(self):
        renewed, by_sid, by_sub = (self.world.somebody() for _ in range(3))
        people = {sub: self.signed_in(sub, "quick") for sub in (renewed, by_sid, by_sub)}
        replayed = self.corp.logout_token("quick", sub="nobody")
        self.assertEqual(tell_logout(self.person(), replayed, "quick", "quick").status, 200)
        waiting, used = self.person(), self.person()
        answer, used_answer = waiting.answer_for(renewed, "quick"), used.answer_for(renewed, "quick")
        self.assertEqual(used.ask(used_answer).status, 303)
        grow_stale()
        before = self.corp.refreshes()
        self.assertEqual(people[renewed].whoami("quick"), renewed)
        self.assertEqual(self.corp.refreshes(), before + 1)
        self.gate.stop(signal.SIGKILL)
        self.gate.start()
        wait_until(lambda: self.person().ask(waiting.at(SIGN_IN, "quick")).status == 303, "the provider is known again")
        server = self.person()
        self.assert_refused(server, tell_logout(server, replayed, "quick", "quick"), 400, "oidc.logout_replayed")
        self.assert_refused(used, used.ask(used_answer), 400, "oidc.attempt_over")
        self.assertEqual(len(waiting.ask(answer).sets(SESSION)), 1)
        (sid,) = self.corp.sessions(by_sid)
        for of in ({"sid": sid}, {"sub": by_sub}):
            self.assertEqual(tell_logout(server, self.corp.logout_token("quick", **of), "quick", "quick").status, 200)
        grow_stale()
        self.assertEqual([people[sub].knows_nobody("quick") for sub in (by_sid, by_sub)], [True, True])
        self.assertEqual(people[renewed].whoami("quick"), renewed, "the newest refresh token was kept")

    def test_an_answer_without_a_name_is_refused_by_a_gate_that_has_just_started(self):
        person = self.person()
        answer = person.answer_for(self.world.somebody(), "quick")
        self.gate.stop(signal.SIGKILL)
        self.corp.mode(slow_ms={"discovery": 1000})
        self.gate.start()
        self.assert_refused(person, person.ask(changed(answer, iss=None)), 403, "oidc.other_issuer")

    def test_a_provider_that_is_gone_lets_nobody_in(self):
        sub = self.world.somebody(self.rival)
        person, away, fresh = self.signed_in(sub, "rival"), self.person(), self.person()
        answer_for = away.answer_for(sub, "rival")
        self.rival.stop()
        self.assert_refused(away, away.ask(answer_for), 503, "oidc.away")
        self.assert_refused(fresh, fresh.ask(fresh.at(SIGN_IN, "rival")), 503, "oidc.away")
        self.assertEqual(person.whoami("rival"), sub)


class Sessions(Case):
    def test_a_session_that_the_browser_brings_is_never_adopted_and_ends(self):
        attacker, victim = self.signed_in(), self.person()
        planted = attacker.session()
        victim.carries(planted)
        sub = self.world.somebody()
        done = victim.go(victim.at(SIGN_IN), sub)
        self.assertEqual(done.status, 200)
        self.assertNotEqual(victim.session(), planted)
        self.assertEqual(victim.whoami(), sub)
        self.assertTrue(attacker.knows_nobody())

    def test_a_session_that_nobody_made_is_never_adopted(self):
        for planted in (secrets.token_urlsafe(32), "attackerchosen", "", "A" * 43):
            with self.subTest(planted):
                victim, thief = self.person(), self.person()
                victim.carries(planted)
                sub = self.world.somebody()
                victim.sign_in(sub)
                self.assertNotEqual(victim.session(), planted)
                self.assertEqual(victim.whoami(), sub)
                thief.carries(planted)
                self.assertTrue(thief.knows_nobody())

    def test_a_session_that_has_ended_stays_ended(self):
        person, thief = self.signed_in(), self.person()
        stolen = person.session()
        sign_out(person)
        thief.carries(stolen)
        answer = thief.ask(thief.at("/"), headers=SCRIPT)
        self.assert_refused(thief, answer, 401, "sign_in.session_over")

    def test_a_session_of_one_application_is_none_of_another(self):
        person, thief = self.signed_in(), self.person()
        for app in ("quick", "posted", "api"):
            with self.subTest(app):
                thief.carries(person.session(), app)
                answer = thief.ask(thief.at("/", app), headers=SCRIPT)
                self.assertEqual(answer.status, 401)
                self.assertEqual(self.backend.seen_of(thief.agent), [])

    def test_content_of_a_stranger_is_kept_from_the_application_and_told_so(self):
        content = f"secret={secrets.token_hex(16)}"
        for name, headers, reason in (
            ("page", {}, "sign_in.no_credential"),
            ("script", SCRIPT, "sign_in.no_credential"),
            ("over", {}, "sign_in.session_over"),
        ):
            with self.subTest(name):
                stranger = self.person()
                if name == "over":
                    stranger.carries(secrets.token_urlsafe(32))
                answer = stranger.ask(stranger.at("/form"), "POST", content, headers)
                self.assert_refused(stranger, answer, 401, reason)
                self.assertIsNone(answer.location)
                self.assertNotIn(content, self.backend.received_text())
                if name != "script":
                    self.assertIn("What you sent was not passed on", answer.text)

    def test_a_script_is_never_redirected(self):
        for mode in ("cors", "no-cors", "same-origin", "websocket"):
            for carries, reason in ((None, "sign_in.no_credential"), (secrets.token_urlsafe(32), "sign_in.session_over")):
                person = self.person()
                if carries:
                    person.carries(carries)
                answer = person.ask(person.at("/data"), headers=SCRIPT | {"Sec-Fetch-Mode": mode})
                self.assert_refused(person, answer, 401, reason)
                self.assertIsNone(answer.location)
                self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
                self.assertEqual(answer.json()["sign_in"], SIGN_IN)


class Refresh(Case):
    def test_many_at_once_ask_the_provider_once_and_use_each_refresh_token_once(self):
        sub = self.world.somebody()
        person = self.signed_in(sub, "quick")
        for _ in range(2):
            grow_stale()
            self.corp.mode(slow_ms={"token": 200})
            before = self.corp.refreshes()
            begun = time.monotonic()
            whom = at_once([lambda: person.whoami("quick")] * 100)
            rounds = 1 + int((time.monotonic() - begun) / REFRESH_S)
            self.assertEqual(set(whom), {sub})
            self.assertIn(self.corp.refreshes() - before, range(1, rounds + 1))
            self.corp.mode()

    def test_what_a_provider_takes_back_ends(self):
        refused, revoked, disabled, forged, another, regrouped, honest = (self.world.somebody() for _ in range(7))
        people = {sub: self.signed_in(sub, "quick")
                  for sub in (refused, revoked, disabled, forged, another, regrouped, honest)}
        reached = {sub: len(self.backend.seen_of(person.agent)) for sub, person in people.items()}
        self.corp.tell("/users", {"sub": disabled, "disabled": True})
        self.corp.tell("/users", {"sub": regrouped, "groups": ["others"]})
        grow_stale()
        for sub, modes in ((refused, {"refresh_refused": True}), (revoked, {"refresh_refused": "token_inactive"}),
                           (disabled, {}), (forged, {"id_token": "foreign_key"}),
                           (another, {"id_token": {"claims": {"sub": honest}}})):
            with self.subTest(modes or "disabled"):
                self.corp.mode(**modes)
                answer = people[sub].ask(people[sub].at("/", "quick"), headers=SCRIPT)
                self.assert_refused(people[sub], answer, 401, "sign_in.session_over", reached[sub])
                self.corp.mode()
                self.assertTrue(people[sub].knows_nobody("quick"), "it stays ended")
        self.assertEqual(people[honest].whoami("quick"), honest)
        self.assertEqual(people[regrouped].whoami("quick"), regrouped)
        self.assertEqual(self.backend.seen_of(people[regrouped].agent)[-1]["fields"]["x-portcullis-groups"], "others")

    def test_who_is_called_otherwise_signs_in_anew_and_who_gets_the_name_sees_nothing_of_them(self):
        """The store finds sessions by the name of the sign-in, and by the subject, which nobody else gets."""
        old = f"{secrets.token_hex(4)}@example.com"
        sub, namesake = self.world.somebody(email=old), self.world.somebody(email=old)
        person, idle = self.person(), self.person()
        for one in (person, idle):
            one.sign_in(sub, "named")
            self.assertEqual(one.whoami("named"), old)
        self.corp.tell("/users", {"sub": sub, "email": f"new-{old}"})
        other = self.person()
        other.sign_in(namesake, "named")
        page = other.ask(other.at(SESSIONS, "named"), headers={"Accept": "text/html"})
        self.assertEqual((page.status, page.text.count("<li>")), (200, 1), "their own alone")
        grow_stale()
        answer = person.ask(person.at("/", "named"), headers=SCRIPT)
        self.assert_refused(person, answer, 401, "sign_in.session_over", len(self.backend.seen_of(person.agent)))
        person.sign_in(sub, "named")
        self.assertEqual(person.whoami("named"), f"new-{old}")
        page = person.ask(person.at(SESSIONS, "named"), headers={"Accept": "text/html"})
        self.assertEqual(page.text.count("<li>"), 2, "that of before, too, while it is there")

    def test_userinfo_does_not_say_how_or_when_somebody_signed_in(self):
        sub = self.world.somebody()
        person = self.signed_in(sub, "stepped")
        claims = {"acr": "mfa", "amr": ["mfa"], "auth_time": int(time.time()) + 60}
        for modes in ({}, {"userinfo_claims": claims}, {"userinfo_claims": claims, "refresh_without_id_token": True}):
            with self.subTest(modes):
                self.corp.mode(**modes)
                grow_stale()
                before = self.corp.refreshes()
                self.assertEqual(person.whoami("stepped"), sub)
                self.assertEqual(self.corp.refreshes(), before + 1)
                reached = len(self.backend.seen_of(person.agent))
                answer = person.ask(person.at("/vault", "stepped"), headers=SCRIPT)
                self.assert_refused(person, answer, 401, "access.weak_sign_in", reached)

    def test_a_new_refresh_token_is_kept_though_the_provider_does_not_say_who_it_is_for(self):
        """The one of before counts no more by then."""
        sub = self.world.somebody()
        person = self.signed_in(sub, "quick")
        for _ in range(3):
            grow_stale()
            self.corp.mode(refresh_without_id_token=True, down=["userinfo"])
            self.assertEqual(person.whoami("quick"), sub)
        self.corp.tell("/users", {"sub": sub, "groups": ["others"]})
        self.corp.mode()
        grow_stale()
        self.assertEqual(person.whoami("quick"), sub)
        self.assertEqual(self.backend.seen_of(person.agent)[-1]["fields"]["x-portcullis-groups"], "others")

    def test_groups_that_do_not_fit_a_token_are_asked_for_at_the_stated_place_alone(self):
        trap = self.backend.url + "/mallory"
        sub = self.world.somebody(groups=[f"group-{number}" for number in range(300)])

        def groups():
            self.assertEqual(person.whoami("large"), sub)
            return self.backend.seen_of(person.agent)[-1]["fields"]["x-portcullis-groups"].split(",")

        def change(*names):
            self.corp.tell("/users", {"sub": sub, "groups": list(names)})
            grow_stale()

        self.corp.mode(overage=trap)
        said = self.corp.counts()["userinfo"]
        person = self.signed_in(sub, "large")
        self.assertEqual(self.corp.counts()["userinfo"], said, "userinfo is not asked for what it has not")
        self.assertEqual(groups(), [f"group-{number}" for number in range(300)])
        change("others")
        self.assertEqual(groups(), ["others"], "a refresh asks again")
        self.corp.mode(overage=trap, refresh_without_id_token=True)
        change("third")
        self.assertEqual(groups(), ["third"], "one that brings no ID token, too")
        for answer in ({"status": 500}, {"status": 429}):
            self.corp.mode(overage=trap, groups_answer=answer)
            change("fourth")
            self.assertEqual(groups(), ["third"], "what can not be asked takes nothing back")
        self.corp.mode()
        grow_stale()
        wait_until(lambda: groups() == ["fourth"], "they fit a token again")
        asked = self.corp.counts()["groups"]
        grow_stale()
        self.assertEqual((groups(), self.corp.counts()["groups"]), (["fourth"], asked), "and are asked for nowhere else")
        self.corp.mode(overage=trap, groups_answer={"status": 403})
        grow_stale()
        reached = len(self.backend.seen_of(person.agent))
        answer = person.ask(person.at("/", "large"), headers=SCRIPT)
        self.assert_refused(person, answer, 401, "sign_in.session_over", reached)
        self.assertNotIn("/mallory", self.backend.received_text(), "what a token names is asked nothing")

    def test_as_many_groups_as_a_session_keeps_are_kept(self):
        ids = [f"{number:08x}-bbbb-cccc-dddd-eeeeeeeeeeee" for number in range(1024)]
        self.corp.mode(overage=self.backend.url)
        self.signed_in(self.world.somebody(groups=ids), "many")

    def test_no_token_of_the_provider_leaves_the_gate(self):
        self.corp.tell("/counts", {})
        sub = self.world.somebody()
        person, app = self.signed_in(sub, "quick"), "quick"
        shown = self.signed_in(sub, "who") if False else person
        person.go(person.at("/", "who"), sub)
        grow_stale()
        self.assertEqual(person.whoami(app), sub)
        answer = person.answer_for(sub, "plain")
        person.ask(answer)
        self.assert_refused(person, person.ask(answer), 400, "oidc.attempt_over", len(self.backend.seen_of(person.agent)))
        for own in (app, "who", "plain"):
            person.ask(person.at("/nothing", own))
            person.ask(person.at(SIGN_OUT, own))
            sign_out(person, own)
        issued = self.corp.issued()
        tokens = {token for one in issued for token in one.values()}
        self.assertGreaterEqual(len(tokens), 9, issued)
        places = {
            "pages, fields and addresses": "".join(person.heard),
            "the log": "".join(self.gate.lines),
            "what the application is sent": self.backend.received_text(),
            "the state": b"".join(file.read_bytes() for file in self.gate.home.rglob("*") if file.is_file()).decode("latin-1"),
        }
        for place, text in places.items():
            with self.subTest(place):
                self.assertTrue(text)
                self.assertEqual([token for token in tokens if token in text or urllib.parse.quote(token) in text], [])
        asked = parameters(answer)
        for secret in (SECRET, asked["code"], asked["state"]):
            self.assertNotIn(secret, places["the log"])
            self.assertNotIn(secret, places["what the application is sent"])
            self.assertNotIn(secret, places["the state"])


if __name__ == "__main__":
    unittest.main()
