from shop.celery import app
from shop.process import process
from shop.stock import lamps


@app.task
def stock():
    return {"lamps": lamps(), **process()}
