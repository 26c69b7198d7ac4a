// Which optimizer a session has, and what it keeps beside each parameter.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "ops/attrs.h"

namespace panns::train {

struct Optimizer {
  std::variant<ops::AdamAttrs, ops::SgdAttrs> attrs;
  // State arrays beside each parameter: Adam's m, v (and v_max), SGD's momentum.
  std::vector<std::string> slots() const;
};

}  // namespace panns::train
