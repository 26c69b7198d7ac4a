// MPEG layer III streams made exact for libsndfile. It takes an MP3's length from the Xing (or
// Info) header in the first frame; without one it extrapolates from the first bit rate and stops
// reading there, which loses most of a variable-rate file that opens with a loud second. So the
// frames are counted here where no header can be trusted, and a header that says the truth goes
// before them.
#pragma once

#include <cstdint>
#include <vector>

#include "audio/decode_source.h"

namespace panns::audio {

// A first frame to be presented in the place of the file's bytes up to `from`, and of those after
// `to`: tags are no audio either.
struct Mp3Repair {
  std::vector<uint8_t> first_frame;  // empty: the file serves as it is
  int64_t from = 0, to = 0;
  bool cut = false;  // the file's own header announces more frames than there are
};

// Reads headers only: the first, or every one where the first does not say, or does not fit the
// file's size.
Mp3Repair inspect_mp3(ByteReader& reader);

}  // namespace panns::audio
