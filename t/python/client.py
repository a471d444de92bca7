"""Prints every message of a channel, a line each: client.py URL. Comes again after the last id."""

import asyncio
import sys
from urllib.parse import quote

import websockets


async def receive(url):
    last = ""
    while True:
        try:
            target = url + (f"&last_event_id={quote(last)}" if last else "")
            async with websockets.connect(target, subprotocols=["ws+meta.nchan"]) as socket:
                async for frame in socket:
                    head, _, body = frame.partition("\n\n")
                    last = dict(line.split(": ", 1) for line in head.split("\n"))["id"]
                    print(body, flush=True)
            if socket.close_code == 1001:
                print("end", flush=True)
                return
        except (OSError, websockets.WebSocketException):
            pass
        await asyncio.sleep(0.05)


asyncio.run(receive(sys.argv[1]))
