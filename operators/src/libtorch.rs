//! The one file that crosses into libtorch by itself: kernels as nodes of its graph, its threads, its tensors' memory.
//!
//! tch has no custom autograd functions; `libtorch.cpp` has one, which calls back here. An [`Operation`] computes on
//! plain tensors without recording; [`apply`] records it as one node. [`parallel`] runs pieces of a kernel on the
//! threads that libtorch has anyway, so that the two never compete. [`record`] keeps what is started on a GPU. [`elements`] are what a tensor on the CPU holds.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Mutex;

use half::bf16;
use tch::{Device, Kind, Tensor};

/// A differentiable function of tensors.
pub(crate) trait Operation: Send + Sync {
    /// The outputs, and what the backward pass wants kept beside the inputs. At most 16 of each.
    fn forward(&self, inputs: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>);

    /// The gradients of the inputs from those of the outputs (zeros where an output was not used).
    fn backward(&self, inputs: &[Tensor], kept: &[Tensor], d_outputs: &[Tensor]) -> Vec<Tensor>;
}

/// Most tensors that an operation takes, returns or keeps; `MOST` of `libtorch.cpp`.
const MOST: usize = 16;

/// `at::Tensor` of C++, which tch's tensors point to.
type Raw = *mut torch_sys::C_tensor;

/// The table of calls that `libtorch.cpp` holds; the first field is a `Box<Box<dyn Operation>>`.
#[repr(C)]
struct Table {
    operation: *mut c_void,
    forward: unsafe extern "C" fn(
        *mut c_void,
        *const Raw,
        usize,
        *mut Raw,
        *mut usize,
        *mut Raw,
        *mut usize,
        *mut c_char,
        usize,
    ) -> bool,
    backward: unsafe extern "C" fn(
        *mut c_void,
        *const Raw,
        usize,
        *const Raw,
        usize,
        *const Raw,
        usize,
        *mut Raw,
        *mut c_char,
        usize,
    ) -> bool,
    drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn deltafront_apply(
        table: Table,
        inputs: *const Raw,
        count: usize,
        outputs: *mut Raw,
        message: *mut c_char,
        length: usize,
    ) -> i64;
    fn deltafront_stream(ordinal: c_int) -> *mut c_void;
    fn deltafront_release(message: *mut c_char, length: usize) -> bool;
    fn deltafront_record(
        ordinal: c_int,
        work: unsafe extern "C" fn(*mut c_void) -> bool,
        context: *mut c_void,
        message: *mut c_char,
        length: usize,
    ) -> *mut c_void;
    fn deltafront_replay(graph: *mut c_void, message: *mut c_char, length: usize) -> bool;
    fn deltafront_drop_graph(graph: *mut c_void);
    fn deltafront_parallel(
        count: usize,
        piece: unsafe extern "C" fn(*mut c_void, usize),
        context: *mut c_void,
    );
}

/// Runs an operation and records it in the graph of its inputs.
///
/// # Panics
/// When the operation panics, with its message.
pub(crate) fn apply(operation: impl Operation + 'static, inputs: &[&Tensor]) -> Vec<Tensor> {
    assert!(inputs.len() <= MOST, "an operation takes at most {MOST} tensors");
    let boxed: Box<Box<dyn Operation>> = Box::new(Box::new(operation));
    let table = Table { operation: Box::into_raw(boxed).cast(), forward, backward, drop };
    let raw: Vec<Raw> = inputs.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect();
    let mut outputs = [std::ptr::null_mut(); MOST];
    let mut message = [0; 512];
    // SAFETY: the inputs are live tensors, which C++ copies (a reference count); `outputs` has room for MOST; C++ takes
    // over the table and drops it once.
    let count = unsafe {
        deltafront_apply(
            table,
            raw.as_ptr(),
            raw.len(),
            outputs.as_mut_ptr(),
            message.as_mut_ptr(),
            message.len(),
        )
    };
    let count = usize::try_from(count).unwrap_or_else(|_| panic!("{}", text(&message)));
    // SAFETY: C++ wrote `count` tensors that it gave away.
    outputs[..count].iter().map(|raw| unsafe { Tensor::from_ptr(*raw) }).collect()
}

/// Calls `piece` for every index below `count` on libtorch's threads, as many as `tch::set_num_threads` allows.
pub(crate) fn parallel(count: usize, piece: &(dyn Fn(usize) + Sync)) {
    struct Context<'a> {
        piece: &'a (dyn Fn(usize) + Sync),
        panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    }
    unsafe extern "C" fn call(context: *mut c_void, index: usize) {
        // SAFETY: `deltafront_parallel` passes on the context below, which outlives it.
        let context = unsafe { &*context.cast::<Context>() };
        // A panic must not unwind through C++.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (context.piece)(index))) {
            *context.panic.lock().expect("nothing panics while it holds this lock") = Some(panic);
        }
    }
    let mut context = Context { piece, panic: Mutex::new(None) };
    // SAFETY: the context lives until the call returns, which is after the last piece.
    unsafe { deltafront_parallel(count, call, (&raw mut context).cast()) };
    if let Some(panic) =
        context.panic.into_inner().expect("nothing panics while it holds this lock")
    {
        resume_unwind(panic);
    }
}

/// Address of the CUDA stream that torch's operators of this thread go to; 0 is the default one.
pub(crate) fn stream(ordinal: usize) -> u64 {
    // SAFETY: libtorch's CUDA library is there, as whoever has a tensor on a GPU has asked for it.
    unsafe { deltafront_stream(ordinal as c_int) as u64 }
}

/// Gives the GPUs back what libtorch keeps of their memory for tensors to come.
///
/// # Errors
/// CUDA's words when it refuses.
pub(crate) fn release() -> Result<(), String> {
    let mut message = [0; 512];
    // SAFETY: the message has the length told.
    let done = unsafe { deltafront_release(message.as_mut_ptr(), message.len()) };
    if done { Ok(()) } else { Err(text(&message)) }
}

/// What was once started on a GPU, to be started again as one. It reads and writes the memory that it did then.
#[derive(Debug)]
pub struct Recorded {
    graph: NonNull<c_void>,
}

// SAFETY: CUDA lets any thread start a graph, one at a time, as `replay` does, which takes `&mut self`.
unsafe impl Send for Recorded {}

impl Recorded {
    /// Starts it after what was started before.
    ///
    /// # Errors
    /// CUDA's words when it refuses.
    pub fn replay(&mut self) -> Result<(), String> {
        let mut message = [0; 512];
        // SAFETY: the graph is one that `deltafront_record` gave away; the message has the length told.
        let done =
            unsafe { deltafront_replay(self.graph.as_ptr(), message.as_mut_ptr(), message.len()) };
        if done { Ok(()) } else { Err(text(&message)) }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // SAFETY: as above, and it is dropped once.
        unsafe { deltafront_drop_graph(self.graph.as_ptr()) };
    }
}

/// Records what `work` starts on GPU number `ordinal` instead of starting it. Tensors that it makes hold their values after
/// each replay, as long as somebody holds them; of what it reads the memory must stay.
///
/// # Errors
/// When it does what cannot be recorded, such as waiting for the GPU; nothing has been computed then.
pub(crate) fn record(ordinal: usize, work: impl FnOnce()) -> Result<Recorded, String> {
    unsafe extern "C" fn call<F: FnOnce()>(context: *mut c_void) -> bool {
        // SAFETY: `deltafront_record` passes on the context below, which outlives it.
        let work = unsafe { &mut *context.cast::<Option<F>>() }.take();
        // A panic, such as torch's errors are, must not unwind through C++.
        work.is_some_and(|work| catch_unwind(AssertUnwindSafe(work)).is_ok())
    }
    fn record_any<F: FnOnce()>(ordinal: usize, work: F) -> Result<Recorded, String> {
        let (mut context, mut message) = (Some(work), [0; 512]);
        // SAFETY: the context lives until the call returns; the message has the length told.
        let graph = unsafe {
            deltafront_record(
                ordinal as c_int,
                call::<F>,
                (&raw mut context).cast(),
                message.as_mut_ptr(),
                message.len(),
            )
        };
        NonNull::new(graph).map(|graph| Recorded { graph }).ok_or_else(|| text(&message))
    }
    record_any(ordinal, work)
}

/// What C++ told in a zeroed message whose last byte it leaves alone.
fn text(message: &[c_char; 512]) -> String {
    // SAFETY: it ends with a zero, as said.
    unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned()
}

/// Shares tensors that C++ owns, for the length of a call.
///
/// # Safety
/// `raw` points to `count` live tensors.
unsafe fn borrow(raw: *const Raw, count: usize) -> Vec<Tensor> {
    // SAFETY: the caller's promise; the clone counts its own reference.
    (0..count).map(|i| unsafe { Tensor::clone_from_ptr(*raw.add(i)) }).collect()
}

/// Gives tensors to C++.
///
/// # Safety
/// `to` has room for them.
unsafe fn give(tensors: Vec<Tensor>, to: *mut Raw) {
    for (i, mut tensor) in tensors.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { *to.add(i) = tensor.as_mut_ptr() };
        std::mem::forget(tensor); // C++ deletes it
    }
}

/// Runs what may panic; a panic becomes a message for C++, which throws it as an exception of its own.
///
/// # Safety
/// `message` has `length` > 0 zeroed bytes.
unsafe fn guarded(message: *mut c_char, length: usize, body: impl FnOnce()) -> bool {
    let Err(panic) = catch_unwind(AssertUnwindSafe(body)) else { return true };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text =
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a kernel panicked");
    let count = text.len().min(length - 1);
    // SAFETY: the caller's promise; the last byte stays zero.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), message, count) };
    false
}

unsafe extern "C" fn forward(
    operation: *mut c_void,
    inputs: *const Raw,
    inputs_count: usize,
    outputs: *mut Raw,
    outputs_count: *mut usize,
    kept: *mut Raw,
    kept_count: *mut usize,
    message: *mut c_char,
    length: usize,
) -> bool {
    // SAFETY: C++ passes the table's operation, its live inputs, and arrays with room for MOST.
    unsafe {
        guarded(message, length, || {
            let operation = &*operation.cast::<Box<dyn Operation>>();
            let (out, keep) = operation.forward(&borrow(inputs, inputs_count));
            assert!(
                out.len() <= MOST && keep.len() <= MOST,
                "an operation returns at most {MOST} tensors"
            );
            (*outputs_count, *kept_count) = (out.len(), keep.len());
            give(out, outputs);
            give(keep, kept);
        })
    }
}

unsafe extern "C" fn backward(
    operation: *mut c_void,
    inputs: *const Raw,
    inputs_count: usize,
    kept: *const Raw,
    kept_count: usize,
    d_outputs: *const Raw,
    outputs_count: usize,
    d_inputs: *mut Raw,
    message: *mut c_char,
    length: usize,
) -> bool {
    // SAFETY: C++ passes the table's operation, live tensors, and an array with room for MOST.
    unsafe {
        guarded(message, length, || {
            let operation = &*operation.cast::<Box<dyn Operation>>();
            let (inputs, kept) = (borrow(inputs, inputs_count), borrow(kept, kept_count));
            let gradients = operation.backward(&inputs, &kept, &borrow(d_outputs, outputs_count));
            assert_eq!(gradients.len(), inputs.len(), "one gradient for each input");
            give(gradients, d_inputs);
        })
    }
}

unsafe extern "C" fn drop(operation: *mut c_void) {
    // SAFETY: C++ calls this once, with what `apply` made.
    std::mem::drop(unsafe { Box::from_raw(operation.cast::<Box<dyn Operation>>()) });
}

/// A number of Rust that a kind of tensors is made of.
pub(crate) trait Number: Copy {
    /// torch's word for it.
    const KIND: Kind;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;
}

impl Number for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

impl Number for i64 {
    const KIND: Kind = Kind::Int64;
}

fn check_kind<T: Number>(tensor: &Tensor) {
    assert!(
        tensor.kind() == T::KIND && tensor.device() == Device::Cpu,
        "a kernel got {:?} on {:?}, it takes {:?} on the CPU",
        tensor.kind(),
        tensor.device(),
        T::KIND
    );
}

fn check<T: Number>(tensor: &Tensor) -> usize {
    check_kind::<T>(tensor);
    assert!(tensor.is_contiguous(), "kernels take contiguous tensors");
    tensor.numel()
}

/// The elements of a tensor on the CPU, row-major.
pub(crate) fn elements<T: Number>(tensor: &Tensor) -> &[T] {
    let len = check::<T>(tensor);
    if len == 0 {
        return &[];
    }
    // SAFETY: a contiguous tensor of T in the host's memory has `len` elements at its data pointer, which live as long
    // as the tensor; kernels write only to tensors that they made themselves and nobody else holds.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) }
}

/// The elements of a tensor on the CPU that nobody else holds, row-major.
pub(crate) fn elements_mut<T: Number>(tensor: &mut Tensor) -> &mut [T] {
    let len = check::<T>(tensor);
    if len == 0 {
        return &mut [];
    }
    // SAFETY: as for `elements`; the operation that calls this has just made the tensor.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) }
}

/// What lies from the first element of a tensor on the CPU to its last, in memory; the tensor may have gaps.
pub(crate) fn spanned<'a, T: Number>(tensor: &'a Tensor, size: &[i64]) -> &'a [T] {
    check_kind::<T>(tensor);
    if size.contains(&0) {
        return &[];
    }
    let last = size.iter().zip(tensor.stride()).map(|(n, stride)| (n - 1) * stride).sum::<i64>();
    // SAFETY: strides are not negative, so the first element is at the data pointer and the last `last` further, both
    // inside the tensor's memory, which lives as long as the tensor.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), last as usize + 1) }
}
