import os

from flask import Flask
import pymysql

app = Flask(__name__)


@app.get("/")
def index():
    return pymysql.__version__


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
