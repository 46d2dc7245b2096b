// What every source of the library shares.
#pragma once

#include <cstddef>
#include <cstdint>

// Numbers from which a loop is shared among threads. Below, one thread is done before others have woken up, and on a
// busy machine waiting for one that does not get a core takes milliseconds.
constexpr int64_t WIDE = int64_t(1) << 18;

// Functions that Python calls: plain names, visible outside the library.
#define CIRCUITLAB_API extern "C" __attribute__((visibility("default")))
