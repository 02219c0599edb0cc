"""The app that prove.py and native.py run: proof_app.py [DISTRIBUTION VERSION]....

It makes what prove.py expects to arrive. With PROOF_PROTOBUF set, protobuf must
be of that implementation: "upb" or "python". Valid from Python 3.7 on.
"""
import logging
import os
import sqlite3
import sys
import threading

from flask import Flask
from opentelemetry import metrics, trace

tracer = trace.get_tracer("proof")
counter = metrics.get_meter("proof").create_counter("a.counter")
app = Flask(__name__)
database = sqlite3.connect(":memory:", check_same_thread=False)


@app.route("/<number>")
def view(number):
    attributes = {
        "number": int(number),
        "text": "naïve ☃",
        "large": 2**62,
        "ratio": 0.1,
        "yes": True,
        "words": ["a", "b"],
    }
    with tracer.start_as_current_span("work", attributes=attributes) as span:
        span.add_event("an event", {"key": "value"})
        counter.add(1, {"key": "value"})
    return "done"


def serve():
    client = app.test_client()
    for number in range(-128, 128):
        assert client.get("/%d" % number).data == b"done"
    cursor = database.cursor()
    cursor.execute("SELECT 1")


class Keep(logging.Handler):
    def emit(self, record):
        pass


logging.getLogger().addHandler(Keep())
thread = threading.Thread(target=serve)
thread.start()
thread.join()
logging.warning("a warning")

for name, version in zip(sys.argv[1::2], sys.argv[2::2]):
    from importlib.metadata import distribution

    found = distribution(name)
    if found.version != version:
        sys.exit("the app's %s was not found, but %s" % (version, found.version))
    files = {str(found.locate_file(file)) for file in found.files}
    if not any(getattr(module, "__file__", None) in files for module in list(sys.modules.values())):
        sys.exit("the app's %s was not imported" % name)

if "PROOF_PROTOBUF" in os.environ:
    from google.protobuf.internal import api_implementation

    if api_implementation.Type() != os.environ["PROOF_PROTOBUF"]:
        sys.exit("protobuf's implementation is " + api_implementation.Type())
