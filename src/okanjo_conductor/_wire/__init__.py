"""What travels between the conductor and one worker, as bytes.

Pure: no socket, no process.

frames      a length-prefixed frame with out-of-band buffers; reader and outbox
messages    one frozen type per message, both directions
pickling    pickle, without what takes long to load
codec       values (payloads, results, message data) to bytes and back
records     the outcome log that the worker writes into its result pipe
failures    an exception, taken apart to travel and rebuilt on the other side
byvalue     classes and functions of ``__main__``, sent by value once per worker
functions   simple functions of ``__main__``, without cloudpickle
connection  frames and messages together; the same class for both ends
"""
