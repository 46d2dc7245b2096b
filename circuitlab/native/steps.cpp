// The solvers' own loops: what one iteration does between the products. State is [row, sample], rows side by side.
//
// Samples are split over threads in fixed chunks and every sum of a sample runs over the rows in order, so that the
// results do not depend on the number of threads.
#include "exponential.h"
#include "native.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace {

constexpr int64_t VECTOR = 32;   // bytes that one vector holds
constexpr int64_t CHUNK = 16;    // samples side by side in one pass over the rows
constexpr int64_t FLUSH = 256;   // rows summed in the working precision before they go into a double
constexpr double REACH = 5;      // times the target within which an iteration may stop one sweep early
constexpr int SHALLOW = 10;      // history for which the small systems of a chunk are solved side by side
constexpr int64_t TILE = 32;     // rows that are read of one remembered difference before the next
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
#pragma omp parallel for num_threads(threads) if (threads > 1 && count > WIDE) schedule(static)
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

// Differences, their Gram matrix per block, and the norms of residual and image. See circuitlab/solve/anderson.py.
template <typename T>
struct Observation {
    int64_t samples, blocks;
    const int64_t* edges;   // [block + 1] rows at which blocks begin
    const T *state, *image;
    T *last_image, *last_residual, *images, *residuals;  // [row, sample], [depth, row, sample]
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
            for (int64_t first = from; first < to; first += TILE) {
                const int64_t rows = std::min(TILE, to - first);
                T residual[TILE * CHUNK], difference[TILE * CHUNK];
                for (int64_t r = 0; r < rows; ++r) {
                    const int64_t at = (first + r) * B + c0;
                    const T *x = o.state + at, *n = o.image + at;
                    T *g = residual + r * CHUNK, *d = difference + r * CHUNK;
                    for (int64_t c = 0; c < width; ++c) {
                        g[c] = n[c] - x[c];
                        sums[c] += g[c] * g[c];
                        sums[width + c] += n[c] * n[c];
                    }
                    if (!o.depth) continue;
                    T *pn = o.last_image + at, *pg = o.last_residual + at;
                    if (o.place >= 0) {
                        T *dn = o.images + o.place * size + at, *dg = o.residuals + o.place * size + at;
                        for (int64_t c = 0; c < width; ++c) {
                            d[c] = keep[c] != T(0) ? g[c] - pg[c] : T(0);
                            dg[c] = d[c];
                            dn[c] = keep[c] != T(0) ? n[c] - pn[c] : T(0);
                        }
                    }
                    for (int64_t c = 0; c < width; ++c) { pn[c] = n[c]; pg[c] = g[c]; }
                }
                // a tile of one difference after the other, so that memory is read along a few streams
                for (int64_t j = 0; j < o.filled && o.depth && o.place >= 0; ++j) {
                    T dots[CHUNK] = {}, ends[CHUNK] = {};
                    T *to_dots = sums + (2 + 2 * j) * width, *to_ends = to_dots + width;
                    const T* other = o.residuals + j * size + first * B + c0;
                    for (int64_t r = 0; r < rows; ++r, other += B) {
                        const T *g = residual + r * CHUNK, *d = difference + r * CHUNK;
                        for (int64_t c = 0; c < width; ++c) {
                            dots[c] += d[c] * other[c];
                            ends[c] += g[c] * other[c];
                        }
                    }
                    for (int64_t c = 0; c < width; ++c) {
                        to_dots[c] += dots[c];
                        to_ends[c] += ends[c];
                    }
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

// The same for VECTORS vectors of samples and a given length of history. Some rows of one vector after the other, so that
// a line of the cache is read once; what a vector's rows add up to stays in registers for as long as they last.
template <typename T, int FILLED, int VECTORS> void observe_vectors(const Observation<T> o, int64_t c0) {
    constexpr int64_t WIDTH = VECTOR / int64_t(sizeof(T)), TILE = 16;
    typedef T Vector __attribute__((vector_size(VECTOR)));
    struct Sums { Vector residual, variable, dots[FILLED], ends[FILLED]; };
    const int64_t B = o.samples, size = o.edges[o.blocks] * B;
    Vector keep[VECTORS];
    bool all[VECTORS];
    for (int64_t v = 0; v < VECTORS; ++v) {
        all[v] = true;
        for (int64_t c = 0; c < WIDTH; ++c) {
            const bool fresh = o.fresh[c0 + v * WIDTH + c] != 0;
            keep[v][c] = fresh ? T(0) : T(1);
            all[v] &= !fresh;
        }
    }
    const auto load = [](const T* from) { Vector v; std::memcpy(&v, from, VECTOR); return v; };
    const auto store = [](T* to, const Vector& v) { std::memcpy(to, &v, VECTOR); };
    for (int64_t block = 0; block < o.blocks; ++block) {
        double total[VECTORS][2 + 2 * FILLED][WIDTH] = {};
        for (int64_t from = o.edges[block]; from < o.edges[block + 1]; from += FLUSH) {
            const int64_t to = std::min(o.edges[block + 1], from + FLUSH);
            Sums sums[VECTORS] = {};
            for (int64_t tile = from; tile < to; tile += TILE)
                for (int64_t v = 0; v < VECTORS; ++v) {
                    Sums s = sums[v];
                    const int64_t end = std::min(to, tile + TILE);
                    for (int64_t row = tile; row < end; ++row) {
                        const int64_t at = row * B + c0 + v * WIDTH;
                        const Vector x = load(o.state + at), n = load(o.image + at), g = n - x;
                        s.residual += g * g;
                        s.variable += n * n;
                        Vector d = g - load(o.last_residual + at), dn = n - load(o.last_image + at);
                        if (!all[v]) { d = keep[v] != 0 ? d : Vector{}; dn = keep[v] != 0 ? dn : Vector{}; }
                        store(o.residuals + o.place * size + at, d);
                        store(o.images + o.place * size + at, dn);
                        for (int j = 0; j < FILLED; ++j) {
                            const Vector other = load(o.residuals + j * size + at);
                            s.dots[j] += d * other;
                            s.ends[j] += g * other;
                        }
                        store(o.last_image + at, n);
                        store(o.last_residual + at, g);
                    }
                    sums[v] = s;
                }
            for (int64_t v = 0; v < VECTORS; ++v)
                for (int64_t c = 0; c < WIDTH; ++c) {
                    total[v][0][c] += double(sums[v].residual[c]);
                    total[v][1][c] += double(sums[v].variable[c]);
                    for (int j = 0; j < FILLED; ++j) {
                        total[v][2 + 2 * j][c] += double(sums[v].dots[j][c]);
                        total[v][3 + 2 * j][c] += double(sums[v].ends[j][c]);
                    }
                }
        }
        double* matrix = o.gram + block * o.depth * o.depth * B;
        for (int64_t v = 0; v < VECTORS; ++v)
            for (int64_t c = 0; c < WIDTH; ++c) {
                const int64_t sample = c0 + v * WIDTH + c;
                o.norms[(block * 2) * B + sample] = total[v][0][c];
                o.norms[(block * 2 + 1) * B + sample] = total[v][1][c];
                for (int64_t j = 0; j < FILLED; ++j) {
                    matrix[(o.place * o.depth + j) * B + sample] = total[v][2 + 2 * j][c];
                    matrix[(j * o.depth + o.place) * B + sample] = total[v][2 + 2 * j][c];
                    o.right[(block * o.depth + j) * B + sample] = total[v][3 + 2 * j][c];
                }
            }
    }
}

template <typename T, int VECTORS> bool observe_filled(const Observation<T>& o, int64_t c0) {
    switch (o.filled) {
        case 1: observe_vectors<T, 1, VECTORS>(o, c0); return true;
        case 2: observe_vectors<T, 2, VECTORS>(o, c0); return true;
        case 3: observe_vectors<T, 3, VECTORS>(o, c0); return true;
        case 4: observe_vectors<T, 4, VECTORS>(o, c0); return true;
        case 5: observe_vectors<T, 5, VECTORS>(o, c0); return true;
    }
    return false;
}

// Samples from c0 on, at most CHUNK of them.
template <typename T> void observe_part(const Observation<T>& o, int64_t c0, int64_t width) {
    constexpr int64_t WIDTH = VECTOR / int64_t(sizeof(T));
    if (o.depth && o.place >= 0) {
        if (width == CHUNK && observe_filled<T, CHUNK / WIDTH>(o, c0)) return;
        while (width >= WIDTH && observe_filled<T, 1>(o, c0)) { c0 += WIDTH; width -= WIDTH; }
    }
    if (width == CHUNK) observe_chunk<T, CHUNK>(o, c0, width);
    else if (width == CHUNK / 2) observe_chunk<T, CHUNK / 2>(o, c0, width);
    else if (width > 0) observe_chunk<T, 0>(o, c0, width);
}

template <typename T> void observe(const Observation<T>& o, int threads) {
    const int64_t chunks = (o.samples + CHUNK - 1) / CHUNK;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1 && o.edges[o.blocks] * o.samples > WIDE) schedule(static)
    for (int64_t k = 0; k < chunks; ++k) observe_part<T>(o, k * CHUNK, std::min(CHUNK, o.samples - k * CHUNK));
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

// The same for up to CHUNK samples side by side and a history of at most SHALLOW; gamma is [depth, CHUNK].
template <typename T>
void weights_of_chunk(const double* gram, const double* right, const double* norms, int64_t blocks, int64_t depth,
                      int64_t filled, int64_t B, int64_t c0, int64_t width, double ridge, double tiny, T* gamma) {
    double m[SHALLOW][SHALLOW][CHUNK] = {}, r[SHALLOW][CHUNK] = {}, whole[CHUNK] = {}, scale[SHALLOW][CHUNK];
    for (int64_t b = 0; b < blocks; ++b)
        for (int64_t c = 0; c < width; ++c) whole[c] += norms[(b * 2 + 1) * B + c0 + c];
    for (int64_t b = 0; b < blocks; ++b) {
        double w[CHUNK] = {};
        for (int64_t c = 0; c < width; ++c) w[c] = 1.0 / (norms[(b * 2 + 1) * B + c0 + c] + 1e-8 * whole[c] + tiny);
        for (int64_t i = 0; i < filled; ++i) {
            for (int64_t j = 0; j <= i; ++j) {
                const double* g = gram + ((b * depth + i) * depth + j) * B + c0;
                for (int64_t c = 0; c < width; ++c) m[i][j][c] += w[c] * g[c];
            }
            const double* h = right + (b * depth + i) * B + c0;
            for (int64_t c = 0; c < width; ++c) r[i][c] += w[c] * h[c];
        }
    }
    for (int64_t i = 0; i < filled; ++i)
        for (int64_t c = 0; c < CHUNK; ++c) scale[i][c] = m[i][i][c] > 0 ? 1.0 / std::sqrt(m[i][i][c]) : 0.0;
    for (int64_t i = 0; i < filled; ++i) {
        double pivot[CHUNK];
        for (int64_t j = 0; j <= i; ++j) {
            double v[CHUNK];
            for (int64_t c = 0; c < CHUNK; ++c) v[c] = m[i][j][c] * scale[i][c] * scale[j][c] + (i == j ? ridge : 0.0);
            for (int64_t k = 0; k < j; ++k)
                for (int64_t c = 0; c < CHUNK; ++c) v[c] -= m[i][k][c] * m[j][k][c];
            if (i == j)  // the diagonal keeps the inverse of the factor's, 0 where there is no pivot
                for (int64_t c = 0; c < CHUNK; ++c) pivot[c] = v[c] > 0.5 * ridge ? 1.0 / std::sqrt(v[c]) : 0.0;
            else
                for (int64_t c = 0; c < CHUNK; ++c) m[i][j][c] = v[c] * m[j][j][c];
        }
        for (int64_t c = 0; c < CHUNK; ++c) { m[i][i][c] = pivot[c]; r[i][c] *= scale[i][c]; }
        for (int64_t k = 0; k < i; ++k)
            for (int64_t c = 0; c < CHUNK; ++c) r[i][c] -= m[i][k][c] * r[k][c];
        for (int64_t c = 0; c < CHUNK; ++c) r[i][c] *= pivot[c];
    }
    double fine[CHUNK];
    for (int64_t c = 0; c < CHUNK; ++c) fine[c] = 0;
    for (int64_t i = filled - 1; i >= 0; --i) {
        for (int64_t k = i + 1; k < filled; ++k)
            for (int64_t c = 0; c < CHUNK; ++c) r[i][c] -= m[k][i][c] * r[k][c];
        for (int64_t c = 0; c < CHUNK; ++c) { r[i][c] *= m[i][i][c]; fine[c] += r[i][c] * scale[i][c] * 0.0; }
    }
    for (int64_t i = 0; i < filled; ++i)  // 0 times what is not finite is not a number
        for (int64_t c = 0; c < CHUNK; ++c) gamma[i * CHUNK + c] = fine[c] == 0 ? T(r[i][c] * scale[i][c]) : T(0);
}

// What a step needs; see circuitlab/solve/anderson.py. Rows from `rows` to `all_rows` are taken over from the image.
template <typename T>
struct Step {
    int64_t rows, all_rows, blocks, samples;
    const T* state;
    T* out;  // the next state: over the last one, or in `origin`
    const T* image;
    T *best, *origin, *images, *residuals;  // origin: the state whose image is the best
    const T* residual;
    int64_t depth, filled;
    double* gram;
    const double *right, *norms;
    const uint8_t *better, *trouble;
    uint8_t* fresh;
    double* damping;
    double ridge, tiny, retreat, shortest;
};

// image - sum_j gamma_j images_j of a tile of rows, one difference after the other; `mixed` is [row, CHUNK].
template <typename T>
void mix_tile(const Step<T>& o, int64_t c0, int64_t width, int64_t first, const T* gamma, T* mixed) {
    const int64_t B = o.samples, size = o.rows * B, rows = std::min(TILE, o.rows - first);
    const int64_t from = first * B + c0;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < width; ++c) mixed[r * CHUNK + c] = o.image[from + r * B + c];
    for (int64_t j = 0; j < o.filled; ++j) {
        const T *dn = o.images + j * size + from, *w = gamma + j * CHUNK;
        if (width == CHUNK)
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < CHUNK; ++c) mixed[r * CHUNK + c] -= w[c] * dn[r * B + c];
        else
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < width; ++c) mixed[r * CHUNK + c] -= w[c] * dn[r * B + c];
    }
}

template <typename T> void mix_chunk(const Step<T>& o, int64_t c0, int64_t width) {
    const int64_t B = o.samples, size = o.rows * B;
    T gamma[DEEPEST * CHUNK], beta[CHUNK];
    bool some_better = false, some_trouble = false, whole = true;
    if (o.filled && o.filled <= SHALLOW)
        weights_of_chunk<T>(o.gram, o.right, o.norms, o.blocks, o.depth, o.filled, B, c0, width, o.ridge, o.tiny, gamma);
    for (int64_t c = 0; c < width; ++c) {
        const int64_t s = c0 + c;
        if (o.filled > SHALLOW) {
            double g[DEEPEST];
            weights(o.gram, o.right, o.norms, o.blocks, o.depth, o.filled, B, s, o.ridge, o.tiny, g);
            for (int64_t j = 0; j < o.filled; ++j) gamma[j * CHUNK + c] = T(g[j]);
        }
        if (o.trouble[s]) o.damping[s] = std::max(o.damping[s] * o.retreat, std::min(o.damping[s], o.shortest));
        o.fresh[s] = o.trouble[s];
        beta[c] = T(o.damping[s]);
        whole &= beta[c] == T(1);
        some_better |= o.better && o.better[s] != 0;
        some_trouble |= o.trouble[s] != 0;
    }
    const bool plain = o.depth == 0;  // no history is kept, and no residual
    T mixed[TILE * CHUNK];
    for (int64_t row = 0; row < o.rows; ++row) {
        const int64_t at = row * B + c0;
        if (row % TILE == 0) mix_tile<T>(o, c0, width, row, gamma, mixed);
        T* x = mixed + (row % TILE) * CHUNK;
        if (!whole)
            for (int64_t c = 0; c < width; ++c) {
                T rest = plain ? o.image[at + c] - o.state[at + c] : o.residual[at + c];
                for (int64_t j = 0; j < o.filled; ++j) rest -= gamma[j * CHUNK + c] * o.residuals[j * size + at + c];
                x[c] -= (T(1) - beta[c]) * rest;
            }
        if (some_better)
            for (int64_t c = 0; c < width; ++c) {
                o.best[at + c] = o.better[c0 + c] ? o.image[at + c] : o.best[at + c];
                o.origin[at + c] = o.better[c0 + c] ? o.state[at + c] : o.origin[at + c];
            }
        if (some_trouble)
            for (int64_t c = 0; c < width; ++c) {
                const T from = o.origin[at + c];
                x[c] = o.trouble[c0 + c] ? from + beta[c] * (o.best[at + c] - from) : x[c];
            }
        for (int64_t c = 0; c < width; ++c) o.out[at + c] = x[c];
    }
    for (int64_t row = o.rows; row < o.all_rows; ++row)
        for (int64_t c = 0; c < width; ++c) {
            const int64_t at = row * B + c0 + c;
            if (some_better && o.better[c0 + c]) o.best[at] = o.image[at];
            o.out[at] = o.trouble[c0 + c] ? o.best[at] : o.image[at];
        }
    for (int64_t c = 0; some_trouble && c < width; ++c) {
        if (!o.trouble[c0 + c]) continue;
        for (int64_t i = 0; i < o.blocks * o.depth * o.depth; ++i) o.gram[i * B + c0 + c] = 0;
        for (int64_t i = 0; i < o.filled * o.rows; ++i) {
            o.images[i * B + c0 + c] = T(0);
            o.residuals[i * B + c0 + c] = T(0);
        }
    }
}

// What an accelerated iteration keeps from one step to the next; circuitlab/compile/loops.py has the same.
template <typename T>
struct Buffers {
    int64_t rows, all_rows, blocks, samples, depth;
    const int64_t* edges;
    T *state, *image, *best, *origin, *last_image, *last_residual, *images, *residuals;
    uint8_t* fresh;
    double *norms, *gram, *right, *damping;
    double ridge, tiny, retreat, shortest;
};

// Returns whether every sample is better. Then nothing is copied: the next state is in `origin`, the best in `image`, and
// they change places with `state` and `best`, here and in the caller.
template <typename T>
int mix(Buffers<T>& all, int64_t filled, const uint8_t* better, const uint8_t* trouble, int threads) {
    Step<T> o{all.rows, all.all_rows, all.blocks, all.samples, all.state, all.state, all.image, all.best, all.origin,
              all.images, all.residuals, all.depth ? all.last_residual : all.image, all.depth, filled, all.gram,
              all.right, all.norms, better, trouble, all.fresh, all.damping, all.ridge, all.tiny, all.retreat,
              all.shortest};
    const bool whole = std::all_of(better, better + o.samples, [](uint8_t b) { return b != 0; });
    if (whole) {
        o.out = o.origin;
        o.better = nullptr;
    }
    const int64_t chunks = (o.samples + CHUNK - 1) / CHUNK;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1 && o.rows * o.samples > WIDE) schedule(static)
    for (int64_t k = 0; k < chunks; ++k) mix_chunk<T>(o, k * CHUNK, std::min(CHUNK, o.samples - k * CHUNK));
    if (whole) {
        std::swap(all.state, all.origin);
        std::swap(all.best, all.image);
    }
    return whole;
}

// exp(x) for x <= 0, down to the smallest subnormal number.
inline float exp_of(float x) { return exp_gradual(x); }
inline double exp_of(double x) { return std::exp(x); }

// Newton's method for alpha u + softmax(z + u) - target = 0, for `count` samples from z, target and u on, at most one
// vector's; see CrossEntropy.hold. A sample's steps and their number are its own, whoever its neighbours are.
// `work` holds 6 vectors of every class.
template <typename T> struct Lanes {
    static constexpr int64_t WIDTH = VECTOR / int64_t(sizeof(T));
    typedef T Vector __attribute__((vector_size(VECTOR)));

    static Vector load(const T* from, int64_t count) {
        Vector v = {};
        if (count == WIDTH) std::memcpy(&v, from, VECTOR); else std::memcpy(&v, from, count * sizeof(T));
        return v;
    }
    static Vector absolute(const Vector& x) { return x < 0 ? -x : x; }
    static Vector exponential(const Vector& x) {
        T each[WIDTH];
        std::memcpy(each, &x, VECTOR);
        for (int64_t c = 0; c < WIDTH; ++c) each[c] = exp_of(each[c]);
        return load(each, WIDTH);
    }

    static void cross_entropy(int64_t k, int64_t B, const T* z_, const T* target, T alpha, T* u, int64_t most,
                              int64_t count, Vector* work) {
        const T enough = std::sqrt(std::numeric_limits<T>::epsilon()), least = enough * enough * enough * enough;
        Vector *z = work, *t = z + k, *p = t + k, *step = p + k, *ahead = step + k, *v = ahead + k;
        Vector mean = {}, open;
        for (int64_t c = 0; c < WIDTH; ++c) open[c] = c < count ? T(1) : T(0);
        for (int64_t i = 0; i < k; ++i) {
            z[i] = load(z_ + i * B, count);
            t[i] = load(target + i * B, count);
            v[i] = load(u + i * B, count);
            mean += v[i];
        }
        mean /= T(k);
        for (int64_t i = 0; i < k; ++i) v[i] -= mean;
        for (int64_t turn = 0; turn < most; ++turn) {
            Vector top = z[0] + v[0], sum = {};
            for (int64_t i = 0; i < k; ++i) {
                p[i] = z[i] + v[i];
                top = (p[i] > top) | (p[i] != p[i]) ? p[i] : top;
            }
            for (int64_t i = 0; i < k; ++i) { p[i] = exponential(p[i] - top); sum += p[i]; }
            // 1 - p_i as the sum of the other classes, which keeps its digits
            Vector run = {};
            for (int64_t i = 0; i < k; ++i) { p[i] /= sum; ahead[i] = run; run += p[i]; }
            run = Vector{};
            Vector above = {}, below = {};
            for (int64_t i = k - 1; i >= 0; --i) {
                const Vector others = ahead[i] + run, d = alpha + p[i], share = p[i] / d;
                run += p[i];
                step[i] = (alpha * v[i] + p[i] * (T(1) - t[i]) - t[i] * others) / d;
                ahead[i] = share;
                above += p[i] * step[i];
                below += alpha * share;
            }
            const Vector shared = above / below;
            Vector largest = {}, size = {};
            for (int64_t i = 0; i < k; ++i) {
                step[i] += ahead[i] * shared;
                const Vector a = absolute(step[i]);
                largest = (a > largest) | (a != a) ? a : largest;
            }
            const Vector reach = largest < T(2) ? Vector{} + T(2) : largest, bounded = T(2) / reach;
            for (int64_t i = 0; i < k; ++i) {
                v[i] = open != 0 ? v[i] - step[i] * bounded : v[i];
                const Vector a = absolute(v[i]);
                size = size < a ? a : size;
            }
            open = largest > enough * size + least ? open : Vector{};
            bool some = false;
            for (int64_t c = 0; c < WIDTH; ++c) some |= open[c] != T(0);
            if (!some) break;
        }
        for (int64_t i = 0; i < k; ++i) std::memcpy(u + i * B, v + i, count * sizeof(T));
    }
};

template <typename T>
void cross_entropy(int64_t k, int64_t B, const T* z, const T* target, double alpha, T* u, int64_t most, int threads) {
    constexpr int64_t SMALL = 64, WIDTH = Lanes<T>::WIDTH;
    const int64_t groups = (B + WIDTH - 1) / WIDTH;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1 && B * k > WIDE / 32) schedule(static)
    for (int64_t g = 0; g < groups; ++g) {
        typename Lanes<T>::Vector store[6 * SMALL];
        auto* work = k <= SMALL ? store : new typename Lanes<T>::Vector[6 * k];
        const int64_t s = g * WIDTH, count = std::min(WIDTH, B - s);
        Lanes<T>::cross_entropy(k, B, z + s, target + s, T(alpha), u + s, most, count, work);
        if (work != store) delete[] work;
    }
}

// Which samples are done, better than before, or in trouble; returns how many are still open.
int64_t judge(int64_t B, int64_t blocks, const double* norms, const double* floors, double target, double leap,
              int64_t patience, double ahead,
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
        const double before = least[s];
        better[s] = open[s] && worst < before;
        if (better[s]) least[s] = worst;
        const bool soon = better[s] && std::isfinite(before) && worst <= REACH * target &&
                          worst * (worst / before) <= ahead * target;
        waited[s] = better[s] ? 0 : waited[s] + 1;
        trouble[s] = open[s] && (std::isinf(worst) || worst > leap * least[s] || waited[s] >= patience);
        if (trouble[s]) waited[s] = 0;
        if (open[s] && (worst <= target || soon)) { open[s] = 0; iterations[s] = count; }
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
    CIRCUITLAB_API void circuitlab_observe_f##bits(const Buffers<T>* o, int64_t filled, int64_t place, int threads) {  \
        observe<T>({o->samples, o->blocks, o->edges, o->state, o->image, o->last_image, o->last_residual, o->images,   \
                    o->residuals, o->depth, filled, place, o->fresh, o->norms, o->gram, o->right}, threads);           \
    }                                                                                                                 \
    CIRCUITLAB_API int circuitlab_mix_f##bits(Buffers<T>* o, int64_t filled, const uint8_t* better,                    \
        const uint8_t* trouble, int threads) {                                                                        \
        return mix<T>(*o, filled, better, trouble, threads);                                                          \
    }                                                                                                                 \
    CIRCUITLAB_API void circuitlab_cross_entropy_f##bits(int64_t classes, int64_t samples, const T* z,                \
        const T* target, double alpha, T* u, int64_t most, int threads) {                           \
        cross_entropy<T>(classes, samples, z, target, alpha, u, most, threads);                             \
    }

FOR_BOTH(float, 32)
FOR_BOTH(double, 64)

CIRCUITLAB_API int64_t circuitlab_judge(int64_t samples, int64_t blocks, const double* norms, const double* floors,
    double target, double leap, int64_t patience, double ahead, int64_t count, double* least, int64_t* waited, uint8_t* open,
    uint8_t* better, uint8_t* trouble, int64_t* iterations) {
    return judge(samples, blocks, norms, floors, target, leap, patience, ahead, count, least, waited, open, better, trouble, iterations);
}
