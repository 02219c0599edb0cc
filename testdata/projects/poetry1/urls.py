import django
from django.http import HttpResponse
from django.urls import path


def index(request):
    return HttpResponse(f"Django {django.__version__}")


urlpatterns = [path("", index)]
