import os

from flask import Flask
import redis

app = Flask(__name__)
store = redis.Redis()


@app.get("/")
def index():
    return repr(store)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
