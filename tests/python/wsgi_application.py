"""Flask or Django behind the standard library's WSGI server: what such an application makes of a request.

Usage: wsgi_application.py flask|django ADDRESS LOG. Prints the port. Each request that reaches a view is one line of
JSON in LOG: the view, the method as the framework tells it, the caller as the application reads it."""

import json
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

METHODS = ["GET", "POST", "PUT", "DELETE"]


def record(view, method, environ):
    line = {
        "view": view,
        "method": method,
        "path": environ.get("PATH_INFO"),
        "caller": environ.get("HTTP_WEFT_CLIENT_ID"),
        "key": environ.get("HTTP_API_KEY"),
    }
    with open(LOG, "a") as log:
        log.write(json.dumps(line) + "\n")
    return view


def flask_application():
    from flask import Flask, request

    application = Flask("application")

    @application.route("/admin", methods=METHODS)
    @application.route("/admin/<path:rest>", methods=METHODS)
    def admin(rest=None):
        return record("admin", request.method, request.environ)

    @application.route("/", methods=METHODS)
    @application.route("/<path:rest>", methods=METHODS)
    def other(rest=None):
        return record("other", request.method, request.environ)

    return application


def django_application():
    """Its routes ignore case, as an application may choose."""
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import re_path

    def view(name):
        return lambda request, rest=None: HttpResponse(record(name, request.method, request.META))

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=sys.modules[__name__],
        SECRET_KEY="for tests",
        MIDDLEWARE=[],
    )
    django.setup()
    sys.modules[__name__].urlpatterns = [
        re_path(r"(?i)^admin(?P<rest>/.*)?$", view("admin")),
        re_path(r"^(?P<rest>.*)$", view("other")),
    ]
    return get_wsgi_application()


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *_):
        pass


if __name__ == "__main__":
    _, framework, address, LOG = sys.argv
    made = {"flask": flask_application, "django": django_application}[framework]()
    server = make_server(address, 0, made, Server, Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
