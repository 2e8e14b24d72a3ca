"""What ``progress=True`` shows: a live view, a bar, or a line now and then, on standard error.

    view      the thread that draws, from snapshots; nothing of it runs in the thread of the run
    screens   chooses what to show: by the terminal, and by what is installed
    live      a line per worker, with rich
    bars      a bar, with tqdm, also in notebooks
    plain     a line now and then
    layout    what a snapshot looks like in lines of text; pure
    streams   what is printed while a view stands at the bottom of the terminal goes above it

It is loaded by runs that show their progress. A view that fails never harms the run.
"""
