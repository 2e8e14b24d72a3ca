"""The single-file example of the Node module's manual, in Python.

It shows the Node way to say what a worker is: no worker is given to the conductor. Each worker
process runs this script again, finds that `is_worker()` is true, and starts the worker that its
`worker_type` names.

    python examples/squares.py
"""

import os
import threading

from okanjo_conductor import LATER, Conductor, ConductorWorker, is_worker

SECONDS = float(os.environ.get("SQUARES_SECONDS", "1"))
"""How long each job pretends to take."""

if not is_worker():
    conductor = Conductor(
        worker_type="my_math_processor",
        worker_limit=2,  # at most keep 2 workers alive
        logging=False,
    )

    def generate_jobs():
        """Queue the jobs. The conductor above could also have been given `jobs_queue=range(10)`."""
        for number in range(10):
            conductor.jobs_queue.append(number)  # numbers here, but you could queue anything

    conductor.generate_jobs = generate_jobs

    @conductor.on("error")
    def report_crash(error):
        """Say which worker crashed. Its job has gone back to the queue."""
        print("Handle your big bad errors here", error)

    @conductor.once("end")
    def say_goodbye():
        """Say that every job has its outcome."""
        print("All jobs finished processing")

    conductor.run()

elif os.environ["worker_type"] == "my_math_processor":

    class MyMathProcessor(ConductorWorker):
        """Squares numbers, slowly."""

        def __init__(self):
            super().__init__(logging=False)

        def process_job(self, job):
            """Show the square at once, and complete the job later."""
            print(f"Worker {self.worker_id}, Job {job} => the square is {job * job}")

            # let's pretend that this took a while to complete
            threading.Timer(SECONDS, self.complete_job, args=(None, job)).start()
            return LATER

    MyMathProcessor().start()
    # this process will end when there are no more jobs to process
