import os

from flask import Flask
import jinja2

app = Flask(__name__)


@app.get("/")
def index():
    return jinja2.Template("a {{ what }}").render(what="shop")


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]))
