"""The journal: what has become of jobs, in a file from which a run goes on after anything.

_store        the file, its tables, its lock
_writer       the thread that commits
_recovery     what a dead conductor left behind
_reader       reading it, from any program
_keys, _canonical, _values, _errors, _entries
              how keys, payloads, values, errors and outcomes stand in it
_feeding      sinks, in the same transactions
_fingerprint  what must not change
"""

from okanjo_conductor.journal._entries import JournalEntry
from okanjo_conductor.journal._reader import JournalReader, RunInfo, Suspect, open_journal

__all__ = ["JournalEntry", "JournalReader", "RunInfo", "Suspect", "open_journal"]
