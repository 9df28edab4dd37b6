"""A program that calls a model: `python -m tests.doctor.caller ADDRESS MODEL THREADS [RELEASE]`."""

import sys
import threading
import time

import zstreamer

if __name__ == "__main__":
    address, model, threads, *release = sys.argv[1:]
    if release:
        zstreamer.__version__ = release[0]
    client = zstreamer.Client(address, model=model)

    def call():
        while True:
            client.predict([1])

    for _ in range(int(threads)):
        threading.Thread(target=call, daemon=True).start()
    time.sleep(60)
