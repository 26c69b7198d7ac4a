// The averages of a training step among several processes: each gradient once, when it is there and
// not before, and the same with and without overlap.
#include "train/buckets.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "backends/collective.h"
#include "seed.h"
#include "tap.h"
#include "train/session.h"

using namespace panns;

namespace {

std::mt19937_64& random_bits() {
  static std::mt19937_64 bits{test::seed()};
  return bits;
}

std::vector<float> noise(size_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& v : values) v = normal(random_bits());
  return values;
}

// Two processes of which the other has the same gradients and adds nothing to sums. What it is
// given when an average begins must be what is there when it ends.
class Echo final : public backends::Collective {
 public:
  struct Average {
    float* at;
    std::vector<float> values;
  };
  std::vector<Average> open, done;
  int ends = 0;

  int rank() const override { return 0; }
  int size() const override { return 2; }
  std::string device() const override { return "cpu"; }
  std::string engine() const override { return "echo"; }
  void set_cancel(const std::atomic<bool>*) override {}
  void sum(double*, int64_t) override {}
  void broadcast(void*, int64_t, int) override {}
  void share(backends::Stream&, void*, int64_t) override {}
  void sum(backends::Stream&, double*, int64_t) override {}
  void begin_average(backends::Stream&, float* values, int64_t count) override {
    open.push_back({values, {values, values + count}});
  }
  void end_averages(backends::Stream&) override {
    ++ends;
    unmoved = unmoved && std::all_of(open.begin(), open.end(), [](const Average& a) {
                return std::equal(a.values.begin(), a.values.end(), a.at);
              });
    for (Average& a : open) done.push_back(std::move(a));
    open.clear();
  }
  void wait(backends::Stream&) override {}
  void abandon() override { abandoned = true; }
  void leave() override {}

  bool unmoved = true, abandoned = false;
};

ops::AttrMap attrs(std::initializer_list<std::pair<const char*, double>> values) {
  ops::AttrMap map("test");
  for (const auto& [name, value] : values) map.set(name, value);
  return map;
}

// A stack of linear layers on a waveform of 24 samples; `widths` of its results.
graph::Spec linear_stack(const std::vector<int64_t>& widths) {
  graph::Spec spec;
  spec.name = "stack";
  std::string input = "waveform";
  for (size_t i = 0; i < widths.size(); ++i) {
    spec.nodes.push_back({"linear",
                          cat("fc", i),
                          {input},
                          attrs({{"out_features", static_cast<double>(widths[i])}})});
    input = cat("#", i);
  }
  spec.nodes.push_back({"sigmoid", "", {input}, attrs({})});
  spec.outputs["clipwise_output"] = static_cast<int>(widths.size());
  return spec;
}

struct Subject {
  std::unique_ptr<backends::Device> device = backends::make_cpu_device(1);
  graph::Spec spec;
  graph::Parameters parameters;
  train::SessionOptions options;
  std::vector<float> waveform, target;

  explicit Subject(std::vector<std::string> frozen)
      : spec(linear_stack({40, 8, 30, 5})),
        parameters(graph::parse(spec, {1, 24, false}), *device) {
    parameters.initialise(random_bits()());
    options.batch = 3;
    options.samples = 24;
    options.frozen = std::move(frozen);
    options.optimizer.attrs = ops::SgdAttrs{};
    waveform = noise(3 * 24, 1);
    target = std::vector<float>(3 * 5, 1.0f);
  }

  // One step of a session that has joined; the gradients, by parameter.
  std::vector<std::vector<float>> step(std::shared_ptr<Echo> echo, const train::JoinOptions& join) {
    train::Session session(*device, parameters, spec, options);
    session.join(echo, join, nullptr);
    train::StepInput input{waveform.data(), target.data(), nullptr, {}, false};
    session.step(input);
    std::vector<std::vector<float>> all;
    for (const auto& e : parameters.entries()) {
      if (!session.trains(e.name)) continue;
      all.emplace_back(static_cast<size_t>(e.spec.shape.size()));
      session.gradient(e.name, all.back().data(), e.spec.shape.size());
    }
    return all;
  }
};

void test_session(const std::vector<std::string>& frozen, size_t bytes) {
  Subject subject(frozen);
  const std::string name = cat(frozen.size(), " frozen, buckets of ", bytes, ": ");
  std::vector<std::vector<float>> results[2];
  std::vector<Echo::Average> averages[2];
  for (const bool overlap : {false, true}) {
    const auto echo = std::make_shared<Echo>();
    results[overlap] = subject.step(echo, {overlap, bytes});
    tap::ok(echo->unmoved, cat(name, "nothing touches gradients that are being averaged"));
    tap::ok(echo->ends == 1 && echo->open.empty() && !echo->abandoned,
            cat(name, "all averages end once"));
    averages[overlap] = std::move(echo->done);
  }
  bool alike = averages[0].size() == averages[1].size();
  for (size_t i = 0; alike && i < averages[0].size(); ++i) {
    alike = averages[0][i].values == averages[1][i].values;
  }
  tap::ok(alike && results[0] == results[1], cat(name, "the same with and without overlap"));

  // What lies in the buckets is every gradient, once: floats of the padding are zeros.
  double in_buckets = 0, in_gradients = 0;
  for (const auto& a : averages[1]) {
    for (const float v : a.values) in_buckets += std::abs(double{v});
  }
  for (const auto& g : results[1]) {
    for (const float v : g) in_gradients += std::abs(double{v});
  }
  tap::ok(in_gradients > 0 && std::abs(in_buckets - in_gradients) < 1e-9 * in_gradients,
          cat(name, "every gradient is averaged, once"));
  // Of 64-byte lines: 60 + 3, 20 + 1, 15 + 2, 10 + 1 by layer, weight and bias, from the last on.
  const size_t whole = bytes == 1 ? 8 : bytes == 1000 ? 6 : 1;
  if (frozen.empty()) {
    tap::ok(averages[1].size() == whole, cat(name, "as many buckets as there have to be"));
  }
}

void test_order() {
  Subject subject({});
  const auto echo = std::make_shared<Echo>();
  subject.step(echo, {true, 1});
  bool down = true;
  for (size_t i = 2; i < echo->done.size(); ++i) {
    // A layer's weight and bias are there together, in either order.
    down = down && echo->done[i].at < echo->done[i - 2].at;
  }
  tap::ok(down && echo->done.size() == 8, "the last layers come first");
}

void test_failure() {
  Subject subject({});
  const auto echo = std::make_shared<Echo>();
  subject.waveform[7] = std::nanf("");
  std::string code;
  try {
    subject.step(echo, {});
  } catch (const Error& e) {
    code = e.code();
  }
  tap::ok(code == "ERR_PANNS_NAN" && echo->done.empty() && !echo->abandoned,
          "an input that is refused is refused before anything is averaged");
}

}  // namespace

int main() {
  for (const size_t bytes : {size_t{1}, size_t{1000}, size_t{1} << 23}) {
    test_session({}, bytes);
    test_session({"fc1"}, bytes);
    test_session({"fc0", "fc2"}, bytes);
  }
  test_order();
  test_failure();
  return tap::done();
}
