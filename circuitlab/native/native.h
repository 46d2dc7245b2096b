// What every source of the library shares.
#pragma once

#include <cstddef>
#include <cstdint>

// Functions that Python calls: plain names, visible outside the library.
#define CIRCUITLAB_API extern "C" __attribute__((visibility("default")))
