"""A shop with two articles: the part that all the applications share.

An order asks a database and, over HTTP, the application itself, so that one
request makes a trace of several libraries and two server spans.
"""
import requests
import sqlalchemy
from sqlalchemy.pool import StaticPool

engine = sqlalchemy.create_engine(
    "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
)
with engine.begin() as connection:
    connection.execute(sqlalchemy.text("CREATE TABLE article (name TEXT, price INTEGER)"))
    connection.execute(sqlalchemy.text("INSERT INTO article VALUES ('lamp', 40), ('chair', 120)"))


def order(base):
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT name, price FROM article ORDER BY name"))
        articles = [{"name": name, "price": price} for name, price in rows]
    stock = requests.get(base + "/stock", timeout=10).json()
    return {"articles": articles, "stock": stock}


def stock():
    return {"chair": 4, "lamp": 11}
