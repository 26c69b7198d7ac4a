#include "audio/decode.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <utility>

#include "audio/decode_file.h"
#include "audio/resample.h"
#include "core/error.h"

namespace panns::audio {
namespace {

constexpr int64_t kNoEnd = std::numeric_limits<int64_t>::max();

// 128 KiB of floats: the read, the mix and the filter pass them on while they are in cache.
constexpr int64_t kChunkFloats = 1 << 15;

// Longer than any recording, short enough that seconds times rate stays exact in a double.
constexpr double kMostSeconds = 1e9;

// Frames of the output, [first, last).
struct Range {
  int64_t first = 0, last = kNoEnd;
};

Range range_of(const DecodeRequest& r, int rate, const std::string& name) {
  PANNS_CHECK(r.start_seconds >= 0 && r.start_seconds <= kMostSeconds, "ERR_PANNS_AUDIO_RANGE",
              name, "expected a start of 0 s or later, got ", r.start_seconds, " s");
  PANNS_CHECK(r.max_seconds > 0, "ERR_PANNS_AUDIO_RANGE", name, "expected a limit above 0 s, got ",
              r.max_seconds);
  Range out;
  out.first = std::llround(r.start_seconds * rate);
  if (!(r.duration_seconds < 0)) {
    PANNS_CHECK(r.duration_seconds <= kMostSeconds, "ERR_PANNS_AUDIO_RANGE", name,
                "expected a duration in seconds, got ", r.duration_seconds);
    out.last = std::llround((r.start_seconds + r.duration_seconds) * rate);
  }
  if (r.max_frames >= 0 && r.max_frames < out.last - out.first) {
    out.last = out.first + r.max_frames;
  }
  PANNS_CHECK(out.last > out.first, "ERR_PANNS_AUDIO_RANGE", name,
              "expected a range of at least one frame, got ", r.duration_seconds, " s at ", rate,
              " Hz");
  return out;
}

[[noreturn]] void throw_too_long(const std::string& name, const char* what, double limit) {
  throw Error("ERR_PANNS_AUDIO_TOO_LONG", name,
              cat("expected at most ", limit, " s, ", what,
                  "; read it in ranges (start, duration) or raise the limit"));
}

// What can be refused by the header alone.
void check_announced(const DecodeRequest& r, const Range& range, int rate, const AudioInfo& info,
                     const std::string& name) {
  if (info.frames < 0) return;
  const double seconds = double(info.frames) / info.sample_rate;
  PANNS_CHECK(r.start_seconds * info.sample_rate < double(info.frames), "ERR_PANNS_AUDIO_RANGE",
              name, "expected a start before the end at ", seconds, " s, got ", r.start_seconds,
              " s");
  const double wanted = std::min(seconds * rate, double(range.last)) - double(range.first);
  if (wanted > r.max_seconds * rate) {
    throw_too_long(name, cat("the range asked for holds ", wanted / rate, " s").c_str(),
                   r.max_seconds);
  }
}

// Nothing came out of a range that the header did not rule out.
[[noreturn]] void throw_nothing(const AudioFile& file, bool ended_early, const Range& range,
                                int rate) {
  const AudioInfo& info = file.info();
  const double end = double(file.position()) / info.sample_rate;
  if (range.first > 0) {
    throw Error("ERR_PANNS_AUDIO_RANGE", file.name(),
                cat("the audio ends at ", end, " s, before the start at ",
                    double(range.first) / rate, " s", ended_early ? " (the file is cut)" : ""));
  }
  const std::string reason = file.failure();
  PANNS_CHECK(ended_early || !reason.empty(), "ERR_PANNS_AUDIO_EMPTY", file.name(),
              "expected audio, got a ", info.format, " file without samples");
  throw Error("ERR_PANNS_AUDIO_CORRUPT", file.name(),
              cat("nothing of this ", info.format, " file can be decoded",
                  reason.empty() ? "" : ": ", reason));
}

// Averages over channels, or parts them; one row of frames floats per output channel.
void part(const float* in, int64_t frames, int channels, bool mono, float* out, int64_t stride) {
  if (channels == 1) {
    std::copy_n(in, frames, out);
  } else if (mono) {
    for (int64_t i = 0; i < frames; ++i) {
      double sum = 0;
      for (int c = 0; c < channels; ++c) sum += in[i * channels + c];
      out[i] = float(sum / channels);
    }
  } else {
    for (int c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < frames; ++i) out[c * stride + i] = in[i * channels + c];
    }
  }
}

bool finite(float x) { return (std::bit_cast<uint32_t>(x) & 0x7F800000u) != 0x7F800000u; }

// Returns how many values were replaced.
int64_t check_finite(float* values, int64_t count, int channels, const AudioFile& file,
                     int64_t first_frame, NanPolicy policy) {
  bool all = true;
  for (int64_t i = 0; i < count; ++i) all &= finite(values[i]);
  if (all) return 0;
  int64_t replaced = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (finite(values[i])) continue;
    const int64_t frame = first_frame + i / channels;
    PANNS_CHECK(policy == NanPolicy::kZero, "ERR_PANNS_AUDIO_NAN", file.name(),
                "expected finite samples, frame ", frame, " (",
                double(frame) / file.info().sample_rate, " s), channel ", i % channels, " is ",
                values[i], "; such samples can be read as 0 instead");
    values[i] = 0;
    ++replaced;
  }
  return replaced;
}

// Where the samples of a channel go.
class Sink {
 public:
  explicit Sink(Samples& samples) : samples_(&samples) {}
  Sink(std::span<int16_t> codes, std::string name) : codes_(codes), name_(std::move(name)) {}
  void append(const float* values, int64_t count) {
    if (samples_ != nullptr) {
      samples_->append(values, count);
    } else {
      // What is finite in the file may overflow in the resampler; in 16 bits it would not show.
      bool all = true;
      for (int64_t i = 0; i < count; ++i) all &= finite(values[i]);
      if (!all) throw_not_finite(values, count);
      to_int16(values, count, codes_.data() + size_);
    }
    size_ += count;
  }
  int64_t size() const { return size_; }

 private:
  [[noreturn]] void throw_not_finite(const float* values, int64_t count) const {
    const auto* bad = std::find_if(values, values + count, [](float x) { return !finite(x); });
    throw Error("ERR_PANNS_AUDIO_NAN", name_,
                cat("expected finite samples, sample ", size_ + (bad - values), " is ", *bad));
  }

  Samples* samples_ = nullptr;
  std::span<int16_t> codes_;
  std::string name_;
  int64_t size_ = 0;
};

// The frames of the range out of what arrives in order from frame next on.
class Window {
 public:
  Window(Range range, int64_t next, Sink sink) : range_(range), next_(next), sink_(sink) {}
  void take(const float* values, int64_t count) {
    const int64_t from = std::clamp<int64_t>(range_.first - next_, 0, count);
    const int64_t to = std::clamp<int64_t>(range_.last - next_, from, count);
    sink_.append(values + from, to - from);
    next_ += count;
  }
  bool full() const { return next_ >= range_.last; }
  int64_t size() const { return sink_.size(); }

 private:
  Range range_;
  int64_t next_;
  Sink sink_;
};

// Carries a range of a file into the result, chunk by chunk.
class Feed {
 public:
  Feed(AudioFile& file, const DecodeRequest& request, Range range, Decoded& out)
      : file_(file), request_(request), range_(range), out_(out) {
    const AudioInfo& info = file.info();
    const int rows = request.mono ? 1 : info.channels;
    if (request.codes.empty()) out.channels.resize(rows);
    chunk_frames_ = std::max<int64_t>(1, kChunkFloats / info.channels);
    chunk_.resize(chunk_frames_ * info.channels);
    rows_.resize(chunk_frames_ * rows);
    int64_t first_out = range.first;
    first_in_ = range.first;
    if (info.sample_rate != out.sample_rate) {
      for (int c = 0; c < rows; ++c) {
        resamplers_.emplace_back(info.sample_rate, out.sample_rate, request.quality);
      }
      // Every block of `in` frames makes a whole number of output frames, so a filter that starts
      // with a block is in phase with one that started with the file; the blocks before the range's
      // own fill it with what it would have seen.
      const int64_t g = std::gcd(info.sample_rate, out.sample_rate);
      const int64_t in = info.sample_rate / g, block_out = out.sample_rate / g;
      const int64_t before = (resamplers_[0].taps() + in - 1) / in;
      const int64_t block = std::max<int64_t>(0, range.first / block_out - before);
      first_in_ = block * in;
      first_out = block * block_out;
    }
    for (Samples& c : out.channels) windows_.emplace_back(range, first_out, Sink(c));
    if (out.channels.empty())
      windows_.emplace_back(range, first_out, Sink(request.codes, file.name()));
  }

  // Returns how many frames there were.
  int64_t run() {
    if (file_.seek(first_in_)) {
      const double most = std::min(request_.max_seconds, kMostSeconds);
      const int64_t limit = std::llround(most * out_.sample_rate);
      while (!windows_[0].full()) {
        if (!step()) {
          end();
          break;
        }
        if (windows_[0].size() > limit) {
          throw_too_long(file_.name(), "there is more than that", request_.max_seconds);
        }
      }
    } else {
      out_.truncated = true;
    }
    return windows_[0].size();
  }

 private:
  bool step() {
    const int channels = file_.info().channels;
    const int64_t at = file_.position();
    const int64_t frames = file_.read(chunk_.data(), chunk_frames_);
    if (frames == 0) return false;
    fed_ = true;
    out_.replaced +=
        check_finite(chunk_.data(), frames * channels, channels, file_, at, request_.nan);
    part(chunk_.data(), frames, channels, request_.mono, rows_.data(), chunk_frames_);
    for (size_t c = 0; c < windows_.size(); ++c) pass(c, rows_.data() + c * chunk_frames_, frames);
    return true;
  }

  void pass(size_t c, const float* row, int64_t frames) {
    if (resamplers_.empty()) return windows_[c].take(row, frames);
    const int64_t count = resamplers_[c].process_size(frames);
    resampled_.resize(count);
    resamplers_[c].process(row, frames, resampled_.data());
    windows_[c].take(resampled_.data(), count);
  }

  void end() {
    out_.truncated = file_.ended_early();
    if (!fed_) return;
    for (size_t c = 0; c < resamplers_.size(); ++c) {
      const int64_t count = resamplers_[c].flush_size();
      resampled_.resize(count);
      resamplers_[c].flush(resampled_.data());
      windows_[c].take(resampled_.data(), count);
    }
  }

  AudioFile& file_;
  const DecodeRequest& request_;
  const Range range_;
  Decoded& out_;
  int64_t chunk_frames_ = 0, first_in_ = 0;
  bool fed_ = false;
  std::vector<float> chunk_, rows_, resampled_;
  std::vector<Resampler> resamplers_;
  std::vector<Window> windows_;
};

}  // namespace

Samples::~Samples() { std::free(data_); }

Samples::Samples(Samples&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Samples& Samples::operator=(Samples&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
  return *this;
}

void Samples::reallocate(int64_t capacity) {
  void* grown = std::realloc(data_, capacity * sizeof(float));
  if (!grown) throw std::bad_alloc();
  data_ = static_cast<float*>(grown);
  capacity_ = capacity;
}

void Samples::append(const float* values, int64_t count) {
  if (count <= 0) return;
  if (size_ + count > capacity_) {
    reallocate(std::max({size_ + count, capacity_ + capacity_ / 2, kChunkFloats}));
  }
  std::copy_n(values, count, data_ + size_);
  size_ += count;
}

void Samples::shrink() {
  if (size_ > 0 && size_ < capacity_) reallocate(size_);
}

float* Samples::release() {
  size_ = capacity_ = 0;
  return std::exchange(data_, nullptr);
}

AudioInfo probe(const Source& source, const std::atomic<bool>* cancel) {
  return AudioFile(source, cancel).info();
}

Decoded decode(const DecodeRequest& request) {
  PANNS_CHECK(request.target_rate >= 0 && request.target_rate <= kHighestRate,
              "ERR_PANNS_AUDIO_RANGE", request.source.name(),
              "expected a rate of 0 (the file's) to ", kHighestRate, " Hz, got ",
              request.target_rate);
  AudioFile file(request.source, request.cancel);
  Decoded out;
  out.info = file.info();
  const AudioInfo& info = out.info;
  PANNS_CHECK(info.frames != 0, "ERR_PANNS_AUDIO_EMPTY", file.name(), "expected audio, got a ",
              info.format, " file of 0 frames");
  out.sample_rate = request.target_rate ? request.target_rate : info.sample_rate;
  DecodeRequest own = request;
  if (!request.codes.empty()) {
    PANNS_CHECK(request.mono, "ERR_PANNS_OPTION", file.name(), "expected 16 bits of mono only");
    const auto room = static_cast<int64_t>(request.codes.size());
    own.max_frames = own.max_frames < 0 ? room : std::min(own.max_frames, room);
  }
  const Range range = range_of(own, out.sample_rate, file.name());
  check_announced(request, range, out.sample_rate, info, file.name());

  out.frames = Feed(file, request, range, out).run();
  if (out.frames == 0) throw_nothing(file, out.truncated, range, out.sample_rate);
  for (Samples& c : out.channels) c.shrink();
  return out;
}

void to_int16(const float* in, int64_t count, int16_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    // The comparisons are written so that NaN falls to 0: its conversion would be undefined.
    const float x = in[i] > -1.f ? std::min(in[i], 1.f) : in[i] <= -1.f ? -1.f : 0.f;
    // In double the product is exact: a float would round some up to the next step.
    out[i] = int16_t(double(x) * 32767.);
  }
}

void to_float(const int16_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = float(in[i]) / 32767.f;
}

}  // namespace panns::audio
