#include "audio/decode_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace panns::audio {
namespace {

// Decoders ask for 4 to 8 KiB at a time; 64 KiB a system call makes their cost disappear.
constexpr int64_t kCacheBytes = 64 << 10;

uint32_t big32(const uint8_t* p) {
  return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3];
}
uint32_t little32(const uint8_t* p) {
  return uint32_t(p[3]) << 24 | uint32_t(p[2]) << 16 | uint32_t(p[1]) << 8 | p[0];
}
bool is(const uint8_t* p, const char* tag) { return std::memcmp(p, tag, std::strlen(tag)) == 0; }

// Walks the chunks of a RIFF or FORM file to the one with the samples.
bool chunk_stops_early(ByteReader& reader, const char* samples_id, bool big_endian) {
  // Writers to a pipe cannot know the size; ffmpeg leaves 0xFFFFFFFF, sox 0x7FFFF000 or so, others
  // 0. That announces nothing.
  constexpr uint32_t kUnknownSize = 0x7FFFF000;
  // The chunks before the samples are a handful; a file of nothing but headers is not walked.
  constexpr int kMostChunks = 1000;
  int64_t at = 12;
  for (int i = 0; i < kMostChunks; ++i) {
    uint8_t head[8];
    if (reader.read_at(at, head, 8) != 8) return true;  // ends before any sample
    const uint32_t size = big_endian ? big32(head + 4) : little32(head + 4);
    at += 8;
    if (is(head, samples_id)) {
      return size != 0 && size < kUnknownSize && at + int64_t(size) > reader.size();
    }
    at += int64_t(size) + (size & 1);
  }
  return false;
}

// RF64 keeps the size of its samples in the chunk that follows the form (EBU Tech 3306).
bool rf64_stops_early(ByteReader& reader) {
  uint8_t ds64[28];  // id, size, file size, size of the samples
  if (reader.read_at(12, ds64, sizeof ds64) != sizeof ds64 || !is(ds64, "ds64")) return false;
  const uint64_t size = uint64_t(little32(ds64 + 20)) << 32 | little32(ds64 + 16);
  return size > uint64_t(reader.size());
}

// AU: offset of the samples, and their size or all ones.
bool au_stops_early(ByteReader& reader, bool big_endian) {
  uint8_t raw[8];
  if (reader.read_at(4, raw, 8) != 8) return true;
  const uint32_t start = big_endian ? big32(raw) : little32(raw);
  const uint32_t size = big_endian ? big32(raw + 4) : little32(raw + 4);
  return size != 0xFFFFFFFF && int64_t(start) + size > reader.size();
}

constexpr int64_t kLargestOggPage = 27 + 255 + 255 * 255;

// The end of an Ogg file, read backwards page by page (RFC 3533, section 6).
class OggTail {
 public:
  explicit OggTail(ByteReader& reader) : bytes_(std::min(reader.size(), 4 * kLargestOggPage)) {
    const int64_t got = reader.read_at(reader.size() - int64_t(bytes_.size()), bytes_.data(),
                                       int64_t(bytes_.size()));
    bytes_.resize(got);
    at_ = got;
  }
  // Steps to the page before; false when there is none in reach.
  bool previous() {
    for (at_ = std::min(at_ - 1, int64_t(bytes_.size()) - kHeader); at_ >= 0; --at_) {
      if (is(&bytes_[at_], "OggS")) return true;
    }
    return false;
  }
  bool whole() const {
    const int segments = bytes_[at_ + 26];
    int64_t end = at_ + kHeader + segments;
    if (end > int64_t(bytes_.size())) return false;
    for (int i = 0; i < segments; ++i) end += bytes_[at_ + kHeader + i];
    return end <= int64_t(bytes_.size());
  }
  bool ends_stream() const { return bytes_[at_ + 5] & 4; }
  // -1 where no packet ends on the page.
  int64_t granule() const {
    return int64_t(uint64_t(little32(&bytes_[at_ + 10])) << 32 | little32(&bytes_[at_ + 6]));
  }

 private:
  static constexpr int64_t kHeader = 27;
  std::vector<uint8_t> bytes_;
  int64_t at_ = 0;
};

// The last page must be whole and carry the end-of-stream flag.
bool ogg_stops_early(ByteReader& reader) {
  OggTail tail(reader);
  return !tail.previous() || !tail.whole() || !tail.ends_stream();
}

ByteReader& self(void* user) { return *static_cast<ByteReader*>(user); }

}  // namespace

ByteReader::ByteReader(const Source& source, const std::atomic<bool>* cancel) : cancel_(cancel) {
  if (source.bytes) {
    bytes_ = *source.bytes;
    size_ = end_ = int64_t(bytes_.size());
    return;
  }
  const std::string& path = source.path;
  PANNS_CHECK(!path.empty() && path.find('\0') == std::string::npos, "ERR_PANNS_AUDIO_NOT_FOUND",
              "", "expected the path of an audio file, got ",
              path.empty() ? "an empty string" : "a string with a NUL character");
  // Non-blocking: opening a named pipe would otherwise wait for a writer.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) {
    const int reason = errno;
    const bool missing = reason == ENOENT || reason == ENOTDIR || reason == ENAMETOOLONG;
    throw Error(missing ? "ERR_PANNS_AUDIO_NOT_FOUND" : "ERR_PANNS_IO", path,
                cat(missing ? "no such audio file: " : "the audio file cannot be read: ",
                    std::strerror(reason)));
  }
  struct stat status;
  const bool regular = ::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    const bool directory = S_ISDIR(status.st_mode);
    ::close(fd_);
    throw Error("ERR_PANNS_IO", path,
                cat("expected an audio file, got ",
                    directory ? "a directory" : "a pipe, socket or device"));
  }
  size_ = end_ = status.st_size;
}

ByteReader::~ByteReader() {
  if (fd_ >= 0) ::close(fd_);
}

int64_t ByteReader::read_disk(int64_t offset, void* out, int64_t count) {
  int64_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(fd_, static_cast<uint8_t*>(out) + done, count - done, offset + done);
    if (got > 0) {
      done += got;
    } else if (got == 0) {
      break;
    } else if (errno != EINTR) {
      if (!io_error_) io_error_ = errno;
      break;
    }
  }
  return done;
}

int64_t ByteReader::read_at(int64_t offset, void* out, int64_t count) {
  if (cancelled() || offset < 0 || offset >= size_ || count <= 0) return 0;
  const int64_t head = int64_t(head_.size());
  int64_t done = 0;
  if (offset < head) {
    done = std::min(count, head - offset);
    std::memcpy(out, head_.data() + offset, done);
  }
  if (done == count) return done;
  return done +
         read_raw(offset + done - head + body_, static_cast<uint8_t*>(out) + done, count - done);
}

// The file's own bytes, through the cache.
int64_t ByteReader::read_raw(int64_t offset, void* out, int64_t count) {
  if (offset >= end_) return 0;
  count = std::min(count, end_ - offset);
  if (fd_ < 0) {
    std::memcpy(out, bytes_.data() + offset, count);
    return count;
  }
  if (count >= kCacheBytes) return read_disk(offset, out, count);
  const int64_t cached = int64_t(cache_.size());
  if (offset < cache_start_ || offset + count > cache_start_ + cached) {
    cache_.resize(kCacheBytes);
    cache_start_ = offset;
    cache_.resize(read_disk(offset, cache_.data(), std::min(kCacheBytes, end_ - offset)));
  }
  count = std::min(count, int64_t(cache_.size()) - (offset - cache_start_));
  std::memcpy(out, cache_.data() + (offset - cache_start_), count);
  return count;
}

void ByteReader::replace_head(std::vector<uint8_t> head, int64_t from, int64_t to) {
  head_ = std::move(head);
  body_ = from;
  end_ = to;
  size_ = int64_t(head_.size()) + to - from;
  position_ = 0;
}

SndfileVirtualIo ByteReader::callbacks() {
  return {
      .get_filelen = [](void* user) { return self(user).size_; },
      .seek =
          [](int64_t offset, int whence, void* user) {
            ByteReader& r = self(user);
            const int64_t from = whence == SEEK_SET   ? 0
                                 : whence == SEEK_CUR ? r.position_
                                                      : r.size_;
            int64_t to = 0;
            if (__builtin_add_overflow(from, offset, &to) || to < 0) return int64_t(-1);
            r.position_ = to;
            return to;
          },
      .read =
          [](void* out, int64_t count, void* user) {
            ByteReader& r = self(user);
            const int64_t got = r.read_at(r.position_, out, count);
            r.position_ += got;
            return got;
          },
      .write = [](const void*, int64_t, void*) { return int64_t(0); },
      .tell = [](void* user) { return self(user).position_; },
  };
}

Container identify(ByteReader& reader) {
  uint8_t head[16] = {};
  reader.read_at(0, head, sizeof head);
  struct Magic {
    int at;
    const char* tag;
    Container container;
  };
  static constexpr Magic kMagics[] = {
      {0, "RIFF", {"WAV", true}},
      {0, "RIFX", {"WAV", true}},
      {0, "RF64", {"WAV", true}},
      {0, "riff", {"W64", true}},
      {0, "FORM", {"AIFF", true}},
      {0, "fLaC", {"FLAC", true}},
      {0, "OggS", {"Ogg", true}},
      {0, "ID3", {"MP3", true}},
      {0, ".snd", {"AU", true}},
      {0, "dns.", {"AU", true}},
      {0, "caff", {"CAF", true}},
      {0, "NIST_1A", {"NIST", true}},
      {0, "Creative", {"VOC", true}},
      {4, "ftyp", {"MP4 or M4A", false}},
      {0, "\x1A\x45\xDF\xA3", {"Matroska or WebM", false}},
      {0, "\x30\x26\xB2\x75", {"ASF or WMA", false}},
      {0, "#!AMR", {"AMR", false}},
      {0, "MAC ", {"Monkey's Audio", false}},
      {0, "wvpk", {"WavPack", false}},
  };
  for (const Magic& m : kMagics) {
    if (is(head + m.at, m.tag)) return m.container;
  }
  // An MPEG frame: eleven sync bits, then version and layer; layer 0 is AAC's ADTS.
  if (head[0] == 0xFF && (head[1] & 0xE0) == 0xE0 && (head[1] & 0x18) != 0x08) {
    return (head[1] & 0x06) == 0 ? Container{"AAC", false} : Container{"MP3", true};
  }
  return {};
}

int64_t ogg_last_page_start(ByteReader& reader) {
  OggTail tail(reader);
  if (!tail.previous()) return 0;
  while (tail.previous()) {
    if (tail.granule() >= 0) return tail.granule();
  }
  return 0;
}

bool stops_early(ByteReader& reader) {
  uint8_t head[12] = {};
  reader.read_at(0, head, sizeof head);
  if (is(head, "RIFF")) return chunk_stops_early(reader, "data", false);
  if (is(head, "RIFX")) return chunk_stops_early(reader, "data", true);
  if (is(head, "FORM")) return chunk_stops_early(reader, "SSND", true);
  if (is(head, "RF64")) return rf64_stops_early(reader);
  if (is(head, ".snd")) return au_stops_early(reader, true);
  if (is(head, "dns.")) return au_stops_early(reader, false);
  if (is(head, "OggS")) return ogg_stops_early(reader);
  return false;
}

}  // namespace panns::audio
