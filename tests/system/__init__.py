"""Real processes, real kills: what users see."""
