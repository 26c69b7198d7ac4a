#include "data/rows.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>
#include <new>

#include "core/error.h"

namespace panns::data {
namespace {

// Stored samples are read as they lie in the file.
static_assert(std::endian::native == std::endian::little);

int64_t read(const AudioClip& clip, const RowRequest& request, const RowOptions& options) {
  audio::DecodeRequest decode;
  decode.source = clip.source;
  decode.start_seconds = clip.start_seconds;
  decode.duration_seconds = clip.duration_seconds;
  decode.target_rate = options.target_rate;
  decode.cancel = options.cancel;
  decode.codes = request.row.first(static_cast<size_t>(request.most));
  return audio::decode(decode).frames;
}

int64_t read(const StoredClip& clip, const RowRequest& request, const RowOptions& options) {
  audio::Source source;
  source.path = clip.path;
  audio::ByteReader reader(source, options.cancel);
  const int64_t bytes = request.most * int64_t{sizeof(int16_t)};
  const int64_t got = reader.read_at(clip.offset, request.row.data(), bytes);
  if (got == bytes) return request.most;
  PANNS_CHECK(reader.io_error() == 0, "ERR_PANNS_IO", clip.path,
              "the file cannot be read: ", std::strerror(reader.io_error()));
  throw Error(
      "ERR_PANNS_DATA", clip.path,
      cat("expected ", bytes, " bytes of samples at byte ", clip.offset, ", the file ends after ",
          reader.size(), " bytes: it was cut or replaced; pack the clips again"));
}

int64_t read(const HeldClip& clip, const RowRequest& request, const RowOptions&) {
  std::copy_n(clip.samples, request.most, request.row.data());
  return request.most;
}

bool cancelled(const RowOptions& options) {
  return options.cancel && options.cancel->load(std::memory_order_relaxed);
}

std::string name_of(const RowRequest& request) {
  if (const auto* clip = std::get_if<AudioClip>(&request.clip)) return clip->source.name();
  if (const auto* clip = std::get_if<StoredClip>(&request.clip)) return clip->path;
  return "a clip in memory";
}

RowResult fill(const RowRequest& request, const RowOptions& options) {
  RowResult result;
  try {
    if (cancelled(options)) throw Error("ABORT_ERR", "", "The operation was aborted");
    result.samples =
        std::visit([&](const auto& clip) { return read(clip, request, options); }, request.clip);
  } catch (const Error& e) {
    // A reader that is stopped comes back with less than it was asked for.
    result.code = cancelled(options) ? "ABORT_ERR" : e.code();
    result.message = e.what();
  } catch (const std::bad_alloc&) {
    result.code = "ERR_PANNS_OUT_OF_MEMORY";
    result.message = cat(name_of(request), ": the host has too little memory to decode it");
  } catch (const std::exception& e) {
    result.code = "ERR_PANNS_INTERNAL";
    result.message = cat(name_of(request), ": ", e.what());
  }
  std::fill(request.row.begin() + result.samples, request.row.end(), int16_t{0});
  return result;
}

}  // namespace

std::vector<RowResult> fill_rows(std::span<const RowRequest> requests, const RowOptions& options,
                                 ThreadPool& pool) {
  PANNS_CHECK(options.target_rate >= 0, "ERR_PANNS_OPTION", "fill_rows",
              "expected a rate of 0 or more, got ", options.target_rate, " Hz");
  bool decodes = false;
  for (const RowRequest& r : requests) {
    PANNS_CHECK(r.most >= 1 && r.most <= static_cast<int64_t>(r.row.size()), "ERR_PANNS_OPTION",
                "fill_rows", "expected a clip of 1..", r.row.size(), " samples, got ", r.most);
    const auto* stored = std::get_if<StoredClip>(&r.clip);
    PANNS_CHECK(stored == nullptr || stored->offset >= 0, "ERR_PANNS_OPTION", "fill_rows",
                "expected an offset of 0 or more, got ", stored->offset);
    decodes |= std::holds_alternative<AudioClip>(r.clip);
  }
  if (decodes) audio::sndfile();  // a missing library is one error, not one for each clip
  std::vector<RowResult> results(requests.size());
  pool.run(static_cast<int64_t>(requests.size()), [&](int64_t n, int) {
    results[n] = fill(requests[n], options);
    if (options.finished) options.finished->fetch_add(1, std::memory_order_relaxed);
  });
  return results;
}

}  // namespace panns::data
