"""Two gates that share one Redis: a server alone, one that is killed, TLS, a cluster and sentinels."""

import concurrent.futures
import itertools
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

from gate import (PASSWORD, SIGN_IN, Form, Gate, certificate, cookies_of, free_port, listens, same_origin, wait_until)
from provider import CALLBACK, SECRET, Backend, Person, Provider, oidc
from test_operations import RATE, Load
from test_websocket import echo

PROGRAM = next((found for name in ("redis-server", "valkey-server") if (found := shutil.which(name))), None)
# How long a gate believes a provider without asking it again.
BELIEVED_S = 3
# The gates take 127.0.0.1 for a proxy, so that a test can be any client.
CLIENTS = (f"198.18.{number >> 8}.{number & 255}" for number in itertools.count(1))
BACK_CHANNEL = "/.portcullis/back-channel-logout/"
STRANGER = "__Host-portcullis_session=" + "A" * 43


class Redis:
    """A server in a directory of its own, which writes everything down before it answers."""

    def __init__(self, *more, port=True):
        self.home = Path(tempfile.mkdtemp(prefix="portcullis-redis-"))
        self.port = free_port()
        self.command = [PROGRAM, "--dir", self.home, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
                        "--logfile", self.home / "log", *(["--port", str(self.port)] if port else []),
                        *(str(one).replace("PORT", str(self.port)) for one in more)]
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, cwd=self.home, stdout=subprocess.DEVNULL)
        wait_until(lambda: listens(self.port), "redis listens")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def ask(self, *command, port=None):
        done = subprocess.run(["redis-cli", "-p", str(port or self.port), *command], text=True, capture_output=True, timeout=20)
        return done.stdout


def attempt(gate, form_of=None, password=PASSWORD):
    """Signs Ada in, with a form that perhaps another gate made: the status, and her cookie."""
    host = form_of or gate
    browser = same_origin(host.port, "localhost")
    with_form = host.connect()
    with_form.request("GET", SIGN_IN, headers=browser)
    answer = with_form.getresponse()
    form = Form(answer.read().decode())
    with_form.close()
    body = urllib.parse.urlencode(form.hidden | {form.name: "ada", form.password: password})
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "; ".join(cookies_of(answer.headers))}
    status, headers, _ = gate.request("POST", form.action or SIGN_IN, browser | kind, body)
    session = [one for one in cookies_of(headers) if "session" in one.partition("=")[0] and not one.endswith("=")]
    return status, session[0] if session else None


def asked_by(client, gates, host="limited.localhost", headers=None):
    """The statuses that a client gets who asks these gates one after the other."""
    headers = {"X-Forwarded-For": client} | (headers or {})
    return [gate.request("GET", "/", headers, host=host)[0] for gate in gates]


def status_of(gate, cookie):
    return gate.request("GET", "/", {"Cookie": cookie})[0]


class Shared(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = serve(echo, "127.0.0.1", 0, max_size=None)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.whoami = cls.server.socket.getsockname()[1]
        cls.key = Path(tempfile.mkdtemp(prefix="portcullis-key-")) / "key"
        cls.key.write_text("k" * 32 + "\n")

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        shutil.rmtree(cls.key.parent)

    def redis(self, *more, **how):
        redis = Redis(*more, **how)
        self.addCleanup(redis.close)
        return redis

    def gates(self, redis, more="", policies=None):
        """Two gates with one set of policies and accounts."""
        policies = policies or {
            "app": f'host = "localhost"\nbackends = ["whoami"]\naccess = "signed-in"\n{RATE}',
            "socket": f'host = "socket.localhost"\nbackends = ["http://127.0.0.1:{self.whoami}"]\naccess = "signed-in"\n',
        }
        settings = f'[session]\noffline = "1m"\n[session.redis]\nkey = {{ file = "{self.key}" }}\n{redis}\n{more}'
        gates = [Gate(policies, settings) for _ in range(2)]
        for gate in gates:
            self.addCleanup(gate.close)
        one, other = gates
        accounts = (one.home / "state/users.toml").read_text()
        other.stop()
        (other.home / "state/users.toml").write_text(accounts)
        other.start()
        return one, other

    def limiting_gates(self, redis, more=""):
        """Two gates that let a client, or a user, ask three times an hour."""
        return self.gates(redis, f'{more}\n[trusted_proxies]\nnetworks = ["127.0.0.1"]\n', {
            "limited": 'host = "limited.localhost"\nbackends = ["whoami"]\naccess = "public"\n[rate]\nper_client = "3/h"\n',
            "all": 'host = "all.localhost"\nbackends = ["whoami"]\naccess = "public"\n[rate]\nper_app = "3/h"\n',
            "user": 'host = "localhost"\nbackends = ["whoami"]\naccess = "signed-in"\n[rate]\nper_user = "3/h"\n',
        })

    def wait_until_shared(self, one, other):
        """A client that asks for the fourth time is refused, wherever."""
        return wait_until(lambda: asked_by(next(CLIENTS), (one, other, one, other)) == [200, 200, 200, 429], "rates are shared")

    def web_socket(self, gate, cookie):
        # Not every system resolves names below localhost. Not over TLS, as in test_websocket.
        return connect(f"ws://socket.localhost:{gate.plain_port}/socket", proxy=None,
                       sock=socket.create_connection(("127.0.0.1", gate.plain_port)),
                       additional_headers={"Cookie": cookie}, open_timeout=10)

    def ends_together(self, one, other):
        """A session of one gate is served by the other, and with it ends what is open there."""
        ending, staying = one.sign_in(), one.sign_in()
        seen = [status_of(gate, cookie) for gate in (one, other) for cookie in (ending, staying)]
        self.assertEqual(seen, [200] * 4)
        in_socket = one.sign_in("socket.localhost")
        with self.web_socket(other, in_socket) as opened:
            opened.send("still")
            self.assertEqual(opened.recv(20), "still")
            self.assertLess(one.sign_out(in_socket, "socket.localhost"), 400)
            begun = time.monotonic()
            with self.assertRaises(ConnectionClosed) as closed:
                opened.recv(20)
            self.assertEqual(closed.exception.rcvd.code, 1008)
            self.assertLess(time.monotonic() - begun, 1)
        self.assertLess(one.sign_out(ending), 400)
        begun = time.monotonic()
        wait_until(lambda: status_of(other, ending) == 401, "the other gate refuses")
        self.assertLess(time.monotonic() - begun, 1)
        self.assertEqual([status_of(gate, staying) for gate in (one, other)], [200, 200])
        return staying

    def test_a_session_of_one_gate_is_served_by_the_other_and_ends_there_within_a_second(self):
        redis = self.redis()
        self.ends_together(*self.gates(f'url = "redis://127.0.0.1:{redis.port}"'))

    def test_a_form_of_one_gate_may_be_sent_to_the_other(self):
        redis = self.redis()
        one, other = self.gates(f'url = "redis://127.0.0.1:{redis.port}"')
        status, cookie = attempt(other, form_of=one)
        self.assertLess(status, 400)
        self.assertEqual(status_of(one, cookie), 200)

    def test_whoever_guesses_at_one_gate_is_slowed_at_the_other_while_redis_is_there(self):
        redis = self.redis()
        one, other = self.gates(f'url = "redis://127.0.0.1:{redis.port}"')
        cookie = one.sign_in()
        # Four at each gate, of which a gate alone would slow none.
        statuses = [attempt(gate, password="guess")[0] for _ in range(4) for gate in (one, other)]
        self.assertEqual((statuses[:5], set(statuses)), ([403] * 5, {403, 429}))
        self.assertEqual([status_of(gate, cookie) for gate in (one, other)], [200] * 2)
        redis.kill()
        for gate in (one, other):
            alone = [attempt(gate, password="guess")[0] for _ in range(8)]
            self.assertEqual(set(alone) - {403}, {429}, "each gate slows down alone")

    def test_clients_users_and_applications_are_limited_over_both_gates(self):
        redis = self.redis()
        one, other = gates = self.limiting_gates(f'url = "redis://127.0.0.1:{redis.port}"')
        client = next(CLIENTS)
        self.assertEqual(asked_by(client, gates * 3), [200] * 3 + [429] * 3)
        self.assertEqual(asked_by(next(CLIENTS), gates), [200] * 2, "nobody else is limited")
        status, headers, _ = other.request("GET", "/", {"X-Forwarded-For": client}, host="limited.localhost")
        self.assertEqual(status, 429)
        self.assertGreater(int(headers["Retry-After"]), 1000)
        self.assertLessEqual(int(headers["Retry-After"]), 1200)
        of_all = [asked_by(next(CLIENTS), [gate], "all.localhost")[0] for gate in gates * 3]
        self.assertEqual(of_all, [200] * 3 + [429] * 3)
        cookies = [gate.sign_in() for gate in gates]
        of_user = [asked_by(next(CLIENTS), [gate], "localhost", {"Cookie": cookie})[0]
                   for cookie in cookies for gate in gates * 2]
        self.assertEqual(of_user, [200] * 3 + [429] * 5)
        self.assertNotIn(client, redis.ask("KEYS", "*"))
        self.assertNotIn("-1", {redis.ask("TTL", key).strip() for key in redis.ask("KEYS", "portcullis:r:*").split()})

    def test_a_flood_ends_at_the_gate_and_is_none_of_redis(self):
        redis = self.redis()
        one, _ = self.limiting_gates(f'url = "redis://127.0.0.1:{redis.port}"')

        def scripts():
            return int(re.search(r"cmdstat_evalsha:calls=(\d+)", redis.ask("INFO", "commandstats") + "cmdstat_evalsha:calls=0")[1])

        client, before = next(CLIENTS), scripts()
        statuses = asked_by(client, [one] * 100)
        self.assertEqual((statuses.count(200), statuses.count(429)), (3, 97))
        self.assertLess(scripts() - before, 10)

    def test_while_redis_is_away_each_gate_limits_alone_and_serves_and_then_they_share_again(self):
        redis = self.redis()
        one, other = gates = self.limiting_gates(f'url = "redis://127.0.0.1:{redis.port}"')
        spent = next(CLIENTS)
        self.assertEqual(asked_by(spent, [one] * 4), [200] * 3 + [429])
        for _ in range(2):
            redis.kill()
            for _ in range(3):
                begun = time.monotonic()
                client = next(CLIENTS)
                self.assertEqual([asked_by(client, [gate] * 4) for gate in gates], [[200] * 3 + [429]] * 2)
                self.assertLess(time.monotonic() - begun, 5)
            redis.start()
            self.wait_until_shared(one, other)
        self.assertEqual(asked_by(spent, [other]), [429], "what it kept counts")
        for gate in gates:
            away = [line for line in gate.lines if "the session store is away" in line]
            self.assertEqual(len(away), 2, "once an outage")

    def test_gates_that_do_not_share_rates_limit_each_alone(self):
        redis = self.redis()
        gates = self.limiting_gates(f'url = "redis://127.0.0.1:{redis.port}"\nrates = "local"')
        self.assertEqual(asked_by(next(CLIENTS), gates * 4), [200] * 6 + [429] * 2)
        self.assertEqual(redis.ask("KEYS", "portcullis:r:*").strip(), "")

    def gates_of_a_provider(self):
        provider, backend, redis = Provider(), Backend(), self.redis()
        for thing in (provider, backend):
            self.addCleanup(thing.close)
        gates = self.gates(
            f'url = "redis://127.0.0.1:{redis.port}"', oidc("corp", provider, more=f'refresh = "{BELIEVED_S}s"'),
            {"app": f'host = "localhost"\nbackends = ["{backend.url}"]\naccess = "signed-in"\n{RATE}'
                    '[sign_in]\nwith = ["corp"]\n'})
        redirects = [gate.url(CALLBACK + "corp") for gate in gates]
        provider.tell("/clients", {"client_id": "gate", "client_secret": SECRET, "redirect_uris": redirects})
        provider.tell("/users", {"sub": "ada", "email": "ada@example.com", "email_verified": True, "groups": ["staff"]})
        return provider, redis, gates

    def test_a_logout_that_did_not_work_while_redis_was_away_works_when_the_provider_tries_again(self):
        provider, redis, gates = self.gates_of_a_provider()
        people = [Person(gate) for gate in gates]
        people[0].sign_in("ada")
        people[1].carries(people[0].session())
        self.assertEqual([person.whoami() for person in people], ["ada"] * 2)
        token = provider.logout_token("gate", sub="ada")

        def tell(gate):
            server = Person(gate)
            return server.ask(server.at(BACK_CHANNEL + "corp"), "POST", {"logout_token": token}).status

        redis.kill()
        wait_until(lambda: tell(gates[0]) == 503, "the gate can not end what it can not reach")
        redis.start()
        wait_until(lambda: tell(gates[0]) == 200, "the same token works")
        wait_until(lambda: all(person.knows_nobody() for person in people), "both gates know nobody")
        self.assertEqual(tell(gates[1]), 400, "and no more")

    def test_of_a_hundred_requests_at_two_gates_with_a_token_that_ended_one_asks_the_provider(self):
        provider, _, gates = self.gates_of_a_provider()
        people = [Person(gate) for gate in gates]
        people[0].sign_in("ada")
        people[1].carries(people[0].session())
        self.assertEqual([person.whoami() for person in people], ["ada"] * 2)
        # So slow that all the others come meanwhile.
        provider.mode(slow_ms={"token": 500})
        for _ in range(3):
            before, since = provider.refreshes(), time.time()
            wait_until(lambda: time.time() > since + BELIEVED_S, "the session has to be asked about")
            with concurrent.futures.ThreadPoolExecutor(100) as pool:
                asking = [pool.submit(people[number % 2].whoami) for number in range(100)]
            self.assertEqual({asked.result() for asked in asking}, {"ada"})
            took_s = time.time() - since - BELIEVED_S
            self.assertIn(provider.refreshes() - before, range(1, 2 + int(took_s / BELIEVED_S)))

    def test_a_server_that_is_killed_lets_nobody_in_and_comes_back_by_itself(self):
        redis = self.redis()
        gates = self.gates(f'url = "redis://127.0.0.1:{redis.port}"')
        one, other = gates
        known, unknown, ended = one.sign_in(), one.sign_in(), one.sign_in()
        self.assertEqual([status_of(other, cookie) for cookie in (known, ended)], [200, 200])
        one.sign_out(ended)
        wait_until(lambda: status_of(other, ended) == 401, "the other gate refuses")
        live = [Load(gate, 2, known) for gate in gates]
        out = [Load(gate, 2, cookie) for gate in gates for cookie in (ended, STRANGER)]
        kept = [unknown]
        for _ in range(3):
            redis.kill()
            wait_until(lambda: all(attempt(gate) == (503, None) for gate in gates), "new sign-ins are refused")
            self.assertEqual([status_of(gate, known) for gate in gates], [200, 200])
            self.assertEqual(status_of(other, unknown), 503, "nobody can say who that is")
            self.assertEqual([status_of(gate, ended) for gate in gates], [401, 401])
            redis.start()
            wait_until(lambda: all(attempt(gate)[1] for gate in gates), "new sign-ins are taken")
            kept.append(one.sign_in())
        for load in live + out:
            load.stop()
        self.assertEqual([load.failures for load in live + out], [[]] * len(live + out))
        self.assertEqual(set().union(*(load.statuses for load in live)), {200})
        self.assertLessEqual(set().union(*(load.statuses for load in out)), {401, 503})
        self.assertEqual([status_of(other, cookie) for cookie in kept], [200] * len(kept), "nothing is lost that Redis kept")

    def test_a_sign_out_while_the_server_is_away_holds_everywhere_once_it_is_back(self):
        redis = self.redis()
        one, other = self.gates(f'url = "redis://127.0.0.1:{redis.port}"')
        cookie = one.sign_in()
        redis.kill()
        one.sign_out(cookie)
        self.assertEqual(status_of(one, cookie), 401)
        redis.start()
        wait_until(lambda: status_of(other, cookie) == 401, "the other gate refuses")
        self.assertEqual(status_of(one, cookie), 401)

    def test_a_gate_starts_without_its_server_and_lets_nobody_in(self):
        redis = self.redis()
        one, other = self.gates(f'url = "redis://127.0.0.1:{redis.port}"')
        cookie = one.sign_in()
        one.stop()
        redis.kill()
        one.start()
        self.assertEqual((status_of(one, cookie), attempt(one)), (503, (503, None)))
        redis.start()
        wait_until(lambda: status_of(one, cookie) == 200, "the gate has found its server")

    def test_a_server_is_known_by_its_certificate_and_a_gate_by_its_password(self):
        home = Path(tempfile.mkdtemp(prefix="portcullis-redis-tls-"))
        self.addCleanup(shutil.rmtree, home)
        chain, key = certificate(home)
        redis = self.redis("--port", 0, "--tls-port", "PORT", "--tls-cert-file", chain, "--tls-key-file", key,
                           "--tls-auth-clients", "no", "--user", "gate", "on", ">open sesame", "~gates:*", "&gates:*",
                           "+@all", "-@dangerous", "--user", "default", "off", port=False)
        (home / "password").write_text("open sesame\n")
        (home / "wrong").write_text("hunter2\n")
        _, other = certificate(home, "other.localhost")
        settings = f'url = "rediss://localhost:{redis.port}"\nprefix = "gates"\nuser = "gate"\n'
        right = settings + f'ca = "{chain}"\npassword.file = "{home}/password"'
        self.ends_together(*self.gates(right))
        for wrong in (settings + f'ca = "{home}/other.localhost.pem"\npassword.file = "{home}/password"',
                      settings + f'password.file = "{home}/password"',
                      settings + f'ca = "{chain}"\npassword.file = "{home}/wrong"'):
            gate, _ = self.gates(wrong)
            self.assertEqual(attempt(gate), (503, None))
            self.assertNotIn("hunter2", "".join(gate.lines))

    def test_a_cluster_is_a_store(self):
        nodes = [self.redis("--cluster-enabled", "yes", "--cluster-port", free_port(), "--cluster-node-timeout", "2000") for _ in range(3)]
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        subprocess.run(["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"], check=True, capture_output=True, timeout=60)
        wait_until(lambda: all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes), "the cluster is one")
        urls = ", ".join(f'"redis://{address}"' for address in addresses)
        one, other = self.gates(f"url = [{urls}]")
        cookies = [self.ends_together(one, other)] + [one.sign_in() for _ in range(20)]
        self.assertEqual({status_of(other, cookie) for cookie in cookies}, {200})
        self.assertTrue(all("portcullis:s:" in node.ask("KEYS", "*") for node in nodes), "every node keeps some")
        limiting = self.limiting_gates(f"url = [{urls}]")
        for client in itertools.islice(CLIENTS, 30):
            self.assertEqual(asked_by(client, limiting * 2), [200] * 3 + [429])
        self.assertTrue(all("portcullis:r:" in node.ask("KEYS", "*") for node in nodes), "every node counts some")

    def test_gates_follow_the_sentinels_to_another_server(self):
        first = self.redis()
        second = self.redis("--replicaof", "127.0.0.1", first.port)
        wait_until(lambda: "master_link_status:up" in second.ask("INFO", "replication"), "there is a replica")
        home = Path(tempfile.mkdtemp(prefix="portcullis-sentinel-"))
        self.addCleanup(shutil.rmtree, home)
        (home / "sentinel.conf").write_text(f"""
            port {(port := free_port())}
            sentinel monitor gates 127.0.0.1 {first.port} 1
            sentinel down-after-milliseconds gates 500
            sentinel failover-timeout gates 5000
        """)
        sentinel = subprocess.Popen([PROGRAM, home / "sentinel.conf", "--sentinel"], cwd=home, stdout=subprocess.DEVNULL)
        self.addCleanup(sentinel.wait)
        self.addCleanup(sentinel.kill)
        wait_until(lambda: listens(port), "the sentinel listens")
        wait_until(lambda: str(second.port) in first.ask("SENTINEL", "REPLICAS", "gates", port=port), "it knows the replica")
        one, other = self.gates(f'url = "redis://127.0.0.1:{port}"\nsentinel_master = "gates"')
        staying = self.ends_together(one, other)
        wait_until(lambda: first.ask("WAIT", "1", "1000").strip() == "1", "all is at the replica")
        first.kill()
        self.assertEqual([status_of(gate, staying) for gate in (one, other)], [200, 200])
        wait_until(lambda: attempt(one)[1] and attempt(other)[1], "new sign-ins are taken")
        self.assertIn(str(second.port), first.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "gates", port=port))
        self.ends_together(one, other)
        self.assertEqual([status_of(gate, staying) for gate in (one, other)], [200, 200])


if __name__ == "__main__":
    unittest.main()
