"""Says what machine it runs on."""
import os
import platform

from flask import Flask

app = Flask(__name__)


@app.get("/")
def machine():
    return platform.machine()


app.run(port=int(os.environ["PORT"]))
