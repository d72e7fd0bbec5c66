"""A WebSocket server and client of PyPI's `websockets`, with the gate between them."""

import contextlib
import os
import threading
import time
import unittest

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from gate import Gate


def echo(socket):
    with contextlib.suppress(ConnectionClosed):
        answer(socket)


def answer(socket):
    for message in socket:
        if message == "close":
            socket.close(4321, "as asked")
        elif message == "who":
            headers = socket.request.headers
            socket.send(f"{headers.get('X-Portcullis-User')} {headers.get('Cookie')}")
        else:
            socket.send(message)


def chat_if_offered(_, offered):
    return "chat" if "chat" in offered else None


class WebSockets(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = serve(echo, "127.0.0.1", 0, subprotocols=["chat"], select_subprotocol=chat_if_offered, max_size=None, compression="deflate")
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        port = cls.server.socket.getsockname()[1]
        cls.gate = Gate({"app": f"""
            host = "localhost"
            backends = ["http://127.0.0.1:{port}"]
            access = "signed-in"
            [headers]
            identity = ["user"]
        """})

    @classmethod
    def tearDownClass(cls):
        cls.gate.close()
        cls.server.shutdown()

    def connect(self, cookie, **more):
        # Not over TLS: this library reads and writes one connection in two threads, which OpenSSL's are not made for.
        return connect(f"ws://localhost:{self.gate.plain_port}/socket", proxy=None, max_size=None,
                       additional_headers={"Cookie": cookie} if cookie else {}, **more)

    def test_messages_of_every_kind_pass_both_ways(self):
        with self.connect(self.gate.sign_in(), subprotocols=["chat"], origin=f"http://localhost:{self.gate.plain_port}") as socket:
            self.assertEqual(socket.subprotocol, "chat")
            for message in ("text", b"bytes", "", "é" * 1000, os.urandom(4 << 20)):
                socket.send(message)
                self.assertEqual(socket.recv(20), message)
            self.assertTrue(socket.ping().wait(20))

    def test_the_closing_code_passes(self):
        with self.connect(self.gate.sign_in()) as socket:
            socket.send("close")
            with self.assertRaises(ConnectionClosed) as closed:
                socket.recv(20)
            self.assertEqual((closed.exception.rcvd.code, closed.exception.rcvd.reason), (4321, "as asked"))

    def test_the_backend_is_told_who_it_is_and_not_the_session(self):
        with self.connect(self.gate.sign_in()) as socket:
            socket.send("who")
            self.assertEqual(socket.recv(20), "ada None")

    def test_a_stranger_gets_no_tunnel(self):
        with self.assertRaises(InvalidStatus) as refused:
            self.connect(None)
        self.assertEqual(refused.exception.response.status_code, 401)

    def test_sign_out_ends_what_is_open_and_nothing_of_others(self):
        ending, staying = self.gate.sign_in(), self.gate.sign_in()
        with self.connect(staying) as other, self.connect(ending) as socket:
            self.assertLess(self.gate.sign_out(ending), 400)
            begun = time.monotonic()
            with self.assertRaises(ConnectionClosed) as closed:
                socket.recv(20)
            self.assertEqual(closed.exception.rcvd.code, 1008)
            self.assertLess(time.monotonic() - begun, 1.5)
            other.send("still")
            self.assertEqual(other.recv(20), "still")

    def test_many_at_once(self):
        cookie = self.gate.sign_in()
        sockets = [self.connect(cookie) for _ in range(50)]
        for number, socket in enumerate(sockets):
            socket.send(str(number))
        self.assertEqual([socket.recv(20) for socket in sockets], [str(number) for number in range(50)])
        for socket in sockets:
            socket.close()


if __name__ == "__main__":
    unittest.main()
