// One pass over memory for a step of the Adam family; compiled and called by `_fused.py`.
//
// A step must read w, g, m, v and write w, m, v: 28 bytes per float32 weight. Every thread walks
// through its share in short blocks and does one thing after another to a block while it lies in
// the L1 cache. So a hyperparameter is looked at once per block, any of them may change from step
// to step, and the loops inside are simple enough for compilers to vectorise.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace {

using std::int32_t;
using std::int64_t;

constexpr int64_t BLOCK = 256;         // elements; short, so that memory is not idle for long
constexpr int64_t LEAST_SHARE = 32768;  // elements that are worth a thread

enum class DType : int32_t { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };
enum class Decay : int32_t { NONE, PREVIOUS, UPDATED, DYNAMIC };  // of the p-norm

enum class Correction : int32_t { NONE, MOMENTS, STEP_SIZE };

// What all tensors share; `_fused.py` has the same fields in the same order.
struct Rule {
    double lr;
    double gradient;         // ±1, over the scale of the loss
    double coupled;          // λ in g + λw
    double kept;             // 1 − ηλ of the decoupled square norm
    double beta1, beta2, eps;
    double power;            // of √v̂ + ε, or of v̂ if ε is added to its power
    double rest;             // 1 + ηλ₂
    double strength;         // pηλ; 0 only if decay is NONE or DYNAMIC, or p = 2
    double p;
    double beta_s;
    int32_t eps_at_power, amsgrad;
    Correction correction;
    Decay decay;
    DType dtype;             // of w and g; the others are float, or double for FLOAT64
    int32_t double_steps;    // whether steps are counted in double
};

// A tensor, by the addresses of its first elements.
struct Slot {
    void *w;
    const void *g;
    void *m, *v, *peak, *inverse_s, *step;
    int64_t size;
};

// η and what divides √v, corrected for bias.
struct Scalars {
    double step_size, divisor;

    Scalars(const Rule &rule, const Slot &slot) {
        const double t = rule.double_steps ? *static_cast<double *>(slot.step)
                                           : *static_cast<float *>(slot.step);
        const double bias1 = 1 - std::pow(rule.beta1, t), bias2 = 1 - std::pow(rule.beta2, t);
        step_size = rule.lr, divisor = 1;
        if (rule.correction == Correction::MOMENTS)
            step_size = rule.lr / bias1, divisor = std::sqrt(bias2);
        else if (rule.correction == Correction::STEP_SIZE)
            step_size = rule.lr * std::sqrt(bias2) / bias1;
    }
};

// ---- bits ----

inline int32_t bits_of(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float from_bits(int32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

struct BFloat16 {
    std::uint16_t bits;
    explicit operator float() const { return from_bits(static_cast<int32_t>(std::uint32_t(bits) << 16)); }
};

template <typename S, typename T> inline S stored(T x) { return static_cast<S>(x); }

template <> inline BFloat16 stored<BFloat16, float>(float x) {  // to nearest, ties to even
    const std::uint32_t bits = bits_of(x);
    const std::uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return {static_cast<std::uint16_t>(x == x ? rounded : 0x7fc0)};
}

// ---- powers ----

// GCC takes half of the width of vectors that an Intel processor has, since a processor slows down
// for a while when it begins to take the whole. That pays for the long loops of powers, and for no
// others.
#if defined(__AVX512F__) && __GNUC__ >= 11
#define WIDE __attribute__((noinline, target("prefer-vector-width=512")))
#else
#define WIDE
#endif

// to[i] = scale · |from[i]|^power for scale > 0, at 0 as well: 0, or ∞ for a negative power;
// for at most BLOCK numbers.
//
// The relative error is below 1e-5 (1.6e-5 for a scale below 1e-3), and of the order of 1e-6 but
// for the largest and smallest numbers. A result below the least normal number becomes that one.
template <bool POSITIVE>
WIDE void raise(const float *from, float *to, int64_t n, double power, double scale) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    constexpr float magic = 12582912.f;  // 1.5 · 2²³: sums with it are rounded to integers
    const float slope = static_cast<float>(power), offset = static_cast<float>(std::log2(scale));
    const float lost = static_cast<float>(power - slope);
    // Two loops, since processors work on several turns of a loop at a time only if it is short.
    float exponents[BLOCK];
    for (int64_t i = 0; i < n; ++i) {
        const float x = std::abs(from[i]);
        int32_t bits = bits_of(x);
        // A subnormal number is an integer times 2^−149. Arithmetic on it would be slow.
        const int32_t subnormal = -(bits < 0x00800000);
        bits ^= (bits ^ bits_of(static_cast<float>(bits))) & subnormal;
        // |x| = 2^e (1 + u) with 1 + u between √½ and √2
        const int32_t e = (bits - 0x3f3504f3) >> 23;
        const float u = from_bits(bits - (e << 23)) - 1.f;
        // log₂(1 + u) / u within 3e-7 / u, minimax
        float log2 = 0.170634466f;
        log2 = log2 * u - 0.272697917f;
        log2 = log2 * u + 0.297262594f;
        log2 = log2 * u - 0.358961852f;
        log2 = log2 * u + 0.480465033f;
        log2 = log2 * u - 0.721375871f;
        log2 = log2 * u + 1.44269973f;
        log2 = log2 * u + static_cast<float>(e - (subnormal & 149));
        exponents[i] = slope * log2 + (lost * log2 + offset);
    }
    for (int64_t i = 0; i < n; ++i) {
        const float x = std::abs(from[i]);
        float y = exponents[i];
        y = y > -126.f ? y : -126.f;
        y = y < 128.f ? y : 128.f;
        // 2^y = 2^n 2^r for the integer n in the last bits of `shifted`
        const float shifted = y + magic, r = y - (shifted - magic);
        // 2^r within 1e-7, minimax
        float result = 0.00132647271f;
        result = result * r + 0.00967151264f;
        result = result * r + 0.0555073374f;
        result = result * r + 0.240222421f;
        result = result * r + 0.693146978f;
        result = result * r + 1.f;
        result = from_bits(bits_of(result) + (bits_of(shifted) << 23));
        if constexpr (POSITIVE)
            to[i] = x > 0.f && x < infinity ? result : x;
        else
            to[i] = x == 0.f ? infinity : result;
    }
}

template <bool POSITIVE>
void raise(const double *from, double *to, int64_t n, double power, double scale) {
    for (int64_t i = 0; i < n; ++i) to[i] = scale * std::pow(std::abs(from[i]), power);
}

// x ← x^power for x ≥ 0 and power ≥ 0; the usual powers are roots.
template <typename T> void raise_in_place(T *x, int64_t n, double power) {
    const int roots = power == 0.5 ? 1 : power == 0.25 ? 2 : power == 0.125 ? 3 : 0;
    if (power == 0)
        std::fill(x, x + n, T(1));
    else if (power != 1 && roots == 0)
        raise<true>(x, x, n, power, 1.);
    for (int root = 0; root < roots; ++root)
        for (int64_t i = 0; i < n; ++i) x[i] = std::sqrt(x[i]);
}

// From a by `part` of the way to b, which is exact at both ends.
template <typename T> inline T towards(T a, T b, T part) {
    return part < T(0.5) ? a + part * (b - a) : b - (1 - part) * (b - a);
}

// ---- u / (rest + strength · x^(p − 2)) for x ≥ 0, without a power ----
//
// Nothing is decayed where x is cut off, and products with it might overflow.

struct Two {
    template <typename T> static T shrunk(T u, T, T rest, T strength) { return u / (rest + strength); }
};

struct ThreeHalves {
    template <typename T> static T shrunk(T u, T x, T rest, T strength) {
        const T root = std::sqrt(x < T(1e38) ? x : T(1e38));
        return u * (root / (root * rest + strength));
    }
};

struct One {
    template <typename T> static T shrunk(T u, T x, T rest, T strength) {
        x = x < T(1e20) ? x : T(1e20);
        return u * (x / (x * rest + strength));
    }
};

struct Half {
    template <typename T> static T shrunk(T u, T x, T rest, T strength) {
        x = x < T(1e20) ? x : T(1e20);
        const T root = std::sqrt(x);
        return u * (x * (root / (x * root * rest + strength)));
    }
};

// ---- the step ----

// Some elements of a tensor; S is how its weights are stored, T the type that is computed in.
template <typename S, typename T> class Block {
    const Rule &rule;
    const Scalars &scalars;
    const int64_t n;
    S *const __restrict w;
    const S *const __restrict g;
    T *const __restrict m, *const __restrict v, *const __restrict peak, *const __restrict inverse_s;
    T denominator[BLOCK], decay[BLOCK];

  public:
    Block(const Rule &rule, const Slot &slot, const Scalars &scalars, int64_t start, int64_t n)
        : rule(rule), scalars(scalars), n(n), w(static_cast<S *>(slot.w) + start),
          g(static_cast<const S *>(slot.g) + start), m(static_cast<T *>(slot.m) + start),
          v(static_cast<T *>(slot.v) + start), peak(static_cast<T *>(slot.peak) + start),
          inverse_s(static_cast<T *>(slot.inverse_s) + start) {}

    void step() {
        if (rule.amsgrad)
            rule.eps_at_power ? moments<true, false>() : moments<true, true>();
        else
            rule.eps_at_power ? moments<false, false>() : moments<false, true>();
        raise_in_place(denominator, n, rule.power);
        if (rule.eps_at_power)
            for (int64_t i = 0; i < n; ++i) denominator[i] += static_cast<T>(rule.eps);

        if (rule.decay == Decay::NONE)
            move();
        else if (rule.decay == Decay::DYNAMIC)
            relax(), move_and_shrink();
        else if (rule.p == 2)
            move_and_shrink<Two>();
        else if (rule.p == 1.5)
            move_and_shrink<ThreeHalves>();
        else if (rule.p == 1)
            move_and_shrink<One>();
        else if (rule.p == 0.5)
            move_and_shrink<Half>();
        else if (rule.decay == Decay::UPDATED)
            move(), shrink();
        else {
            for (int64_t i = 0; i < n; ++i) decay[i] = static_cast<T>(w[i]);
            raise<false>(decay, decay, n, rule.p - 2, rule.strength);
            move_and_shrink();
        }
    }

  private:
    // m, v, max v, and √v̂ + ε (ROOT) or v̂ as the denominator
    template <bool AMSGRAD, bool ROOT> void moments() {
        const T gradient = rule.gradient, coupled = rule.coupled, eps = rule.eps;
        const T beta2 = rule.beta2, new1 = 1 - rule.beta1, new2 = 1 - rule.beta2;
        const T correction = ROOT ? 1 / scalars.divisor : 1 / (scalars.divisor * scalars.divisor);
        for (int64_t i = 0; i < n; ++i) {
            T grad = gradient * static_cast<T>(g[i]);
            if (coupled != 0) grad += coupled * static_cast<T>(w[i]);
            m[i] = towards(m[i], grad, new1);
            T square = beta2 * v[i] + new2 * (grad * grad);
            v[i] = square;
            if constexpr (AMSGRAD) {
                const bool rises = square > peak[i] || square != square;  // either NaN is kept
                square = rises ? square : peak[i];
                peak[i] = square;
            }
            denominator[i] = ROOT ? std::sqrt(square) * correction + eps : square * correction;
        }
    }

    // 1/s towards |w|^(2−p), and the decay pηλs
    void relax() {
        const T news = 1 - rule.beta_s, strength = rule.strength;
        for (int64_t i = 0; i < n; ++i) decay[i] = std::abs(static_cast<T>(w[i]));
        raise_in_place(decay, n, 2 - rule.p);
        for (int64_t i = 0; i < n; ++i) {
            inverse_s[i] = towards(inverse_s[i], decay[i], news);
            decay[i] = strength > 0 ? strength / inverse_s[i] : 0;
        }
    }

    // The step of Adam, without p-norm: it leaves û also where the denominators were, unrounded.
    void move() {
        const T kept = rule.kept, step_size = scalars.step_size;
        for (int64_t i = 0; i < n; ++i) {
            const T u = kept * static_cast<T>(w[i]) - step_size * (m[i] / denominator[i]);
            denominator[i] = u;
            w[i] = stored<S, T>(u);
        }
    }

    void shrink() {
        const T rest = rule.rest;
        const T *u = denominator;
        raise<false>(u, decay, n, rule.p - 2, rule.strength);
        for (int64_t i = 0; i < n; ++i) w[i] = stored<S, T>(u[i] / (rest + decay[i]));
    }

    void move_and_shrink() {
        const T kept = rule.kept, step_size = scalars.step_size, rest = rule.rest;
        for (int64_t i = 0; i < n; ++i) {
            const T u = kept * static_cast<T>(w[i]) - step_size * (m[i] / denominator[i]);
            w[i] = stored<S, T>(u / (rest + decay[i]));
        }
    }

    template <typename P> void move_and_shrink() {
        const T kept = rule.kept, step_size = scalars.step_size;
        // Not 0, since 0/0 would be left of w = 0.
        const T least = std::numeric_limits<T>::min();
        const T rest = rule.rest, strength = std::max(static_cast<T>(rule.strength), least);
        const bool updated = rule.decay == Decay::UPDATED;
        for (int64_t i = 0; i < n; ++i) {
            const T x = static_cast<T>(w[i]);
            const T u = kept * x - step_size * (m[i] / denominator[i]);
            w[i] = stored<S, T>(P::shrunk(u, std::abs(updated ? u : x), rest, strength));
        }
    }
};

template <typename S, typename T>
void step(const Rule &rule, const Slot &slot, int64_t first, int64_t last) {
    const Scalars scalars(rule, slot);
    for (int64_t start = first; start < last; start += BLOCK)
        Block<S, T>(rule, slot, scalars, start, std::min(BLOCK, last - start)).step();
}

void step(const Rule &rule, const Slot &slot, int64_t first, int64_t last) {
    switch (rule.dtype) {
        case DType::FLOAT32: return step<float, float>(rule, slot, first, last);
        case DType::FLOAT64: return step<double, double>(rule, slot, first, last);
        case DType::BFLOAT16: return step<BFloat16, float>(rule, slot, first, last);
        case DType::FLOAT16:
#ifdef __FLT16_MAX__
            return step<_Float16, float>(rule, slot, first, last);
#endif
            return;
    }
}

}  // namespace

extern "C" {

// Whether the compiler knows float16.
int32_t has_float16() {
#ifdef __FLT16_MAX__
    return 1;
#else
    return 0;
#endif
}

// Take the step for `count` tensors; every thread takes an equal share of all their elements.
void take_step(const Rule *rule, const Slot *slots, int64_t count, int32_t threads) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; ++i) {
        total += slots[i].size;
        rule->double_steps ? *static_cast<double *>(slots[i].step) += 1
                           : *static_cast<float *>(slots[i].step) += 1;
    }
    const int32_t shares = std::clamp<int64_t>(total / LEAST_SHARE, 1, threads);
#pragma omp parallel for num_threads(shares) schedule(static, 1)
    for (int32_t share = 0; share < shares; ++share) {
        int64_t first = total * share / shares, last = total * (share + 1) / shares;
        for (int64_t i = 0; i < count && last > 0; ++i) {
            const int64_t size = slots[i].size;
            if (first < size)
                step(*rule, slots[i], std::max<int64_t>(first, 0), std::min(last, size));
            first -= size;
            last -= size;
        }
    }
}
}
