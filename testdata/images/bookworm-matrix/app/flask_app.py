import os
import time

import requests
from flask import Flask, jsonify, request

from process import process
from stock import lamps

app = Flask(__name__)


@app.route("/")
def index():
    stock = requests.get(request.host_url + "stock", timeout=10).json()
    return jsonify(stock=stock, **process())


@app.route("/stock")
def stock():
    return jsonify(lamps=lamps(), **process())


@app.route("/work")
def work():
    time.sleep(0.1)
    return jsonify(process())


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
