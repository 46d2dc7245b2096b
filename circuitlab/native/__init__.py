"""Loops in C++ that are built at first use where the machine has a compiler; every one has a torch twin above.

    if native.available():
        add = native.function("circuitlab_name", (c_void_p, c_int64))
        add(tensor.data_ptr(), tensor.numel())

`CIRCUITLAB_NATIVE=0` turns them off, and so does `with native.disabled():`. Nothing here knows torch: callers hand in
addresses, sizes and the number of threads.
"""

from circuitlab.native.loader import about, available, disabled, function, library, reason

__all__ = ["about", "available", "disabled", "function", "library", "reason"]
