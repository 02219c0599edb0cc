import time

import requests
from django.http import JsonResponse
from django.urls import path

from shop.process import process
from shop.stock import lamps


def index(request):
    stock = requests.get(request.build_absolute_uri("/stock"), timeout=10).json()
    return JsonResponse({"stock": stock, **process()})


def stock(request):
    return JsonResponse({"lamps": lamps(), **process()})


def task(request):
    from shop.tasks import stock

    return JsonResponse({"stock": stock.delay().get(timeout=60), **process()})


def work(request):
    time.sleep(0.1)
    return JsonResponse(process())


urlpatterns = [path("", index), path("stock", stock), path("task", task), path("work", work)]
