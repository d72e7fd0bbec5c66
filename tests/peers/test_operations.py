"""What an operator does to a gate under load: edit, reload, stop, kill."""

import signal
import threading
import time
import unittest

from gate import Gate, Nginx, wait_until

RATE = '[rate]\nper_client = "100000/s"\nburst = 100000\n'


class Load:
    """Clients that ask without a pause, and what they were answered."""

    def __init__(self, gate, clients=8, cookie=None):
        self.statuses, self.failures = [], []
        self.gate, self.cookie, self.stopping = gate, cookie, threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self):
        connection = self.gate.connect()
        headers = {"Host": "localhost"} | ({"Cookie": self.cookie} if self.cookie else {})
        while not self.stopping.is_set():
            try:
                connection.request("GET", "/", headers=headers)
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except OSError as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


class Operations(unittest.TestCase):
    def setUp(self):
        self.nginx = Nginx('location / { return 200 "ok"; } location /slow { limit_rate 64k; alias HOME/big; }', big=b"x" * (96 << 10))
        self.addCleanup(self.nginx.close)
        self.gate = Gate({"app": self.policy()})
        self.addCleanup(self.gate.close)

    def policy(self, more=""):
        return f'host = "localhost"\nbackends = ["http://127.0.0.1:{self.nginx.port}"]\naccess = "signed-in"\n{RATE}{more}'

    def test_a_hundred_reloads_under_load_fail_no_request(self):
        load = Load(self.gate, cookie=self.gate.sign_in())
        for number in range(100):
            self.gate.write_policy("app", self.policy(f"# {number}\n"))
            self.gate.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        load.stop()
        self.assertEqual((set(load.statuses), load.failures), ({200}, []))
        self.assertGreater(len(load.statuses), 100)

    def test_a_broken_edit_keeps_the_policy_in_force_and_says_why(self):
        cookie = self.gate.sign_in()
        self.gate.write_policy("app", self.policy("[acess]\n"))
        wait_until(lambda: any("acess" in line for line in self.gate.lines), "the problem is in the log")
        self.assertEqual(self.gate.request("GET", "/", {"Cookie": cookie})[0], 200)
        self.gate.write_policy("app", self.policy('[network]\ndeny = ["127.0.0.1"]\n'))
        wait_until(lambda: self.gate.request("GET", "/", {"Cookie": cookie})[0] == 403, "the mended policy is in force")

    def test_sessions_survive_a_kill(self):
        cookie = self.gate.sign_in()
        self.gate.stop(signal.SIGKILL)
        self.gate.start()
        self.assertEqual(self.gate.request("GET", "/", {"Cookie": cookie})[0], 200)

    def test_a_signed_out_session_stays_ended_after_a_kill(self):
        cookie = self.gate.sign_in()
        self.gate.sign_out(cookie)
        self.gate.stop(signal.SIGKILL)
        self.gate.start()
        self.assertEqual(self.gate.request("GET", "/", {"Cookie": cookie})[0], 401)

    def test_a_stop_lets_what_has_begun_end(self):
        cookie = self.gate.sign_in()
        connection = self.gate.connect()
        connection.request("GET", "/slow", headers={"Host": "localhost", "Cookie": cookie})
        answer = connection.getresponse()
        answer.read(1024)
        idle = self.gate.connect()
        idle.connect()
        self.gate.process.send_signal(signal.SIGTERM)
        self.assertEqual(len(answer.read()), (96 << 10) - 1024)
        idle.sock.settimeout(10)
        self.assertEqual(idle.sock.recv(1), b"", "an idle connection is closed at once")
        self.assertEqual(self.gate.stop(), 0)
        connection.close()
        idle.close()


if __name__ == "__main__":
    unittest.main()
