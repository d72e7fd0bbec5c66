"""A listener that asks clients for certificates, and curl with and without one."""

import subprocess
import tempfile
import unittest
from pathlib import Path

from gate import Gate, certificate, free_port

WHOAMI = 'host = "{}"\nbackends = ["whoami"]\naccess = "public"\n'


class ClientCertificates(unittest.TestCase):
    def setUp(self):
        home = tempfile.TemporaryDirectory()
        self.addCleanup(home.cleanup)
        self.chain, self.key = certificate(Path(home.name), "client")
        self.asking = free_port()
        more = f'[[listen]]\naddress = "127.0.0.1:{self.asking}"\nclient_certificates = {{ ca = "{self.chain}" }}\n'
        policies = {"app": WHOAMI.format("localhost"), "other": WHOAMI.format("other.localhost")}
        self.gate = Gate(policies, more)
        self.addCleanup(self.gate.close)

    def ask(self, *arguments):
        """The status that curl got, or its exit status where there was none."""
        done = subprocess.run(
            ["curl", "-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", f"localhost:{self.asking}:127.0.0.1",
             *arguments, f"https://localhost:{self.asking}/"], capture_output=True, text=True, timeout=30)
        return int(done.stdout) or -done.returncode

    def test_only_who_shows_a_certificate_is_served(self):
        self.assertEqual(self.ask("--cert", self.chain, "--key", self.key), 200)
        self.assertLess(self.ask(), 0)
        with tempfile.TemporaryDirectory() as directory:
            chain, key = certificate(Path(directory), "stranger")
            self.assertLess(self.ask("--cert", chain, "--key", key), 0)

    def test_a_host_other_than_the_handshakes_is_misdirected(self):
        for version in ("--http1.1", "--http2"):
            with self.subTest(version):
                host = f"Host: other.localhost:{self.asking}"
                self.assertEqual(self.ask(version, "--cert", self.chain, "--key", self.key, "-H", host), 421)


if __name__ == "__main__":
    unittest.main()
