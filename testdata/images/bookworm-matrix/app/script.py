"""Asks the server at BACKEND with three libraries, and a database."""
import os
import sys
import urllib.request

import requests
import urllib3

from stock import lamps

backend = os.environ["BACKEND"]
print(sys.argv, sys.executable, sys.flags, sys.stdout.encoding)
print("requests", requests.get(f"{backend}/requests?pid={os.getpid()}", timeout=10).text)
print("urllib3", urllib3.PoolManager().request("GET", f"{backend}/urllib3?pid={os.getpid()}").data)
with urllib.request.urlopen(f"{backend}/urllib?pid={os.getpid()}", timeout=10) as answer:
    print("urllib", answer.read())
print("sqlite3", lamps(), end="")
