"""The article's answer after 10 ms of CPU, to measure proxies with."""

import time


def app(environ, start_response):
    began = time.thread_time()
    while time.thread_time() - began < 0.010:
        pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])
    return [b"Hello, client!"]
