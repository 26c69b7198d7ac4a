#include "data/rows.h"

#include <algorithm>
#include <limits>
#include <thread>

#include "audio_files.h"
#include "core/error.h"
#include "tap.h"

using namespace panns;
using namespace panns::data;

namespace {

constexpr int kRate = 16000;
constexpr int64_t kSamples = 16000;
constexpr int16_t kPoison = -12345;

int64_t below(int64_t end) { return int64_t(audio_files::random()() % uint64_t(end)); }

// Files of many lengths and rates, and a row of one second for each.
struct Batch {
  audio_files::Folder folder;
  std::vector<RowRequest> rows;
  RowOptions options{.target_rate = kRate};
  std::vector<int16_t> memory;

  explicit Batch(int count) : rows(count), memory(count * kSamples, kPoison) {
    const int rates[] = {8000, 16000, 22050, 44100};
    for (int n = 0; n < count; ++n) {
      const int rate = rates[n % 4], channels = 1 + n % 2;
      const int64_t frames = rate / 2 + below(2 * rate);
      const auto bytes = audio_files::wav({.channels = channels, .rate = rate},
                                          audio_files::sound(frames, channels, rate), nullptr);
      AudioClip clip;
      clip.source.path = folder.write(cat(n, ".wav"), bytes);
      clip.start_seconds = n % 3 ? 0 : 0.2;
      rows[n] = {clip, kSamples, {}};
    }
    place();
  }
  void place() {
    for (size_t n = 0; n < rows.size(); ++n) {
      rows[n].row = std::span<int16_t>(memory).subspan(n * kSamples, kSamples);
    }
  }
  AudioClip& clip(size_t n) { return std::get<AudioClip>(rows[n].clip); }
};

// What a row is to hold, by the way of the whole file.
std::vector<int16_t> expected_of(const AudioClip& clip) {
  audio::DecodeRequest r;
  r.source = clip.source;
  r.start_seconds = clip.start_seconds;
  r.duration_seconds = clip.duration_seconds;
  r.target_rate = kRate;
  const audio::Decoded d = audio::decode(r);
  std::vector<int16_t> out(std::min(d.frames, kSamples));
  audio::to_int16(d.channels[0].data(), int64_t(out.size()), out.data());
  out.resize(kSamples);
  return out;
}

void test_decoded() {
  Batch b(24);
  b.clip(5).source.path = b.folder / "none.wav";
  b.clip(11).source.path = b.folder.write("text.wav", {'h', 'i', '!', '\n'});
  b.clip(17).start_seconds = 100;
  std::atomic<int64_t> finished{0};
  b.options.finished = &finished;
  ThreadPool one(1), three(3);
  const std::vector<RowResult> results = fill_rows(b.rows, b.options, one);
  tap::ok(finished == 24, "every row is counted, failed ones too");

  bool rows = true, some_padding = false;
  for (size_t i = 0; i < b.rows.size(); ++i) {
    const bool bad = i == 5 || i == 11 || i == 17;
    const std::vector<int16_t> expected =
        bad ? std::vector<int16_t>(kSamples) : expected_of(b.clip(i));
    rows &= bad == !results[i].code.empty() && (results[i].samples == 0) == bad;
    rows &= std::equal(expected.begin(), expected.end(), b.rows[i].row.begin());
    some_padding |= !bad && results[i].samples < kSamples;
  }
  tap::ok(rows && some_padding,
          "rows hold the first second of what decode gives, rounded, and zeros");
  tap::ok(results[5].code == "ERR_PANNS_AUDIO_NOT_FOUND" &&
              results[5].message.find("none.wav") != std::string::npos &&
              results[11].code == "ERR_PANNS_AUDIO_FORMAT" &&
              results[17].code == "ERR_PANNS_AUDIO_RANGE",
          "each failure stands at its index, with its code and file");

  const std::vector<int16_t> first = b.memory;
  std::fill(b.memory.begin(), b.memory.end(), kPoison);
  fill_rows(b.rows, b.options, three);
  tap::ok(b.memory == first, "three threads give the bits of one");
}

void test_range() {
  Batch b(3);
  b.clip(0) = b.clip(1);
  b.clip(0).start_seconds = 0.1;
  b.clip(0).duration_seconds = 0.25;
  b.rows[2].most = 700;
  ThreadPool pool(2);
  const auto results = fill_rows(b.rows, b.options, pool);
  const auto expected = expected_of(b.clip(0));
  tap::ok(results[0].samples == 4000 &&
              std::equal(expected.begin(), expected.end(), b.rows[0].row.begin()),
          "a duration ends a clip early");
  const auto row = b.rows[2].row;
  tap::ok(results[2].samples == 700 &&
              std::all_of(row.begin() + 700, row.end(), [](int16_t x) { return x == 0; }),
          "as does what is wanted at most");
}

// A NaN is found where it lies; a sum that overflows in the resampler is found too.
void test_not_finite() {
  audio_files::Folder folder;
  for (const bool resampled : {false, true}) {
    const int rate = resampled ? 2 * kRate : kRate;
    std::vector<float> sound = audio_files::sound(rate, 1, rate);
    const int64_t at = 1000 + below(rate - 2000);
    const float most = std::numeric_limits<float>::max();
    if (resampled) {
      for (int64_t i = at - 200; i < at + 200; ++i) sound[i] = most;
    } else {
      sound[at] = std::nanf("");
    }
    AudioClip clip;
    const audio_files::Wav format{
        .kind = audio_files::Kind::floating, .bits = 32, .channels = 1, .rate = rate};
    clip.source.path = folder.write("bad.wav", audio_files::wav(format, sound, nullptr));
    std::vector<int16_t> row(kSamples, kPoison);
    const std::vector<RowRequest> rows{{clip, kSamples, row}};
    ThreadPool pool(1);
    const auto results = fill_rows(rows, {.target_rate = kRate}, pool);
    tap::ok(results[0].code == "ERR_PANNS_AUDIO_NAN" &&
                results[0].message.find("bad.wav: expected finite samples") != std::string::npos &&
                (resampled || results[0].message.find(cat(at)) != std::string::npos) &&
                std::count(row.begin(), row.end(), 0) == kSamples,
            cat("a sample that is not finite", resampled ? " once resampled" : "", ": ",
                results[0].message));
  }
}

void test_stored_and_held() {
  audio_files::Folder folder;
  std::vector<int16_t> all(3 * kSamples + 7);
  for (auto& x : all) x = int16_t(audio_files::random()());
  audio_files::Bytes bytes(5 + 2 * all.size());
  std::memcpy(bytes.data() + 5, all.data(), 2 * all.size());
  const std::string path = folder.write("clips.int16", bytes);
  const int64_t end = int64_t(all.size());

  std::vector<RowRequest> rows;
  std::vector<int64_t> first;
  constexpr int kRows = 60;
  std::vector<int16_t> memory(kRows * kSamples, kPoison);
  for (int n = 0; n < kRows; ++n) {
    const int64_t at = n == 0 ? end - kSamples : below(2 * kSamples);
    const int64_t most = n < 2 ? kSamples : 1 + below(kSamples);
    first.push_back(at);
    std::variant<AudioClip, StoredClip, HeldClip> clip = HeldClip{&all[at]};
    if (n % 3) clip = StoredClip{path, 5 + 2 * at};
    rows.push_back({clip, most, std::span(memory).subspan(n * kSamples, kSamples)});
  }
  ThreadPool pool(3);
  const auto results = fill_rows(rows, {}, pool);
  bool same = true;
  for (int n = 0; n < kRows; ++n) {
    same &= results[n].code.empty() && results[n].samples == rows[n].most;
    for (int64_t k = 0; k < kSamples; ++k) {
      same &= rows[n].row[k] == (k < rows[n].most ? all[first[n] + k] : 0);
    }
  }
  tap::ok(same, "stored and held samples come as they are, zeros behind them");

  const std::vector<RowRequest> bad{
      {StoredClip{path, 5 + 2 * end - 2}, 2, rows[0].row},
      {StoredClip{path, 100 * end}, 1, rows[1].row},
      {StoredClip{folder / "none", 0}, 1, rows[2].row},
      {StoredClip{folder / ".", 0}, 1, rows[3].row},
  };
  const auto failed = fill_rows(bad, {}, pool);
  tap::ok(
      failed[0].code == "ERR_PANNS_DATA" && failed[1].code == "ERR_PANNS_DATA" &&
          failed[0].message.find(cat("ends after ", bytes.size(), " bytes")) != std::string::npos,
      cat("a file that is too short: ", failed[0].message));
  tap::ok(failed[2].code == "ERR_PANNS_AUDIO_NOT_FOUND" && failed[3].code == "ERR_PANNS_IO",
          "no file, or none that can be read");
  bool zeros = true;
  for (int n = 0; n < 4; ++n) {
    for (const int16_t x : bad[n].row) zeros &= x == 0;
  }
  tap::ok(zeros, "what could be read of a clip that is cut is not left in its row");
}

void test_cancel() {
  Batch b(40);
  std::atomic<bool> cancel{false};
  std::atomic<int64_t> finished{0};
  b.options.cancel = &cancel;
  b.options.finished = &finished;
  ThreadPool pool(2);
  std::thread canceller([&] {
    while (finished < 3) std::this_thread::yield();
    cancel = true;
  });
  const auto results = fill_rows(b.rows, b.options, pool);
  canceller.join();
  int64_t aborted = 0, read = 0;
  for (const RowResult& r : results) (r.code == "ABORT_ERR" ? aborted : read) += 1;
  tap::ok(read >= 3 && aborted + read == 40 && finished == 40,
          cat("cancelled on the way: ", read, " read, ", aborted, " aborted"));
  for (RowRequest& r : b.rows) {
    if (below(2)) r.clip = StoredClip{b.folder / "none", 0};
  }
  const auto none = fill_rows(b.rows, b.options, pool);
  bool all = true;
  for (const RowResult& r : none) all &= r.code == "ABORT_ERR";
  tap::ok(all && std::count(b.memory.begin(), b.memory.end(), 0) == int64_t(b.memory.size()),
          "cancelled before: nothing is read, the rows are zeros");
}

void test_options() {
  ThreadPool pool(1);
  std::vector<int16_t> row(10);
  const auto code_of = [&](const RowRequest& request, int rate) {
    try {
      fill_rows(std::vector<RowRequest>{request}, {.target_rate = rate}, pool);
    } catch (const Error& e) {
      return e.code();
    }
    return std::string("none");
  };
  const std::string option = "ERR_PANNS_OPTION";
  tap::ok(code_of({HeldClip{row.data()}, 11, row}, 0) == option &&
              code_of({HeldClip{row.data()}, 0, row}, 0) == option &&
              code_of({StoredClip{"x", -2}, 1, row}, 0) == option &&
              code_of({HeldClip{row.data()}, 10, row}, -1) == option,
          "a row that is too short, none wanted, an offset or a rate below 0: ERR_PANNS_OPTION");
}

}  // namespace

int main() {
  test_stored_and_held();
  test_options();
  if (!audio::sndfile_status().loaded) {
    tap::ok(true, "decoding into rows # SKIP libsndfile is not installed");
    return tap::done();
  }
  test_decoded();
  test_range();
  test_not_finite();
  test_cancel();
  return tap::done();
}
