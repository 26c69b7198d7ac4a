#include "train/clip_stage.h"

namespace panns::train {

ClipStage::ClipStage(backends::Device& device, int64_t samples)
    : device_(device),
      samples_(samples),
      memory_(device.allocate(static_cast<size_t>(samples) * sizeof(int16_t))),
      uploads_(device.stream()) {}

void ClipStage::bring(const int16_t* samples) {
  full_ = false;
  if (read_ != nullptr) uploads_->wait(*read_);
  uploads_->upload(memory_->data(), samples, static_cast<size_t>(samples_) * sizeof(int16_t));
  brought_ = uploads_->record();
  full_ = true;
}

void ClipStage::take_out(backends::Stream& stream, float* values) {
  stream.wait(*brought_);
  device_.widen_samples(stream, samples_, reinterpret_cast<const int16_t*>(memory_->data()),
                        values);
  read_ = stream.record();
  full_ = false;
}

}  // namespace panns::train
