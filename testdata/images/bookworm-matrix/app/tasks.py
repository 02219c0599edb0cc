"""Celery's worker, and the tasks that web applications send to it."""
import os
import time

from celery import Celery

from process import process
from stock import lamps

app = Celery("tasks", broker=os.environ["REDIS"], backend=os.environ["REDIS"])


@app.task
def stock():
    return {"lamps": lamps(), **process()}


@app.task
def work():
    time.sleep(0.1)
    return process()
