#include "audio/decode_mp3.h"

#include <algorithm>
#include <cstring>

namespace panns::audio {
namespace {

uint32_t big32(const uint8_t* p) {
  return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3];
}
void put_big32(uint8_t* p, uint32_t v) {
  for (int i = 0; i < 4; ++i) p[i] = uint8_t(v >> (24 - 8 * i));
}

// kbit/s of layer III by the header's bit-rate index, for MPEG-1 and for MPEG-2 and 2.5
// (ISO/IEC 11172-3, 2.4.2.3, and 13818-3, 2.4.2.3). Index 0 is the free format.
constexpr int kRates[2][16] = {
    {0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0},
    {0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0},
};
constexpr int kSampleRates[3] = {44100, 48000, 32000};  // halved in MPEG-2, again in 2.5

struct Header {
  uint32_t word = 0;
  bool valid() const {
    return (word >> 21) == 0x7FF && version() != 1 && (word >> 17 & 3) == 1 && rate_index() != 0 &&
           rate_index() != 15 && (word >> 10 & 3) != 3;
  }
  int version() const { return word >> 19 & 3; }  // 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
  int rate_index() const { return word >> 12 & 15; }
  bool mono() const { return (word >> 6 & 3) == 3; }
  int64_t bytes() const {
    const bool first = version() == 3;
    const int sample_rate = kSampleRates[word >> 10 & 3] >> (first ? 0 : version() == 2 ? 1 : 2);
    const int padding = word >> 9 & 1;
    return (first ? 144000 : 72000) * int64_t(kRates[!first][rate_index()]) / sample_rate + padding;
  }
  // Where a Xing tag stands: after the header and the side information.
  int tag_at() const { return 4 + (version() == 3 ? (mono() ? 17 : 32) : (mono() ? 9 : 17)); }
  // Frames of one stream share version, layer and sampling rate.
  bool same_stream(Header other) const { return ((word ^ other.word) & 0xFFFE0C00) == 0; }
};

Header header_at(ByteReader& reader, int64_t at) {
  uint8_t raw[4];
  if (reader.read_at(at, raw, 4) != 4) return {};
  return {big32(raw)};
}

// Past the ID3v2 tags at the start, which may follow one another.
int64_t skip_tags(ByteReader& reader) {
  int64_t at = 0;
  uint8_t raw[10];
  while (reader.read_at(at, raw, 10) == 10 && std::memcmp(raw, "ID3", 3) == 0) {
    // Four times seven bits, and a footer of ten bytes when the flag 0x10 is set.
    const int64_t size = raw[6] << 21 | raw[7] << 14 | raw[8] << 7 | raw[9];
    at += 10 + size + (raw[5] & 0x10 ? 10 : 0);
  }
  return at;
}

// The next offset from at on where a frame begins that another follows (or the file ends); -1 when
// there is none within reach.
int64_t find_frame(ByteReader& reader, int64_t at, const Header* like) {
  // Players give up after some KiB; a picture between frames would be larger than any of them skip.
  constexpr int64_t kReach = 64 << 10;
  const int64_t end = std::min(reader.size() - 4, at + kReach);
  for (; at <= end; ++at) {
    const Header h = header_at(reader, at);
    if (!h.valid() || (like && !like->same_stream(h))) continue;
    const int64_t next = at + h.bytes();
    if (next >= reader.size()) return at;
    const Header follower = header_at(reader, next);
    if (follower.valid() && follower.same_stream(h)) return at;
    // An ID3v1 or APE tag after the last frame.
    char tag[3];
    if (like && reader.read_at(next, tag, 3) == 3 &&
        (std::memcmp(tag, "TAG", 3) == 0 || std::memcmp(tag, "APE", 3) == 0)) {
      return at;
    }
  }
  return -1;
}

// The Xing or Info tag of a first frame.
struct Tag {
  bool present = false;
  int64_t frames = -1, bytes = -1;  // -1: not said
  int frames_at = 0, bytes_at = 0;  // offsets in the frame
};

Tag tag_of(const std::vector<uint8_t>& frame, Header header) {
  constexpr uint32_t kHasFrames = 1, kHasBytes = 2;
  Tag tag;
  const int at = header.tag_at();
  if (int64_t(frame.size()) < at + 16) return tag;
  const uint8_t* p = frame.data() + at;
  tag.present = std::memcmp(p, "Xing", 4) == 0 || std::memcmp(p, "Info", 4) == 0;
  if (!tag.present) return tag;
  const uint32_t flags = big32(p + 4);
  int field = at + 8;
  if (flags & kHasFrames) {
    tag.frames_at = field;
    tag.frames = big32(&frame[field]);
    field += 4;
  }
  if (flags & kHasBytes) {
    tag.bytes_at = field;
    tag.bytes = big32(&frame[field]);
  }
  return tag;
}

// A silent frame of the stream's kind with a Xing tag that holds the number of frames.
std::vector<uint8_t> make_tag_frame(Header like, int64_t frames) {
  constexpr uint32_t kNoChecksum = 1u << 16, kPadding = 1u << 9, kRateIndex = 15u << 12;
  const int needed = like.tag_at() + 12;
  Header h{(like.word | kNoChecksum) & ~kPadding};
  for (uint32_t index = like.rate_index(); h.bytes() < needed && index < 15; ++index) {
    h.word = (h.word & ~kRateIndex) | index << 12;
  }
  std::vector<uint8_t> frame(h.bytes());
  put_big32(frame.data(), h.word);
  uint8_t* p = frame.data() + h.tag_at();
  std::memcpy(p, "Xing", 4);
  put_big32(p + 4, 1);  // only the number of frames follows
  put_big32(p + 8, uint32_t(frames));
  return frame;
}

}  // namespace

Mp3Repair inspect_mp3(ByteReader& reader) {
  Mp3Repair out;
  const int64_t first = find_frame(reader, skip_tags(reader), nullptr);
  if (first < 0) return out;  // other layers, the free format, or no MP3: as it is
  const Header header = header_at(reader, first);
  std::vector<uint8_t> frame(header.bytes());
  if (reader.read_at(first, frame.data(), int64_t(frame.size())) != int64_t(frame.size()))
    return out;
  const Tag tag = tag_of(frame, header);

  // A stray ID3v1 tag or a rounding is no contradiction; a hundredth of the file is.
  const int64_t held = reader.size() - first;
  constexpr int64_t kSmallTags = 4096;
  if (tag.frames > 0 && tag.bytes > 0 && held >= tag.bytes &&
      held - tag.bytes <= std::max(kSmallTags, tag.bytes / 100)) {
    return out;
  }

  int64_t at = tag.present ? first + header.bytes() : first;
  out.from = at;
  int64_t frames = 0;
  while (at + 4 <= reader.size()) {
    Header h = header_at(reader, at);
    if (!h.valid() || !header.same_stream(h)) {
      at = find_frame(reader, at, &header);
      if (at < 0) break;
      h = header_at(reader, at);
    }
    if (at + h.bytes() > reader.size()) break;  // the last frame is cut
    at += h.bytes();
    out.to = at;
    ++frames;
  }
  out.cut = tag.frames > frames;
  if (frames == 0) return out;
  if (tag.frames > 0) {
    put_big32(&frame[tag.frames_at], uint32_t(frames));
    if (tag.bytes > 0) {
      put_big32(&frame[tag.bytes_at], uint32_t(out.to - out.from + int64_t(frame.size())));
    }
    out.first_frame = std::move(frame);
  } else {
    out.first_frame = make_tag_frame(header, frames);
  }
  return out;
}

}  // namespace panns::audio
