// logmel: (N, S) samples to (N, 1, T, mel_bins), T = S / hop + 1, in dB; pre-emphasis takes one
// sample off S. References: PANNs' Spectrogram and LogmelFilterBank (centred frames, reflected
// edges, power 2, no top_db); the settings beyond it are those of EfficientAT's front-end.
#include "ops/op.h"

namespace panns::ops {

const OpDef logmel_def = {
    .name = "logmel",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string& where) -> Specs {
      const auto& a = as<LogmelAttrs>(attrs);
      expect_dense(in[0], 2, where);
      const int64_t lost = a.preemphasis != 0 ? 1 : 0, samples = in[0].shape[1] - lost;
      PANNS_CHECK(samples > a.window_size / 2, "ERR_PANNS_SHAPE", where, "expected more than ",
                  a.window_size / 2 + lost, " samples (half a window, reflected at the edges",
                  lost > 0 ? ", and one for pre-emphasis" : "", "), got ", samples + lost);
      return {{Shape{in[0].shape[0], 1, samples / a.hop_size + 1, a.mel_bins}, Form::map}};
    },
    .cost = [](const Attrs& attrs, const Specs&, const Specs& out) -> Cost {
      const auto& a = as<LogmelAttrs>(attrs);
      double log2n = 0;
      for (int64_t n = a.window_size; n > 1; n /= 2) ++log2n;
      return {static_cast<double>(out[0].shape[0] * out[0].shape[2]) * 2.5 *
              static_cast<double>(a.window_size) * log2n};
    },
    .parse = [](AttrMap& map) -> Attrs { return LogmelAttrs::parse(map); },
};

}  // namespace panns::ops
