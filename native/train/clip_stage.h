// Clips on their way to the device, beside what it computes.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace panns::train {

// Room in device memory for the samples of one step, and a stream of its own that brings them there
// while the step before computes. Both directions wait by events alone: the samples are not read
// before they have come, nor overwritten before they are read.
//
// They lie there in 16 bits and become floats where the step reads them, at its head. A step so has
// one input address, and one recording; the widening is what its clips need in any case. A second
// input in floats would take twice the bytes, for as long as the session lives: in the arena the
// input's place is free once the log-mel is made.
class ClipStage {
 public:
  ClipStage(backends::Device& device, int64_t samples);

  size_t bytes() const { return memory_->bytes(); }
  // Whether there are samples that have not been taken out.
  bool full() const { return full_; }
  // The host's memory may be reused on return. Takes the place of samples that nobody took out.
  void bring(const int16_t* samples);
  void drop() { full_ = false; }
  // The stream's next work: the samples as floats.
  void take_out(backends::Stream& stream, float* values);

 private:
  backends::Device& device_;
  int64_t samples_;
  std::unique_ptr<backends::Memory> memory_;
  std::unique_ptr<backends::Stream> uploads_;  // ends before the memory that it writes
  std::unique_ptr<backends::Event> brought_, read_;
  bool full_ = false;
};

}  // namespace panns::train
