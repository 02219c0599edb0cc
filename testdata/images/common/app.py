"""The shop as a Flask application."""
import os

from flask import Flask, jsonify, request

from info import info
from shop import order, stock

app = Flask(__name__)


@app.route("/")
def index():
    return jsonify(order(request.host_url.rstrip("/")))


@app.route("/stock")
def in_stock():
    return jsonify(stock())


@app.route("/info")
def environment():
    return jsonify(info())


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
