//! The GPU at hand: its facts, its memory, launches, captured graphs and timings by events.
//!
//! Only reads the device's settings; clocks, power limits and modes are left as they are.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUfunction_attribute_enum as FunctionAttribute,
};
use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::compiler::{Resources, compile};
use super::product::{self, Product, Products};
use super::{Error, Extent, Launch, Machine, Source};

/// What is known of a GPU without asking it to do anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// For example `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// For example (9, 0).
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// The last-level cache.
    pub l2_bytes: u64,
    /// Device memory.
    pub memory_bytes: u64,
    /// Most shared memory of one block.
    pub shared_bytes: u32,
    /// CUDA version that the driver knows, as 13000 for 13.0.
    pub driver_version: u32,
    /// Its own number, as NVIDIA's tools write it: `GPU-…`.
    pub uuid: String,
}

/// A GPU and a stream on it.
#[derive(Debug)]
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: sys::CUstream,
    facts: Facts,
    /// Kernels by source, options and name, with the dynamic shared memory that a launch of each may ask for so far.
    functions: HashMap<(Source, String, &'static str), (sys::CUfunction, u32)>,
    resources: Vec<Resources>,
    architecture: String,
    /// Random numbers to copy from, once they were asked for.
    pool: Option<u64>,
    /// cuBLASLt, once a product was asked for.
    products: Option<Products>,
}

/// Bytes of the pool of random numbers: no power of two, so that copies of it do not line up.
const POOL_BYTES: usize = 24 * 1_000_000;

// SAFETY: the context, the stream and the functions are handles that the driver lets any thread use, one at a time here,
// as every launch takes `&mut self`.
unsafe impl Send for Gpu {}

/// Launches recorded once, to be started as one.
#[derive(Debug)]
pub struct Graph {
    executable: sys::CUgraphExec,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `Gpu::record`, destroyed once; the driver waits for its last launch itself.
        let _ = unsafe { result::graph::exec_destroy(self.executable) };
    }
}

fn refused(operation: &str) -> impl Fn(DriverError) -> Error + '_ {
    move |error| Error::Refused { operation: operation.to_owned(), reason: error.to_string() }
}

/// Lets launches of `function` ask for so much dynamic shared memory.
fn allow_shared(function: sys::CUfunction, bytes: u32) -> Result<(), Error> {
    let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: functions are those of modules that are never unloaded.
    unsafe { result::function::set_function_attribute(function, attribute, bytes.cast_signed()) }
        .map_err(refused("asking for shared memory"))
}

/// How many GPUs there are; an error says what is missing for the first.
pub fn count() -> Result<usize, Error> {
    // SAFETY: it opens libcuda, which asks nothing of its caller.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Missing {
            library: "libcuda.so.1",
            searched: "the system's libraries".to_owned(),
            remedy: "install NVIDIA's driver, or go on with the CPU",
        });
    }
    result::init().map_err(refused("starting the driver"))?;
    let count = result::device::get_count().map_err(refused("counting GPUs"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

impl Gpu {
    /// Opens GPU number `ordinal`.
    pub fn open(ordinal: usize) -> Result<Self, Error> {
        let there = count()?;
        if ordinal >= there {
            return Err(Error::Shape {
                what: "the number of the GPU".to_owned(),
                expected: format!("below {there}"),
                got: ordinal.to_string(),
            });
        }
        let context = CudaContext::new(ordinal).map_err(refused("opening the GPU"))?;
        let facts = facts(&context)?;
        if facts.compute_capability < (8, 0) {
            return Err(Error::Shape {
                what: "the GPU's compute capability".to_owned(),
                expected: "8.0 or newer (A100, RTX 30 series), for bf16 tensor cores and asynchronous copies".to_owned(),
                got: format!("{}.{} ({})", facts.compute_capability.0, facts.compute_capability.1, facts.name),
            });
        }
        super::compiler::available()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(refused("making a stream"))?;
        // Machine code for the architectures tested; PTX of the newest tested for those that came later.
        let (major, minor) = facts.compute_capability;
        let architecture = if (major, minor) > (9, 0) {
            "compute_90".to_owned()
        } else {
            format!("sm_{major}{minor}")
        };
        Ok(Self {
            context,
            stream,
            facts,
            functions: HashMap::new(),
            resources: Vec::new(),
            architecture,
            pool: None,
            products: None,
        })
    }

    /// Opens GPU number `ordinal` for launches on `stream`, a CUDA stream of its primary context that somebody else owns
    /// and keeps; 0 is the default stream.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn on_stream(ordinal: usize, stream: u64) -> Result<Self, Error> {
        let mut gpu = Self::open(ordinal)?;
        gpu.stream = stream as sys::CUstream;
        Ok(gpu)
    }

    /// Launches go to `stream` from here on, which as for [`Self::on_stream`] somebody else owns.
    pub fn follow(&mut self, stream: u64) {
        self.stream = stream as sys::CUstream;
    }

    /// Makes its context the one of this thread. Launches need that on every thread that starts some.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn bind(&self) -> Result<(), Error> {
        self.context.bind_to_thread().map_err(refused("binding the GPU to a thread"))
    }

    /// What is known of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the kernels launched so far take of a multiprocessor.
    pub fn resources(&self) -> &[Resources] {
        &self.resources
    }

    /// Compiles what `launch` needs, so that starting it takes no time.
    pub fn prepare(&mut self, launch: &Launch) -> Result<(), Error> {
        self.function(launch).map(|_| ())
    }

    fn function(&mut self, launch: &Launch) -> Result<sys::CUfunction, Error> {
        let key = (launch.source, format!("{:?}", launch.defines), launch.kernel);
        if let Some((function, shared_bytes)) = self.functions.get_mut(&key) {
            if launch.shared_bytes > *shared_bytes {
                allow_shared(*function, launch.shared_bytes)?;
                *shared_bytes = launch.shared_bytes;
            }
            return Ok(*function);
        }
        let architecture = if launch.source.for_hopper() { "sm_90a" } else { &self.architecture };
        let mut compiled = compile(launch.source, &launch.defines, architecture)?;
        compiled.image.push(0); // PTX is read as a C string
        // SAFETY: the image is a cubin, or PTX ended by a NUL, and lives through the call.
        let module = unsafe { result::module::load_data(compiled.image.as_ptr().cast()) }
            .map_err(refused("loading a module"))?;
        let name = CString::new(launch.kernel).expect("kernel names hold no NUL");
        // SAFETY: the module was loaded above and is never unloaded.
        let function = unsafe { result::module::get_function(module, name) }
            .map_err(refused(launch.kernel))?;
        allow_shared(function, launch.shared_bytes)?;
        self.resources.extend(compiled.resources);
        self.functions.insert(key, (function, launch.shared_bytes));
        Ok(function)
    }

    /// Waits for everything started so far.
    pub fn wait(&self) -> Result<(), Error> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(refused("waiting for the GPU"))
    }

    /// Records what `work` starts instead of starting it.
    pub fn record(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<Graph, Error> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(refused("recording"))?;
        let worked = work(self);
        // SAFETY: recording began above.
        let graph =
            unsafe { result::stream::end_capture(self.stream) }.map_err(refused("recording"))?;
        worked?;
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        // SAFETY: the graph was recorded above.
        let executable = unsafe { result::graph::instantiate(graph, flags) };
        // SAFETY: as above; what was made of it stands by itself.
        let destroyed = unsafe { result::graph::destroy(graph) };
        let executable = executable.map_err(refused("making a graph"))?;
        destroyed.map_err(refused("recording"))?;
        Ok(Graph { executable })
    }

    /// Starts a recorded graph.
    pub fn replay(&mut self, graph: &Graph) -> Result<(), Error> {
        // SAFETY: graph and stream belong to this context.
        unsafe { result::graph::launch(graph.executable, self.stream) }
            .map_err(refused("starting a graph"))
    }

    /// Milliseconds that a plain copy of `bytes` takes, the median of twelve: it reads and writes as many.
    pub fn copy_ms(&mut self, bytes: usize) -> Result<f64, Error> {
        let (from, to) = (self.allocate(bytes)?, self.allocate(bytes)?);
        let mut samples = [0.0; 12];
        for sample in &mut samples {
            *sample = self.elapsed_ms(|gpu| gpu.copy(to, from, bytes))?;
        }
        self.free(from)?;
        self.free(to)?;
        samples.sort_by(f64::total_cmp);
        Ok(samples[5])
    }

    /// Milliseconds on the GPU between the beginning and the end of what `work` starts.
    pub fn elapsed_ms(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<f64, Error> {
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
        let event = || result::event::create(flags).map_err(refused("making an event"));
        let (begin, end) = (event()?, event()?);
        // SAFETY: events and stream belong to this context; both events are destroyed once, below.
        unsafe { result::event::record(begin, self.stream) }
            .map_err(refused("recording an event"))?;
        let worked = work(self);
        // SAFETY: as above.
        let milliseconds = unsafe {
            result::event::record(end, self.stream)
                .and_then(|()| result::event::synchronize(end))
                .and_then(|()| result::event::elapsed(begin, end))
        };
        // SAFETY: as above.
        unsafe { result::event::destroy(begin).and_then(|()| result::event::destroy(end)) }
            .map_err(refused("an event"))?;
        worked?;
        Ok(f64::from(milliseconds.map_err(refused("timing"))?))
    }

    /// Copies `bytes` within the device, for the bandwidth that a plain copy reaches.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), Error> {
        // SAFETY: the caller's addresses come from `allocate`; the driver checks them.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
            .map_err(refused("copying"))
    }

    /// Fills with a byte.
    pub fn fill(&mut self, address: u64, byte: u8, bytes: usize) -> Result<(), Error> {
        // SAFETY: as for `copy`.
        unsafe { result::memset_d8_async(address, byte, bytes, self.stream) }
            .map_err(refused("filling memory"))
    }
}

fn facts(context: &CudaContext) -> Result<Facts, Error> {
    let attribute =
        |a| context.attribute(a).map(i32::cast_unsigned).map_err(refused("asking the GPU"));
    let mut driver_version = 0;
    // SAFETY: points to an integer that lives through the call.
    unsafe { sys::cuDriverGetVersion(&raw mut driver_version) }
        .result()
        .map_err(refused("asking the driver"))?;
    // SAFETY: the device belongs to this context.
    let memory_bytes = unsafe { result::device::total_mem(context.cu_device()) }
        .map_err(refused("asking the GPU"))?;
    Ok(Facts {
        name: context.name().map_err(refused("asking the GPU"))?,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2_bytes: u64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        memory_bytes: memory_bytes as u64,
        shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        driver_version: i32::cast_unsigned(driver_version),
        uuid: uuid(context)?,
    })
}

fn uuid(context: &CudaContext) -> Result<String, Error> {
    let bytes = context.uuid().map_err(refused("asking the GPU"))?.bytes;
    let number = bytes.iter().fold(0_u128, |n, byte| n << 8 | u128::from(byte.cast_unsigned()));
    let hex = format!("{number:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(format!("GPU-{}", parts.join("-")))
}

impl Machine for Gpu {
    fn extent(&self) -> Extent {
        Extent {
            multiprocessors: self.facts.multiprocessors,
            shared_bytes: self.facts.shared_bytes,
            warps: 9,
            hopper: self.facts.compute_capability == (9, 0),
        }
    }

    fn allocate(&mut self, bytes: usize) -> Result<u64, Error> {
        // SAFETY: the address is only ever handed to the driver and to kernels.
        let address = unsafe { result::malloc_sync(bytes.max(16)) }.map_err(|error| {
            match result::mem_get_info() {
                Ok((free_bytes, all_bytes))
                    if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY =>
                {
                    Error::Memory { wanted_bytes: bytes, free_bytes, all_bytes }
                }
                _ => refused(&format!("taking {bytes} bytes"))(error),
            }
        })?;
        self.fill(address, 0xff, bytes)?;
        Ok(address)
    }

    fn free(&mut self, address: u64) -> Result<(), Error> {
        self.wait()?;
        // SAFETY: nothing runs any more that could use it.
        unsafe { result::free_sync(address) }.map_err(refused("giving memory back"))
    }

    fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.wait()?;
        // SAFETY: the driver checks the range.
        unsafe { result::memcpy_htod_sync(address, bytes) }.map_err(refused("uploading"))
    }

    fn download(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.wait()?;
        // SAFETY: the driver checks the range.
        unsafe { result::memcpy_dtoh_sync(bytes, address) }.map_err(refused("downloading"))
    }

    fn pretend(&mut self, address: u64, bytes: usize) -> Result<(), Error> {
        let pool = if let Some(pool) = self.pool {
            pool
        } else {
            let pool = super::upload_new(self, &super::pretended_bytes(POOL_BYTES))?;
            *self.pool.insert(pool)
        };
        for at in (0..bytes).step_by(POOL_BYTES) {
            self.copy(address + at as u64, pool, POOL_BYTES.min(bytes - at))?;
        }
        Ok(())
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), Error> {
        let function = self.function(launch)?;
        let mut arguments = Vec::new();
        for boxes in &launch.boxes {
            arguments.extend(boxes.encoded()?);
        }
        arguments.extend(&launch.arguments);
        let mut parameters = [arguments.as_ptr().cast_mut().cast::<c_void>()];
        let (grid, block) = ((launch.grid.0, launch.grid.1, 1), (launch.threads, 1, 1));
        // SAFETY: the one parameter is a struct by value that the driver copies now; its layout is the kernel's
        // (checked against the same source by the emulator), and its addresses come from `allocate`.
        unsafe {
            if launch.together {
                result::launch_cooperative_kernel(
                    function,
                    grid,
                    block,
                    launch.shared_bytes,
                    self.stream,
                    &mut parameters,
                )
            } else {
                result::launch_kernel(
                    function,
                    grid,
                    block,
                    launch.shared_bytes,
                    self.stream,
                    &mut parameters,
                )
            }
        }
        .map_err(refused(launch.kernel))
    }

    fn product(&mut self, product: &Product) -> Result<(), Error> {
        if self.products.is_none() {
            product::available()?;
            let workspace = self.allocate(Products::WORKSPACE_BYTES)?;
            self.products = Some(Products::new(workspace)?);
        }
        let products = self.products.as_mut().expect("made above");
        products.start(product, self.stream.cast())
    }
}
