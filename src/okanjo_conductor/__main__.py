"""``python -m okanjo_conductor``: the command line."""

from okanjo_conductor.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
