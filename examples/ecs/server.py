"""The small server of the examples. Yours does the same in its own way: see the page on good servers."""

import http.server
import os
import signal
import ssl
import threading
import time
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    timeout = 75  # seconds that an idle connection stays open: longer than callers keep it


server = http.server.ThreadingHTTPServer(("", 8080), Handler)
if os.environ.get("CERTIFICATE"):
    Path("/tmp/cert.pem").write_text(os.environ["CERTIFICATE"])
    Path("/tmp/key.pem").write_text(os.environ["KEY"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("/tmp/cert.pem", "/tmp/key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
# ECS deregisters the task and sends SIGTERM at the same time. Serve on until callers have forgotten it.
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(15, server.shutdown).start())
server.serve_forever()
time.sleep(5)  # requests in flight end
