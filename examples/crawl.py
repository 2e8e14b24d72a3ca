"""Crawls a site: every page there is, each once, found by following links.

The site is a server of this script's own, whose pages take 50 ms each, as on the internet. One job
is one page; a worker process has 200 of them in flight.

    async jobs     `AsyncConductorWorker`: what waits costs nothing
    add_job        a page's links become jobs; the run is over when the last of them is done
    lookup         "found" says which page was the first to link to another, so that none is
                   fetched twice, also when a page has to be read again
    sticky         how to introduce oneself is told to every worker, also to later ones

    python examples/crawl.py [--pages N] [--workers N] [--connections N] [--sync]

`--sync` fetches one page at a time in each worker, for comparison.
"""

import argparse
import asyncio
import random
import re
import subprocess
import sys
import urllib.request

from okanjo_conductor import ABSENT, AsyncConductorWorker, Conductor, ConductorWorker, command

LATENCY = 0.05
"""Seconds that the server takes for each page."""
LINKS = 8
"""How many links there are on a page, but for the one that makes all pages reachable."""
LINK = re.compile(r'href="/(\d+)"')


# ------------------------------------------------------------------------------- in the workers


class Introduced:
    """Learns from the conductor how to introduce itself."""

    agent = "nobody"

    @command("configure")
    def configure(self, message):
        """Take note of the configuration."""
        self.agent = message.data["agent"]


class Crawler(Introduced, AsyncConductorWorker):
    """Fetches a page, and adds those that it is the first to link to."""

    async def process_job(self, job):
        """Return the size of a page and how its reader has introduced itself."""
        host, port, page = job
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET /{page} HTTP/1.0\r\nUser-Agent: {self.agent}\r\n\r\n".encode())
        head, _, text = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        if " 200 " not in head.splitlines()[0]:
            raise OSError(head.splitlines()[0])
        links = LINK.findall(text)
        found = await self.lookup_many("found", links)
        for link in dict.fromkeys(links):
            if link not in found and await self.compare_and_set("found", link, ABSENT, page):
                found[link] = page
            if found.get(link) == page:
                self.add_job((host, port, link))
        return len(text), self.agent


class SlowCrawler(Introduced, ConductorWorker):
    """The same, one page at a time."""

    def process_job(self, job):
        """Return the size of a page and how its reader has introduced itself."""
        host, port, page = job
        request = urllib.request.Request(
            f"http://{host}:{port}/{page}", headers={"User-Agent": self.agent}
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - a server of our own
            text = answer.read().decode()
        links = LINK.findall(text)
        found = self.lookup_many("found", links)
        for link in dict.fromkeys(links):
            if link not in found and self.compare_and_set("found", link, ABSENT, page):
                found[link] = page
            if found.get(link) == page:
                self.add_job((host, port, link))
        return len(text), self.agent


# --------------------------------------------------------------------------------- in the server


async def serve(pages):
    """Serve so many pages until standard input ends; print the port."""

    async def answer(reader, writer):
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        page = int(request.split()[1].removeprefix("/"))
        await asyncio.sleep(LATENCY)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + content(page, pages).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


def content(page, pages):
    """Make a page, the same each time: it links to the next one, and to others at random."""
    dice = random.Random(page)
    links = [page * 2 + 1, page * 2 + 2, *(dice.randrange(pages) for _ in range(LINKS))]
    anchors = (f'<a href="/{link}">page {link}</a>' for link in links if link < pages)
    return f"<h1>Page {page}</h1>{' and '.join(anchors)}"


# ---------------------------------------------------------------------------- in the main process


def crawl(port, options):
    """Crawl the site from page 0; return the pages read and the report."""
    kind = SlowCrawler if options.sync else Crawler
    conductor = Conductor(
        kind,
        jobs_queue=[("127.0.0.1", port, "0")],
        worker_limit=options.workers,
        lookups={"found": {"0": None}},
        **({} if options.sync else {"concurrency": options.connections}),
    )
    conductor.broadcast_message_to_workers("configure", {"agent": "crawl.py"}, sticky=True)
    pages, agents = [], set()
    for outcome in conductor.outcomes():
        _, agent = outcome.result()
        pages.append(outcome.job[2])
        agents.add(agent)
        if len(pages) % 1000 == 0:
            print(f"{len(pages):,} pages")
    print(f"all were read by {', '.join(agents)}")
    return pages, conductor.report


def main():
    """Start the server, crawl it, and tell how it went."""
    parser = argparse.ArgumentParser(description="Crawl a site that this script serves itself.")
    parser.add_argument("--pages", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=200, help="per worker")
    parser.add_argument("--sync", action="store_true", help="one page at a time in each worker")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.pages))
        return
    command_line = [sys.executable, __file__, "--serve", "--pages", str(options.pages)]
    with subprocess.Popen(command_line, stdin=-1, stdout=-1, text=True) as server:
        pages, report = crawl(int(server.stdout.readline()), options)
        server.stdin.close()
    print(report)
    rate = len(pages) / report.seconds
    print(f"{len(pages):,} pages, {len(set(pages)):,} different ones, {rate:,.0f} a second")


if __name__ == "__main__":
    main()
