import os

from aiohttp import ClientSession, web

from process import process
from stock import lamps


async def index(request):
    async with ClientSession() as session, session.get(request.url.join(request.rel_url.with_path("/stock"))) as answer:
        stock = await answer.json()
    return web.json_response({"stock": stock, **process()})


async def stock(request):
    return web.json_response({"lamps": lamps(), **process()})


app = web.Application()
app.add_routes([web.get("/", index), web.get("/stock", stock), web.get("/work", stock)])

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]))
