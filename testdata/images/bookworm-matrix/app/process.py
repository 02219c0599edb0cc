"""What the tests want to know of the process that answers."""
import os


def process():
    with open("/proc/1/cmdline") as file:
        return {"init": file.read().split("\0")[:-1], "pid": os.getpid()}
