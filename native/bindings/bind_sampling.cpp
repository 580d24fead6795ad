// The sampler.
#include <cmath>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "core/error.h"
#include "core/sampling.h"

using namespace nb::literals;

namespace {

using OptionalTokens = std::optional<Vector<const int32_t>>;

Tokens tokens_of(const OptionalTokens& given) {
  return given ? Tokens{given->data(), given->shape(0)} : Tokens{};
}

int64_t sample_token(Vector<float> logits, Vector<const int32_t> recent, float temperature, size_t top_k, double top_p,
                     double min_p, float repeat_penalty, uint64_t seed, uint64_t position,
                     const OptionalTokens& answer, const OptionalTokens& dry, float presence_penalty,
                     float frequency_penalty, float dry_multiplier, float dry_base, size_t dry_allowed,
                     double top_n_sigma, double typical_p, double xtc_probability, double xtc_threshold) {
  const auto share = [](const char* name, double value) {
    REQUIRE(value >= 0 && value <= 1, "%s is %g, but must lie between 0 and 1", name, value);
  };
  const auto finite = [](const char* name, double value, double low) {
    REQUIRE(value >= low && std::isfinite(value) && value <= 1e6, "%s is %g", name, value);
  };
  REQUIRE(logits.shape(0) > 0 && logits.shape(0) <= size_t{1} << 31, "%zu logits", logits.shape(0));
  REQUIRE(temperature >= 0 && std::isfinite(temperature), "temperature is %g", static_cast<double>(temperature));
  share("top_p", top_p);
  share("min_p", min_p);
  share("typical_p", typical_p);
  share("xtc_probability", xtc_probability);
  share("xtc_threshold", xtc_threshold);
  REQUIRE(repeat_penalty > 0 && std::isfinite(repeat_penalty), "repeat_penalty is %g",
          static_cast<double>(repeat_penalty));
  finite("presence_penalty", static_cast<double>(presence_penalty), -1e6);
  finite("frequency_penalty", static_cast<double>(frequency_penalty), -1e6);
  finite("dry_multiplier", static_cast<double>(dry_multiplier), 0);
  finite("dry_base", static_cast<double>(dry_base), 1);
  finite("top_n_sigma", top_n_sigma, 0);
  const nb::gil_scoped_release unlocked;
  const Tokens looked_at{recent.data(), recent.shape(0)};
  return sample(logits.data(), logits.shape(0), {looked_at, tokens_of(answer), tokens_of(dry)},
                {temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, dry_multiplier,
                 dry_base, dry_allowed, top_n_sigma, typical_p, xtc_probability, xtc_threshold},
                seed, position);
}

constexpr const char* kSampleHelp =
    "Choose a token: a pure function of its arguments, the same on every machine.\n\n"
    "Each token of `recent` once has its logit divided by `repeat_penalty` (multiplied when negative); each of `answer`\n"
    "loses `presence_penalty`, and `frequency_penalty` as often as it is there; each that would make a repetition at\n"
    "the end of `dry` longer, `dry_multiplier` * `dry_base` ** (length - `dry_allowed`); all in place. Of the logits\n"
    "within `top_n_sigma` standard deviations of the largest, of the `top_k` largest (0: all), of the most typical that\n"
    "together reach `typical_p`, of the likeliest that together reach `top_p`, of those at least `min_p` times as\n"
    "likely as the likeliest, and (at a share `xtc_probability` of all positions) without those above `xtc_threshold`\n"
    "but the least of them, wins argmax(logit / temperature + gumbel(hash(seed, position, token))). Temperature 0\n"
    "takes the lowest index of the largest logit. -1, and nothing is changed, where a logit is NaN or infinite.";

}  // namespace

void bind_sampling(nb::module_& m) {
  m.def(
      "all_finite", [](const Vector<const float>& x) { return all_finite(x.data(), x.shape(0)); },
      "x"_a.noconvert(), "False where a number is NaN or infinite.");
  m.def(
      "hold",
      [](const Vector<float>& logits, const Vector<const uint8_t>& bits) {
        hold(logits.data(), logits.shape(0), bits.data(), bits.shape(0));
      },
      "logits"_a.noconvert(), "bits"_a.noconvert(),
      "Give the lowest score, in place, to every finite logit whose bit (the lowest first) is not set or not there.");
  m.def("sample", &sample_token, "logits"_a.noconvert(), "recent"_a.noconvert(), "temperature"_a, "top_k"_a, "top_p"_a,
        "min_p"_a, "repeat_penalty"_a, "seed"_a, "position"_a, "answer"_a.noconvert() = nb::none(),
        "dry"_a.noconvert() = nb::none(), "presence_penalty"_a = 0.0f, "frequency_penalty"_a = 0.0f,
        "dry_multiplier"_a = 0.0f, "dry_base"_a = 1.75f, "dry_allowed"_a = 2, "top_n_sigma"_a = 0.0,
        "typical_p"_a = 1.0, "xtc_probability"_a = 0.0, "xtc_threshold"_a = 0.1, kSampleHelp);
}
