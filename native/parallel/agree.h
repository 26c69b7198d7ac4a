// How processes that work in step end in step: an error of one becomes an error of all.
#pragma once

#include <exception>
#include <functional>

#include "backends/collective.h"
#include "core/error.h"

namespace panns::parallel {

// Runs body, as every process does. When it throws in some of them, all throw the error of the
// first of those, placed at "process <rank>": none goes on, and none waits for one that has ended.
void together(backends::Collective& processes, backends::Collective::Cancel cancel,
              const std::function<void()>& body);

}  // namespace panns::parallel
