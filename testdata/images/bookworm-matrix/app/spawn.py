"""Starts processes that work as child.py does."""
import multiprocessing
import subprocess
import sys

import child

if __name__ == "__main__":
    print("subprocess", subprocess.run([sys.executable, "child.py", "/subprocess"], check=True).returncode)
    process = multiprocessing.get_context("spawn").Process(target=child.ask, args=("/spawn",))
    process.start()
    process.join()
    print("spawn", process.exitcode)
