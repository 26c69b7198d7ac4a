#include <charconv>

#include "graph/graph.h"

namespace panns::graph {
namespace {

using ops::Op;

// Masks are named by the spec's node number: the same in every mode and fused form.
void name_mask(ops::Attrs& attrs, int node) {
  if (auto* d = std::get_if<ops::DropoutAttrs>(&attrs)) d->mask = node;
  if (auto* s = std::get_if<ops::SpecAugmentAttrs>(&attrs)) s->mask = node;
}

bool left_out(Op op, const ParseOptions& options) {
  if (op == Op::mixup) return !options.training || !options.mixup;
  if (op == Op::dropout || op == Op::spec_augment) return !options.training;
  return false;
}

// The number of an earlier node: '#' and digits.
size_t node_number(const std::string& name, size_t count, const std::string& where) {
  size_t k = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + 1, end, k);
  PANNS_CHECK(error == std::errc{} && rest == end && k < count, "ERR_PANNS_SPEC", where,
              "expected an earlier node as input, '#' and its number, got '", name, "'");
  return k;
}

// The nodes after `from` that follow from it, and all outputs do; without it every node.
std::vector<bool> wanted_nodes(const Spec& spec, int from) {
  std::vector<bool> wanted(spec.nodes.size(), from < 0);
  if (from < 0) return wanted;
  const std::string where = spec.name + "/features";
  PANNS_CHECK(from < static_cast<int>(spec.nodes.size()), "ERR_PANNS_SPEC", where,
              "expected a node of the spec, got ", from, " of ", spec.nodes.size());
  for (size_t i = static_cast<size_t>(from) + 1; i < spec.nodes.size(); ++i) {
    for (const std::string& name : spec.nodes[i].inputs) {
      if (name.empty() || name[0] != '#') continue;
      const size_t k = node_number(name, i, where);
      if (k == static_cast<size_t>(from) || wanted[k]) wanted[i] = true;
    }
  }
  return wanted;
}

}  // namespace

Graph parse(const Spec& spec, const ParseOptions& options) {
  PANNS_CHECK(options.batch >= 1 && options.samples >= 1, "ERR_PANNS_SHAPE", spec.name,
              "expected at least one clip of at least one sample, got ", options.batch, " of ",
              options.samples);
  // The published models have at most about 300 nodes.
  constexpr size_t kMostNodes = 4096;
  PANNS_CHECK(spec.nodes.size() <= kMostNodes, "ERR_PANNS_SPEC", spec.name, "expected at most ",
              kMostNodes, " nodes, got ", spec.nodes.size());
  Graph g;
  g.training = options.training;
  const int64_t clips = options.batch * (options.training && options.mixup ? 2 : 1);
  std::map<std::string, ValueId> inputs;
  const char* input = options.from < 0 ? "waveform" : "features";
  const auto given = inputs[input] =
      g.add_value({input, {Shape{clips, options.samples}, ops::Form::dense}, Kind::input});
  if (options.training && options.mixup) {
    inputs["mixup_lambda"] =
        g.add_value({"mixup_lambda", {Shape{clips}, ops::Form::dense}, Kind::input});
  }

  std::vector<ValueId> made;  // of each spec node
  std::map<std::string, bool> names;
  const auto wanted = wanted_nodes(spec, options.from);
  for (size_t i = 0; i < spec.nodes.size(); ++i) {
    if (!wanted[i]) {
      made.push_back(static_cast<int>(i) == options.from ? given : kNoValue);
      continue;
    }
    const SpecNode& s = spec.nodes[i];
    const std::string where = spec.name + "/" + (s.path.empty() ? s.op : s.path);
    const Op op = ops::find(s.op, where);
    const ops::OpDef& def = ops::def(op);
    ops::AttrMap map = s.attrs;
    ops::Attrs attrs = def.parse(map);
    map.finish();
    name_mask(attrs, static_cast<int>(i));
    PANNS_CHECK(static_cast<int>(s.inputs.size()) == def.inputs, "ERR_PANNS_SPEC", where,
                "expected ", def.inputs, " inputs, got ", s.inputs.size());

    std::vector<ValueId> in;
    const bool skip = left_out(op, options);
    for (const std::string& name : s.inputs) {
      if (skip && !in.empty()) break;  // mixup's weights do not exist without mixup
      if (!name.empty() && name[0] == '#') {
        const ValueId v = made[node_number(name, made.size(), where)];
        PANNS_CHECK(v != kNoValue, "ERR_PANNS_SPEC", where, "expected all that follows node ",
                    options.from, " to follow from it alone, got the input ", name);
        in.push_back(v);
      } else {
        PANNS_CHECK(inputs.count(name), "ERR_PANNS_SPEC", where, "unknown input '", name, "'");
        in.push_back(inputs[name]);
      }
    }
    if (skip) {
      made.push_back(in[0]);
      continue;
    }
    if (auto* bn = std::get_if<ops::BatchNormAttrs>(&attrs)) {
      const bool still =
          options.still && options.still(s.path + ".weight") && options.still(s.path + ".bias");
      bn->training = options.training && !still;
      bn->over_processes = bn->training && options.sync_norms;
    }
    if (auto* conv = std::get_if<ops::ConvAttrs>(&attrs)) conv->frozen = !options.training;
    if (def.params != nullptr) {
      PANNS_CHECK(!s.path.empty() && !names[s.path], "ERR_PANNS_SPEC", where,
                  "expected a name of its own for each node with parameters, got '", s.path, "'");
      names[s.path] = true;
      for (const auto& p : def.params(attrs, g.spec(in[0]), where)) {
        in.push_back(g.add_value({s.path + "." + p.suffix, p.tensor,
                                  p.trainable ? Kind::parameter : Kind::buffer, p.init}));
      }
    }
    // Errors carry the model's name; the node's own path is what PyTorch would call it.
    ops::Specs specs;
    for (ValueId v : in) specs.push_back(g.spec(v));
    def.infer(attrs, specs, where);
    Node& node = g.add_node(op, std::move(attrs), s.path.empty() ? s.op : s.path, in);
    node.frozen = !options.training;
    made.push_back(node.out[0]);
  }
  for (const auto& [name, node] : spec.outputs) {
    PANNS_CHECK(node >= 0 && node < static_cast<int>(made.size()), "ERR_PANNS_SPEC", spec.name,
                "output '", name, "' names node ", node, ", which does not exist");
    if (made[static_cast<size_t>(node)] == kNoValue) continue;
    g.outputs[name] = made[static_cast<size_t>(node)];
  }
  g.verify();
  return g;
}

}  // namespace panns::graph
