import os
import sys

import requests


def ask(path):
    print(requests.get(f"{os.environ['BACKEND']}{path}?pid={os.getpid()}", timeout=10).text, flush=True)


if __name__ == "__main__":
    ask(sys.argv[1])
