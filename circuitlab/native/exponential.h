// exp(x) in float32 for x <= 0, without a branch, so that the compiler can take whole vectors: 2^n exp(r) with
// |r| <= ln 2 / 2 and exp(r) a polynomial fitted there. Within two units of the last place; below -87 it is 0.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

inline float exp_below_zero(float x) {
    const float y = x > -87.0f ? x : (x == x ? -87.0f : x);
    const float n = std::nearbyint(y * 1.44269504f);
    const float r = (y - n * 0.693145752f) - n * 1.42860677e-6f;
    float e = 1.3948590e-3f;
    e = e * r + 8.3751353e-3f;
    e = e * r + 4.1666217e-2f;
    e = e * r + 1.6666415e-1f;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    const float whole = n == n ? n : 0.0f;
    const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    const float found = e * power;
    return x < -87.0f ? 0.0f : found;
}
