"""Acts: sockets, pipes, shared memory, processes. One thing per module, no policy.

cells      the shared page in which a worker claims ordinals and the conductor revokes them
links      what connects a conductor with one worker, made in pairs of ends
conductor_link, worker_link: these links, as either side uses them
deadman    workers end with their conductor, whatever either of them is doing
launching  starting a process that serves this one
bootstrap  the first words to a new process, before there is a worker
assignment what this process is: a conductor's own, or a worker of one
leaving    how a worker process ends
files      reading small files of the kernel's
loops, light_loop  event loops: asyncio's, and one that is there at once
loggers    the conductor's logger, loaded when something is logged
cpus       how many CPUs this process may use
"""
