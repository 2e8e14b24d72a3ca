"""Acts: sockets, pipes, shared memory, processes. One thing per module, no policy.

cells      the shared page in which a worker claims ordinals and the conductor revokes them
links      what connects a conductor with one worker, made in pairs of ends
deadman    workers end with their conductor, whatever either of them is doing
forkserver the clean process that starts workers, as the conductor sees it
bootstrap  the first message to a new process: how to find the package and the worker
"""
