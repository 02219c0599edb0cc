"""A shop whose pages show one library each."""
import logging
import os
import sys
import urllib.request

import requests
import sqlalchemy
from flask import Flask, jsonify, request

from info import info

app = Flask(__name__)
engine = sqlalchemy.create_engine("sqlite://")


@app.route("/")
def index():
    """Logs a line and asks the database."""
    logging.getLogger("shop").warning("an order of %s", request.args.get("article"))
    with engine.connect() as connection:
        return jsonify(answer=connection.execute(sqlalchemy.text("SELECT 6 * 7")).scalar())


@app.route("/call")
def call():
    """Calls the application itself with the standard library's client."""
    with urllib.request.urlopen(request.host_url + "headers", timeout=10) as answer:
        return answer.read()


@app.route("/requests")
def call_with_requests():
    return requests.get(request.host_url + "headers", timeout=10).text


@app.route("/headers")
def headers():
    return jsonify({name.lower(): value for name, value in request.headers})


@app.route("/info")
def environment():
    return jsonify(info())


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]), debug="--debug" in sys.argv)
