// Bias of convolutions and linear layers.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

// db[c] = sum over rows of dy[row][c], c < count <= columns: the gradient of a bias. Rows are
// summed in chunks of a fixed size and the chunks in order, so that every run gives the same bits.
int64_t column_sums_workspace(int64_t rows, int64_t columns);
void column_sums(const Launch& launch, int64_t rows, int64_t columns, int64_t count, Storage type,
                 const void* dy, float* db, void* workspace);

// y = y + bias over rows of `columns` channels, of which the first `count` have one, and where
// `relu` what is positive of it: for an engine without that epilogue.
void add_bias(const Launch& launch, int64_t rows, int64_t columns, int64_t count, Storage type,
              const float* bias, bool relu, void* y);

}  // namespace panns::cuda
