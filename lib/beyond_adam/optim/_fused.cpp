// One pass over memory for a step of the Adam family; compiled and called by `_fused.py`.
//
// A step must read w, g, m, v and write w, m, v: 28 bytes per float32 weight. Every thread walks
// through its share in short blocks, and steps a block in one loop or, where that is faster, does
// one thing after another to it while it lies in the L1 cache. So a hyperparameter is looked at
// once per block, any of them may change from step to step, and the loops inside are simple enough
// for compilers to vectorise.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace {

using std::int32_t;
using std::int64_t;

constexpr int64_t BLOCK = 256;          // elements; short, so that memory is not idle for long
constexpr int64_t LEAST_SHARE = 32768;  // elements that are worth a thread
constexpr int NO_ROOT = -1;

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
    // Three loops, since processors work on several turns of a loop at a time only if it is short.
    alignas(64) float fractions[BLOCK], exponents[BLOCK];
    for (int64_t i = 0; i < n; ++i) {
        const float x = std::abs(from[i]);
        int32_t bits = bits_of(x);
        // A subnormal number is an integer times 2^−149. Arithmetic on it would be slow.
        const int32_t subnormal = -(bits < 0x00800000);
        bits ^= (bits ^ bits_of(static_cast<float>(bits))) & subnormal;
        // |x| = 2^e (1 + u) with 1 + u between √½ and √2
        const int32_t e = (bits - 0x3f3504f3) >> 23;
        fractions[i] = from_bits(bits - (e << 23)) - 1.f;
        exponents[i] = static_cast<float>(e - (subnormal & 149));
    }
    for (int64_t i = 0; i < n; ++i) {
        const float u = fractions[i];
        // log₂(1 + u) / u within 3e-7 / u, minimax
        float log2 = 0.170634466f;
        log2 = log2 * u - 0.272697917f;
        log2 = log2 * u + 0.297262594f;
        log2 = log2 * u - 0.358961852f;
        log2 = log2 * u + 0.480465033f;
        log2 = log2 * u - 0.721375871f;
        log2 = log2 * u + 1.44269973f;
        log2 = log2 * u + exponents[i];
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

// How many square roots a power is.
inline int roots(double power) {
    return power == 1 ? 0 : power == 0.5 ? 1 : power == 0.25 ? 2 : power == 0.125 ? 3 : NO_ROOT;
}

// x ← x^power for x ≥ 0 and power ≥ 0.
template <typename T> void raise_in_place(T *x, int64_t n, double power) {
    if (power == 0)
        std::fill(x, x + n, T(1));
    else if (roots(power) == NO_ROOT)
        raise<true>(x, x, n, power, 1.);
    for (int root = 0; root < roots(power); ++root)
        for (int64_t i = 0; i < n; ++i) x[i] = std::sqrt(x[i]);
}

// From a by `part` of the way to b, which is exact at both ends.
template <typename T> inline T towards(T a, T b, T part) {
    return part < T(0.5) ? a + part * (b - a) : b - (1 - part) * (b - a);
}

// ---- one weight ----

// What is the same for all elements of a tensor, in the type that is computed in.
template <typename T> struct Constants {
    T gradient, coupled, beta2, new1, new2, correction, eps, kept, step_size, rest, strength, news;

    Constants(const Rule &rule, const Scalars &scalars) {
        gradient = rule.gradient, coupled = rule.coupled, eps = rule.eps;
        kept = rule.kept, rest = rule.rest, strength = rule.strength;
        beta2 = rule.beta2, new1 = 1 - rule.beta1, new2 = 1 - rule.beta2, news = 1 - rule.beta_s;
        step_size = scalars.step_size, correction = 1 / scalars.divisor;
        if (rule.eps_at_power) correction = 1 / (scalars.divisor * scalars.divisor);
    }
};

// Adam's step from x.
template <typename T> inline T moved(const Constants<T> &c, T x, T m, T d) {
    return c.kept * x - c.step_size * (m / d);
}

// What becomes of x: u / (rest + strength · y^(p − 2)), where u is Adam's step from x, and y is the
// size of u if the decay is that of the updated weight, otherwise that of x.
//
// Nothing is decayed where y is cut off, and products with it might overflow.

struct Undecayed {
    template <typename T> static T step(const Constants<T> &c, T x, T m, T d, const T *) {
        return moved(c, x, m, d);
    }
};

struct Given {  // strength · y^(p − 2)
    template <typename T> static T step(const Constants<T> &c, T x, T m, T d, const T *decay) {
        return moved(c, x, m, d) / (c.rest + *decay);
    }
};

struct Two {
    template <typename T> static T step(const Constants<T> &c, T x, T m, T d, const T *) {
        return moved(c, x, m, d) / (c.rest + c.strength);
    }
};

template <bool UPDATED> struct ThreeHalves {
    template <typename T> static T step(const Constants<T> &c, T x, T m, T d, const T *) {
        const T u = moved(c, x, m, d), y = std::abs(UPDATED ? u : x);
        const T root = std::sqrt(y < T(1e38) ? y : T(1e38));
        return u * (root / (root * c.rest + c.strength));
    }
};

template <bool UPDATED> struct One {
    template <typename T> static T step(const Constants<T> &c, T x, T m, T d, const T *) {
        const T u = moved(c, x, m, d), y = std::abs(UPDATED ? u : x);
        const T cut = y < T(1e20) ? y : T(1e20);
        return u * (cut / (cut * c.rest + c.strength));
    }
};

template <bool UPDATED> struct Half {
    template <typename T> static T step(const Constants<T> &c, T x, T m, T d, const T *) {
        const T u = moved(c, x, m, d), y = std::abs(UPDATED ? u : x);
        const T cut = y < T(1e20) ? y : T(1e20), root = std::sqrt(cut);
        return u * (cut * (root / (cut * root * c.rest + c.strength)));
    }
};

// ---- the step ----

// Some elements of a tensor; S is how its weights are stored, T the type that is computed in.
template <typename S, typename T> class Block {
    const Rule &rule;
    const Constants<T> &constants;
    const int64_t n;
    S *const __restrict w;
    const S *const __restrict g;
    T *const __restrict m, *const __restrict v, *const __restrict peak, *const __restrict inverse_s;
    alignas(64) T denominator[BLOCK];
    alignas(64) T decay[BLOCK];

  public:
    Block(const Rule &rule, const Constants<T> &constants, const Slot &slot, int64_t start, int64_t n)
        : rule(rule), constants(constants), n(n), w(static_cast<S *>(slot.w) + start),
          g(static_cast<const S *>(slot.g) + start), m(static_cast<T *>(slot.m) + start),
          v(static_cast<T *>(slot.v) + start), peak(static_cast<T *>(slot.peak) + start),
          inverse_s(static_cast<T *>(slot.inverse_s) + start) {}

    void step() {
        const bool updated = rule.decay == Decay::UPDATED;
        if (rule.decay == Decay::NONE)
            step_undecayed();
        else if (rule.decay == Decay::DYNAMIC)
            relax(), step<Given>();
        else if (rule.p == 2)
            step<Two>();
        else if (rule.p == 1.5)
            updated ? step_in_turn<ThreeHalves<true>>() : step_in_turn<ThreeHalves<false>>();
        else if (rule.p == 1)
            updated ? step_in_turn<One<true>>() : step<One<false>>();
        else if (rule.p == 0.5)
            updated ? step_in_turn<Half<true>>() : step_in_turn<Half<false>>();
        else if (updated)
            step_updated();
        else
            find_decay(), step<Given>();
    }

  private:
    // One loop saves time where it does not wait for several roots and quotients. Loops take time
    // to compile, so that rare rules have none of their own.
    template <typename P> void step() {
        if (!rule.eps_at_power && !rule.amsgrad && roots(rule.power) == 0)
            step_at_once<P, false, 0>();
        else
            step_in_turn<P>();
    }

    void step_undecayed() {
        const bool at_once = !rule.eps_at_power && rule.amsgrad;
        switch (at_once ? roots(rule.power) : NO_ROOT) {
            case 0: return step_at_once<Undecayed, true, 0>();
            case 1: return step_at_once<Undecayed, true, 1>();
            case 2: return step_at_once<Undecayed, true, 2>();
            default: return step<Undecayed>();
        }
    }

    // The denominator is √v̂ + ε, of which as many ROOTS are taken.
    template <typename P, bool AMSGRAD, int ROOTS> void step_at_once() {
        const Constants<T> c = constants;
        for (int64_t i = 0; i < n; ++i) {
            T d = take_moments<AMSGRAD, true>(c, i);
            for (int root = 0; root < ROOTS; ++root) d = std::sqrt(d);
            w[i] = stored<S, T>(P::step(c, static_cast<T>(w[i]), m[i], d, decay + i));
        }
    }

    template <typename P> void step_in_turn() {
        const Constants<T> c = constants;
        find_denominator();
        for (int64_t i = 0; i < n; ++i)
            w[i] = stored<S, T>(P::step(c, static_cast<T>(w[i]), m[i], denominator[i], decay + i));
    }

    void step_updated() {
        const Constants<T> c = constants;
        find_denominator();
        T *const u = denominator;  // unrounded
        for (int64_t i = 0; i < n; ++i) u[i] = moved(c, static_cast<T>(w[i]), m[i], denominator[i]);
        raise<false>(u, decay, n, rule.p - 2, rule.strength);
        for (int64_t i = 0; i < n; ++i) w[i] = stored<S, T>(u[i] / (c.rest + decay[i]));
    }

    void find_denominator() {
        if (rule.amsgrad)
            rule.eps_at_power ? take_moments<true, false>() : take_moments<true, true>();
        else
            rule.eps_at_power ? take_moments<false, false>() : take_moments<false, true>();
        raise_in_place(denominator, n, rule.power);
        if (rule.eps_at_power)
            for (int64_t i = 0; i < n; ++i) denominator[i] += constants.eps;
    }

    template <bool AMSGRAD, bool ROOT> void take_moments() {
        const Constants<T> c = constants;
        for (int64_t i = 0; i < n; ++i) denominator[i] = take_moments<AMSGRAD, ROOT>(c, i);
    }

    // Move m, v and max v of an element; return √v̂ + ε (ROOT) or v̂.
    template <bool AMSGRAD, bool ROOT> T take_moments(const Constants<T> &c, int64_t i) {
        T grad = c.gradient * static_cast<T>(g[i]);
        if (c.coupled != 0) grad += c.coupled * static_cast<T>(w[i]);
        m[i] = towards(m[i], grad, c.new1);
        T square = c.beta2 * v[i] + c.new2 * (grad * grad);
        v[i] = square;
        if constexpr (AMSGRAD) {
            const bool rises = square > peak[i] || square != square;  // either NaN is kept
            square = rises ? square : peak[i];
            peak[i] = square;
        }
        return ROOT ? std::sqrt(square) * c.correction + c.eps : square * c.correction;
    }

    // strength · |w|^(p − 2)
    void find_decay() {
        for (int64_t i = 0; i < n; ++i) decay[i] = static_cast<T>(w[i]);
        raise<false>(decay, decay, n, rule.p - 2, rule.strength);
    }

    // 1/s towards |w|^(2−p), and the decay pηλs
    void relax() {
        const Constants<T> c = constants;
        for (int64_t i = 0; i < n; ++i) decay[i] = std::abs(static_cast<T>(w[i]));
        raise_in_place(decay, n, 2 - rule.p);
        for (int64_t i = 0; i < n; ++i) {
            inverse_s[i] = towards(inverse_s[i], decay[i], c.news);
            decay[i] = c.strength > 0 ? c.strength / inverse_s[i] : 0;
        }
    }
};

template <typename S, typename T>
void step(const Rule &rule, const Slot &slot, int64_t first, int64_t last) {
    const Constants<T> constants(rule, Scalars(rule, slot));
    for (int64_t start = first; start < last; start += BLOCK)
        Block<S, T>(rule, constants, slot, start, std::min(BLOCK, last - start)).step();
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
