"""A page that asks a database and another service."""
import os

import requests
import sqlalchemy
from flask import Flask, jsonify
from sqlalchemy.pool import StaticPool

app = Flask(__name__)
engine = sqlalchemy.create_engine(
    "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
)
with engine.begin() as connection:
    connection.execute(sqlalchemy.text("CREATE TABLE article (name TEXT, price INTEGER)"))
    connection.execute(sqlalchemy.text("INSERT INTO article VALUES ('lamp', 40), ('chair', 120)"))


@app.route("/")
def index():
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT name, price FROM article ORDER BY name"))
        articles = [{"name": name, "price": price} for name, price in rows]
    stock = requests.get(os.environ["BACKEND"], timeout=10).json()
    return jsonify(articles=articles, stock=stock)


@app.route("/ready")
def ready():
    return "ready"
