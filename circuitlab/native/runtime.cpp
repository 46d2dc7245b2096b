// What the build can do.
#include "native.h"

// Version of OpenMP that the library was built with, 0 where it runs on one thread.
CIRCUITLAB_API int circuitlab_openmp(void) {
#ifdef _OPENMP
    return _OPENMP;
#else
    return 0;
#endif
}
