// How processes that work in step end in step: an error of one becomes an error of all.
#pragma once

#include <functional>

#include "backends/collective.h"
#include "core/error.h"

namespace panns::parallel {

// Runs body, as every process does, and returns the sum of what it returns in each. When it throws
// in some of them, all throw the error of the first of those, placed at "process <rank>": none goes
// on, and none waits for one that has ended.
double together(backends::Collective& processes, const std::function<double()>& body);

}  // namespace panns::parallel
