import os

from flask import Flask
import requests

app = Flask(__name__)


@app.get("/")
def index():
    return requests.__version__


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
