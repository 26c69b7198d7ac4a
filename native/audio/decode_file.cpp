#include "audio/decode_file.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "audio/decode_mp3.h"
#include "core/error.h"

namespace panns::audio {
namespace {

struct Name {
  int code;
  const char* name;
};

constexpr Name kFormats[] = {
    {0x010000, "WAV"},   {0x020000, "AIFF"},  {0x030000, "AU"},   {0x040000, "RAW"},
    {0x050000, "PAF"},   {0x060000, "SVX"},   {0x070000, "NIST"}, {0x080000, "VOC"},
    {0x0A0000, "IRCAM"}, {0x0B0000, "W64"},   {0x0C0000, "MAT4"}, {0x0D0000, "MAT5"},
    {0x0E0000, "PVF"},   {0x0F0000, "XI"},    {0x100000, "HTK"},  {0x110000, "SDS"},
    {0x120000, "AVR"},   {0x130000, "WAVEX"}, {0x160000, "SD2"},  {0x170000, "FLAC"},
    {0x180000, "CAF"},   {0x190000, "WVE"},   {0x200000, "OGG"},  {0x210000, "MPC2K"},
    {0x220000, "RF64"},  {0x230000, "MP3"},
};

constexpr Name kSubtypes[] = {
    {0x01, "PCM_S8"},         {0x02, "PCM_16"},       {0x03, "PCM_24"},
    {0x04, "PCM_32"},         {0x05, "PCM_U8"},       {0x06, "FLOAT"},
    {0x07, "DOUBLE"},         {0x10, "ULAW"},         {0x11, "ALAW"},
    {0x12, "IMA_ADPCM"},      {0x13, "MS_ADPCM"},     {0x20, "GSM610"},
    {0x21, "VOX_ADPCM"},      {0x22, "NMS_ADPCM_16"}, {0x23, "NMS_ADPCM_24"},
    {0x24, "NMS_ADPCM_32"},   {0x30, "G721_32"},      {0x31, "G723_24"},
    {0x32, "G723_40"},        {0x40, "DWVW_12"},      {0x41, "DWVW_16"},
    {0x42, "DWVW_24"},        {0x43, "DWVW_N"},       {0x50, "DPCM_8"},
    {0x51, "DPCM_16"},        {0x60, "VORBIS"},       {0x64, "OPUS"},
    {0x70, "ALAC_16"},        {0x71, "ALAC_20"},      {0x72, "ALAC_24"},
    {0x73, "ALAC_32"},        {0x80, "MPEG_LAYER_I"}, {0x81, "MPEG_LAYER_II"},
    {0x82, "MPEG_LAYER_III"},
};

template <size_t N>
std::string name_of(const Name (&table)[N], int code) {
  for (const Name& n : table) {
    if (n.code == code) return n.name;
  }
  return "unknown";
}

// The first bytes as text, so that a web page or a note saved as .wav is seen for what it is.
std::string first_bytes(ByteReader& reader) {
  uint8_t head[16] = {};
  const int64_t count = reader.read_at(0, head, sizeof head);
  std::string text;
  for (int64_t i = 0; i < count; ++i)
    text += head[i] >= 0x20 && head[i] < 0x7F ? char(head[i]) : '.';
  return text;
}

constexpr const char* kFfmpegWay =
    "; where the ffmpeg program is installed it may read it: ffmpeg -i <file> out.wav";

// SF_ERR_* of libsndfile's interface; larger codes are its own and unnamed.
constexpr int kUnrecognised = 1, kUnsupportedEncoding = 4;

// libsndfile's own limit.
constexpr int kMostChannels = 1024;

}  // namespace

AudioFile::AudioFile(const Source& source, const std::atomic<bool>* cancel)
    : api_(sndfile()), source_(source), bytes_(source, cancel), io_(ByteReader::callbacks()) {
  PANNS_CHECK(bytes_.size() > 0, "ERR_PANNS_AUDIO_EMPTY", name(),
              "expected audio, got a file of 0 bytes");
  try {
    open();
  } catch (...) {
    close();
    throw;
  }
}

AudioFile::~AudioFile() { close(); }

void AudioFile::close() {
  if (handle_) api_.close(handle_);
  handle_ = nullptr;
}

void AudioFile::open() {
  const Container container = identify(bytes_);
  // libsndfile would take some of these for an MP3 with a damaged start.
  if (container.name && !container.sndfile) throw_open_failure(kUnrecognised, "");

  if (container.name && std::strcmp(container.name, "MP3") == 0 && !repaired_) {
    Mp3Repair repair = inspect_mp3(bytes_);
    throw_if_cancelled();
    cut_ = repair.cut;
    repaired_ = true;
    PANNS_CHECK(!cut_ || !repair.first_frame.empty(), "ERR_PANNS_AUDIO_CORRUPT", name(),
                "an MP3 file that ends before its first whole frame of audio");
    if (!repair.first_frame.empty()) {
      bytes_.replace_head(std::move(repair.first_frame), repair.from, repair.to);
    }
  }

  const auto attempt = [&](SndfileInfo& info) {
    info = {};
    io_.seek(0, SEEK_SET, &bytes_);
    handle_ = api_.open_virtual(&io_, kSndfileRead, &info, &bytes_);
  };
  SndfileInfo info;
  {
    const std::shared_lock lock(*api_.open_mutex);
    attempt(info);
  }
  throw_if_cancelled();
  if (!handle_) {
    int code = 0;
    std::string text;
    {
      const std::unique_lock lock(*api_.open_mutex);
      attempt(info);
      if (!handle_) {
        code = api_.error(nullptr);
        text = api_.strerror(nullptr);
      }
    }
    if (!handle_) throw_open_failure(code, text);
  }
  PANNS_CHECK(info.channels >= 1 && info.channels <= kMostChannels && info.samplerate >= 1 &&
                  info.samplerate <= kHighestRate && info.frames >= 0,
              "ERR_PANNS_AUDIO_CORRUPT", name(), "expected 1 to ", kMostChannels,
              " channels and 1 to ", kHighestRate, " Hz, the header says ", info.channels,
              " channels, ", info.samplerate, " Hz and ", info.frames, " frames");
  info_.frames = info.frames == kSndfileUnknownFrames ? -1 : info.frames;
  info_.sample_rate = info.samplerate;
  info_.channels = info.channels;
  info_.format = name_of(kFormats, info.format & kSndfileTypeMask);
  info_.subtype = name_of(kSubtypes, info.format & kSndfileSubtypeMask);
  position_ = 0;
}

void AudioFile::throw_open_failure(int code, const std::string& text) {
  PANNS_CHECK(!bytes_.io_error(), "ERR_PANNS_IO", name(),
              "the audio file cannot be read: ", std::strerror(bytes_.io_error()));
  const Container container = identify(bytes_);
  const std::string reason = text.empty() ? "" : cat(" (", api_.version, ": ", text, ")");
  PANNS_CHECK(container.name, "ERR_PANNS_AUDIO_FORMAT", name(),
              "not audio in a known format: ", bytes_.size(), " bytes that begin with \"",
              first_bytes(bytes_), "\"", reason, kFfmpegWay);
  PANNS_CHECK(container.sndfile, "ERR_PANNS_AUDIO_FORMAT", name(), container.name,
              " is not a format that libsndfile reads", kFfmpegWay);
  const bool mp3 = std::strcmp(container.name, "MP3") == 0;
  PANNS_CHECK(!mp3 || code != kUnrecognised, "ERR_PANNS_AUDIO_FORMAT", name(),
              "looks like MP3 but was not recognised", reason,
              "; libsndfile reads MP3 since version 1.1", kFfmpegWay);
  PANNS_CHECK(code != kUnsupportedEncoding, "ERR_PANNS_AUDIO_FORMAT", name(), "a ", container.name,
              " file in an encoding that libsndfile does not read", reason, kFfmpegWay);
  throw Error("ERR_PANNS_AUDIO_CORRUPT", name(),
              cat("a damaged, cut or unsupported ", container.name, " file", reason, kFfmpegWay));
}

void AudioFile::throw_if_cancelled() const {
  if (bytes_.cancelled()) throw Error("ABORT_ERR", "", "The operation was aborted");
}

int64_t AudioFile::read(float* out, int64_t frames) {
  int64_t got = read_here(out, frames);
  if (got == 0 && frames > 0 && sought_) {
    // A cut FLAC or Ogg may seek and then give nothing that reading from the start does give.
    const int64_t target = position_;
    close();
    open();
    if (skip_to(target)) got = read_here(out, frames);
  }
  sought_ = false;
  return got;
}

int64_t AudioFile::read_here(float* out, int64_t frames) {
  const int64_t got = std::clamp<int64_t>(api_.readf_float(handle_, out, frames), 0, frames);
  throw_if_cancelled();
  PANNS_CHECK(!bytes_.io_error(), "ERR_PANNS_IO", name(),
              "the audio file cannot be read: ", std::strerror(bytes_.io_error()));
  position_ += got;
  return got;
}

bool AudioFile::seek(int64_t frame) {
  if (frame == position_) return true;
  const int64_t target = std::min(frame, last_exact_seek());
  sought_ = api_.seek(handle_, target, SEEK_SET) == target;
  throw_if_cancelled();
  if (sought_) {
    position_ = target;
    if (target == frame || skip_to(frame)) return true;
  }
  close();
  open();
  return skip_to(frame);
}

// libsndfile (1.2.0 at least) counts back from the last page's end, which in Vorbis is where the
// audio was cut to length and not where its blocks end: a seek into that page lands too late by the
// difference. So such seeks go before the page, by more than the two blocks (8192 at most) that
// overlap there, and the rest is decoded.
int64_t AudioFile::last_exact_seek() {
  if (info_.subtype != "VORBIS") return INT64_MAX;
  constexpr int64_t kBlocks = 2 * 8192;
  return std::max<int64_t>(0, ogg_last_page_start(bytes_) - kBlocks);
}

bool AudioFile::skip_to(int64_t frame) {
  constexpr int64_t kFloats = 1 << 16;
  const int64_t most = std::max<int64_t>(1, kFloats / info_.channels);
  std::vector<float> dropped(most * info_.channels);
  while (position_ < frame) {
    if (read_here(dropped.data(), std::min(most, frame - position_)) == 0) return false;
  }
  return true;
}

bool AudioFile::ended_early() {
  return cut_ || (info_.frames >= 0 && position_ < info_.frames) || stops_early(bytes_);
}

std::string AudioFile::failure() const { return api_.error(handle_) ? api_.strerror(handle_) : ""; }

}  // namespace panns::audio
