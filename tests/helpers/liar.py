"""A web server that answers rightly or not, as the path says: what checks of answers are tried on.

    python tests/helpers/liar.py PORT

A question is {"s": TEXT}, its right answer [LAST WORD OF TEXT].
"""

import asyncio
import json
import sys

waiting = []
"""Those whose answers are to be exchanged: writer and answer of at most one."""


def exchange(writer, answer):
    """Keep an answer until another one is there, and give each of the two callers the other's."""
    if not waiting:
        waiting.append((writer, answer))
        return
    other, its_answer = waiting.pop()
    send(writer, its_answer)
    send(other, answer)


def send(writer, answer, status="200 OK"):
    body = json.dumps([answer]).encode()
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


WAYS = {
    "/right": send,
    "/exchanged": exchange,
    "/same": lambda writer, answer: send(writer, "w1"),
    "/error": lambda writer, answer: send(writer, answer, "500 Internal Server Error"),
    "/closed": lambda writer, answer: writer.close(),
    "/mute": lambda writer, answer: None,
}


async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.split("content-length: ")[1].split("\r\n")[0])
            text = json.loads(await reader.readexactly(size))["s"]
            WAYS[head.split()[1]](writer, text.split()[-1])
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main(port):
    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
