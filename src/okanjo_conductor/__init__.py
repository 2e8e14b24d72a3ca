"""Hand a batch of jobs to long-lived worker processes and see every one of them through."""
