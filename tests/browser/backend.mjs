// An application without a login of its own: it works, is slow, fails, and talks over a WebSocket.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

const MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const html = (content) => `<!doctype html><html lang="en"><title>Desk</title><link rel="icon" href="data:,"><main><h1>Desk</h1>${content}</main>`;

/** Shows what the socket says, and that it closes. */
const TALK = `<p id="said"></p><script>
  const show = (text) => { document.getElementById("said").textContent = text; };
  const socket = new WebSocket("wss://" + location.host + "/socket");
  socket.onopen = () => socket.send("hello");
  socket.onmessage = (message) => show("heard " + message.data);
  socket.onclose = () => show("closed");
</script>`;

const FORM = `<form method="post" action="/take"><label>Note <input name="note"></label><button>Send</button></form>`;

/** Starts it; `taken` holds what was sent to it. */
export async function start() {
  const taken = [];
  const sockets = new Set();
  const pages = {
    "/": () => html(`<a href="/form">a form</a>`),
    "/form": () => html(FORM),
    "/talk": () => html(TALK),
    "/kept": (answer) => {
      answer.setHeader("cache-control", "private, max-age=3600");
      return html("a secret of ada's");
    },
    "/leave": (answer, url) => {
      answer.writeHead(302, { location: url.searchParams.get("to") });
      return "";
    },
    "/fail": (answer) => {
      answer.writeHead(500);
      return "NullPointerException at com.example.Desk(Desk.java:42)";
    },
    "/overloaded": (answer) => {
      answer.writeHead(503);
      return "pool of db-3.internal is empty";
    },
    "/slow": () => null,
  };
  const server = createServer(async (request, answer) => {
    const url = new URL(request.url, "http://desk");
    answer.setHeader("content-type", "text/html; charset=utf-8");
    if (request.method === "POST") {
      let content = "";
      for await (const piece of request) content += piece;
      taken.push(new URLSearchParams(content).get("note"));
      answer.end(html("It was taken."));
      return;
    }
    const content = pages[url.pathname]?.(answer, url);
    if (content !== null) answer.end(content ?? html("somewhere"));
  });
  server.on("upgrade", (request, socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    const accept = createHash("sha1").update(request.headers["sec-websocket-key"] + MAGIC).digest("base64");
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ${accept}\r\n\r\n`,
    );
    // Clients mask what they send (RFC 6455 §5.3); these messages are short and come whole.
    socket.on("data", (frame) => {
      if ((frame[0] & 15) !== 1) return socket.end();
      const mask = frame.subarray(2, 6);
      const text = frame.subarray(6, 6 + (frame[1] & 127)).map((byte, at) => byte ^ mask[at % 4]);
      return socket.write(Buffer.concat([Buffer.from([0x81, text.length]), text]));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    taken,
    stop() {
      for (const socket of sockets) socket.destroy();
      server.closeAllConnections();
      server.close();
    },
  };
}
