import time

import requests
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from process import process
from stock import lamps


def index(request):
    stock = requests.get(str(request.base_url) + "stock", timeout=10).json()
    return JSONResponse({"stock": stock, **process()})


def stock(request):
    return JSONResponse({"lamps": lamps(), **process()})


async def work(request):
    time.sleep(0.1)  # on the event loop: meanwhile another worker has to answer
    return JSONResponse(process())


app = Starlette(routes=[Route("/", index), Route("/stock", stock), Route("/work", work)])
