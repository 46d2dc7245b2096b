// exp(x) in float32 for x <= 0, without a branch, so that the compiler can take whole vectors: 2^n exp(r) with
// |r| <= ln 2 / 2 and exp(r) a polynomial fitted there. Within two units of the last place.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct Exponential {
    float part;     // exp(r)
    int32_t whole;  // n
};

inline Exponential exponential(float y) {
    const float n = std::nearbyint(y * 1.44269504f);
    const float r = (y - n * 0.693145752f) - n * 1.42860677e-6f;
    float e = 1.3948590e-3f;
    e = e * r + 8.3751353e-3f;
    e = e * r + 4.1666217e-2f;
    e = e * r + 1.6666415e-1f;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    return {e, static_cast<int32_t>(n == n ? n : 0.0f)};
}

inline float power_of_two(int32_t n) {
    const int32_t bits = (n + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}

// Below -87 it is 0.
inline float exp_below_zero(float x) {
    const float y = x > -87.0f ? x : (x == x ? -87.0f : x);
    const Exponential e = exponential(y);
    const float found = e.part * power_of_two(e.whole);
    return x < -87.0f ? 0.0f : found;
}

// Down to the smallest subnormal number: two powers of two, neither of which is subnormal.
inline float exp_gradual(float x) {
    const float y = x > -105.0f ? x : (x == x ? -105.0f : x);
    const Exponential e = exponential(y);
    const int32_t half = e.whole / 2;
    return e.part * power_of_two(half) * power_of_two(e.whole - half);
}
