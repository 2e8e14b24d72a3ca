"""Long runs with violence: `make soak`, and a short one in the suite."""
