// Products of a sparse matrix in compressed rows with activity, and the sampled outer product.
//
// Activity is [unit, sample], samples side by side in memory, units `stride` numbers apart. A block of samples stays in
// registers while the edges of one row pass by. The last vector of a block may overlap the one before it: a product
// then computes the same lanes twice, from the same numbers in the same order, and the sampled outer product sets the
// lanes that it has seen already to zero. So there are no masks, and any number of samples runs at full width.
// Rows never share a result, so that the number of threads changes nothing, to the last bit.
#include "native.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
constexpr int ACCUMULATORS = 8;  // Vectors that are summed into at once: latency times throughput of a multiply-add.
constexpr int AHEAD = 12;        // Edges between asking for a row of activity and using it.
constexpr int64_t SERIAL = 1 << 15;  // Multiplications below which threads cost more than they give.
constexpr int64_t CHUNKS = 8;        // Parts of the rows for each thread, so that a slow thread leaves work to others.

// The most lanes of one vector, at least 4, which is what `sums_of_four` needs.
template <class T>
constexpr int LANES = std::max<int>(VECTOR_BYTES / sizeof(T), 4);
template <class T>
constexpr int WIDEST = 64 / LANES<T> > 8 ? 8 : 64 / LANES<T>;  // Vectors of a block: 64 samples, or 8 vectors.

template <class T, int L>
struct Lanes {
    typedef T type __attribute__((vector_size(L * sizeof(T))));
};
template <class T, int L>
using Vector = typename Lanes<T, L>::type;

template <class T, int L>
inline Vector<T, L> load(const T *from) {
    Vector<T, L> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class T, int L>
inline void store(T *to, Vector<T, L> v) {
    std::memcpy(to, &v, sizeof v);
}

template <class T>
struct Matrix {
    const int32_t *rows, *columns;  // Compressed rows: [row + 1] pointers and [edge] columns.
    const T *values;                // [edge]
    int64_t targets, sources;
};

// Activity that is read: element (unit, sample) is at[unit * stride + sample].
template <class T>
struct Activity {
    const T *at;
    int64_t stride;
};

int64_t cache_bytes() {
    int64_t size = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    size = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return size > 0 ? size : 1 << 20;
}

// First row of a part, when rows are split so that each part has the same number of edges and rows together.
int64_t first_row(const int32_t *rows, int64_t count, int64_t part, int64_t parts) {
    const int64_t goal = (rows[count] + count) * part / parts;
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (rows[middle] + middle < goal)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

template <class F>
void over_rows(const int32_t *rows, int64_t count, int64_t samples, int threads, F work) {
    if (threads <= 1 || (rows[count] + count) * samples < SERIAL) {
        work(int64_t(0), count);
        return;
    }
    const int64_t parts = threads * CHUNKS;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t part = 0; part < parts; part++)
        work(first_row(rows, count, part, parts), first_row(rows, count, part + 1, parts));
}

// Asks for the lines of a row of activity that an edge further on will read.
template <class T, int L, int N>
inline void prefetch(const int32_t *columns, int64_t edge, int64_t edges, Activity<T> x) {
    const T *row = x.at + columns[std::min(edge + AHEAD, edges - 1)] * x.stride;
    for (int k = 0; k < N; k += std::max(1, int(64 / (L * sizeof(T)))))
        __builtin_prefetch(row + k * L);
}

// out += W x for one block of samples in N vectors; the last vector begins at `last`.
template <class T, int L, int N, bool FAR>
void product(const Matrix<T> &w, Activity<T> x, T *out, int64_t stride, int64_t last, int64_t from, int64_t to) {
    constexpr int U = N >= ACCUMULATORS ? 1 : ACCUMULATORS / N;
    const int64_t edges = w.rows[w.targets];
    int64_t at[N];
    for (int k = 0; k < N; k++)
        at[k] = k + 1 < N ? k * L : last;
    for (int64_t i = from; i < to; i++) {
        int64_t e = w.rows[i];
        const int64_t end = w.rows[i + 1];
        if (e == end)
            continue;
        T *row = out + i * stride;
        Vector<T, L> sum[U][N];
        for (int k = 0; k < N; k++)
            sum[0][k] = load<T, L>(row + at[k]);
        for (int u = 1; u < U; u++)
            for (int k = 0; k < N; k++)
                sum[u][k] = Vector<T, L>{};
        for (; e + U <= end; e += U)
            for (int u = 0; u < U; u++) {
                if (FAR)
                    prefetch<T, L, N>(w.columns, e + u, edges, x);
                const T *rate = x.at + w.columns[e + u] * x.stride;
                for (int k = 0; k < N; k++)
                    sum[u][k] += w.values[e + u] * load<T, L>(rate + at[k]);
            }
        for (; e < end; e++) {
            if (FAR)
                prefetch<T, L, N>(w.columns, e, edges, x);
            const T *rate = x.at + w.columns[e] * x.stride;
            for (int k = 0; k < N; k++)
                sum[0][k] += w.values[e] * load<T, L>(rate + at[k]);
        }
        for (int width = 1; width < U; width *= 2)
            for (int u = 0; u + width < U; u += 2 * width)
                for (int k = 0; k < N; k++)
                    sum[u][k] += sum[u + width][k];
        for (int k = 0; k < N; k++)
            store<T, L>(row + at[k], sum[0][k]);
    }
}

// The same for S = 1, 2 or 3 samples.
template <class T, int S>
void product_few(const Matrix<T> &w, Activity<T> x, T *out, int64_t stride, int64_t from, int64_t to) {
    constexpr int U = S == 1 ? 8 : 4;
    for (int64_t i = from; i < to; i++) {
        T sum[U][S] = {};
        int64_t e = w.rows[i];
        const int64_t end = w.rows[i + 1];
        for (; e + U <= end; e += U)
            for (int u = 0; u < U; u++)
                for (int s = 0; s < S; s++)
                    sum[u][s] += w.values[e + u] * x.at[w.columns[e + u] * x.stride + s];
        for (; e < end; e++)
            for (int s = 0; s < S; s++)
                sum[0][s] += w.values[e] * x.at[w.columns[e] * x.stride + s];
        for (int width = 1; width < U; width *= 2)
            for (int u = 0; u + width < U; u += 2 * width)
                for (int s = 0; s < S; s++)
                    sum[u][s] += sum[u + width][s];
        for (int s = 0; s < S; s++)
            out[i * stride + s] += sum[0][s];
    }
}

// Halves a vector down to 4 lanes that have the same sum.
template <class T, int L>
inline Vector<T, 4> fold(Vector<T, L> v) {
    if constexpr (L == 4) {
        return v;
    } else {
        Vector<T, L / 2> half[2];
        std::memcpy(half, &v, sizeof v);
        return fold<T, L / 2>(half[0] + half[1]);
    }
}

// The sums of the lanes of four vectors, as four lanes.
template <class T>
inline Vector<T, 4> sums_of_four(Vector<T, 4> a, Vector<T, 4> b, Vector<T, 4> c, Vector<T, 4> d) {
#if defined(__clang__)
#define CIRCUITLAB_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
    typedef Vector<std::conditional_t<sizeof(T) == 4, int32_t, int64_t>, 4> Index;
#define CIRCUITLAB_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Index{__VA_ARGS__})
#endif
    const Vector<T, 4> ab = CIRCUITLAB_SHUFFLE(a, b, 0, 4, 1, 5) + CIRCUITLAB_SHUFFLE(a, b, 2, 6, 3, 7);
    const Vector<T, 4> cd = CIRCUITLAB_SHUFFLE(c, d, 0, 4, 1, 5) + CIRCUITLAB_SHUFFLE(c, d, 2, 6, 3, 7);
    return CIRCUITLAB_SHUFFLE(ab, cd, 0, 1, 4, 5) + CIRCUITLAB_SHUFFLE(ab, cd, 2, 3, 6, 7);
#undef CIRCUITLAB_SHUFFLE
}

// out[edge] = (add: +=) sum over one block of samples of post[target] pre[source].
template <class T, int L, int N, bool FAR>
void outer(const Matrix<T> &w, Activity<T> post, Activity<T> pre, T *out, bool add, int64_t last, int64_t from,
           int64_t to) {
    const int64_t edges = w.rows[w.targets];
    int64_t at[N];
    for (int k = 0; k < N; k++)
        at[k] = k + 1 < N ? k * L : last;
    for (int64_t i = from; i < to; i++) {
        int64_t e = w.rows[i];
        const int64_t end = w.rows[i + 1];
        if (e == end)
            continue;
        Vector<T, L> p[N];
        for (int k = 0; k < N; k++)
            p[k] = load<T, L>(post.at + i * post.stride + at[k]);
        for (int lane = 0; lane < L; lane++)
            if (last + lane < (N - 1) * L)
                p[N - 1][lane] = 0;
        auto edge = [&](int64_t e) {
            if (FAR)
                prefetch<T, L, N>(w.columns, e, edges, pre);
            const T *rate = pre.at + w.columns[e] * pre.stride;
            Vector<T, L> sum = p[0] * load<T, L>(rate + at[0]);
            for (int k = 1; k < N; k++)
                sum += p[k] * load<T, L>(rate + at[k]);
            return fold<T, L>(sum);
        };
        for (; e + 4 <= end; e += 4) {
            Vector<T, 4> sums = sums_of_four<T>(edge(e), edge(e + 1), edge(e + 2), edge(e + 3));
            if (add)
                sums += load<T, 4>(out + e);
            store<T, 4>(out + e, sums);
        }
        for (; e < end; e++) {
            const Vector<T, 4> v = edge(e);
            const T sum = (v[0] + v[2]) + (v[1] + v[3]);
            out[e] = add ? out[e] + sum : sum;
        }
    }
}

template <class T, int S>
void outer_few(const Matrix<T> &w, Activity<T> post, Activity<T> pre, T *out, bool add, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
        const T *p = post.at + i * post.stride;
        for (int64_t e = w.rows[i]; e < w.rows[i + 1]; e++) {
            T sum = 0;
            for (int s = 0; s < S; s++)
                sum += p[s] * pre.at[w.columns[e] * pre.stride + s];
            out[e] = add ? out[e] + sum : sum;
        }
    }
}

// Calls work(integral_constant<N>) for the number of vectors that a block has.
template <int N, class F>
void with_vectors(int64_t count, F work) {
    if constexpr (N > 1) {
        if (count < N) {
            with_vectors<N - 1>(count, work);
            return;
        }
    }
    work(std::integral_constant<int, N>{});
}

// Calls work(lanes, vectors, first sample, where the last vector begins) for block after block of the samples.
// Blocks are `widest` vectors wide; what is left over, if less than a vector, joins the block before it.
template <class T, int L, class F>
void over_blocks(int64_t samples, int64_t widest, F work) {
    if (samples < L) {
        if constexpr (L > 4)
            over_blocks<T, L / 2>(samples, 1, work);
        return;
    }
    int64_t start = 0;
    while (start < samples) {
        int64_t width = std::min<int64_t>(widest * L, samples - start);
        if (samples - start - width < L)
            width = samples - start;
        const int64_t vectors = (width + L - 1) / L;
        with_vectors<L == LANES<T> ? WIDEST<T> + 1 : 2>(vectors, [&](auto n) {
            work(std::integral_constant<int, L>{}, n, start, width - L);
        });
        start += width;
    }
}

// Whether the activity that edges read at random is larger than the cache, so that asking ahead for it pays. Blocks
// stay wide all the same: slabs of fewer samples, which would fit, were measured to be 1.5 to 2.5 times slower, because
// every slab reads the whole matrix again and uses less of each line of memory.
template <class T>
bool is_far(const Matrix<T> &w, int64_t samples) {
    static const int64_t cache = cache_bytes();
    return w.sources * samples * int64_t(sizeof(T)) > cache;
}

template <class T>
void add_product(const Matrix<T> &w, Activity<T> x, T *out, int64_t stride, int64_t samples, int threads) {
    auto few = [&](auto s) {
        over_rows(w.rows, w.targets, samples, threads, [&](int64_t from, int64_t to) {
            product_few<T, decltype(s)::value>(w, x, out, stride, from, to);
        });
    };
    if (samples == 1)
        few(std::integral_constant<int, 1>{});
    else if (samples == 2)
        few(std::integral_constant<int, 2>{});
    else if (samples == 3)
        few(std::integral_constant<int, 3>{});
    const bool far = is_far(w, samples);
    over_blocks<T, LANES<T>>(samples, WIDEST<T>, [&](auto l, auto n, int64_t start, int64_t last) {
        constexpr int L = decltype(l)::value, N = decltype(n)::value;
        const Activity<T> block{x.at + start, x.stride};
        over_rows(w.rows, w.targets, samples, threads, [&](int64_t from, int64_t to) {
            (far ? product<T, L, N, true> : product<T, L, N, false>)(w, block, out + start, stride, last, from, to);
        });
    });
}

template <class T>
void sampled_outer(const Matrix<T> &w, Activity<T> post, Activity<T> pre, T *out, bool add, int64_t samples,
                   int threads) {
    auto few = [&](auto s) {
        over_rows(w.rows, w.targets, samples, threads, [&](int64_t from, int64_t to) {
            outer_few<T, decltype(s)::value>(w, post, pre, out, add, from, to);
        });
    };
    if (samples == 0)
        few(std::integral_constant<int, 0>{});
    else if (samples == 1)
        few(std::integral_constant<int, 1>{});
    else if (samples == 2)
        few(std::integral_constant<int, 2>{});
    else if (samples == 3)
        few(std::integral_constant<int, 3>{});
    const bool far = is_far(w, samples);
    over_blocks<T, LANES<T>>(samples, WIDEST<T>, [&](auto l, auto n, int64_t start, int64_t last) {
        constexpr int L = decltype(l)::value, N = decltype(n)::value;
        const Activity<T> left{post.at + start, post.stride}, right{pre.at + start, pre.stride};
        over_rows(w.rows, w.targets, samples, threads, [&](int64_t from, int64_t to) {
            (far ? outer<T, L, N, true> : outer<T, L, N, false>)(w, left, right, out, add || start > 0, last, from, to);
        });
    });
}

}  // namespace

// out[row, sample] += sum over the edges of the row of value x[column, sample].
#define CIRCUITLAB_ADD(NAME, T)                                                                                   \
    CIRCUITLAB_API void NAME(const int32_t *rows, const int32_t *columns, const T *values, int64_t targets,       \
                             int64_t sources, const T *x, int64_t x_stride, T *out, int64_t out_stride,           \
                             int64_t samples, int threads) {                                                      \
        add_product<T>({rows, columns, values, targets, sources}, {x, x_stride}, out, out_stride, samples, threads); \
    }
CIRCUITLAB_ADD(circuitlab_csr_add_f32, float)
CIRCUITLAB_ADD(circuitlab_csr_add_f64, double)

// out[edge] = sum over samples of post[row, sample] pre[column, sample]; added to what is there where `add` is not 0.
#define CIRCUITLAB_OUTER(NAME, T)                                                                                 \
    CIRCUITLAB_API void NAME(const int32_t *rows, const int32_t *columns, int64_t targets, int64_t sources,       \
                             const T *post, int64_t post_stride, const T *pre, int64_t pre_stride, T *out,        \
                             int64_t samples, int add, int threads) {                                             \
        const Matrix<T> w{rows, columns, nullptr, targets, sources};                                              \
        sampled_outer<T>(w, {post, post_stride}, {pre, pre_stride}, out, add != 0, samples, threads);             \
    }
CIRCUITLAB_OUTER(circuitlab_csr_outer_f32, float)
CIRCUITLAB_OUTER(circuitlab_csr_outer_f64, double)
