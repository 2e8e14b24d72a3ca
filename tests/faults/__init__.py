"""Real processes, real kills: whatever dies, every job has exactly one outcome."""
