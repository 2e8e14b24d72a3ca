"""Requests both ways, with workers that are busy all the time.

Each worker looks for a number that, put behind a word, gives a SHA-256 digest with zeros in front.

- It asks the conductor how many zeros are wanted, and waits for the reply.
- It tells the conductor how far it is, and does not wait.
- It adds the next word itself, until the chain is long enough.
- When it has found a number it asks the conductor to check it. Before the conductor replies, it
  asks all workers how many numbers they have tried: they answer while they go on trying.

    python examples/chat.py --zeros 4
"""

import argparse
from hashlib import sha256

from okanjo_conductor import Conductor, ConductorWorker, command

WORDS = ("apple", "banana", "cherry", "date")


class Searcher(ConductorWorker):
    """Tries one number after another."""

    def __init__(self, length):
        super().__init__(logging=False)
        self.length = length
        """How many times a word is followed by another."""
        self.tried = 0

    def process_job(self, job):
        """Find the number of one word."""
        word, links = job
        zeros = self.request("how many zeros?")  # waits for the reply
        number = 0
        while not digest_of(word, number).startswith("0" * zeros):
            number += 1
            self.tried += 1
            if number % 1000 == 0:
                self.progress(1 - (1 - 16.0**-zeros) ** number, word)  # does not wait
        if links < self.length:
            self.add_job((digest_of(word, number), links + 1))
        return self.request("is it good?", (word, number))

    @command("how many have you tried?", during_job=True)
    def count(self, _msg):
        """Tell the conductor, while a job is at work."""
        return self.tried


def digest_of(word, number):
    """Return the digest of a word with a number behind it."""
    return sha256(f"{word}{number}".encode()).hexdigest()


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--zeros", type=int, default=5)
    parser.add_argument(
        "--length", type=int, default=2, help="links of each chain beyond the first"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    conductor = Conductor(
        Searcher,
        jobs_queue=[(word, 0) for word in WORDS],
        worker_limit=options.workers,
        worker_options={"length": options.length},
        logging=False,
    )

    @conductor.command("how many zeros?")
    def tell(_msg):
        return options.zeros

    @conductor.command("is it good?")
    def check(msg):
        digest = digest_of(*msg.data)
        tried = conductor.broadcast("how many have you tried?", timeout=30).result()
        everybody = ", ".join(f"worker {who}: {count}" for who, count in sorted(tried.items()))
        print(f"{digest[:12]} from worker {msg.worker_id}; numbers tried: {everybody}")
        return digest.startswith("0" * options.zeros)

    @conductor.on("job_progress")
    def show(progress):
        who, chance = progress.worker_id, progress.fraction
        print(f"worker {who} should have had its number with a chance of {chance:.0%}")

    good = [outcome.result() for outcome in conductor.outcomes()]
    print(f"{sum(good)} numbers found, {len(good)} looked for")


if __name__ == "__main__":
    main()
