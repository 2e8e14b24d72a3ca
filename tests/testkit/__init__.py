"""The public test kit, and what it proves."""
