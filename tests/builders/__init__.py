"""What tests build and look at: sources, label files, records, dataset versions, runs."""

import os

# Tiny models gain nothing from more threads, and threads of tests that run side by side wait for
# each other. Set before torch is loaded, and for the processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
