"""`kill -9` at random moments: `python -m tests.killed` shows that commands go on, or start over, to the same results."""
