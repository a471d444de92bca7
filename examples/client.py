#!/usr/bin/env python3
"""Prints the messages of a channel as they come: a loop of ordinary HTTP requests.

    examples/client.py [--date-only] [--count N] http://localhost:8080/sub?id=demo

Each reply says where it stands in the channel, in its headers Last-Modified and Etag. Sending them back as
If-Modified-Since and If-None-Match asks for what comes after it. That is the whole protocol.

Last-Modified counts in seconds, and the Etag tells the messages of one second apart. With --date-only this client
looks at Last-Modified alone, as the one in the guide to nginx_http_push_module did: that is enough as long as no two
messages share a second (of two that do, it gets the second one again and again, until there is a newer one).
"""

import argparse
import http.client
import sys
import time
import urllib.parse

RETRY_AFTER = 2  # seconds


def connect(url):
    """An unopened connection to the server of a URL. It opens itself with the first request."""
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    # No timeout: it is the purpose of the request to wait.
    return kind(url.hostname, url.port)


def listen(url, date_only=False):
    """Yields the body of each message, for ever."""
    target = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
    cursor = {}
    connection = connect(url)
    while True:
        try:
            connection.request("GET", target, headers=cursor)
            reply = connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException) as error:
            print(f"no connection ({error!r}), trying again", file=sys.stderr)
            connection.close()
            time.sleep(RETRY_AFTER)
            continue

        if reply.status in (200, 304):
            if reply.headers["Last-Modified"]:
                cursor["If-Modified-Since"] = reply.headers["Last-Modified"]
            if reply.headers["Etag"] and not date_only:
                cursor["If-None-Match"] = reply.headers["Etag"]
        if reply.status == 200:
            if reply.headers["Push-Missed"]:
                print(f"missed: {reply.headers['Push-Missed']}", file=sys.stderr)
            yield body
        elif reply.status != 304:  # 304: nothing new for as long as the server waits
            print(f"{reply.status} {reply.reason}, trying again", file=sys.stderr)
            time.sleep(RETRY_AFTER)


def main():
    parser = argparse.ArgumentParser(description="Print the messages of a channel as they come.")
    parser.add_argument("url", help="the subscriber location, e.g. http://localhost:8080/sub?id=demo")
    parser.add_argument("--date-only", action="store_true", help="do not send back the Etag")
    parser.add_argument("--count", type=int, default=0, help="end after so many messages (0: never)")
    arguments = parser.parse_args()
    url = urllib.parse.urlsplit(arguments.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        parser.error(f"not a URL of a web server: {arguments.url}")

    received = 0
    for body in listen(url, arguments.date_only):
        sys.stdout.buffer.write(body + b"\n")
        sys.stdout.buffer.flush()
        received += 1
        if received == arguments.count:
            break


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
