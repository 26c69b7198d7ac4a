#include "data/loader.h"

#include <algorithm>
#include <exception>
#include <new>

#include "core/error.h"

namespace panns::data {
namespace {

void write_row(const float* in, int64_t count, float* row) { std::copy_n(in, count, row); }
void write_row(const float* in, int64_t count, int16_t* row) { audio::to_int16(in, count, row); }

// One clip into row; returns its result or throws.
template <typename T>
ClipResult read_clip(const ClipRequest& clip, const ClipOptions& options, T* row) {
  audio::DecodeRequest request;
  request.source = clip.source;
  request.start_seconds = clip.start_seconds;
  request.duration_seconds = clip.duration_seconds;
  request.max_frames = options.samples;
  request.target_rate = options.target_rate;
  request.nan = options.nan;
  request.cancel = options.cancel;
  const audio::Decoded decoded = audio::decode(request);
  write_row(decoded.channels[0].data(), decoded.frames, row);
  ClipResult result;
  result.frames = decoded.frames;
  result.truncated = decoded.truncated;
  return result;
}

template <typename T>
std::vector<ClipResult> load(std::span<const ClipRequest> clips, const ClipOptions& options,
                             ThreadPool& pool, T* out) {
  PANNS_CHECK(options.samples >= 1 && options.target_rate >= 0, "ERR_PANNS_OPTION", "load_clips",
              "expected at least 1 sample a clip and a rate of 0 or more, got ", options.samples,
              " samples and ", options.target_rate, " Hz");
  audio::sndfile();  // a missing library is one error, not one for each clip
  std::vector<ClipResult> results(clips.size());
  pool.run(int64_t(clips.size()), [&](int64_t n, int) {
    T* const row = out + n * options.samples;
    ClipResult& result = results[n];
    try {
      if (options.cancel && options.cancel->load(std::memory_order_relaxed)) {
        throw Error("ABORT_ERR", "", "The operation was aborted");
      }
      result = read_clip(clips[n], options, row);
    } catch (const Error& e) {
      result.code = e.code();
      result.message = e.what();
    } catch (const std::bad_alloc&) {
      result.code = "ERR_PANNS_OUT_OF_MEMORY";
      result.message = cat(clips[n].source.name(), ": the host has too little memory to decode it");
    } catch (const std::exception& e) {
      result.code = "ERR_PANNS_INTERNAL";
      result.message = cat(clips[n].source.name(), ": ", e.what());
    }
    std::fill(row + result.frames, row + options.samples, T{0});
    if (options.finished) options.finished->fetch_add(1, std::memory_order_relaxed);
  });
  return results;
}

}  // namespace

std::vector<ClipResult> load_clips(std::span<const ClipRequest> clips, const ClipOptions& options,
                                   ThreadPool& pool, float* out) {
  return load(clips, options, pool, out);
}

std::vector<ClipResult> load_clips(std::span<const ClipRequest> clips, const ClipOptions& options,
                                   ThreadPool& pool, int16_t* out) {
  return load(clips, options, pool, out);
}

}  // namespace panns::data
