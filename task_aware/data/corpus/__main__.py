"""`python -m task_aware.data.corpus`: makes the built-in corpus of synthesised sounds and prints its folder."""

from task_aware.data.corpus import main

main()
