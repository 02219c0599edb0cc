"""A web application whose answers are the results of tasks."""
from flask import Flask, jsonify

import tasks
from process import process

app = Flask(__name__)


@app.route("/")
def index():
    return jsonify(stock=tasks.stock.delay().get(timeout=60), **process())


@app.route("/work")
def work():
    return jsonify(tasks.work.delay().get(timeout=60))
