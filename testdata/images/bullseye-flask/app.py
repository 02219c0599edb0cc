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
