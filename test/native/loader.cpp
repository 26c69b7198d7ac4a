#include "data/loader.h"

#include <thread>

#include "audio_files.h"
#include "core/error.h"
#include "tap.h"

using namespace panns;
using namespace panns::data;

namespace {

ClipRequest clip(const std::string& path, double start = 0, double duration = -1) {
  ClipRequest c;
  c.source.path = path;
  c.start_seconds = start;
  c.duration_seconds = duration;
  return c;
}

// Files of many lengths and rates, three bad ones among them, in a batch of one-second clips.
struct Batch {
  audio_files::Folder folder;
  std::vector<ClipRequest> clips;
  ClipOptions options;

  explicit Batch(int count) {
    options.target_rate = 16000;
    options.samples = 16000;
    const int rates[] = {8000, 16000, 22050, 44100};
    for (int n = 0; n < count; ++n) {
      const int rate = rates[n % 4], channels = 1 + n % 2;
      const int64_t frames = rate / 2 + int64_t(audio_files::random()() % (2 * rate));
      const auto bytes = audio_files::wav({.channels = channels, .rate = rate},
                                          audio_files::sound(frames, channels, rate), nullptr);
      clips.push_back(clip(folder.write(cat(n, ".wav"), bytes), n % 3 ? 0 : 0.2));
    }
  }
};

std::vector<float> poisoned(size_t count) { return std::vector<float>(count, std::nanf("")); }

void test_batch() {
  Batch b(24);
  b.clips[5].source.path = b.folder / "none.wav";
  b.clips[11].source.path = b.folder.write("text.wav", {'h', 'i', '!', '\n'});
  b.clips[17].start_seconds = 100;
  const int64_t n = int64_t(b.clips.size()), samples = b.options.samples;

  std::atomic<int64_t> finished{0};
  b.options.finished = &finished;
  ThreadPool one(1), three(3);
  std::vector<float> out = poisoned(n * samples), again = poisoned(n * samples);
  const std::vector<ClipResult> results = load_clips(b.clips, b.options, one, out.data());
  tap::ok(finished == n, "every clip is counted, failed ones too");

  bool rows = true, padded = true, some_padding = false;
  for (int64_t i = 0; i < n; ++i) {
    const float* row = &out[i * samples];
    if (i == 5 || i == 11 || i == 17) {
      rows &= results[i].frames == 0 && !results[i].code.empty();
    } else {
      audio::DecodeRequest r;
      r.source = b.clips[i].source;
      r.start_seconds = b.clips[i].start_seconds;
      r.target_rate = b.options.target_rate;
      const audio::Decoded d = audio::decode(r);
      const int64_t kept = std::min(d.frames, samples);
      rows &= results[i].code.empty() && results[i].frames == kept &&
              std::equal(row, row + kept, d.channels[0].data());
    }
    some_padding |= results[i].code.empty() && results[i].frames < samples;
    for (int64_t k = results[i].frames; k < samples; ++k) padded &= row[k] == 0.f;
  }
  tap::ok(rows, "rows hold the first second of what decode gives");
  tap::ok(padded && some_padding, "what is shorter, or failed, is padded with zeros");
  tap::ok(results[5].code == "ERR_PANNS_AUDIO_NOT_FOUND" &&
              results[5].message.find("none.wav") != std::string::npos &&
              results[11].code == "ERR_PANNS_AUDIO_FORMAT" &&
              results[17].code == "ERR_PANNS_AUDIO_RANGE",
          "each failure stands at its index, with its code and file");

  load_clips(b.clips, b.options, three, again.data());
  tap::ok(out == again, "three threads give the bits of one");

  std::vector<int16_t> packed(n * samples, -12345), expected(n * samples);
  load_clips(b.clips, b.options, three, packed.data());
  audio::to_int16(out.data(), n * samples, expected.data());
  tap::ok(packed == expected, "int16 rows are the float rows, rounded");
}

void test_range() {
  Batch b(4);
  for (ClipRequest& c : b.clips) c = clip(b.clips[1].source.path, 0.1, 0.25);
  ThreadPool pool(2);
  std::vector<float> out = poisoned(4 * b.options.samples);
  const auto results = load_clips(b.clips, b.options, pool, out.data());
  tap::ok(results[3].frames == 4000 && results[3].code.empty(), "a duration ends a clip early");
}

void test_cancel() {
  Batch b(40);
  std::atomic<bool> cancel{false};
  std::atomic<int64_t> finished{0};
  b.options.cancel = &cancel;
  b.options.finished = &finished;
  ThreadPool pool(2);
  std::vector<float> out = poisoned(b.clips.size() * b.options.samples);
  std::thread canceller([&] {
    while (finished < 3) std::this_thread::yield();
    cancel = true;
  });
  const auto results = load_clips(b.clips, b.options, pool, out.data());
  canceller.join();
  int64_t aborted = 0, read = 0;
  for (const ClipResult& r : results) (r.code == "ABORT_ERR" ? aborted : read) += 1;
  tap::ok(read >= 3 && aborted + read == 40 && finished == 40,
          cat("cancelled on the way: ", read, " read, ", aborted, " aborted"));
  const auto none = load_clips(b.clips, b.options, pool, out.data());
  bool all = true;
  for (const ClipResult& r : none) all &= r.code == "ABORT_ERR";
  bool zeros = true;
  for (const float x : out) zeros &= x == 0.f;
  tap::ok(all && zeros, "cancelled before: nothing is read, the rows are zeros");
}

void test_options() {
  Batch b(1);
  ThreadPool pool(1);
  b.options.samples = 0;
  std::string code;
  try {
    load_clips(b.clips, b.options, pool, static_cast<float*>(nullptr));
  } catch (const Error& e) {
    code = e.code();
  }
  tap::ok(code == "ERR_PANNS_OPTION", "0 samples a clip: ERR_PANNS_OPTION");
}

}  // namespace

int main() {
  if (!audio::sndfile_status().loaded) {
    tap::ok(true, "loading clips # SKIP libsndfile is not installed");
    return tap::done();
  }
  test_batch();
  test_range();
  test_cancel();
  test_options();
  return tap::done();
}
