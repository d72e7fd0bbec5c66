"""Canaille, an OpenID provider, on a port that the system picks: tells its issuer, then does what stdin says, a line each."""

import json
import socket
import sys
import threading

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from werkzeug.serving import make_server

listener = socket.create_server(("127.0.0.1", 0))
name = f"127.0.0.1:{listener.getsockname()[1]}"
app = create_app({
    "SECRET_KEY": "only tests know it, and it signs nothing else",
    "SERVER_NAME": name,
    "PREFERRED_URL_SCHEME": "http",
    "TRUSTED_HOSTS": [name],
    "CANAILLE": {"DATABASE": "memory", "SMTP": None, "FORCE_HTTPS": False},
    # Clients at these hosts are taken for the provider's own, which ask for no consent.
    "CANAILLE_OIDC": {"TRUSTED_DOMAINS": ["localhost"]},
})


def user(user_name, password):
    Backend.instance.save(models.User(
        user_name=user_name, formatted_name=user_name.title(), family_name=user_name.title(),
        emails=[f"{user_name}@example.com"], password=password))


def group(display_name, members):
    found = Backend.instance.get(models.Group, display_name=display_name)
    members = [Backend.instance.get(models.User, user_name=one) for one in members]
    if found:
        Backend.instance.update(found, members=members)
    Backend.instance.save(found or models.Group(display_name=display_name, members=members))


def client(client_id, client_secret, origin, redirect_uris, post_logout_redirect_uris):
    one = models.Client(
        client_id=client_id, client_secret=client_secret, client_name="Gate", client_uri=origin,
        redirect_uris=redirect_uris, post_logout_redirect_uris=post_logout_redirect_uris,
        grant_types=["authorization_code", "refresh_token"], response_types=["code"],
        scope=["openid", "profile", "email", "groups"], token_endpoint_auth_method="client_secret_basic")
    Backend.instance.save(one)
    Backend.instance.update(one, audience=[one])
    Backend.instance.save(one)


server = make_server("127.0.0.1", 0, app, fd=listener.fileno())
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"http://{name}", flush=True)
for line in sys.stdin:
    with app.app_context():
        for what, arguments in json.loads(line).items():
            {"user": user, "group": group, "client": client}[what](**arguments)
    print("done", flush=True)
