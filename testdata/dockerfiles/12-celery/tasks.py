from celery import Celery
from celery.signals import worker_ready

app = Celery("tasks", broker="memory://")


@app.task
def add(x, y):
    return x + y


@worker_ready.connect
def send_one(**_):
    add.delay(1, 2)
