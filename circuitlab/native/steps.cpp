// The solvers' own loops: what one iteration does between the products. State is [row, sample], rows side by side.
//
// Samples are split over threads in fixed chunks and every sum of a sample runs over the rows in order, so that the
// results do not depend on the number of threads.
#include "native.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace {

constexpr int64_t CHUNK = 16;    // samples side by side in one pass over the rows
constexpr int64_t FLUSH = 256;   // rows summed in the working precision before they go into a double
constexpr int DEEPEST = 64;      // history that the fixed arrays on the stack can hold

// Activation kinds; the order is that of circuitlab/dynamics/activations.py.
enum Kind { TANH = 0, SIGMOID = 1, SOFTPLUS = 2, ELU = 3, LINEAR = 4, RELU = 5, LEAKY_RELU = 6 };

template <typename T> inline T slope_of(int kind, T phi, T rate, T leak) {
    switch (kind) {
        case TANH: return T(1) - rate * rate;
        case SIGMOID: return rate * (T(1) - rate);
        case SOFTPLUS: return T(1) / (T(1) + std::exp(-phi));
        case ELU: return phi > T(0) ? T(1) : rate + T(1);
        case RELU: return phi > T(0) ? T(1) : T(0);
        case LEAKY_RELU: return phi > T(0) ? T(1) : leak;
        default: return T(1);
    }
}

// psi = sigma'(phi) raw for smooth activations, the resolvent of the inclusion on a kink; next = prediction + psi.
template <typename T, int kind>
void gate_rows(int64_t first, int64_t last, const T* phi, const T* rate, const T* raw, const T* prediction, T* psi,
               T* next, T low, T high) {
    for (int64_t i = first; i < last; ++i) {
        T control;
        if (kind == RELU || kind == LEAKY_RELU) {
            const T p = prediction[i], r = raw[i];
            const T unique = std::min(std::max(-p, high * r), low * r);
            const bool above = (p + low * r > T(0)) || ((phi[i] > T(0)) && (p + high * r > T(0)));
            control = r < T(0) ? unique : (above ? high * r : low * r);
        } else {
            control = slope_of<T>(kind, phi[i], rate[i], low) * raw[i];
        }
        psi[i] = control;
        next[i] = prediction[i] + control;
    }
}

template <typename T>
void gate(int kind, int kinked, int64_t count, const T* phi, const T* rate, const T* raw, const T* prediction, T* psi,
          T* next, double low, double high, int threads) {
    const int64_t part = 4096, parts = (count + part - 1) / part;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1 && parts > 3) schedule(static)
    for (int64_t p = 0; p < parts; ++p) {
        const int64_t a = p * part, b = std::min(count, a + part);
#define CASE(K) case K: gate_rows<T, K>(a, b, phi, rate, raw, prediction, psi, next, T(low), T(high)); break;
        if (kinked || (kind != RELU && kind != LEAKY_RELU)) {
            switch (kind) { CASE(TANH) CASE(SIGMOID) CASE(SOFTPLUS) CASE(ELU) CASE(RELU) CASE(LEAKY_RELU)
                default: gate_rows<T, LINEAR>(a, b, phi, rate, raw, prediction, psi, next, T(low), T(high)); }
        } else {
            for (int64_t i = a; i < b; ++i) {
                psi[i] = (phi[i] > T(0) ? T(high) : T(low)) * raw[i];
                next[i] = prediction[i] + psi[i];
            }
        }
#undef CASE
    }
}

// Differences, their Gram matrix per block, and the norms of residual and image. See circuitlab/solve/history.py.
template <typename T>
struct Observation {
    int64_t samples, blocks;
    const int64_t* edges;   // [block + 1] rows at which blocks begin
    const T *state, *image;
    T *last_state, *last_residual, *states, *residuals;  // [row, sample], [depth, row, sample]
    int64_t depth, filled, place;                        // place < 0: there is no difference yet
    const uint8_t* fresh;                                // [sample]
    double *norms, *gram, *right;  // [block, 2, sample], [block, depth, depth, sample], [block, depth, sample]
};

template <typename T, int WIDTH> void observe_chunk(const Observation<T>& o, int64_t c0, int64_t width_) {
    const int64_t width = WIDTH ? WIDTH : width_;
    const int64_t B = o.samples, size = o.edges[o.blocks] * B;
    T keep[CHUNK];
    for (int64_t c = 0; c < width; ++c) keep[c] = o.fresh[c0 + c] ? T(0) : T(1);
    for (int64_t block = 0; block < o.blocks; ++block) {
        double total[(2 + 2 * DEEPEST) * CHUNK];
        T sums[(2 + 2 * DEEPEST) * CHUNK];
        const int64_t count = (2 + 2 * o.filled) * width;
        std::fill(total, total + count, 0.0);
        for (int64_t from = o.edges[block]; from < o.edges[block + 1]; from += FLUSH) {
            const int64_t to = std::min(o.edges[block + 1], from + FLUSH);
            std::fill(sums, sums + count, T(0));
            for (int64_t row = from; row < to; ++row) {
                const int64_t at = row * B + c0;
                const T *x = o.state + at, *n = o.image + at;
                T g[CHUNK], d[CHUNK];
                for (int64_t c = 0; c < width; ++c) {
                    g[c] = n[c] - x[c];
                    sums[c] += g[c] * g[c];
                    sums[width + c] += n[c] * n[c];
                }
                if (o.depth) {
                    T *px = o.last_state + at, *pg = o.last_residual + at;
                    if (o.place >= 0) {
                        T *dx = o.states + o.place * size + at, *dg = o.residuals + o.place * size + at;
                        for (int64_t c = 0; c < width; ++c) {
                            d[c] = keep[c] != T(0) ? g[c] - pg[c] : T(0);
                            dg[c] = d[c];
                            dx[c] = keep[c] != T(0) ? x[c] - px[c] : T(0);
                        }
                        for (int64_t j = 0; j < o.filled; ++j) {
                            const T* other = o.residuals + j * size + at;
                            T *dots = sums + (2 + 2 * j) * width, *ends = dots + width;
                            for (int64_t c = 0; c < width; ++c) {
                                dots[c] += d[c] * other[c];
                                ends[c] += g[c] * other[c];
                            }
                        }
                    }
                    for (int64_t c = 0; c < width; ++c) { px[c] = x[c]; pg[c] = g[c]; }
                }
            }
            for (int64_t k = 0; k < count; ++k) total[k] += double(sums[k]);
        }
        for (int64_t c = 0; c < width; ++c) {
            const int64_t sample = c0 + c;
            o.norms[(block * 2) * B + sample] = total[c];
            o.norms[(block * 2 + 1) * B + sample] = total[width + c];
            for (int64_t j = 0; j < o.filled && o.place >= 0; ++j) {
                double* matrix = o.gram + block * o.depth * o.depth * B;
                const double dot = total[(2 + 2 * j) * width + c];
                matrix[(o.place * o.depth + j) * B + sample] = dot;
                matrix[(j * o.depth + o.place) * B + sample] = dot;
                o.right[(block * o.depth + j) * B + sample] = total[(3 + 2 * j) * width + c];
            }
        }
    }
}

template <typename T> void observe(const Observation<T>& o, int threads) {
    const int64_t chunks = (o.samples + CHUNK - 1) / CHUNK;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1 && chunks > 1) schedule(static)
    for (int64_t k = 0; k < chunks; ++k) {
        const int64_t c0 = k * CHUNK, width = std::min(CHUNK, o.samples - c0);
        if (width == CHUNK) observe_chunk<T, CHUNK>(o, c0, width);
        else observe_chunk<T, 0>(o, c0, width);
    }
}

// gamma minimises |g - dG gamma| of one sample, blocks weighed by the norms of their variables.
inline void weights(const double* gram, const double* right, const double* norms, int64_t blocks, int64_t depth,
                    int64_t filled, int64_t B, int64_t sample, double ridge, double tiny, double* gamma) {
    double matrix[DEEPEST * DEEPEST], size[DEEPEST], r[DEEPEST], whole = 0;
    for (int64_t b = 0; b < blocks; ++b) whole += norms[(b * 2 + 1) * B + sample];
    std::fill(matrix, matrix + filled * filled, 0.0);
    std::fill(r, r + filled, 0.0);
    for (int64_t b = 0; b < blocks; ++b) {
        const double w = 1.0 / (norms[(b * 2 + 1) * B + sample] + 1e-8 * whole + tiny);
        for (int64_t i = 0; i < filled; ++i) {
            for (int64_t j = 0; j < filled; ++j)
                matrix[i * filled + j] += w * gram[((b * depth + i) * depth + j) * B + sample];
            r[i] += w * right[(b * depth + i) * B + sample];
        }
    }
    for (int64_t i = 0; i < filled; ++i) {
        const double d = matrix[i * filled + i];
        size[i] = d > 0 ? std::sqrt(d) : 0;
    }
    // Cholesky of the scaled matrix plus ridge; directions without length, or without a pivot, take no part
    double factor[DEEPEST * DEEPEST];
    bool used[DEEPEST];
    for (int64_t i = 0; i < filled; ++i) {
        used[i] = size[i] > 0;
        for (int64_t j = 0; j <= i; ++j) {
            double v = 0;
            if (used[i] && used[j]) {
                v = matrix[i * filled + j] / (size[i] * size[j]) + (i == j ? ridge : 0);
                for (int64_t k = 0; k < j; ++k) if (used[k]) v -= factor[i * filled + k] * factor[j * filled + k];
            }
            if (i == j) {
                if (!(v > ridge * 0.5)) used[i] = false;
                factor[i * filled + i] = used[i] ? std::sqrt(v) : 0;
            } else {
                factor[i * filled + j] = used[j] ? v / factor[j * filled + j] : 0;
            }
        }
        double v = used[i] ? r[i] / size[i] : 0;
        for (int64_t k = 0; k < i && used[i]; ++k) if (used[k]) v -= factor[i * filled + k] * r[k];
        r[i] = used[i] ? v / factor[i * filled + i] : 0;
    }
    for (int64_t i = filled - 1; i >= 0; --i) {
        double v = used[i] ? r[i] : 0;
        for (int64_t k = i + 1; k < filled && used[i]; ++k) if (used[k]) v -= factor[k * filled + i] * r[k];
        r[i] = used[i] ? v / factor[i * filled + i] : 0;
        gamma[i] = used[i] ? r[i] / size[i] : 0;
    }
    for (int64_t i = 0; i < filled; ++i)
        if (!std::isfinite(gamma[i])) std::fill(gamma, gamma + filled, 0.0);
}

template <typename T>
void mix(int64_t rows, int64_t blocks, int64_t B, T* state, const T* image, T* best, T* origin, T* states,
         T* residuals, const T* residual, int64_t depth, int64_t filled, double* gram, const double* right, const double* norms,
         const uint8_t* better, const uint8_t* trouble, const double* damping, double ridge, double tiny, int threads) {
    const int64_t chunks = (B + CHUNK - 1) / CHUNK, size = rows * B;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1 && chunks > 1) schedule(static)
    for (int64_t k = 0; k < chunks; ++k) {
        const int64_t c0 = k * CHUNK, width = std::min(CHUNK, B - c0);
        T gamma[DEEPEST * CHUNK], beta[CHUNK];
        bool some_better = false, some_trouble = false, whole = true;
        for (int64_t c = 0; c < width; ++c) {
            double g[DEEPEST];
            weights(gram, right, norms, blocks, depth, filled, B, c0 + c, ridge, tiny, g);
            for (int64_t j = 0; j < filled; ++j) gamma[j * CHUNK + c] = T(g[j]);
            beta[c] = T(damping[c0 + c]);
            whole &= beta[c] == T(1);
            some_better |= better[c0 + c] != 0;
            some_trouble |= trouble[c0 + c] != 0;
        }
        const bool plain = depth == 0;  // no history is kept; `residual` is the image
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t at = row * B + c0;
            T x[CHUNK];
            if (width == CHUNK) {
                if (plain)
                    for (int64_t c = 0; c < CHUNK; ++c)
                        x[c] = whole ? image[at + c] : state[at + c] + beta[c] * (image[at + c] - state[at + c]);
                else
                    for (int64_t c = 0; c < CHUNK; ++c) x[c] = state[at + c] + beta[c] * residual[at + c];
                for (int64_t j = 0; j < filled; ++j) {
                    const T *dx = states + j * size + at, *dg = residuals + j * size + at, *w = gamma + j * CHUNK;
                    for (int64_t c = 0; c < CHUNK; ++c) x[c] -= w[c] * (dx[c] + beta[c] * dg[c]);
                }
                if (some_better)
                    for (int64_t c = 0; c < CHUNK; ++c) {
                        best[at + c] = better[c0 + c] ? image[at + c] : best[at + c];
                        origin[at + c] = better[c0 + c] ? state[at + c] : origin[at + c];
                    }
                if (some_trouble)
                    for (int64_t c = 0; c < CHUNK; ++c) {
                        const T from = origin[at + c];
                        x[c] = trouble[c0 + c] ? from + beta[c] * (best[at + c] - from) : x[c];
                    }
                for (int64_t c = 0; c < CHUNK; ++c) state[at + c] = x[c];
            } else {
                for (int64_t c = 0; c < width; ++c) {
                    T v = state[at + c] + beta[c] * (plain ? image[at + c] - state[at + c] : residual[at + c]);
                    if (plain && whole) v = image[at + c];
                    for (int64_t j = 0; j < filled; ++j)
                        v -= gamma[j * CHUNK + c] * (states[j * size + at + c] + beta[c] * residuals[j * size + at + c]);
                    if (better[c0 + c]) {
                        best[at + c] = image[at + c];
                        origin[at + c] = state[at + c];
                    }
                    const T from = origin[at + c];
                    state[at + c] = trouble[c0 + c] ? from + beta[c] * (best[at + c] - from) : v;
                }
            }
        }
        if (!some_trouble) continue;
        for (int64_t c = 0; c < width; ++c) {
            if (!trouble[c0 + c]) continue;
            for (int64_t i = 0; i < blocks * depth * depth; ++i) gram[i * B + c0 + c] = 0;
            for (int64_t i = 0; i < depth * rows; ++i) {
                states[i * B + c0 + c] = T(0);
                residuals[i * B + c0 + c] = T(0);
            }
        }
    }
}

// Newton's method for alpha u + softmax(z + u) - target = 0, one sample after the other; see CrossEntropy.controller.
template <typename T>
void cross_entropy(int64_t k, int64_t B, const T* z, const T* target, double alpha_, T* u, int64_t most,
                   int threads) {
    const T alpha = T(alpha_), eps = std::numeric_limits<T>::epsilon();
    const double enough = std::sqrt(double(eps));
    const double least = enough * enough * enough * enough;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1 && B * k > 256) schedule(static)
    for (int64_t s = 0; s < B; ++s) {
        constexpr int64_t SMALL = 64;
        T store[4 * SMALL];
        T* work = k <= SMALL ? store : new T[4 * k];
        T *p = work, *step = work + k, *ahead = work + 2 * k, *v = work + 3 * k;
        T mean = 0;
        for (int64_t i = 0; i < k; ++i) mean += u[i * B + s];
        for (int64_t i = 0; i < k; ++i) v[i] = u[i * B + s] - mean / T(k);
        for (int64_t count = 0; count < most; ++count) {
            T top = -std::numeric_limits<T>::infinity(), sum = 0;
            for (int64_t i = 0; i < k; ++i) {
                const T y = z[i * B + s] + v[i];
                p[i] = y;
                top = y > top || y != y ? y : top;
            }
            for (int64_t i = 0; i < k; ++i) { p[i] = std::exp(p[i] - top); sum += p[i]; }
            for (int64_t i = 0; i < k; ++i) p[i] /= sum;
            // 1 - p_i as the sum of the other classes, which keeps its digits
            T run = 0;
            for (int64_t i = 0; i < k; ++i) { ahead[i] = run; run += p[i]; }
            run = 0;
            T above = 0, below = 0;
            for (int64_t i = k - 1; i >= 0; --i) {
                const T t = target[i * B + s], others = ahead[i] + run;
                run += p[i];
                const T plus = p[i] * (T(1) - t), minus = t * others;
                const T d = alpha + p[i];
                step[i] = (alpha * v[i] + plus - minus) / d;
                above += p[i] * step[i];
                below += alpha * (p[i] / d);
            }
            T largest = 0, size = 0;
            const T shared = above / below;
            for (int64_t i = 0; i < k; ++i) {
                step[i] += p[i] / (alpha + p[i]) * shared;
                const T a = std::abs(step[i]);
                largest = a > largest || a != a ? a : largest;
            }
            const T share = T(2) / std::max(largest, T(2));
            for (int64_t i = 0; i < k; ++i) { v[i] -= step[i] * share; size = std::max(size, std::abs(v[i])); }
            if (!(double(largest) > enough * double(size) + least)) break;
        }
        for (int64_t i = 0; i < k; ++i) u[i * B + s] = v[i];
        if (work != store) delete[] work;
    }
}

// Which samples are done, better than before, or in trouble; returns how many are still open.
int64_t judge(int64_t B, int64_t blocks, const double* norms, const double* floors, double target, double leap,
              int64_t patience,
              int64_t count, double* least, int64_t* waited, uint8_t* open, uint8_t* better, uint8_t* trouble,
              int64_t* iterations) {
    int64_t left = 0;
    for (int64_t s = 0; s < B; ++s) {
        double worst = 0;
        for (int64_t b = 0; b < blocks; ++b) {
            const double scale = std::max(std::sqrt(norms[(b * 2 + 1) * B + s]), floors[b * B + s]);
            const double r = std::sqrt(norms[b * 2 * B + s]) / scale;
            worst = r > worst || r != r || !std::isfinite(scale) ? (std::isfinite(scale) ? r : scale) : worst;
            if (!std::isfinite(worst)) break;
        }
        if (!std::isfinite(worst)) worst = std::numeric_limits<double>::infinity();
        better[s] = open[s] && worst < least[s];
        if (better[s]) least[s] = worst;
        waited[s] = better[s] ? 0 : waited[s] + 1;
        trouble[s] = open[s] && (std::isinf(worst) || worst > leap * least[s] || waited[s] >= patience);
        if (trouble[s]) waited[s] = 0;
        if (open[s] && worst <= target) { open[s] = 0; iterations[s] = count; }
        left += open[s];
    }
    return left;
}

}  // namespace

#define FOR_BOTH(T, bits)                                                                                             \
    CIRCUITLAB_API void circuitlab_gate_f##bits(int kind, int kinked, int64_t count, const T* phi, const T* rate,     \
        const T* raw, const T* prediction, T* psi, T* next, double low, double high, int threads) {                   \
        gate<T>(kind, kinked, count, phi, rate, raw, prediction, psi, next, low, high, threads);                      \
    }                                                                                                                 \
    CIRCUITLAB_API void circuitlab_observe_f##bits(int64_t samples, int64_t blocks, const int64_t* edges,             \
        const T* state, const T* image, T* last_state, T* last_residual, T* states, T* residuals, int64_t depth,      \
        int64_t filled, int64_t place, const uint8_t* fresh, double* norms, double* gram, double* right,              \
        int threads) {                                                                                                \
        observe<T>({samples, blocks, edges, state, image, last_state, last_residual, states, residuals, depth,        \
                    filled, place, fresh, norms, gram, right}, threads);                                              \
    }                                                                                                                 \
    CIRCUITLAB_API void circuitlab_mix_f##bits(int64_t rows, int64_t blocks, int64_t samples, T* state,               \
        const T* image, T* best, T* origin, T* states, T* residuals, const T* residual, int64_t depth, int64_t filled,           \
        double* gram, const double* right, const double* norms, const uint8_t* better, const uint8_t* trouble,        \
        const double* damping, double ridge, double tiny, int threads) {                                              \
        mix<T>(rows, blocks, samples, state, image, best, origin, states, residuals, residual, depth, filled, gram, right,    \
               norms, better, trouble, damping, ridge, tiny, threads);                                                \
    }                                                                                                                 \
    CIRCUITLAB_API void circuitlab_cross_entropy_f##bits(int64_t classes, int64_t samples, const T* z,                \
        const T* target, double alpha, T* u, int64_t most, int threads) {                           \
        cross_entropy<T>(classes, samples, z, target, alpha, u, most, threads);                             \
    }

FOR_BOTH(float, 32)
FOR_BOTH(double, 64)

CIRCUITLAB_API int64_t circuitlab_judge(int64_t samples, int64_t blocks, const double* norms, const double* floors,
    double target, double leap, int64_t patience, int64_t count, double* least, int64_t* waited, uint8_t* open,
    uint8_t* better, uint8_t* trouble, int64_t* iterations) {
    return judge(samples, blocks, norms, floors, target, leap, patience, count, least, waited, open, better, trouble, iterations);
}
