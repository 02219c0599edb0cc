import requests
from django.db import connection
from django.http import JsonResponse
from django.urls import path

from info import info


def index(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 6 * 7")
        (answer,) = cursor.fetchone()
    return JsonResponse({"answer": answer, "requests": requests.__version__})


urlpatterns = [
    path("", index),
    path("info", lambda request: JsonResponse(info())),
]
