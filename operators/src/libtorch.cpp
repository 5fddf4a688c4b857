// Lets a pair of functions in Rust, forward and backward, be one node of torch's autograd graph, lends torch's threads to
// kernels, and records what is started on a GPU. The Rust side, with the contract, is libtorch.rs.

#include <ATen/Parallel.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>

#include <cstring>
#include <memory>
#include <string>

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Most tensors that an operation takes, returns or keeps.
constexpr size_t MOST = 16;

extern "C" struct Operation {
  void* operation;
  // Writes owned tensors to `outputs` and `kept`, their numbers to the counts; false after a failure told in `message`.
  bool (*forward)(void* operation, at::Tensor** inputs, size_t inputs_count, at::Tensor** outputs, size_t* outputs_count,
                  at::Tensor** kept, size_t* kept_count, char* message, size_t message_length);
  // Writes one owned gradient, or null, for each input.
  bool (*backward)(void* operation, at::Tensor** inputs, size_t inputs_count, at::Tensor** kept, size_t kept_count,
                   at::Tensor** d_outputs, size_t outputs_count, at::Tensor** d_inputs, char* message,
                   size_t message_length);
  void (*drop)(void* operation);
};

// Owns the Rust side for as long as the graph holds the node.
struct Holder : torch::CustomClassHolder {
  Operation table;
  explicit Holder(Operation table) : table(table) {}
  ~Holder() override { table.drop(table.operation); }
};

variable_list take(at::Tensor** tensors, size_t count) {
  variable_list list(count);
  for (size_t i = 0; i < count; ++i) {
    if (tensors[i] != nullptr) {
      list[i] = std::move(*tensors[i]);
      delete tensors[i];
    }
  }
  return list;
}

struct Function : torch::autograd::Function<Function> {
  // The inputs must be a TensorList: autograd does not look into a variable_list.
  static variable_list forward(AutogradContext* context, at::TensorList inputs, c10::intrusive_ptr<Holder> holder) {
    std::array<at::Tensor*, MOST> in{}, out{}, kept{};
    size_t out_count = 0, kept_count = 0;
    char message[512] = "";
    variable_list saved(inputs.begin(), inputs.end());
    for (size_t i = 0; i < saved.size(); ++i) in[i] = &saved[i];
    const bool done = holder->table.forward(holder->table.operation, in.data(), saved.size(), out.data(), &out_count,
                                            kept.data(), &kept_count, message, sizeof message);
    TORCH_CHECK(done, message);
    context->saved_data["inputs"] = static_cast<int64_t>(saved.size());
    for (auto& tensor : take(kept.data(), kept_count)) saved.push_back(std::move(tensor));
    context->save_for_backward(std::move(saved));
    context->saved_data["operation"] = c10::IValue::make_capsule(std::move(holder));
    return take(out.data(), out_count);
  }

  static variable_list backward(AutogradContext* context, variable_list d_outputs) {
    auto holder = c10::static_intrusive_pointer_cast<Holder>(context->saved_data["operation"].toCapsule());
    const auto inputs_count = static_cast<size_t>(context->saved_data["inputs"].toInt());
    variable_list saved = context->get_saved_variables();
    std::array<at::Tensor*, 2 * MOST> in{};
    std::array<at::Tensor*, MOST> d_out{}, d_in{};
    char message[512] = "";
    for (size_t i = 0; i < saved.size(); ++i) in[i] = &saved[i];
    for (size_t i = 0; i < d_outputs.size(); ++i) d_out[i] = &d_outputs[i];
    const bool done = holder->table.backward(holder->table.operation, in.data(), inputs_count, in.data() + inputs_count,
                                             saved.size() - inputs_count, d_out.data(), d_outputs.size(), d_in.data(),
                                             message, sizeof message);
    TORCH_CHECK(done, message);
    variable_list gradients = take(d_in.data(), inputs_count);
    gradients.emplace_back();  // for the holder
    return gradients;
  }
};

// at::cuda::CUDAGraph, called by the names of its functions: this program is linked without libtorch's CUDA library.
class Graph {
  alignas(16) unsigned char object_[1024] = {};  // handles, a map and flags: less than half of it

  template <typename... Arguments>
  void call(const char* name, Arguments... arguments) {
    void* function = dlsym(RTLD_DEFAULT, name);
    TORCH_CHECK(function != nullptr, "libtorch has no ", name);
    reinterpret_cast<void (*)(void*, Arguments...)>(function)(object_, arguments...);
  }

 public:
  Graph() { call("_ZN2at4cuda9CUDAGraphC1Eb", false); }
  ~Graph() { call("_ZN2at4cuda9CUDAGraphD1Ev"); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  // Relaxed (2): libraries may still take memory of their own meanwhile.
  void begin() { call("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode", c10::MempoolId_t{0, 0}, 2); }
  void end() { call("_ZN2at4cuda9CUDAGraph11capture_endEv"); }
  void replay() { call("_ZN2at4cuda9CUDAGraph6replayEv"); }
};

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA); }
c10::Device gpu(int ordinal) { return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(ordinal)); }

}  // namespace

extern "C" {

// Runs forward and records the node. Takes over `table`. Owned tensors go to `outputs`; the count, or -1 after a failure
// told in `message`.
int64_t deltafront_apply(Operation table, at::Tensor** inputs, size_t inputs_count, at::Tensor** outputs, char* message,
                         size_t message_length) {
  try {
    auto holder = c10::make_intrusive<Holder>(table);
    std::vector<at::Tensor> list;
    list.reserve(inputs_count);
    for (size_t i = 0; i < inputs_count; ++i) list.push_back(*inputs[i]);
    variable_list result = Function::apply(at::TensorList(list), std::move(holder));
    for (size_t i = 0; i < result.size(); ++i) outputs[i] = new at::Tensor(std::move(result[i]));
    return static_cast<int64_t>(result.size());
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), message_length - 1);
    return -1;
  }
}

// Calls `piece(context, i)` for every i below `count` on torch's threads.
void deltafront_parallel(size_t count, void (*piece)(void*, size_t), void* context) {
  at::parallel_for(0, static_cast<int64_t>(count), 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) piece(context, static_cast<size_t>(i));
  });
}

// The CUDA stream that torch's operators of this thread go to now.
void* deltafront_stream(int ordinal) {
  return cuda().getStreamNativeHandle(cuda().getStream(gpu(ordinal)));
}

// Gives the GPU back what torch keeps of its memory for tensors to come; false after a failure told in `message`.
bool deltafront_release(char* message, size_t message_length) {
  try {
    at::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache();
    return true;
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), message_length - 1);
    return false;
  }
}

// Records what `work(context)` starts on a GPU instead of starting it: a graph, or null after a failure told in `message`.
// `work` answers whether it came to its end.
void* deltafront_record(int ordinal, bool (*work)(void*), void* context, char* message, size_t message_length) {
  std::unique_ptr<Graph> graph;
  std::string problem;
  try {
    auto guard = cuda();
    guard.synchronizeDevice(gpu(ordinal).index());
    const c10::Stream before = guard.getStream(gpu(ordinal));
    guard.exchangeStream(guard.getStreamFromGlobalPool(gpu(ordinal), false));  // the default stream is not recorded
    bool began = false, done = false;
    try {
      graph = std::make_unique<Graph>();
      graph->begin();
      began = true;
      done = work(context);
      if (!done) problem = "the work to record failed";
      graph->end();
    } catch (const std::exception& error) {
      if (problem.empty()) problem = error.what();
      done = false;
    }
    guard.exchangeStream(before);
    if (done) return graph.release();
    if (began) static_cast<void>(graph.release());  // the allocator may still ask it which streams are its own
  } catch (const std::exception& error) {
    problem = error.what();
  }
  std::strncpy(message, problem.c_str(), message_length - 1);
  return nullptr;
}

// Starts a graph on the stream of this thread; false after a failure told in `message`.
bool deltafront_replay(void* graph, char* message, size_t message_length) {
  try {
    static_cast<Graph*>(graph)->replay();
    return true;
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), message_length - 1);
    return false;
  }
}

void deltafront_drop_graph(void* graph) {
  try {
    delete static_cast<Graph*>(graph);
  } catch (const std::exception&) {
  }
}
}
