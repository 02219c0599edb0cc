import os

from flask import Flask
import sqlalchemy

app = Flask(__name__)
engine = sqlalchemy.create_engine("sqlite://")


@app.get("/")
def index():
    with engine.connect() as connection:
        return str(connection.scalar(sqlalchemy.text("select 42")))


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
