#include "graph/fuse.h"

#include <algorithm>
#include <set>

namespace panns::graph {
namespace {

using ops::Attrs;
using ops::Op;

bool is_avg_pool_2x2(const Attrs& attrs) {
  const auto& p = ops::as<ops::PoolAttrs>(attrs);
  return p.kind == ops::PoolKind::avg && p.kernel == ops::Pair{2, 2} &&
         p.stride == ops::Pair{2, 2} && p.padding == ops::Pair{0, 0};
}

// A norm whose result is what it yields, so far.
bool is_bare(const ops::BatchNormAttrs& a) {
  return !a.relu && !a.avg_pool_2x2 && a.dropout.p == 0 && !a.augments();
}

// A row: head followed by tail becomes head with an epilogue. The epilogue's order is fixed: relu,
// pool, dropout, or of a norm over frequency spec_augment, mixup; what came before decides what may
// follow. Other inputs of the tail, which must be there before any node, become the head's last.
struct Row {
  const char* name;
  Op head, tail;
  bool training;  // for graphs that train; otherwise for frozen nodes, as there is no backward
  bool (*take)(Attrs& head, const Attrs& tail);
};

const Row kRows[] = {
    {"conv+relu", Op::conv, Op::relu, false,
     [](Attrs& head, const Attrs&) {
       auto& a = std::get<ops::ConvAttrs>(head);
       return !a.avg_pool_2x2 && !a.relu && (a.relu = true);
     }},
    {"conv+avg_pool_2x2", Op::conv, Op::pool, false,
     [](Attrs& head, const Attrs& tail) {
       auto& a = std::get<ops::ConvAttrs>(head);
       return is_avg_pool_2x2(tail) && !a.avg_pool_2x2 && (a.avg_pool_2x2 = true);
     }},
    {"linear+relu", Op::linear, Op::relu, false,
     [](Attrs& head, const Attrs&) {
       auto& a = std::get<ops::LinearAttrs>(head);
       return !a.relu && (a.relu = true);
     }},
    {"batch_norm+relu", Op::batch_norm, Op::relu, true,
     [](Attrs& head, const Attrs&) {
       auto& a = std::get<ops::BatchNormAttrs>(head);
       return is_bare(a) && (a.relu = true);
     }},
    {"batch_norm+avg_pool_2x2", Op::batch_norm, Op::pool, true,
     [](Attrs& head, const Attrs& tail) {
       auto& a = std::get<ops::BatchNormAttrs>(head);
       return is_avg_pool_2x2(tail) && !a.avg_pool_2x2 && a.dropout.p == 0 && !a.augments() &&
              (a.avg_pool_2x2 = true);
     }},
    {"batch_norm+dropout", Op::batch_norm, Op::dropout, true,
     [](Attrs& head, const Attrs& tail) {
       auto& a = std::get<ops::BatchNormAttrs>(head);
       if (a.dropout.p != 0 || a.augments()) return false;
       a.dropout = ops::as<ops::DropoutAttrs>(tail);
       return true;
     }},
    {"batch_norm+spec_augment", Op::batch_norm, Op::spec_augment, true,
     [](Attrs& head, const Attrs& tail) {
       auto& a = std::get<ops::BatchNormAttrs>(head);
       if (a.axis != ops::Axis::freq || !is_bare(a)) return false;
       a.spec_augment = ops::as<ops::SpecAugmentAttrs>(tail);
       return true;
     }},
    {"batch_norm+mixup", Op::batch_norm, Op::mixup, true,
     [](Attrs& head, const Attrs&) {
       auto& a = std::get<ops::BatchNormAttrs>(head);
       return a.axis == ops::Axis::freq && !a.mixup && (is_bare(a) || a.spec_augment) &&
              (a.mixup = true);
     }},
};

// A norm of the batch after a convolution that has the sums of what it writes: the norm then reads
// its input once. The sums are added in no fixed order, so only a device that may do so offers it.
constexpr const char* kStatistics = "conv+statistics";

// A convolution of one channel into the norm of the batch after it, which needs only x for it.
constexpr const char* kConvolution = "conv+batch_norm";

// A norm by the statistics of the batch that this process has.
bool is_local(const ops::BatchNormAttrs& a) {
  return a.training && !a.over_processes && a.axis == ops::Axis::channel;
}

// Whether that is all there is to the convolution (BatchNormAttrs::of_conv); `still`: whether
// nothing that trains leads to x.
bool is_plain_of_one(const ops::ConvAttrs& a, const Shape& x, bool still) {
  const auto halves = [&](int axis) {
    return a.kernel[axis] % 2 == 1 && a.padding[axis] == a.kernel[axis] / 2;
  };
  return x[1] == 1 && a.groups == 1 && (still || a.stride == ops::Pair{1, 1}) &&
         a.dilation == ops::Pair{1, 1} && halves(0) && halves(1) && !a.bias && !a.relu &&
         !a.avg_pool_2x2;
}

bool is_off(const std::vector<std::string>& off, const char* name) {
  return std::find(off.begin(), off.end(), name) != off.end();
}

void drop(Graph& g, const std::vector<bool>& gone) {
  std::vector<Node> kept;
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (!gone[i]) kept.push_back(std::move(g.nodes[i]));
  }
  g.nodes = std::move(kept);
}

// When the norms have their epilogues, as not every one goes with it.
int take_convolutions(Graph& g, const backends::Device& device) {
  const auto uses = g.uses();
  std::map<ValueId, size_t> conv_of;
  std::set<ValueId> moving;  // made by what trains
  std::vector<bool> gone(g.nodes.size(), false);
  int taken = 0;
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    Node& norm = g.nodes[i];
    if (!norm.frozen) moving.insert(norm.out.begin(), norm.out.end());
    if (norm.op == Op::conv && !norm.frozen) conv_of[norm.out[0]] = i;
    if (norm.op != Op::batch_norm || !conv_of.count(norm.in[0])) continue;
    const size_t at = conv_of[norm.in[0]];
    const Node& conv = g.nodes[at];
    const ValueId x = conv.in[0], weight = conv.in[1];
    auto& attrs = std::get<ops::BatchNormAttrs>(norm.attrs);
    const auto& taken_in = ops::as<ops::ConvAttrs>(conv.attrs);
    if (!is_local(attrs) || uses[static_cast<size_t>(norm.in[0])] != 1 ||
        !is_plain_of_one(taken_in, g.spec(x).shape, moving.count(x) == 0)) {
      continue;
    }
    backends::NodeSpec fused = node_spec(g, norm);
    std::get<ops::BatchNormAttrs>(fused.attrs).of_conv = taken_in.stride;
    fused.in[0] = g.spec(x);
    fused.in.push_back(g.spec(weight));
    fused.out = ops::def(norm.op).infer(fused.attrs, fused.in, norm.path);
    if (!device.supports(fused)) continue;
    attrs.of_conv = taken_in.stride;
    norm.in[0] = x;
    norm.in.push_back(weight);
    norm.out.push_back(g.add_value({"v" + std::to_string(g.values.size()), fused.out[3]}));
    gone[at] = true;
    ++taken;
  }
  drop(g, gone);
  return taken;
}

int take_statistics(Graph& g, const backends::Device& device) {
  std::map<ValueId, size_t> conv_of;
  int taken = 0;
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (g.nodes[i].op == Op::conv && !g.nodes[i].frozen) conv_of[g.nodes[i].out[0]] = i;
    if (g.nodes[i].op != Op::batch_norm || !conv_of.count(g.nodes[i].in[0])) continue;
    Node &norm = g.nodes[i], &conv = g.nodes[conv_of[norm.in[0]]];
    auto& to = std::get<ops::BatchNormAttrs>(norm.attrs);
    auto& from = std::get<ops::ConvAttrs>(conv.attrs);
    if (!is_local(to) || conv.out.size() > 1) continue;
    const ops::TensorSpec sums{Shape{from.out_channels}, ops::Form::dense};
    backends::NodeSpec giver = node_spec(g, conv), taker = node_spec(g, norm);
    std::get<ops::ConvAttrs>(giver.attrs).statistics = true;
    std::get<ops::BatchNormAttrs>(taker.attrs).from_sums = true;
    giver.out.insert(giver.out.end(), {sums, sums});
    taker.in.insert(taker.in.end(), {sums, sums});
    if (!device.supports(taker) || !device.supports(giver)) continue;
    from.statistics = to.from_sums = true;
    for (int k = 0; k < 2; ++k) {
      const ValueId v = g.add_value({"v" + std::to_string(g.values.size()), sums});
      conv.out.push_back(v);
      norm.in.push_back(v);
    }
    ++taken;
  }
  return taken;
}

}  // namespace

backends::NodeSpec node_spec(const Graph& g, const Node& n) {
  backends::NodeSpec spec{n.op, n.attrs, {}, {}, n.path};
  for (ValueId v : n.in) spec.in.push_back(g.spec(v));
  for (ValueId v : n.out) spec.out.push_back(g.spec(v));
  return spec;
}

std::vector<std::string> fusion_names() {
  std::vector<std::string> names;
  for (const Row& row : kRows) names.push_back(row.name);
  names.insert(names.end(), {kConvolution, kStatistics});
  return names;
}

void check_passes(const std::vector<std::string>& names) {
  std::vector<std::string> known = fusion_names();
  known.insert(known.end(), {"fuse", "prune", "plan", "fold_batch_norm"});
  for (const auto& name : names) {
    std::string list;
    for (const auto& k : known) list += (list.empty() ? "" : ", ") + k;
    PANNS_CHECK(std::find(known.begin(), known.end(), name) != known.end(), "ERR_PANNS_OPTION",
                "passesOff", "unknown pass '", name, "'; expected one of ", list);
  }
}

int fuse(Graph& g, const backends::Device& device, const std::vector<std::string>& off) {
  auto uses = g.uses();
  std::map<ValueId, Node*> maker;
  std::map<ValueId, ValueId> replaced;
  std::vector<bool> gone(g.nodes.size(), false);
  int taken = 0;
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    Node& n = g.nodes[i];
    for (ValueId& v : n.in) {
      if (replaced.count(v)) v = replaced[v];
    }
    const auto head = n.in.empty() ? maker.end() : maker.find(n.in[0]);
    const bool others_made = std::any_of(n.in.begin() + !n.in.empty(), n.in.end(),
                                         [&](ValueId v) { return maker.count(v) > 0; });
    if (head != maker.end() && uses[static_cast<size_t>(n.in[0])] == 1 && !others_made) {
      Node& h = *head->second;
      for (const Row& row : kRows) {
        if (row.head != h.op || row.tail != n.op || !(row.training ? g.training : h.frozen)) {
          continue;
        }
        if (is_off(off, row.name)) continue;
        backends::NodeSpec fused = node_spec(g, h);
        if (!row.take(fused.attrs, n.attrs)) continue;
        fused.out[0] = g.spec(n.out[0]);
        for (size_t k = 1; k < n.in.size(); ++k) fused.in.push_back(g.spec(n.in[k]));
        if (!device.supports(fused)) continue;
        h.attrs = fused.attrs;
        h.in.insert(h.in.end(), n.in.begin() + 1, n.in.end());
        replaced[n.out[0]] = h.out[0];
        uses[static_cast<size_t>(h.out[0])] = uses[static_cast<size_t>(n.out[0])];
        g.values[static_cast<size_t>(h.out[0])].spec = fused.out[0];
        gone[i] = true;
        ++taken;
        break;
      }
    }
    // The head's output now stands for the tail's, whose readers it inherits.
    if (!gone[i] && !n.out.empty()) maker[n.out[0]] = &n;
  }
  for (auto& [name, v] : g.outputs) {
    if (replaced.count(v)) v = replaced[v];
  }
  drop(g, gone);
  if (g.training && !is_off(off, kConvolution)) taken += take_convolutions(g, device);
  if (g.training && !is_off(off, kStatistics)) taken += take_statistics(g, device);
  return taken;
}

}  // namespace panns::graph
