#include "audio/decode.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <limits>
#include <thread>

#include "audio_files.h"
#include "core/error.h"
#include "tap.h"

using namespace panns::audio;
using audio_files::Bytes;
using audio_files::Kind;
using audio_files::Wav;

// libsndfile 1.2 forgets a Vorbis description where it refuses the file it came from.
extern "C" const char* __lsan_default_suppressions() { return "leak:vorbis_info_init"; }

namespace {

Source memory(const Bytes& bytes) { return {.path = "", .bytes = bytes}; }
Source file(const std::string& path) { return {.path = path, .bytes = {}}; }

DecodeRequest request(Source source, double start = 0, double duration = -1, int rate = 0,
                      bool mono = true) {
  DecodeRequest r;
  r.source = std::move(source);
  r.start_seconds = start;
  r.duration_seconds = duration;
  r.target_rate = rate;
  r.mono = mono;
  return r;
}

std::vector<float> values(const Samples& s) { return {s.data(), s.data() + s.size()}; }

// The code of what body throws, or "none".
std::string code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const panns::Error& e) {
    return e.code();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "none";
}
std::string code_of(const DecodeRequest& r) {
  return code_of([&] { decode(r); });
}

void expect_code(const std::string& got, const std::string& code, const std::string& name) {
  tap::ok(got == code, name + ": " + code + (got == code ? "" : ", got " + got));
}

double largest_difference(const float* a, const float* b, int64_t count) {
  double worst = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double d = std::fabs(double(a[i]) - b[i]);
    if (!(d <= worst)) worst = d;  // keeps NaN
  }
  return worst;
}

// ---- the WAV encodings, held against the values that were written
void test_wav(const audio_files::Folder& folder) {
  for (const Wav& w :
       {Wav{.bits = 8}, Wav{.bits = 16, .channels = 2}, Wav{.bits = 24},
        Wav{.bits = 24, .channels = 3, .extensible = true}, Wav{.bits = 32, .channels = 2},
        Wav{.bits = 16, .channels = 6, .extensible = true},
        Wav{.kind = Kind::floating, .bits = 32, .channels = 2, .extensible = true},
        Wav{.kind = Kind::floating, .bits = 64},
        Wav{.bits = 16, .channels = 1024, .extensible = true}}) {
    const int64_t frames = w.channels > 100 ? 301 : 40'123;
    std::vector<float> stored;
    const Bytes bytes =
        audio_files::wav(w, audio_files::sound(frames, w.channels, w.rate), &stored);
    const std::string name =
        panns::cat(w.bits, w.kind == Kind::floating ? " bit float, " : " bit, ", w.channels,
                   " channels", w.extensible ? ", extensible" : "");
    const AudioInfo info = probe(memory(bytes));
    tap::ok(info.frames == frames && info.channels == w.channels && info.sample_rate == w.rate,
            "wav " + name + ": probe");
    const Decoded d = decode(request(file(folder.write("a.wav", bytes)), 0, -1, 0, false));
    bool equal = d.frames == frames && int(d.channels.size()) == w.channels && !d.truncated;
    for (int c = 0; equal && c < w.channels; ++c) {
      for (int64_t i = 0; i < frames; ++i) {
        equal &= d.channels[c].data()[i] == stored[i * w.channels + c];
      }
    }
    tap::ok(equal, "wav " + name + ": every sample of every channel");
    const Decoded mono = decode(request(memory(bytes)));
    double worst = mono.frames == frames ? 0 : 1;
    for (int64_t i = 0; worst < 1 && i < frames; ++i) {
      double mean = 0;
      for (int c = 0; c < w.channels; ++c) mean += stored[i * w.channels + c];
      worst = std::max(worst, std::fabs(mean / w.channels - mono.channels[0].data()[i]));
    }
    tap::ok(worst < 1e-7, "wav " + name + ": mono is the mean");
  }
}

// ---- ranges against slices of the whole, at the file's rate and resampled
void check_ranges(const std::string& name, const std::string& path, double tolerance) {
  const AudioInfo info = probe(file(path));
  for (const int rate : {info.sample_rate, 32000, 48000}) {
    const std::vector<float> whole = values(decode(request(file(path), 0, -1, rate)).channels[0]);
    const double seconds = double(info.frames) / info.sample_rate;
    std::uniform_real_distribution<double> start(0, seconds * 0.99);
    bool sizes = true;
    double worst = 0;
    for (int i = 0; i < 12; ++i) {
      // The start and the end always.
      const double from = i == 0 ? 0 : i < 4 ? seconds - 0.1 * i : start(audio_files::random());
      const double length = 0.21;
      const Decoded d = decode(request(file(path), from, length, rate));
      const int64_t first = std::llround(from * rate);
      const int64_t last =
          std::min<int64_t>(std::llround((from + length) * rate), int64_t(whole.size()));
      sizes &= d.frames == last - first;
      if (sizes) {
        worst = std::max(worst, largest_difference(d.channels[0].data(), &whole[first], d.frames));
      }
    }
    tap::ok(sizes && worst <= tolerance,
            panns::cat(name, ": ranges are slices of the whole at ", rate, " Hz, worst ", worst));
  }
}

struct Format {
  const char* name;
  int code;
  int rate;
  double level;      // largest error against what was written; 0: not compared sample by sample
  double tolerance;  // range against whole: MP3 sums its filters in another order after a seek
  bool cut;          // whether libsndfile opens a cut file at all
};

constexpr Format kFormats[] = {
    {"aiff", 0x020003, 44100, 2e-7, 0, true},   {"au", 0x030002, 22050, 4e-5, 0, true},
    {"caf", 0x180002, 44100, 4e-5, 0, false},   {"flac", 0x170003, 44100, 2e-7, 0, true},
    {"vorbis", 0x200060, 44100, 0, 1e-6, true}, {"opus", 0x200064, 48000, 0, 1e-6, true},
    {"mp3", 0x230082, 44100, 0, 1e-6, true},
};

void test_format(const audio_files::Folder& folder, const Format& f) {
  const int64_t frames = 3 * f.rate + 1234;
  const std::vector<float> sound = audio_files::sound(frames, 2, f.rate);
  const std::string path = folder / (std::string("b.") + f.name);
  if (!audio_files::write_sndfile(path, f.code, sound, 2, f.rate)) {
    tap::ok(true, std::string(f.name) + " # SKIP this libsndfile does not write it");
    return;
  }
  const Decoded d = decode(request(file(path), 0, -1, 0, false));
  tap::ok(d.frames == frames && d.info.frames == frames && d.channels.size() == 2 && !d.truncated,
          panns::cat(f.name, ": ", d.info.format, " ", d.info.subtype, ", ", d.frames, " frames"));
  const Bytes bytes = audio_files::read(path);
  const Decoded same = decode(request(memory(bytes), 0, -1, 0, false));
  tap::ok(same.frames == d.frames && values(same.channels[1]) == values(d.channels[1]),
          std::string(f.name) + ": from memory as from the path");
  if (f.level > 0) {
    double worst = 0;
    for (int64_t i = 0; i < d.frames; ++i) {
      worst = std::max(worst, std::fabs(double(sound[2 * i]) - d.channels[0].data()[i]));
    }
    tap::ok(worst <= f.level, panns::cat(f.name, ": samples as written, worst ", worst));
  } else {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < d.frames; ++i) {
      const double a = sound[2 * i], b = d.channels[0].data()[i];
      ab += a * b, aa += a * a, bb += b * b;
    }
    // The tone carries most of the power; a channel swapped or a shift of one frame falls below.
    tap::ok(ab / std::sqrt(aa * bb) > 0.95,
            panns::cat(f.name, ": correlates with what was written, ", ab / std::sqrt(aa * bb)));
  }
  check_ranges(f.name, path, f.tolerance);

  // Cut anywhere: what is there comes, with the flag, or a typed error, from path and memory.
  bool sane = true, some = false;
  for (const double part : {0.95, 0.6, 0.3, 0.01}) {
    const Bytes cut(bytes.begin(), bytes.begin() + int64_t(double(bytes.size()) * part));
    const std::string code = code_of([&] {
      const Decoded c = decode(request(memory(cut)));
      sane &= c.truncated && c.frames > 0 && c.frames < frames && f.cut;
      some = true;
    });
    sane &= code == "none" || code == "ERR_PANNS_AUDIO_CORRUPT" || code == "ERR_PANNS_AUDIO_EMPTY";
  }
  tap::ok(sane && some == f.cut,
          std::string(f.name) + ": cut files give what they hold and say so");
}

// ---- headers that lie
void test_lies(const audio_files::Folder& folder) {
  const std::vector<float> sound = audio_files::sound(8000, 1, 8000);
  const auto lie = [&](Wav w) {
    w.rate = 8000;
    return audio_files::wav(w, sound, nullptr);
  };
  const Bytes huge = lie({.claimed_data = 0x7FFF0000});  // 37 hours at 8 kHz
  const Decoded d = decode(request(memory(huge)));
  tap::ok(d.frames == 8000 && d.truncated,
          "a header of 37 hours over one second: one second, flagged");
  expect_code(code_of(request(memory(lie({.claimed_channels = 0})))), "ERR_PANNS_AUDIO_CORRUPT",
              "no channels");
  expect_code(code_of(request(memory(lie({.claimed_channels = 2000})))), "ERR_PANNS_AUDIO_CORRUPT",
              "2000 channels");
  expect_code(code_of(request(memory(lie({.claimed_rate = 0})))), "ERR_PANNS_AUDIO_CORRUPT",
              "a rate of 0");
  expect_code(code_of(request(memory(lie({.claimed_rate = 0xFFFFFFFF})))),
              "ERR_PANNS_AUDIO_CORRUPT", "a rate of 2^32 - 1");

  const Bytes piped = lie({.claimed_data = 0xFFFFFFFF});
  const Decoded p = decode(request(memory(piped)));
  tap::ok(p.frames == 8000 && !p.truncated, "a header written to a pipe is not a cut file");

  // FLAC: 36 bits of frames at bit 108 of STREAMINFO, which begins at byte 8.
  const std::string path = folder / "lie.flac";
  if (!audio_files::write_sndfile(path, 0x170002, sound, 1, 8000)) {
    tap::ok(true, "flac headers that lie # SKIP this libsndfile does not write FLAC");
    return;
  }
  Bytes flac = audio_files::read(path);
  const auto claim = [&](uint64_t frames) {
    flac[21] = uint8_t((flac[21] & 0xF0) | (frames >> 32 & 15));
    for (int i = 0; i < 4; ++i) flac[22 + i] = uint8_t(frames >> (24 - 8 * i));
  };
  claim((1ull << 36) - 1);  // 99 days
  expect_code(code_of(request(memory(flac))), "ERR_PANNS_AUDIO_TOO_LONG", "99 days announced");
  DecodeRequest trusting = request(memory(flac));
  trusting.max_seconds = 1e8;
  const Decoded t = decode(trusting);
  tap::ok(t.frames == 8000 && t.truncated,
          "99 days announced and allowed: the one second there is");
  claim(0);
  const AudioInfo info = probe(memory(flac));
  const Decoded u = decode(request(memory(flac)));
  tap::ok(info.frames == -1 && u.frames == 8000 && !u.truncated,
          "a length of 0 means unknown in FLAC");
  DecodeRequest limited = request(memory(flac));
  limited.max_seconds = 0.5;
  expect_code(code_of(limited), "ERR_PANNS_AUDIO_TOO_LONG", "an unknown length beyond the limit");
}

// ---- what is not audio, and other bad input
void test_errors(const audio_files::Folder& folder) {
  expect_code(code_of(request(file(folder / "none.wav"))), "ERR_PANNS_AUDIO_NOT_FOUND", "no file");
  expect_code(code_of(request(file(""))), "ERR_PANNS_AUDIO_NOT_FOUND", "no path");
  expect_code(code_of(request(file(std::string("a\0b", 3)))), "ERR_PANNS_AUDIO_NOT_FOUND", "a NUL");
  expect_code(code_of(request(file(folder / ""))), "ERR_PANNS_IO", "a directory");
  expect_code(code_of(request(file("/dev/zero"))), "ERR_PANNS_IO", "an endless device");
  expect_code(code_of(request(file(folder.write("0.wav", {})))), "ERR_PANNS_AUDIO_EMPTY",
              "0 bytes");
  expect_code(code_of(request(memory({}))), "ERR_PANNS_AUDIO_EMPTY", "0 bytes in memory");
  const std::string text = "This is a note, not a sound. It has several lines.\n";
  for (const char* name : {"note.wav", "note.mp3", "note.vox", "note.gsm", "note.sd2"}) {
    expect_code(code_of(request(file(folder.write(name, Bytes(text.begin(), text.end()))))),
                "ERR_PANNS_AUDIO_FORMAT", std::string("text called ") + name);
  }
  Bytes m4a = {0, 0, 0, 0x20, 'f', 't', 'y', 'p', 'M', '4', 'A', ' ', 0, 0, 0, 0};
  m4a.resize(4000);
  std::string said;
  try {
    probe(memory(m4a));
  } catch (const panns::Error& e) {
    said = e.code() + e.what();
  }
  tap::ok(said.find("ERR_PANNS_AUDIO_FORMAT") == 0 && said.find("M4A") != std::string::npos &&
              said.find("ffmpeg") != std::string::npos,
          "an M4A is named, and so is the way through ffmpeg");
  expect_code(code_of(request(memory(audio_files::wav({}, {}, nullptr)))), "ERR_PANNS_AUDIO_EMPTY",
              "a WAV of 0 frames");

  const Bytes second = audio_files::wav({}, audio_files::sound(44100, 1, 44100), nullptr);
  const double nan = std::nan("");
  for (const auto& [start, duration] : std::initializer_list<std::pair<double, double>>{
           {-0.1, 1}, {nan, 1}, {1e12, 1}, {0, 0}, {0, nan}, {1, 1}, {2, -1}}) {
    expect_code(code_of(request(memory(second), start, duration)), "ERR_PANNS_AUDIO_RANGE",
                panns::cat("range of ", duration, " s at ", start, " s of one second"));
  }
  expect_code(code_of(request(memory(second), 0, -1, -1)), "ERR_PANNS_AUDIO_RANGE", "rate -1");
  tap::ok(decode(request(memory(second), 0.75, 10)).frames == 11025, "a range ends with the file");
  tap::ok(decode(request(memory(second), 0.75, 10, 32000)).frames == 8000, "and so when resampled");
  DecodeRequest few = request(memory(second), 0.25, 0.5, 32000);
  few.max_frames = 777;
  tap::ok(decode(few).frames == 777, "max_frames ends a range");
  DecodeRequest limited = request(memory(second));
  limited.max_seconds = 0.5;
  expect_code(code_of(limited), "ERR_PANNS_AUDIO_TOO_LONG", "a second where half is allowed");
  limited.duration_seconds = 0.5;
  expect_code(code_of(limited), "none", "half of it is allowed");
  // More than fits an integer of frames, too.
  for (const double most : {1e18, std::numeric_limits<double>::infinity()}) {
    DecodeRequest unlimited = request(memory(second));
    unlimited.max_seconds = most;
    expect_code(code_of(unlimited), "none", panns::cat("at most ", most, " s"));
  }
  const std::atomic<bool> cancel{true};
  DecodeRequest cancelled = request(memory(second));
  cancelled.cancel = &cancel;
  expect_code(code_of(cancelled), "ABORT_ERR", "cancelled");
}

void test_nan() {
  std::vector<float> sound = audio_files::sound(20'000, 2, 44100);
  sound[2 * 12'345 + 1] = std::numeric_limits<float>::quiet_NaN();
  sound[2 * 15'000] = -std::numeric_limits<float>::infinity();
  const Bytes bytes =
      audio_files::wav({.kind = Kind::floating, .bits = 32, .channels = 2}, sound, nullptr);
  std::string said;
  try {
    decode(request(memory(bytes)));
  } catch (const panns::Error& e) {
    said = e.code() + e.what();
  }
  tap::ok(said.find("ERR_PANNS_AUDIO_NAN") == 0 && said.find("frame 12345") != std::string::npos &&
              said.find("channel 1") != std::string::npos,
          "NaN is an error that says where");
  DecodeRequest zero = request(memory(bytes), 0, -1, 0, false);
  zero.nan = NanPolicy::kZero;
  const Decoded d = decode(zero);
  tap::ok(d.replaced == 2 && d.channels[1].data()[12'345] == 0 &&
              d.channels[0].data()[15'000] == 0 &&
              d.channels[0].data()[12'345] == sound[2 * 12'345],
          "NaN and infinity read as 0 when asked, and are counted");
}

// ---- MP3 without a header that tells its length (see audio/decode_mp3.h)
void test_mp3(const audio_files::Folder& folder) {
  // Noise first and then silence: the bit rate falls, and any extrapolation of it is wrong.
  const int rate = 44100;
  std::vector<float> sound = audio_files::sound(6 * rate, 1, rate);
  std::fill(sound.begin() + rate, sound.end(), 0.f);
  const std::string path = folder / "c.mp3";
  if (!audio_files::write_sndfile(path, 0x230082, sound, 1, rate)) {
    tap::ok(true, "mp3 without a length # SKIP this libsndfile does not write MP3");
    return;
  }
  const Bytes bytes = audio_files::read(path);
  const auto at = std::search(bytes.begin(), bytes.end(), "Xing", "Xing" + 4);
  const auto info = std::search(bytes.begin(), bytes.end(), "Info", "Info" + 4);
  const auto tag = std::min(at, info);
  if (tag == bytes.end()) {
    tap::ok(true, "mp3 without a length # SKIP the encoder writes no Xing header");
    return;
  }
  Bytes bare = bytes;
  std::fill_n(bare.begin() + (tag - bytes.begin()), 4, 0);
  const Decoded d = decode(request(memory(bare)));
  // The header also held the encoder's delay; without it up to three frames more come out.
  tap::ok(
      d.frames >= int64_t(sound.size()) && d.frames < int64_t(sound.size()) + 3 * 1152 &&
          !d.truncated,
      panns::cat("mp3 without its Xing header: all ", d.frames, " of ", sound.size(), " frames"));
  Bytes tagged = {'I', 'D', '3', 4, 0, 0, 0, 0, 0x10, 0};  // 2048 bytes of an ID3v2 tag
  tagged.resize(10 + 2048, 0xFF);
  tagged.insert(tagged.end(), bytes.begin(), bytes.end());
  tagged.insert(tagged.end(), {'T', 'A', 'G'});
  tagged.resize(tagged.size() + 125, ' ');
  const Decoded t = decode(request(memory(tagged)));
  tap::ok(t.frames == int64_t(sound.size()) && !t.truncated, "mp3 with ID3 tags at both ends");
}

// ---- seeks into the last page of a Vorbis file (see AudioFile::last_exact_seek); whether they go
// ---- wrong without care depends on where the length falls in a block: at these it does
void test_vorbis_end(const audio_files::Folder& folder) {
  for (const int64_t frames : {200'000, 220'500, 352'800}) {
    const std::string path = folder / "end.ogg";
    if (!audio_files::write_sndfile(path, 0x200060, audio_files::sound(frames, 2, 44100), 2,
                                    44100)) {
      tap::ok(true, "the end of a Vorbis file # SKIP this libsndfile does not write Vorbis");
      return;
    }
    const std::vector<float> whole = values(decode(request(file(path))).channels[0]);
    double worst = 0;
    for (int64_t back = 100; back <= 12'000; back += 100) {
      const Decoded d = decode(request(file(path), double(frames - back) / 44100));
      worst = d.frames == back ? std::max(worst, largest_difference(d.channels[0].data(),
                                                                    &whole[frames - back], back))
                               : HUGE_VAL;
    }
    tap::ok(worst <= 1e-6,
            panns::cat("the end of a Vorbis file of ", frames, " frames, worst ", worst));
  }
}

// ---- random damage: any outcome but a crash, a hang or an untyped error
void test_damage(const audio_files::Folder& folder) {
  for (const char* name : {"aiff", "au", "caf", "flac", "vorbis", "opus", "mp3"}) {
    const Bytes bytes = audio_files::read(folder / (std::string("b.") + name));
    if (bytes.empty()) continue;
    std::uniform_int_distribution<size_t> anywhere(0, bytes.size() - 1), early(0, 127);
    int typed = 0, decoded = 0, other = 0;
    for (int round = 0; round < 12; ++round) {
      Bytes damaged = bytes;
      for (int i = 0; i < 6; ++i) {
        damaged[round % 2 ? anywhere(audio_files::random()) : early(audio_files::random())] ^=
            uint8_t(1u << (audio_files::random()() & 7));
      }
      DecodeRequest r = request(memory(damaged));
      r.nan = NanPolicy::kZero;
      const std::string code = code_of(r);
      (code == "none" ? decoded : code.rfind("ERR_PANNS_AUDIO_", 0) == 0 ? typed : other)++;
    }
    tap::ok(other == 0,
            panns::cat(name, " damaged at random: ", decoded, " decoded, ", typed, " refused"));
  }
}

void test_int16() {
  const float in[] = {0.f, 1.f, -1.f, 1.5f, -7.f, 0.5f, -0.5f, 1e-5f, 0.99999f, std::nanf("")};
  const int16_t expected[] = {0, 32767, -32767, 32767, -32767, 16383, -16383, 0, 32766, 0};
  int16_t out[10];
  std::fill_n(out, 10, int16_t(-12345));
  to_int16(in, 10, out);
  tap::ok(std::equal(out, out + 10, expected), "int16: clipped, times 32767, toward zero");
  bool toward_zero = true;
  for (int v = 1; v <= 32767; ++v) {
    // The last float below a step stays below it.
    float below = float(double(v) / 32767.);
    while (double(below) * 32767. >= v) below = std::nextafter(below, 0.f);
    const float pair[] = {below, -below};
    to_int16(pair, 2, out);
    toward_zero &= out[0] == v - 1 && out[1] == 1 - v;
  }
  tap::ok(toward_zero, "int16: the last float below a step is not rounded up to it");
  bool exact = true;
  for (int v = -32768; v <= 32767; ++v) {
    const int16_t one = int16_t(v);
    float back = NAN;
    to_float(&one, 1, &back);
    exact &= back == float(double(v) / 32767.);
  }
  tap::ok(exact, "float: over 32767, correctly rounded");
}

void test_shared() {
  const char* root = std::getenv("PANNS_SHARED");
  if (!root) {
    tap::ok(true, "the shared recordings # SKIP PANNS_SHARED is not set");
    return;
  }
  int files = 0, bad = 0;
  for (const char* set : {"esc10", "fsdd", "audioset"}) {
    const std::string folder = std::string(root) + "/data/" + set;
    if (!std::filesystem::exists(folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      const std::string ext = entry.path().extension();
      if (ext != ".ogg" && ext != ".flac" && ext != ".wav") continue;
      if (files++ % 7) continue;  // one in seven: a second, not ten
      const Decoded d = decode(request(file(entry.path()), 0, -1, 32000));
      const double seconds = double(d.info.frames) / d.info.sample_rate;
      if (d.truncated || std::fabs(double(d.frames) / 32000 - seconds) > 1e-4) ++bad;
    }
  }
  tap::ok(files > 0 && bad == 0,
          panns::cat("the shared recordings decode whole: ", files, " files"));
}

}  // namespace

int main() {
  const SndfileStatus status = sndfile_status();
  if (!status.loaded) {
    expect_code(code_of([] { sndfile(); }), "ERR_PANNS_AUDIO_LIBRARY", "no libsndfile");
    tap::ok(true, "decoding # SKIP libsndfile is not installed");
    return tap::done();
  }
  tap::ok(!status.attempts.empty() && status.attempts.back().reason.empty(),
          status.version + " from " + status.path);
  const audio_files::Folder folder;
  test_wav(folder);
  for (const Format& f : kFormats) test_format(folder, f);
  test_lies(folder);
  test_errors(folder);
  test_nan();
  test_mp3(folder);
  test_vorbis_end(folder);
  test_damage(folder);
  test_int16();
  test_shared();
  return tap::done();
}
