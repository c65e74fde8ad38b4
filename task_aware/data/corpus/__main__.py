"""`python -m task_aware.data.corpus`."""

from task_aware.data.corpus import main

main()
