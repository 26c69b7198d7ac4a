// Audio files made by the tests: WAV byte by byte, the compressed formats by libsndfile itself.
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "audio/sndfile.h"
#include "seed.h"

namespace audio_files {

using Bytes = std::vector<uint8_t>;

// A folder of this process, removed at the end.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "panns-audio-XXXXXX").string();
    if (!mkdtemp(name.data())) std::abort();
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, const Bytes& bytes) const {
    std::ofstream(*this / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
    return *this / name;
  }

 private:
  std::string path_;
};

inline Bytes read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

inline std::mt19937_64& random() {
  static std::mt19937_64 engine{test::seed()};
  return engine;
}

// Interleaved: a tone of its own in every channel, and noise, within 0.9.
inline std::vector<float> sound(int64_t frames, int channels, int rate) {
  std::normal_distribution<float> noise(0.f, 0.05f);
  std::uniform_real_distribution<double> hz(100., 0.2 * rate);
  std::vector<float> out(frames * channels);
  for (int c = 0; c < channels; ++c) {
    const double w = 2 * M_PI * hz(random()) / rate;
    for (int64_t i = 0; i < frames; ++i) {
      out[i * channels + c] =
          std::fmin(0.9f, std::fmax(-0.9f, float(0.4 * std::sin(w * double(i))) + noise(random())));
    }
  }
  return out;
}

inline void put(Bytes& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(uint8_t(value >> (8 * i)));
}
inline void put(Bytes& out, const char* tag) {
  for (int i = 0; i < 4; ++i) out.push_back(uint8_t(tag[i]));
}

enum class Kind { integer, floating };

struct Wav {
  Kind kind = Kind::integer;
  int bits = 16;
  int channels = 1;
  int rate = 44100;
  bool extensible = false;
  // What the header says instead of the truth, where it is to lie.
  int64_t claimed_data = -1;
  int claimed_channels = -1;
  int64_t claimed_rate = -1;
};

// The header of a WAV whose samples take `data` bytes.
inline Bytes wav_header(const Wav& w, int64_t data) {
  const int code = w.kind == Kind::integer ? 1 : 3, width = w.bits / 8;
  const int channels = w.claimed_channels >= 0 ? w.claimed_channels : w.channels;
  const int64_t rate = w.claimed_rate >= 0 ? w.claimed_rate : w.rate;
  const int64_t claimed = w.claimed_data >= 0 ? w.claimed_data : data;
  const int format_bytes = w.extensible ? 40 : 16;
  Bytes out;
  put(out, "RIFF");
  put(out, uint64_t(20 + format_bytes + claimed), 4);
  put(out, "WAVE");
  put(out, "fmt ");
  put(out, format_bytes, 4);
  put(out, w.extensible ? 0xFFFE : code, 2);
  put(out, channels, 2);
  put(out, rate, 4);
  put(out, rate * channels * width, 4);
  put(out, channels * width, 2);
  put(out, w.bits, 2);
  if (w.extensible) {
    put(out, 22, 2);
    put(out, w.bits, 2);
    put(out, 0, 4);  // no speaker positions
    put(out, code, 2);
    const uint8_t guid[14] = {0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71};
    out.insert(out.end(), guid, guid + 14);
  }
  put(out, "data");
  put(out, uint64_t(claimed), 4);
  return out;
}

// The samples as they are stored, and the exact values that a reader is to give back for them.
inline Bytes wav(const Wav& w, const std::vector<float>& samples, std::vector<float>* stored) {
  Bytes out = wav_header(w, int64_t(samples.size()) * w.bits / 8);
  const double scale = std::ldexp(1., w.bits - 1);
  for (const float x : samples) {
    double kept = x;
    if (w.kind == Kind::floating && w.bits == 32) {
      uint32_t raw;
      std::memcpy(&raw, &x, 4);
      put(out, raw, 4);
    } else if (w.kind == Kind::floating) {
      uint64_t raw;
      std::memcpy(&raw, &kept, 8);
      put(out, raw, 8);
    } else {
      const int64_t level = std::llround(double(x) * (scale - 1));
      put(out, uint64_t(w.bits == 8 ? level + 128 : level), w.bits / 8);
      kept = double(level) / scale;
    }
    if (stored) stored->push_back(float(kept));
  }
  return out;
}

// A file in one of libsndfile's formats (SF_FORMAT codes); false where this build cannot write it.
inline bool write_sndfile(const std::string& path, int format, const std::vector<float>& samples,
                          int channels, int rate) {
  const panns::audio::SndfileApi& api = panns::audio::sndfile();
  panns::audio::SndfileInfo info;
  info.samplerate = rate;
  info.channels = channels;
  info.format = format;
  panns::audio::SndfileHandle* file = api.open(path.c_str(), panns::audio::kSndfileWrite, &info);
  if (!file) return false;
  const int64_t frames = int64_t(samples.size()) / channels;
  // Pieces: the Vorbis encoder's analysis of a large block lies on the stack.
  bool whole = true;
  for (int64_t at = 0; at < frames && whole; at += 4096) {
    const int64_t count = std::min<int64_t>(4096, frames - at);
    whole = api.writef_float(file, samples.data() + at * channels, count) == count;
  }
  return api.close(file) == 0 && whole;
}

}  // namespace audio_files
