import time

import requests
from fastapi import FastAPI, Request

from process import process
from stock import lamps

app = FastAPI()


@app.get("/")
def index(request: Request):
    stock = requests.get(str(request.base_url) + "stock", timeout=10).json()
    return {"stock": stock, **process()}


@app.get("/stock")
def stock():
    return {"lamps": lamps(), **process()}


@app.get("/work")
async def work():
    time.sleep(0.1)  # on the event loop: meanwhile another worker has to answer
    return process()
